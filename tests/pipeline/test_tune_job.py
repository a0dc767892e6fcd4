"""What `tune` does from Python: the command's tuning, and not a word."""

import pytest

from camboxes.pipeline import TuneJob, tune
from camboxes.pipeline.tuning.tuning_file import Tuning


def test_it_returns_the_tuning_that_it_writes_and_says_nothing(run, tmp_path, capfd):
    job = TuneJob(run=run, ground_truth=run / "annotations.json", output=tmp_path / "tuning.json")
    found = tune(job)
    assert found.path == str(tmp_path / "tuning.json")
    assert found.tuning == Tuning.read(found.path)
    assert (found.boxes, found.right) == (5, 1.0), "judged by the run's own boxes"
    assert found.tuning.rule.threshold == "1*otsu", "five pairs are too few to choose another"
    assert (found.quality, found.tuning.calibration) == (None, None)
    assert found.changes_nothing
    assert found.tuning.images == [], "nothing was learnt from them"
    assert capfd.readouterr() == ("", "")


def test_true_boxes_come_from_one_place(run):
    with pytest.raises(ValueError, match="ground_truth and from_review were both given"):
        TuneJob(run=run, ground_truth="truth.json", from_review=True)
    with pytest.raises(ValueError, match="ground_truth is missing"):
        TuneJob(run=run)
