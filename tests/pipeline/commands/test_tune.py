"""camboxes tune on real runs: what it writes, and what rebox makes of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from camboxes.pipeline import cli
from camboxes.pipeline.tuning.tuning_file import Tuning
from camboxes.transforms import BoxRule, Plan, PlannedRun, storage
from camboxes.transforms.boxes.evidence import Evidence
from camboxes.transforms.boxes_from_maps import draw, drawing_settings
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.review.decisions import DecidedBox, Decision, append_decision
from camboxes.transforms.write import merge

MAPS = ("method", "scales", "fine_scales", "flip", "compete", "refine", "model")  # settings that decide a map


@pytest.fixture
def truth(run, annotations, tmp_path):
    """Five true boxes: those that the run drew, the first one moved to where nothing is."""
    value = annotations(run)
    value["annotations"][0]["bbox"] = [0, 0, 2, 2]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(value))
    return path


def _tune(run, truth, output):
    return cli.main(["tune", "--run", str(run), "--ground-truth", str(truth), "--output", str(output)])


def _rebox(run, output, *options):
    return cli.main(["rebox", "--run", str(run), "--output", str(output), *map(str, options)])


def test_five_boxes_change_nothing(run, truth, tmp_path, capsys, annotations):
    assert _tune(run, truth, tmp_path / "tuning.json") == 0
    said = capsys.readouterr().out
    few = "too few boxed images to choose a threshold from: 5; expected at least 10. The run's own stays: 1*otsu"
    assert few in said
    assert "calibration: 5 boxes, 80% right: too few (10 right and 10 wrong ones are needed)" in said
    assert "nothing to draw again: the run's boxes and scores stay as they are" in said
    assert "camboxes rebox" not in said
    value = json.loads((tmp_path / "tuning.json").read_text())
    assert (value["calibration"], value["figures"]["calibration"]) == (None, None)
    assert value["rule"] == _settings(run)["rule"]
    assert _rebox(run, tmp_path / "tuned", "--thresholds", tmp_path / "tuning.json") == 0
    assert "tuning.json holds the run's own rule; scores stay uncalibrated" in capsys.readouterr().err
    before, after = annotations(run), annotations(tmp_path / "tuned")
    assert after["annotations"] == before["annotations"]
    assert (tmp_path / "tuned" / "results.json").read_bytes() == (run / "results.json").read_bytes()


def test_thresholds_by_label_are_drawn_and_recorded(run, tmp_path, annotations):
    assert _rebox(run, tmp_path / "high", "--threshold", "0.6") == 0
    tuning = {
        "rule": _settings(run)["rule"] | {"threshold": "0.8*otsu", "thresholds": {"tripod": 0.6}},
        "calibration": None,
        "maps": {name: _settings(run)[name] for name in MAPS},
        "images": [],
        "figures": {},
    }
    (tmp_path / "mine.json").write_text(json.dumps(tuning))
    assert _rebox(run, tmp_path / "mine", "--thresholds", tmp_path / "mine.json") == 0
    assert _rebox(run, tmp_path / "otsu", "--threshold", "0.8*otsu") == 0
    mine, high, otsu = (
        {one["category_id"]: one["bbox"] for one in annotations(tmp_path / name)["annotations"]}
        for name in ("mine", "high", "otsu")
    )
    tripod = next(one["id"] for one in annotations(run)["categories"] if one["name"] == "tripod")
    assert mine == otsu | {tripod: high[tripod]}
    assert otsu[tripod] != high[tripod]
    assert _settings(tmp_path / "mine")["rule"]["thresholds"] == {"tripod": 0.6}


def test_what_is_not_asked_for_stays_as_it_is(run, tmp_path):
    assert _rebox(run, tmp_path / "one", "--threshold", "0.5", "--min-area", "0.01") == 0
    assert _rebox(tmp_path / "one", tmp_path / "two", "--boxes", "all") == 0
    rule = {"threshold": 0.5, "min_area": 0.01, "boxes": "all", "thresholds": {}}
    assert _settings(tmp_path / "two")["rule"] == rule


def _settings(run):
    return json.loads((run / "plan" / "plan.json").read_text())["settings"]


def test_a_calibration_is_part_of_the_run(run, rows, tmp_path):
    numbers = dict.fromkeys(Evidence._fields, 0.0)
    calibration = {
        "intercept": 0.0,
        "weights": numbers | {"log_odds": 1.0},
        "mean": numbers,
        "deviation": dict.fromkeys(numbers, 1.0),
    }
    tuning = {"rule": {}, "calibration": calibration, "images": [], "figures": {}}
    tuning["maps"] = {name: _settings(run)[name] for name in MAPS}
    (tmp_path / "tuning.json").write_text(json.dumps(tuning))
    assert _rebox(run, tmp_path / "out", "--thresholds", tmp_path / "tuning.json") == 0
    for row in rows(tmp_path / "out"):
        [label], [box] = row["labels"], row["boxes"]
        # The logistic function of the log odds is the probability (but for the 1e-4 that keep it finite).
        assert box["calibrated_score"] == pytest.approx(label["probability"], abs=2e-4)
    assert _settings(tmp_path / "out")["calibration"] == calibration


def test_a_run_knows_what_it_was_tuned_on(run, truth, tmp_path):
    assert _tune(run, truth, tmp_path / "tuning.json") == 0
    value = json.loads((tmp_path / "tuning.json").read_text())
    assert value["images"] == [], "nothing was learnt from the five"
    value["rule"]["threshold"], value["images"] = "0.8*otsu", ["a.jpg", "b.jpg"]
    (tmp_path / "tuning.json").write_text(json.dumps(value))
    assert _rebox(run, tmp_path / "out", "--thresholds", tmp_path / "tuning.json") == 0
    tuned = PlannedRun.load(str(tmp_path / "out"))
    assert Tuning.drawn_with(tuned).images == ["a.jpg", "b.jpg"]
    assert _rebox(run, tmp_path / "out", "--threshold", "0.4", "--overwrite") == 0
    assert not (tmp_path / "out" / "tuning.json").exists()
    assert Tuning.drawn_with(PlannedRun.load(str(run))) is None
    (run / "tuning.json").write_text(json.dumps(value))
    assert Tuning.drawn_with(PlannedRun.load(str(run))) is None, "tuned, but not drawn again"
    (run / "tuning.json").unlink()


def test_a_tuning_file_survives_reading_and_writing(run, truth, tmp_path):
    assert _tune(run, truth, tmp_path / "tuning.json") == 0
    Tuning.read(str(tmp_path / "tuning.json")).write(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tuning.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0.3"], "--threshold and --thresholds were both given"),
        (["--min-area", "0.1"], "--min-area and --thresholds were both given"),
    ],
)
def test_one_rule_at_a_time(run, truth, tmp_path, capsys, options, message):
    assert _tune(run, truth, tmp_path / "tuning.json") == 0
    assert _rebox(run, tmp_path / "out", "--thresholds", tmp_path / "tuning.json", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"rule": {}}', b'{"rule": {"treshold": 1}, "calibration": null}', b"\xff"]
)
def test_a_file_that_tune_did_not_write(run, tmp_path, capsys, content):
    (tmp_path / "t.json").write_bytes(content)
    assert _rebox(run, tmp_path / "out", "--thresholds", tmp_path / "t.json") == 2
    assert "is not what camboxes tune wrote" in capsys.readouterr().err


def test_thresholds_of_other_maps_are_refused(run, truth, tmp_path, capsys):
    assert _tune(run, truth, tmp_path / "tuning.json") == 0
    value = json.loads((tmp_path / "tuning.json").read_text())
    value["maps"]["method"] = "layercam"
    (tmp_path / "tuning.json").write_text(json.dumps(value))
    assert _rebox(run, tmp_path / "out", "--thresholds", tmp_path / "tuning.json") == 2
    said = capsys.readouterr().err
    assert "tuned for other maps than those of" in said
    assert "layercam instead of cam*layercam@32[-2]*layercam@16; tune this run" in said


def test_unknown_options_and_runs(run, truth, capsys):
    assert cli.main(["tune", "--run", str(run), "--ground-truth", str(truth), "--fast"]) == 2
    assert "unknown option --fast" in capsys.readouterr().err
    assert cli.main(["tune", "--run", "nowhere", "--ground-truth", str(truth)]) == 2
    assert "holds no run" in capsys.readouterr().err


SIDE = 20
CORE, HALO = [8, 8, 4, 4], [6, 6, 8, 8]  # IoU 16 / 64
SETTINGS = {
    "method": "cam",
    "scales": [224],
    "model": {"name": "timm:net", "size": 224, "aspect": "squash"},
    **drawing_settings(BoxRule(), None),
}


def _map(*rectangles):
    """A row's map of SIDE x SIDE cells: 0 but for rectangles with a value."""
    cells = np.zeros((SIDE, SIDE), np.uint8)
    for (x, y, width, height), value in rectangles:
        cells[y : y + height, x : x + width] = value
    return {
        "category_id": 1,
        "height": SIDE,
        "width": SIDE,
        "raw_min": 0.0,
        "raw_max": 1.0,
        "cells": cells.tobytes(),
        "rectangle": [0, 0, SIDE, SIDE],
        "method": "cam",
        "scales": [224],
    }


@pytest.fixture
def haloed(tmp_path):
    return _haloed(tmp_path, 17, 2)


def _haloed(tmp_path, halos, cores):
    """A run whose boxes are halos of what is there, but for the images called core: their boxes are cores."""
    names = [*(f"halo-{number:02d}.jpg" for number in range(halos)), *(f"core-{number}.jpg" for number in range(cores))]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    planned = Plan(str(tmp_path / "haloed"), [["cat"]], settings=SETTINGS, shards=2).make(str(tmp_path / "labels.csv"))
    for key in planned.shards:
        rows = []
        for row in planned.planned_rows(key).to_pylist():
            stored = _map((HALO, 100), (CORE, 255)) if row["path"].startswith("halo") else _map((CORE, 255))
            label = {"label": "cat", "category_id": 1, "class_index": 0, "logit": 1.0, "probability": 0.5}
            known = {"width": SIDE, "height": SIDE, "status": "ok", "labels": [label], "top5": [], "maps": [stored]}
            ids = {name: row[name] for name in ("image_id", "path")}
            rows.append(draw(ids | known | {"digest": "", "reason": None}, BoxRule()))
        storage.write_table(shard_file(planned.output, key), table(rows, LABELED, SETTINGS))
    merge([], planned.output)
    return planned.output


def _decide(run, path, verdict, *bboxes):
    boxes = tuple(DecidedBox("cat", 1, tuple(bbox)) for bbox in bboxes)
    append_decision(run, Decision(path, 1, verdict, boxes=boxes))


def test_a_review_teaches_the_threshold_and_the_scores(haloed, rows, annotations, tmp_path, capsys):
    assert sorted(a["bbox"] for a in annotations(haloed)["annotations"]) == 17 * [HALO] + 2 * [CORE]
    corrected = [8, 8, 4, 5]  # IoU with the core 16 / 20
    for number in range(12):
        _decide(haloed, f"halo-{number:02d}.jpg", "accepted", corrected)
    _decide(haloed, "halo-12.jpg", "accepted")  # there is no cat
    _decide(haloed, "halo-13.jpg", "rejected", HALO)  # of the core nothing is known
    _decide(haloed, "halo-14.jpg", "skipped", HALO)
    _decide(haloed, "core-0.jpg", "rejected", CORE)
    tuning = tmp_path / "tuning.json"
    assert cli.main(["tune", "--run", haloed, "--from-review", "--output", str(tuning)]) == 0
    said = capsys.readouterr().out
    assert "boxed: 12 images, 12 pairs of an image and a label with true boxes; not boxed: 4 images" in said
    assert "boxes that were accepted without a correction count as true, which favours the threshold" in said
    assert "14 boxes, 86% right: too few" in said, "12 right, 2 of 14 wrong: too few of a kind"
    value = json.loads(tuning.read_text())
    assert value["figures"]["pairs"] == 12
    assert value["figures"]["rule"] == "overall"
    expected = value["figures"]["thresholds"]
    assert (expected["as it was"]["known"], expected["overall"]["known"]) == (0, 100)
    assert "chosen: threshold" in said and "for every class" in said
    assert _rebox(haloed, tmp_path / "out", "--thresholds", tuning) == 0
    found = {row["path"]: row["boxes"] for row in rows(tmp_path / "out")}
    for number in range(12):
        [box] = found.pop(f"halo-{number:02d}.jpg")
        assert (box["bbox"], box["score"], box["calibrated_score"], box["source"]) == (corrected, 1.0, None, "person")
    assert found.pop("halo-12.jpg") == []
    assert len(found) == 6
    for [box] in found.values():
        assert (box["bbox"], box["source"]) == (CORE, "machine"), "what nobody accepted is drawn anew, and better"
        assert box["calibrated_score"] is None


def test_a_review_in_which_nothing_was_accepted(haloed, tmp_path, capsys):
    _decide(haloed, "halo-00.jpg", "accepted", CORE)
    _decide(haloed, "halo-00.jpg", "undone")
    _decide(haloed, "halo-01.jpg", "accepted")
    _decide(haloed, "halo-02.jpg", "rejected", HALO)
    assert cli.main(["tune", "--run", haloed, "--from-review"]) == 2
    assert "review.jsonl' holds no accepted box; expected at least one to judge by" in capsys.readouterr().err
    assert not Path(haloed, "tuning.json").exists()


def test_one_ground_truth_at_a_time(run, truth, capsys):
    for options in ([], ["--from-review", "--ground-truth", str(truth)]):
        with pytest.raises(SystemExit) as left:
            cli.main(["tune", "--run", str(run), *options])
        assert left.value.code == 2
        said = capsys.readouterr().err
        assert "--ground-truth" in said and "--from-review" in said


def _true_boxes(path, **boxes):
    lines = [f"{name}.jpg,cat,{','.join(map(str, bbox))}" for name, bbox in boxes.items()]
    path.write_text("\n".join(["path,label,x,y,width,height", *lines]))
    return path


def test_scores_that_tell_right_boxes_from_wrong_ones_are_calibrated(tmp_path, rows, capsys):
    run = _haloed(tmp_path, 24, 16)
    names = [*(f"halo-{number:02d}" for number in range(14)), *(f"core-{number}" for number in range(10))]
    truth = _true_boxes(tmp_path / "truth.csv", **dict.fromkeys(names, HALO))
    assert _tune(run, truth, tmp_path / "tuning.json") == 0
    said = capsys.readouterr().out
    assert "the run's own               GT-known Loc, IoU 0.5:  58.3 (38.5 to 75.8)" in said, "14 of 24, by Wilson"
    own = "the run's own threshold, 0.25: no other gains more than its standard error and reaches IoU 0.5 as often"
    assert own in said
    assert "calibration: 24 images tell right boxes from wrong ones: scores become probabilities" in said
    assert "AUROC 1.00 ± 0.00 (by chance 0.50)" in said
    assert "nothing to draw again" not in said and "draw with them: camboxes rebox" in said
    value = json.loads((tmp_path / "tuning.json").read_text())
    assert (value["figures"]["rule"], len(value["images"])) == ("as it was", 24)
    assert _rebox(run, tmp_path / "out", "--thresholds", tmp_path / "tuning.json") == 0
    assert "tuning.json holds the run's own rule; calibrated scores" in capsys.readouterr().err
    scores = {row["path"]: row["boxes"][0]["calibrated_score"] for row in rows(tmp_path / "out")}
    halos, cores = ([score for path, score in scores.items() if path.startswith(kind)] for kind in ("halo", "core"))
    assert min(halos) > max(cores), "of the images without true boxes, too"
    assert (len(halos), len(cores)) == (24, 16)


def test_scores_that_tell_nothing_stay_as_they_are(tmp_path, annotations, capsys):
    """All boxes look alike, and a third of them is wrong."""
    run = _haloed(tmp_path, 30, 0)
    boxes = {f"halo-{number:02d}": [0, 0, 5, 5] if number % 3 == 0 else HALO for number in range(30)}
    assert _tune(run, _true_boxes(tmp_path / "truth.csv", **boxes), tmp_path / "tuning.json") == 0
    said = capsys.readouterr().out
    assert (
        "30 images do not tell right boxes from wrong ones clearly better than chance (67% are right): scores stay"
        in said
    )
    assert "AUROC 0.50 ± 0.00" in said, "pooled over folds it is far below"
    assert "nothing to draw again" in said
    value = json.loads((tmp_path / "tuning.json").read_text())
    assert (value["calibration"], value["images"]) == (None, [])
    assert value["figures"]["calibration"]["auroc"] == 0.5
    assert _rebox(run, tmp_path / "out", "--thresholds", tmp_path / "tuning.json") == 0
    assert annotations(tmp_path / "out")["annotations"] == annotations(Path(run))["annotations"]
