"""What `evaluate` does from Python: the command's figures, and not a word."""

import json

import pytest

from camboxes.pipeline import EvaluateJob, evaluate
from camboxes.pipeline.errors import CallError


def test_it_returns_the_figures_that_it_writes_and_says_nothing(run, tmp_path, capfd):
    truth = tmp_path / "truth.json"
    data = json.loads((run / "annotations.json").read_text())
    data["annotations"][0]["bbox"] = [0, 0, 2, 2]
    truth.write_text(json.dumps(data))
    found = evaluate(EvaluateJob(run=run, ground_truth=truth, output=tmp_path / "out"))
    assert found.figures["gt_known_50"].run.value == pytest.approx(80), "four of five boxes are the true ones"
    assert found.evaluation.classes.keys() == {category["name"] for category in data["categories"]}
    assert len(found.judged.paths) == len(found.judged.image) == 5
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (found.json, found.report) == (str(tmp_path / "out/evaluation.json"), str(tmp_path / "out/report.html"))
    assert written["figures"].keys() == found.figures.keys()
    for name, figure in found.figures.items():
        for variant, estimate in figure._asdict().items():
            assert written["figures"][name][variant] == pytest.approx(estimate._asdict(), abs=1e-4), (name, variant)
    assert capfd.readouterr() == ("", "")


def test_wrong_calls(run, tmp_path):
    with pytest.raises(CallError, match="holds no run"):
        evaluate(EvaluateJob(run=tmp_path, ground_truth=run / "annotations.json"))
    with pytest.raises(CallError, match="does not exist; expected COCO"):
        evaluate(EvaluateJob(run=run, ground_truth=tmp_path / "truth.json"))
