"""Finished runs made by hand, and ground truth for them."""

import dataclasses
import json

import numpy as np
import pytest

from camboxes.pipeline.formats.ground_truth import GroundTruth, TrueImage
from camboxes.transforms import BoxRule, Plan, storage
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table

SIDE = 10  # of the images, and of the maps, so that a cell is a pixel


@pytest.fixture
def made(tmp_path):
    """Makes a finished run: for each path its entries by label, and what else of its row differs."""

    def make(images, *, rule=None, label_map=None):
        output = tmp_path / "run"
        manifest = tmp_path / "labels.jsonl"
        manifest.write_text("".join(json.dumps({"path": p, "labels": list(i[0])}) + "\n" for p, i in images.items()))
        labels = {label: 0 for entries, *_ in images.values() for label in entries}
        planned = Plan(str(output), [["thing"]], labels | (label_map or {}), shards=2).make(str(manifest))
        settings = {"method": "cam", "rule": dataclasses.asdict(rule or BoxRule())}
        for key in planned.shards:
            rows = [_row(row, *images[row["path"]]) for row in planned.planned_rows(key).to_pylist()]
            storage.write_table(shard_file(str(output), key), table(rows, LABELED, settings))
        return planned

    return make


def _row(planned, entries, changed=None):
    """A row: an entry is (class index, boxes, cells of the map or None); boxes are (bbox, score, rank, calibrated)."""
    row = {
        "image_id": planned["image_id"],
        "path": planned["path"],
        "digest": "",
        "width": SIDE,
        "height": SIDE,
        "status": "ok",
        "reason": None,
        "labels": [],
        "top5": [{"class_index": number, "name": "", "probability": 0.1} for number in (10, 11, 12, 13, 14)],
        "maps": [],
        "boxes": [],
    }
    for label in planned["labels"]:
        of_label = {"category_id": label["category_id"]}
        class_index, boxes, cells = entries[label["label"]]
        row["labels"].append(
            of_label | {"label": label["label"], "class_index": class_index, "logit": 1.0, "probability": 0.5}
        )
        if cells is not None:
            rectangle, size = (
                [0, 0, row["width"], row["height"]],
                dict(zip(("height", "width"), cells.shape, strict=True)),
            )
            row["maps"].append(
                of_label
                | size
                | {"raw_min": -1.0, "raw_max": 1.0, "cells": cells.tobytes(), "rectangle": rectangle}
                | {"method": "cam", "scales": [224]}
            )
        for bbox, score, rank, calibrated in boxes:
            row["boxes"].append(
                of_label
                | {"bbox": bbox, "score": score, "calibrated_score": calibrated, "rank": rank}
                | {"box_uid": "", "component_area": 0.1, "threshold": 0.25}
            )
    return row | (changed or {})


@pytest.fixture
def cells():
    """Makes a map of SIDE x SIDE cells that is 0 but for rectangles x, y, width, height, value; later ones win."""

    def make(*rectangles):
        found = np.zeros((SIDE, SIDE), np.uint8)
        for x, y, width, height, value in rectangles:
            found[y : y + height, x : x + width] = value
        return found

    return make


@pytest.fixture
def truth_of():
    """Makes ground truth: for each path boxes by name, and what else differs."""

    def make(images, categories=("cat", "dog")):
        found = {}
        for path, given in images.items():
            boxes, changed = given if isinstance(given, tuple) else (given, {})
            arrays = {name: np.array(of_category, float) for name, of_category in boxes.items()}
            found[path] = TrueImage(path, None, None, arrays, {})._replace(**changed)
        return GroundTruth("truth.json", categories, found)

    return make
