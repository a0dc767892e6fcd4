import pytest
from PIL import Image

from camboxes.pipeline import ExplainJob, explain


def test_from_python(photographs, tmp_path, capfd):
    job = ExplainJob(
        image=photographs / "Egyptian cat" / "chelsea.png", method="cam,eigencam", output=tmp_path / "grid.png"
    )
    found = explain(job)
    assert capfd.readouterr() == ("", "")
    assert [column.method for column in found.columns] == ["cam", "eigencam"]
    assert found.rows[0].name == "Egyptian cat" and len(found.rows) == 2
    assert found.rows[0].probability == pytest.approx(0.396, abs=0.02)
    with Image.open(found.output) as picture:
        assert picture.width == 2 * 64 + 3 * 360 + 2 * 28
