import json
import shutil
import sys
from pathlib import Path

import pytest

from camboxes.pipeline.cli import main
from camboxes.pipeline.evaluation import redrawing
from camboxes.pipeline.formats import voc

PERSONS = {"source": "person", "model": None, "method": None, "threshold": None}


def _evaluate(run, truth, *options):
    return main(["evaluate", "--run", str(run), "--ground-truth", str(truth), *map(str, options)])


@pytest.fixture
def truth(run, tmp_path, annotations):
    """COCO ground truth: the run's own boxes, but the tripod's of another place, and none of the motorcycle."""
    data = annotations(run)
    numbers = {category["name"]: category["id"] for category in data["categories"]}
    for annotation in data["annotations"]:
        del annotation["score"]
        if annotation["category_id"] == numbers["tripod"]:
            annotation["bbox"] = [0, 0, 2, 2]
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] != numbers["moped"]]
    data["images"].append({"id": 99, "file_name": "elsewhere.jpg"})
    path = tmp_path / "truth" / "instances.json"
    path.parent.mkdir()
    path.write_text(json.dumps(data))
    return path


def test_a_run_judged_by_its_own_boxes(run, truth, tmp_path, capsys):
    assert _evaluate(run, truth, "--output", tmp_path / "out") == 0
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["run"] == str(run)
    assert record["ground_truth"] == str(truth)
    assert record["settings"]["rule"]["threshold"] == "1*otsu"
    assert record["judged"]["images"] == 5
    assert record["judged"]["pairs"] == 4
    assert record["judged"]["categories"] == sorted(record["judged"]["categories"])
    assert record["left_out"]["images_only_in_truth"] == ["elsewhere.jpg"]
    assert record["left_out"]["labelled_without_true_box"] == 1
    values = {name: figure["run"]["value"] for name, figure in record["figures"].items()}
    assert values["gt_known_30"] == values["gt_known_50"] == values["gt_known_70"] == values["corloc"] == 75
    assert values["top1_loc"] == 75
    assert values["top1_error"] == 25
    # Three of the four categories with true boxes are found at each level; of the fifth, the moped, none is known.
    assert values["ap"] == values["ap50"] == values["ar"] == 75
    assert record["classes"]["tripod"]["gt_known_50"]["run"] == {"value": 0, "low": None, "high": None}
    assert record["classes"]["Egyptian cat"]["mean_iou"]["run"]["value"] == 100
    assert "moped" not in record["classes"]
    assert record["intervals"] == {
        "percent": 95,
        "of": "percentiles over resamples of the images",
        "resamples": 1000,
        "resamples_of_detection": 200,
        "detection": ["ap", "ap50", "ar"],
        "seed": 0,
    }
    whole = record["figures"]["gt_known_50"]["whole"]
    assert whole["low"] <= whole["value"] <= whole["high"]

    said = capsys.readouterr().out
    assert "judged: 5 images, 5 categories, 4 pairs" in said
    assert "left out: images only in the ground truth: 1 (elsewhere.jpg)" in said
    assert "not among the pairs: labels without a true box (wrong in AP): 1" in said
    lines = said.splitlines()
    [header] = [number for number, line in enumerate(lines) if line.startswith("at the run's threshold, 1*otsu ")]
    assert lines[header + 2].split() == (
        f"GT-known Loc, IoU 0.5 75.0 (25.0 to 100.0) {_shown(record, 'centre')} {_shown(record, 'whole')}".split()
    )
    flatters = lines.index("Best thresholds, chosen on the boxes that they are judged on, so too optimistic:")
    assert header < flatters
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Judged by true boxes" in page
    assert "Judged by true boxes" not in (run / "report.html").read_text()
    assert "stand beside this file" not in page
    assert lines[-3:] == [
        f"wrote {tmp_path / 'out' / 'evaluation.json'}",
        f"look at {tmp_path / 'out' / 'report.html'}",
        f"choose thresholds: camboxes tune --run {run} --ground-truth {truth}",
    ]


def test_best_thresholds_and_curves_of_a_sample_are_told_as_such(run, truth, tmp_path, capsys, monkeypatch):
    assert _evaluate(run, truth, "--output", tmp_path / "all") == 0
    of_all, said_of_all = json.loads((tmp_path / "all" / "evaluation.json").read_text()), capsys.readouterr().out
    assert of_all["best_thresholds"]["images"] == 5
    monkeypatch.setattr(redrawing, "MOST_REDRAWN", 3)
    assert _evaluate(run, truth, "--output", tmp_path / "sample") == 0
    of_sample, said = json.loads((tmp_path / "sample" / "evaluation.json").read_text()), capsys.readouterr().out
    best, best_of_all = of_sample.pop("best_thresholds"), of_all.pop("best_thresholds")
    assert of_sample == of_all, "figures at the run's own threshold are of all images"
    assert best["images"] == 3
    assert best["own_rule"] != best_of_all["own_rule"]
    words = "of 3 of 5 images, chosen by a hash of their paths"
    assert best["note"] == f"chosen on the boxes that they are judged on, so too optimistic; {words}"
    assert f"Best thresholds, {best['note']}:" in said.splitlines()
    pages = [(tmp_path / name / "report.html").read_text() for name in ("sample", "all")]
    assert "Of 3 of 5 photographs, chosen by a hash of their paths." in pages[0]
    for text in (best_of_all["note"], said_of_all, pages[1]):
        assert "hash of their paths" not in text


def _shown(record, floor):
    estimate = record["figures"]["gt_known_50"][floor]
    return f"{estimate['value']:.1f} ({estimate['low']:.1f} to {estimate['high']:.1f})"


def test_the_same_call_gives_the_same_bytes(run, truth, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    for _ in range(2):
        assert _evaluate(tmp_path / "copy", truth) == 0
    first = (tmp_path / "copy" / "evaluation.json").read_bytes()
    assert _evaluate(tmp_path / "copy", truth) == 0
    assert (tmp_path / "copy" / "evaluation.json").read_bytes() == first
    page = (tmp_path / "copy" / "report.html").read_text()
    assert "Judged by true boxes" in page
    assert "The results stand beside this file" in page


def test_each_kind_of_ground_truth_gives_the_same_figures(run, truth, tmp_path):
    data = json.loads(truth.read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    rows = ["path,label,xmin,ymin,xmax,ymax,image_width,image_height"]
    (tmp_path / "voc").mkdir()
    for image in data["images"][:-1]:
        of_image = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        for annotation in of_image:  # whole pixels, for VOC knows no others
            x, y, width, height = (round(value) for value in annotation["bbox"])
            annotation["bbox"] = [x, y, width, height]
            corners = f"{x},{y},{x + width},{y + height}"
            rows.append(
                f"{image['file_name']},{names[annotation['category_id']]},{corners},{image['width']},{image['height']}"
            )
        boxes = [PERSONS | {"bbox": a["bbox"], "category": names[a["category_id"]]} for a in of_image]
        xml = voc.write(image | {"path": Path(image["file_name"]).name, "boxes": boxes})
        (tmp_path / "voc" / f"{image['id']}.xml").write_text(xml)
    truth.write_text(json.dumps(data))
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    found = []
    for source in (truth, tmp_path / "boxes.csv", tmp_path / "voc"):
        assert _evaluate(run, source, "--output", tmp_path / "out") == 0
        found.append(json.loads((tmp_path / "out" / "evaluation.json").read_text())["classes"])
    assert found[0]["Egyptian cat"]["mean_iou"]["run"]["value"] > 95
    assert found[0] == found[1] == found[2]


def test_names_of_strangers_are_short_in_the_terminal(run, truth, tmp_path, capsys):
    data = json.loads(truth.read_text())
    name = "\x1b]0;title\x07" + "x" * 100_000
    data["images"].append({"id": 100, "file_name": name})
    data["categories"].append({"id": 100, "name": name})
    truth.write_text(json.dumps(data))
    assert _evaluate(run, truth, "--output", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert r"images only in the ground truth: 2 (\x1b]0;title\x07xxx" in said
    assert "\x1b" not in said and max(map(len, said.splitlines())) < 300


def _fails(capsys, *call):
    assert _evaluate(*call) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    return line


def test_wrong_calls_get_one_line(run, truth, tmp_path, capsys, monkeypatch):
    out = ("--output", tmp_path / "out")
    assert "evaluate: unknown option --iou 0.5; see camboxes evaluate --help" in _fails(
        capsys, run, truth, "--iou", "0.5"
    )
    assert "holds no run; expected the --output of camboxes label" in _fails(capsys, tmp_path, truth, *out)
    assert "truth.json' does not exist; expected COCO" in _fails(capsys, run, tmp_path / "truth.json", *out)
    assert "instances.json' is a file; expected a folder" in _fails(capsys, run, truth, "--output", truth)
    data = json.loads(truth.read_text())
    truth.write_text(json.dumps(data | {"annotations": []}))
    assert "holds no boxes; expected at least one box to judge by" in _fails(capsys, run, truth, *out)
    truth.write_text(json.dumps(data | {"categories": [c | {"name": c["name"].upper()} for c in data["categories"]]}))
    assert "differ in upper and lower case)" in _fails(capsys, run, truth, *out)
    truth.write_text(json.dumps(data | {"images": [i | {"file_name": f"{i['id']}.jpg"} for i in data["images"]]}))
    assert "no image of ground truth" in _fails(capsys, run, truth, *out)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert 'needs pycocotools, which is not installed: pip install ".[eval]" (in the clone)' in _fails(
        capsys, run, truth, *out
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "file"), [("yolo", "data.yaml"), ("yolo", ""), ("coco", "annotations/instances_train.json")]
)
def test_a_run_judged_by_its_own_export(run, tmp_path, kind, file):
    """Boxes that are exported, corrected elsewhere and read back find the images that they came from."""
    export = ["export", "--run", str(run), "--output", str(tmp_path / "out"), "--format", kind, "--val", "0"]
    assert main(export) == 0
    assert _evaluate(run, tmp_path / "out" / file, "--output", tmp_path / "judged") == 0
    record = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    assert (record["judged"]["images"], record["judged"]["pairs"]) == (5, 5)
    assert record["left_out"]["images_only_in_run"] == record["left_out"]["images_only_in_truth"] == []
    assert record["figures"]["gt_known_70"]["run"]["value"] == 100
    assert record["figures"]["mean_iou"]["run"]["value"] == pytest.approx(100, abs=0.01)
