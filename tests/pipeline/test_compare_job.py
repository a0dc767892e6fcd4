"""What `compare` does from Python: the command's differences, and not a word."""

import json

import pytest

from camboxes.pipeline import CompareJob, ReboxJob, compare, rebox
from camboxes.pipeline.errors import CallError


def test_it_returns_the_differences_that_it_writes_and_says_nothing(run, tmp_path, capfd):
    rebox(ReboxJob(run=run, output=tmp_path / "high", threshold=0.5))
    capfd.readouterr()
    job = {"first": run, "second": tmp_path / "high", "ground_truth": run / "annotations.json"}
    before = {path.name for path in tmp_path.iterdir()}
    found = compare(CompareJob(**job))
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing is written unless it is asked for"
    mean = found.figures["mean_iou"]
    assert mean.first == pytest.approx(100), "the first run's boxes are the true ones"
    assert mean.difference.value == pytest.approx(mean.second - 100)
    assert mean.told_apart and mean.difference.high < 0
    assert len(found.shared.images) == 5
    again = compare(CompareJob(**job, output=tmp_path / "c.json"))
    assert (again.figures, again.classes) == (found.figures, found.classes)
    assert (again.both_right, again.first_right) == (found.both_right, found.first_right)
    written = json.loads((tmp_path / "c.json").read_text())["figures"]["mean_iou"]
    assert written["difference"] == pytest.approx(mean.difference.value, abs=1e-4)
    assert capfd.readouterr() == ("", "")


def test_a_run_is_not_compared_with_itself(run):
    with pytest.raises(CallError, match="are one run; expected two"):
        compare(CompareJob(first=run, second=f"{run}/", ground_truth=run / "annotations.json"))
