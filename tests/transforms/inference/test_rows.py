"""A row from the network's answers, worked out by hand; neither Beam nor torch takes part."""

from types import SimpleNamespace

import numpy as np
import pytest

from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.inference.image_loading import LoadedImage, PlannedImage
from camboxes.transforms.inference.rows import RowBuilder

SETTINGS = {"method": "cam", "refine": "affinity", "scales": [224, 448], "keep_plain": True}
NAMES = [("ant",), ("bee", "honey bee"), (), ("dog",)]
LABELS = [
    {"label": "insect", "category_id": 1, "class_indices": (0, 1)},
    {"label": "thing", "category_id": 2, "class_indices": ()},
    {"label": "dog", "category_id": 3, "class_indices": (3,)},
]
PLANNED = PlannedImage(
    None, 0, {"image_id": 7, "path": "a.jpg", "labels": LABELS, "background": []}, None, is_last=True
)
WHOLE, PART = (0, 0, 40, 30), (10, 0, 20, 15)
IMAGE = LoadedImage(PLANNED, "d1", 40, 30, (WHOLE, PART))


def _localization(maps, logits=(1.0, 2.0, 3.0, 4.0), plain=None, coherence=(0.5, 0.25)):
    return SimpleNamespace(
        logits=np.array(logits, np.float32),
        probabilities=np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        best=(3, 2, 1, 0),
        class_ids=(1, 3),
        maps=np.array(maps, np.float32),
        plain=None if plain is None else np.array(plain, np.float32),
        coherence=np.array(coherence, np.float32),
        agreement=np.array([0.75, np.nan], np.float32),
    )


def _cells(entry):
    return list(entry["cells"]), entry["raw_min"], entry["raw_max"]


def test_a_row_of_two_rectangles_and_three_labels():
    """Each label that stands for a class has a map of each rectangle; the second label stands for none."""
    whole = _localization([[[0, 255]], [[1, 2]]], plain=[[[3, 4]], [[5, 6]]])
    part = _localization([[[7, 9]], [[8, 16]]], logits=[9.0] * 4, plain=[[[10, 11]], [[12, 13]]])
    row = RowBuilder(SETTINGS, NAMES).row(IMAGE, [whole, part])
    assert {name: row[name] for name in ("image_id", "path", "digest", "width", "height", "status", "reason")} == {
        "image_id": 7, "path": "a.jpg", "digest": "d1", "width": 40, "height": 30, "status": "ok", "reason": None,
    }  # fmt: skip
    assert row["labels"] == [
        {"label": "insect", "category_id": 1, "class_index": 1, "logit": 2.0, "probability": np.float32(0.2)},
        {"label": "thing", "category_id": 2},
        {"label": "dog", "category_id": 3, "class_index": 3, "logit": 4.0, "probability": np.float32(0.4)},
    ]
    assert [(best["class_index"], best["name"]) for best in row["top5"]] == [
        (3, "dog"), (2, "class 2"), (1, "bee"), (0, "ant"),
    ]  # fmt: skip
    assert [entry["probability"] for entry in row["top5"]] == [np.float32(value) for value in (0.4, 0.3, 0.2, 0.1)]
    assert [(entry["category_id"], entry["rectangle"], *_cells(entry)) for entry in row["maps"]] == [
        (1, [0, 0, 40, 30], [0, 255], 0, 255),
        (1, [10, 0, 20, 15], [0, 255], 7, 9),
        (3, [0, 0, 40, 30], [0, 255], 1, 2),
        (3, [10, 0, 20, 15], [0, 255], 8, 16),
    ]
    assert [(entry["height"], entry["width"], entry["scales"]) for entry in row["maps"]] == [(1, 2, [224, 448])] * 4
    assert [(entry["coherence"], entry["agreement"]) for entry in row["maps"]] == [(0.5, 0.75)] * 2 + [(0.25, None)] * 2
    assert [entry["raw_min"] for entry in row["plain_maps"]] == [3, 10, 5, 12]
    assert {entry["method"] for entry in row["maps"]} == {"affinity(cam)"}
    assert {entry["method"] for entry in row["plain_maps"]} == {"cam"}
    assert row["plain_maps"][2] | {"cells": 0, "raw_min": 0, "raw_max": 0, "method": ""} == row["maps"][2] | {
        "cells": 0, "raw_min": 0, "raw_max": 0, "method": "",
    }  # fmt: skip


def test_maps_that_are_not_refined():
    builder = RowBuilder(SETTINGS | {"refine": "none"}, NAMES)
    row = builder.row(IMAGE._replace(rectangles=(WHOLE,)), [_localization([[[0, 1]], [[0, 1]]])])
    assert [entry["method"] for entry in row["maps"]] == ["cam", "cam"]
    assert row["plain_maps"] == []


@pytest.mark.parametrize(
    ("labels", "background", "reason"),
    [
        (LABELS[1:2], [], "no_class: none of its labels stands for a class of the network"),
        (LABELS[1:2], None, "no_class: none of its labels stands for a class of the network"),  # of an earlier plan
        ([], ["none", "other"], "background: none, other"),
    ],
)
def test_an_image_that_the_network_does_not_look_at(labels, background, reason):
    planned = PLANNED._replace(row=PLANNED.row | {"labels": labels, "background": background})
    row = RowBuilder(SETTINGS, NAMES).row(IMAGE._replace(planned=planned, rectangles=()), [])
    assert row == {
        "image_id": 7, "path": "a.jpg", "digest": "d1", "width": 40, "height": 30,
        "status": "skipped", "reason": reason,
        "labels": [{"label": label["label"], "category_id": label["category_id"]} for label in labels],
        "top5": [], "maps": [], "plain_maps": [],
    }  # fmt: skip


GOOD = _localization([[[0, 1]], [[0, 1]]])


@pytest.mark.parametrize(
    ("image", "answers", "reason"),
    [
        (IMAGE._replace(finished=BadImageError("truncated", "at 9")), [], "truncated: at 9"),
        (IMAGE, [GOOD, BadImageError("out_of_memory", "no room")], "out_of_memory: no room"),
        (IMAGE, [BadImageError("network_failed", "a"), BadImageError("out_of_memory", "b")], "network_failed: a"),
        (
            IMAGE,
            [_localization([[[0, 1]], [[0, 1]]], logits=[0, np.inf, 0, 0]), GOOD],
            "not_finite: the network's output holds NaN or infinity",
        ),
    ],
)
def test_a_rejected_image(image, answers, reason):
    row = RowBuilder(SETTINGS, NAMES).row(image, answers)
    assert row == {
        "image_id": 7, "path": "a.jpg", "digest": "d1", "width": 40, "height": 30,
        "status": "rejected", "reason": reason,
        "labels": [{"label": label["label"], "category_id": label["category_id"]} for label in LABELS],
        "top5": [], "maps": [], "plain_maps": [],
    }  # fmt: skip


def test_a_row_of_another_run_stays_as_it_is():
    known = {"image_id": 7, "status": "ok"}
    assert RowBuilder(SETTINGS, NAMES).row(IMAGE._replace(finished=known), []) is known
