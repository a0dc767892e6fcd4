"""Every command reads a run's folder that was written before the modules were moved into packages.

tests/golden/earlier_run was written by `camboxes label --keep-plain --shards 2 --precision fp32` over the photographs
of `camboxes demo`. Its weights are left out: they are those of the package.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from camboxes.models.training import selftraining
from camboxes.pipeline.cli import main
from camboxes.pipeline.review import load_dataset
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.planning.plan import shard_file

WRITTEN = Path(__file__).parents[1] / "golden" / "earlier_run"


@pytest.fixture
def earlier(photographs, classifier, tmp_path):
    output = tmp_path / "earlier"
    shutil.copytree(WRITTEN, output)
    for name in ("plan/plan.json", "summary.json"):
        text = (output / name).read_text()
        assert '"root": "photographs"' in text
        (output / name).write_text(text.replace('"root": "photographs"', f'"root": {json.dumps(str(photographs))}'))
    (output / "plan" / "weights.safetensors").write_bytes(classifier.files()["weights.safetensors"])
    return output


@pytest.fixture
def truth(earlier, tmp_path):
    """The run's own boxes as true boxes."""
    return shutil.copy(earlier / "annotations.json", tmp_path / "truth.json")


def _annotations(output):
    return json.loads((output / "annotations.json").read_text())["annotations"]


def _shards(output):
    run = PlannedRun.load(str(output))
    return [storage.read_bytes(shard_file(run.output, key)) for key in run.shards]


def test_label_takes_it_for_done(earlier, photographs):
    before = _shards(earlier), (earlier / "annotations.json").read_bytes()
    options = ["--keep-plain", "--shards", "2", "--precision", "fp32"]
    assert main(["label", "--input", str(photographs), "--output", str(earlier), *options]) == 0
    assert (_shards(earlier), (earlier / "annotations.json").read_bytes()) == before


def test_label_reuses_its_rows(earlier, photographs, tmp_path):
    options = ["--keep-plain", "--shards", "2", "--precision", "fp32", "--reuse", str(earlier)]
    assert main(["label", "--input", str(photographs), "--output", str(tmp_path / "again"), *options]) == 0
    assert _shards(tmp_path / "again") == _shards(earlier)
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["run"]["counters"]["reused"] == 5


def test_rebox_draws_its_boxes_again(earlier, tmp_path):
    assert main(["rebox", "--run", str(earlier), "--output", str(tmp_path / "again")]) == 0
    assert _annotations(tmp_path / "again") == _annotations(earlier)
    assert main(["rebox", "--run", str(earlier), "--output", str(tmp_path / "plain"), "--plain"]) == 0
    assert [box["bbox"] for box in _annotations(tmp_path / "plain")] != [box["bbox"] for box in _annotations(earlier)]


def test_selftrain_learns_from_it(earlier, tmp_path, monkeypatch):
    monkeypatch.setattr(selftraining, "_EPOCHS", (1, 1))
    call = ["selftrain", "--run", str(earlier), "--output", str(tmp_path / "learnt"), "--rounds", "1"]
    assert main(call) == 0
    assert len(_annotations(tmp_path / "learnt")) == 5


def test_it_is_judged_by_true_boxes(earlier, truth, tmp_path):
    assert main(["evaluate", "--run", str(earlier), "--ground-truth", str(truth)]) == 0
    figures = json.loads((earlier / "evaluation.json").read_text())["figures"]
    assert figures["gt_known_70"]["run"]["value"] == figures["mean_iou"]["run"]["value"] == 100
    assert main(["rebox", "--run", str(earlier), "--output", str(tmp_path / "same")]) == 0
    call = ["compare", str(earlier), str(tmp_path / "same"), "--ground-truth", str(truth)]
    assert main([*call, "--output", str(tmp_path / "compared.json")]) == 0
    assert main(["tune", "--run", str(earlier), "--ground-truth", str(truth)]) == 0
    tuned = ["rebox", "--run", str(earlier), "--thresholds", str(earlier / "tuning.json")]
    assert main([*tuned, "--output", str(tmp_path / "tuned")]) == 0


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_it_is_exported(earlier, tmp_path, kind):
    assert main(["export", "--run", str(earlier), "--output", str(tmp_path / "data"), "--format", kind]) == 0
    assert len([path for path in (tmp_path / "data").rglob("*") if path.suffix in (".jpg", ".png")]) == 5


def test_its_boxes_are_exported_as_a_table(earlier, tmp_path):
    assert main(["export", "--run", str(earlier), "--output", str(tmp_path / "data"), "--format", "parquet"]) == 0
    boxes = storage.read_table(str(tmp_path / "data" / "boxes.parquet")).to_pylist()
    found = {box["box_uid"]: [box["x"], box["y"], box["box_width"], box["box_height"]] for box in boxes}
    assert found == {box["box_uid"]: box["bbox"] for box in _annotations(earlier)}


def test_it_is_loaded_for_the_review(earlier, database, tmp_path):
    told = os.environ | {"FIFTYONE_DATABASE_URI": database, "FIFTYONE_DATABASE_VALIDATION": "false"}
    told |= {"FIFTYONE_DO_NOT_TRACK": "1", "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, __file__, str(earlier), str(tmp_path / "boxes.json")], env=told, check=True)
    found = json.loads((tmp_path / "boxes.json").read_text())
    assert sorted(found.values()) == [1] * 5


def _load(output, file):
    paths, boxes = load_dataset(output).values(["path", "boxes.detections.label"])
    Path(file).write_text(json.dumps({path: len(labels) for path, labels in zip(paths, boxes, strict=True)}))


if __name__ == "__main__":
    _load(*sys.argv[1:])
