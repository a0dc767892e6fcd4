from pathlib import Path

import pytest

from camboxes.pipeline import ReportJob, report
from camboxes.pipeline.cli import main


def test_a_page_beside_the_run(run, capsys):
    assert main(["report", "--run", str(run), "--label", "Egyptian cat"]) == 0
    path = run / "report-Egyptian_cat.html"
    assert capsys.readouterr().out == f"look at {path}\n"
    assert "Egyptian cat: 1 pseudo-box on 1 image" in path.read_text()
    path.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"label": "Egyptian ct"},
            "the run has no label 'Egyptian ct'; of its 5 labels the nearest are 'Egyptian cat'",
        ),
        ({"label": "tripod", "pictures": 0}, "--pictures is 0; expected a number of images, at least 1"),
        ({"label": "tripod", "output": "page.txt"}, "--output 'page.txt': expected a .html file"),
        ({"label": "tripod", "output": "report.html"}, "that is not the run's own report"),
    ],
)
def test_wrong_calls(run, options, message):
    if options.get("output") == "report.html":
        options = options | {"output": str(run / "report.html")}
    before = sorted(path.name for path in Path(run).iterdir())
    with pytest.raises(ValueError, match=message):
        report(ReportJob(run=str(run), **options))
    assert sorted(path.name for path in Path(run).iterdir()) == before
