"""A run in a real FiftyOne and out of it again. Started as a script, this file is the process that imports FiftyOne."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from PIL import Image

from camboxes.pipeline import doctor
from camboxes.pipeline.beam_options import beam_options
from camboxes.pipeline.review import load_dataset
from camboxes.transforms import BoxesFromMaps, Plan, Shard, WriteCoco
from camboxes.transforms.records import MAPPED, table

SIZES = {"cats/one.png": (120, 80), "cats/ü 2.png": (33, 77), "deep/er/one.png": (50, 50), "two.jpg": (61, 97)}
CAT = [[0, 0, 0, 0, 0, 90], [255, 200, 0, 0, 0, 200], [180, 150, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
DOG = [[0, 0, 0, 255, 255, 0], [0, 0, 10, 20, 0, 0], [0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0]]
CAT_OR_DOG = [[0, 0, 0, 255, 255, 90], [255, 200, 10, 20, 0, 200], [180, 150, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0]]
SECOND_CAT = [[0, 1], [3, 255], [0, 254]]
NO_DOG = [[1, 255]]
VARIANTS = ("in_parts", "without_boxes")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A run of all four statuses, its maps written by hand: two labels on an image, two boxes of one of them."""
    folder = tmp_path_factory.mktemp("drawn")
    for path, size in SIZES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 150)).save(folder / path)
    (folder / "labels.csv").write_text(
        "path,label\nbroken.jpg,cat\ncats/one.png,cat\ncats/one.png,dog\ncats/ü 2.png,cat\ndeep/er/one.png,thing\n"
        "two.jpg,dog\n"
    )
    output = str(folder / "run")
    planned = Plan(output, [("cat",), ("dog",)], {"thing": []}).make(str(folder / "labels.csv"))
    [key] = planned.shards
    maps = {
        "cats/one.png": [(1, CAT, 2.0), (2, DOG, 2.0)],
        "cats/ü 2.png": [(1, SECOND_CAT, 2.0)],
        "two.jpg": [(2, NO_DOG, -1.0)],  # nowhere positive: no box
    }
    rows = []
    for row in planned.planned_rows(key).to_pylist():
        width, height = SIZES.get(row["path"], (None, None))
        status = "rejected" if width is None else "ok" if row["path"] in maps else "skipped"
        for label in row["labels"]:
            found = {"class_index": label["category_id"] - 1, "probability": 0.75} if status == "ok" else {}
            label |= {"class_index": None, **found}
        rows.append(
            {name: row[name] for name in ("image_id", "path")}
            | {"width": width, "height": height, "status": status, "reason": "missing: x" if width is None else None}
            | {"labels": row["labels"], "maps": [_map(*a_map, width, height) for a_map in maps.get(row["path"], [])]}
        )
    with beam.Pipeline(options=beam_options([])) as pipeline:
        shards = pipeline | beam.Create([Shard(key, table(rows, MAPPED, {"method": "cam"}))])
        shards | BoxesFromMaps(0.25, boxes="all") | WriteCoco(output)
    return Path(output)


def _map(category_id, cells, raw_max, width, height):
    rows, columns = np.shape(cells)
    found = {"category_id": category_id, "height": rows, "width": columns, "cells": np.uint8(cells).tobytes()}
    return found | {"raw_min": -2.0, "raw_max": raw_max, "rectangle": [0, 0, width, height], "method": "cam"}


def _doctor_on_mongod():
    [check] = [check for check in doctor._CHECKS if check.name == "mongod"]
    return check.line()


@contextlib.contextmanager
def _database(folder):
    """The address of a mongod of our own: FiftyOne itself would join the database of any session of the same user."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("FIFTYONE_DATABASE_URI", raising=False)
        mark, text = _doctor_on_mongod()
    assert mark == "ok", text
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (folder / "db").mkdir()
    call = [doctor._folder("fiftyone") / "db/bin/mongod", "--dbpath", folder / "db", "--logpath", folder / "log"]
    mongod = subprocess.Popen([*call, "--port", port, "--bind_ip", "127.0.0.1", "--nounixsocket"])
    try:
        yield f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=10000"
    finally:
        mongod.terminate()
        mongod.wait(30)


@pytest.fixture(scope="module")
def found(drawn, tmp_path_factory):
    """What `_through_fiftyone` wrote, in a process that ended."""
    folder = tmp_path_factory.mktemp("fiftyone")
    for name in VARIANTS:
        shutil.copytree(drawn, folder / name)
    whole = json.loads((drawn / "annotations.json").read_text())
    (folder / "without_boxes" / "annotations.json").write_text(json.dumps(whole | {"annotations": []}))
    (folder / "in_parts" / "annotations.json").unlink()
    for number, images in ((1, whole["images"][:1]), (2, whole["images"][1:])):
        ids = {image["id"] for image in images}
        part = whole | {"images": images, "annotations": [a for a in whole["annotations"] if a["image_id"] in ids]}
        (folder / "in_parts" / f"annotations-0000{number}-of-00002.json").write_text(json.dumps(part))
    with _database(folder) as address:
        settings = {"FIFTYONE_DATABASE_URI": address, "FIFTYONE_DATABASE_VALIDATION": "false"}
        settings |= {"FIFTYONE_DO_NOT_TRACK": "1", "HOME": str(folder)}
        done = subprocess.run(
            [sys.executable, __file__, drawn, folder],
            env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def _through_fiftyone(run, folder):
    """Loads the run and its variants, notes what FiftyOne holds, and lets it export COCO."""
    import fiftyone as fo

    for output in (run, *(folder / name for name in VARIANTS)):
        dataset = load_dataset(str(output), output.name)
        samples = [
            {
                "path": sample.filepath,
                "coco_id": sample.coco_id,
                "size": [sample.metadata.width, sample.metadata.height],
                "boxes": [box.to_dict() for box in sample.boxes.detections] if sample.boxes else [],
                "heat_map": sample.heat_map and [sample.heat_map.map.tolist(), str(sample.heat_map.map.dtype)],
                "range": sample.heat_map and sample.heat_map.range,
            }
            for sample in dataset
        ]
        (folder / f"{output.name}.json").write_text(json.dumps(samples, default=str))
        (folder / f"{output.name}_fields.json").write_text(json.dumps([*dataset.get_field_schema(flat=True)]))
        dataset.export(
            dataset_type=fo.types.COCODetectionDataset,
            labels_path=str(folder / f"{output.name}_exported.json"),
            label_field="boxes",
            categories=dataset.info["categories"],
            coco_id="coco_id",
            annotation_id="coco_id",
            rel_dir=str(run.parent),
        )


def test_images_with_and_without_boxes(drawn, found):
    samples = json.loads((found / "run.json").read_text())
    assert [(sample["coco_id"], sample["path"], tuple(sample["size"])) for sample in samples] == [
        (number, str(drawn.parent / path), size) for number, (path, size) in enumerate(SIZES.items(), start=2)
    ]  # 1 is the rejected image
    assert [len(sample["boxes"]) for sample in samples] == [3, 1, 0, 0]


def test_boxes_keep_their_ids_scores_ranks_and_names(drawn, found, annotations):
    expected = annotations(drawn)["annotations"]
    assert [(a["id"], a["image_id"], a["category_id"], a["rank"]) for a in expected] == [
        (1, 2, 1, 1), (2, 2, 1, 2), (3, 2, 2, 1), (4, 3, 1, 1),
    ]  # fmt: skip
    samples = {sample["coco_id"]: sample for sample in json.loads((found / "run.json").read_text())}
    boxes = [(sample, box) for sample in samples.values() for box in sample["boxes"]]
    for annotation, (sample, box) in zip(expected, boxes, strict=True):
        assert sample["coco_id"] == annotation["image_id"]
        assert box["coco_id"] == annotation["id"]
        assert box["label"] == {1: "cat", 2: "dog"}[annotation["category_id"]]
        assert box["confidence"] == annotation["score"]
        assert box["rank"] == annotation["rank"]
        assert box["box_uid"] == annotation["box_uid"]
        pixels = np.multiply(box["bounding_box"], sample["size"] * 2)
        assert pixels == pytest.approx(annotation["bbox"], rel=1e-6)
    fields = json.loads((found / "run_fields.json").read_text())
    assert {"boxes.detections.rank", "boxes.detections.box_uid", "boxes.detections.coco_id"} <= set(fields)


def test_heat_maps_are_the_stored_cells(found):
    samples = json.loads((found / "run.json").read_text())
    assert [sample["heat_map"] for sample in samples] == [
        [CAT_OR_DOG, "uint8"], [SECOND_CAT, "uint8"], None, [NO_DOG, "uint8"],
    ]  # fmt: skip
    assert [sample["range"] for sample in samples] == [[0, 255], [0, 255], None, [0, 255]]


def test_the_coco_that_fiftyone_exports(drawn, found, annotations):
    from pycocotools.coco import COCO

    before, after = annotations(drawn), COCO(found / "run_exported.json")
    assert after.cats == {category["id"]: category for category in before["categories"]}
    assert [(image["id"], image["file_name"], image["width"], image["height"]) for image in after.imgs.values()] == [
        (image["id"], image["file_name"], image["width"], image["height"]) for image in before["images"]
    ]
    assert list(after.anns) == [annotation["id"] for annotation in before["annotations"]]
    for annotation in before["annotations"]:
        exported = after.anns[annotation["id"]]
        assert exported["bbox"] == pytest.approx(annotation["bbox"], rel=1e-6)
        same = ("image_id", "category_id", "score", "rank", "box_uid", "iscrowd")
        assert {name: exported[name] for name in same} == {name: annotation[name] for name in same}
    assert after.getAnnIds(imgIds=[4, 5]) == []


def test_a_run_in_parts_is_the_same_dataset(found):
    def without_fiftyones_ids(path):
        samples = json.loads((found / path).read_text())
        for box in (box for sample in samples for box in sample["boxes"]):
            assert box.pop("_id")
        return samples

    assert without_fiftyones_ids("in_parts.json") == without_fiftyones_ids("run.json")


def test_a_run_without_any_box(found):
    samples = json.loads((found / "without_boxes.json").read_text())
    assert [(sample["coco_id"], sample["boxes"]) for sample in samples] == [(2, []), (3, []), (4, []), (5, [])]
    assert samples[0]["heat_map"] == [CAT_OR_DOG, "uint8"]
    exported = json.loads((found / "without_boxes_exported.json").read_text())
    assert [image["id"] for image in exported["images"]] == [2, 3, 4, 5]


def test_what_cannot_be_loaded_is_told_before_fiftyone_starts(drawn, tmp_path):
    with pytest.raises(ValueError, match=r"holds no finished run; expected the --output of camboxes label"):
        load_dataset(str(tmp_path))
    shutil.copytree(drawn.parent, tmp_path / "copy")
    plan = tmp_path / "copy" / "run" / "plan" / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"root": str(tmp_path / "copy")}))
    (tmp_path / "copy" / "two.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 photographs are no longer below '.*copy', the first .* 'two.jpg'; "):
        load_dataset(str(tmp_path / "copy" / "run"))
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"root": "gs://bucket/photographs"}))
    with pytest.raises(ValueError, match=r"'gs://bucket/photographs' is on a store, and FiftyOne reads local files"):
        load_dataset(str(tmp_path / "copy" / "run"))
    assert "fiftyone" not in sys.modules


def test_the_doctor_asks_the_server_of_ones_own(tmp_path, monkeypatch):
    _, packaged = _doctor_on_mongod()
    with _database(tmp_path) as address:
        monkeypatch.setenv("FIFTYONE_DATABASE_URI", address)
        assert _doctor_on_mongod() == (
            "ok", f"{packaged.partition(',')[0]}, the server that FIFTYONE_DATABASE_URI names"
        )  # fmt: skip


if __name__ == "__main__":
    _through_fiftyone(Path(sys.argv[1]), Path(sys.argv[2]))
