"""Converts a run's rows to the values of FiftyOne's samples, and detections back to boxes. Does not import FiftyOne.

The fields of a sample, besides FiftyOne's own:

    path             the image's identity, as in the shards; coco_id: its id; shard: the shard's key
    status, reason   as in the row: ok, no_box, skipped, rejected
    labels           the image's labels, each with the class's probability as its confidence
    boxes            detections: see `detection`
    heat_map         the maps of its labels in one picture: see `heat_map`; 0 to 255 over each map's range
    review_priority  the expected number of labels that a person has to correct; review_reasons: the reasons
    verdict          the decision: accepted, rejected or skipped; None before
"""

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from camboxes.transforms.boxes.second_look import is_whole
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.records import MACHINE, PERSON, source_of
from camboxes.transforms.review.decisions import DecidedBox, Decision

Row = Mapping[str, Any]

# The attributes of a network's box in FiftyOne, besides label, bounding_box and confidence (the score).
_OF_A_MACHINE = ("calibrated_score", "threshold", "method", "rank", "component_area")

_FINE = 56  # points along a side of a heat map
_MOVED = 1e-5  # of a side: the App's arithmetic may move an untouched corner by less


def detection(label: str, size: tuple[int, int], box: Row, method: str | None) -> dict[str, Any]:
    """Converts a box of a row, or of a decision, to the values of a FiftyOne detection.

    `drawn` and `drawn_label` keep the network's box and label. If the box differs from them, a person corrected it.
    A person's box has neither, nor the attributes of a network's box.

    Args:
      label: the name of its category.
      size: width and height of the oriented image in pixels.
      box: the box, with bbox in pixels, score, and any of the attributes.
      method: the method of its map; None for a person's box.
    """
    width, height = size
    x, y, box_width, box_height = box["bbox"]
    bounding_box = [x / width, y / height, box_width / width, box_height / height]
    machines = {
        "confidence": box["score"],
        **{name: box.get(name) for name in _OF_A_MACHINE},
        "method": method,
        "drawn": bounding_box,
        "drawn_label": label,
    }
    own = {"label": label, "bounding_box": bounding_box, "box_uid": box["box_uid"], "source": source_of(box)}
    return own | (machines if own["source"] == MACHINE else dict.fromkeys(machines))


def detections(row: Row, names: Mapping[int, str], boxes: Sequence[Row] | None = None) -> list[dict[str, Any]]:
    """Converts a row's boxes, or other boxes drawn from its maps, to detections.

    The names are those of all categories of the run: a person's box may have a label that the image does not have.
    """
    methods = {stored["category_id"]: stored["method"] for stored in row["maps"]}
    size = (row["width"], row["height"])
    return [
        detection(names[(of := box["category_id"])], size, box, box.get("method", methods.get(of)))
        for box in (row["boxes"] if boxes is None else boxes)
    ]


def decided_detections(decision: Decision, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Converts the boxes of a decision to detections."""
    return [detection(box.label, size, vars(box), box.method) for box in decision.boxes]


def is_corrected(found: Row) -> bool:
    """Whether a person added, moved or relabelled a detection."""
    drawn = found.get("drawn")
    if found.get("source") != MACHINE or drawn is None or found.get("drawn_label") != found["label"]:
        return True
    return any(abs(a - b) > _MOVED for a, b in zip(drawn, found["bounding_box"], strict=True))


def decided_box(found: Row, size: tuple[int, int], categories: Mapping[str, int]) -> DecidedBox:
    """Converts a detection to a box of a decision, clipped to the image; a corrected box counts as a person's.

    `size` is the width and height of the oriented image in pixels; `categories` are the ids of the run's, by name.

    Raises:
      ValueError: the label is not one of the run's, or the box has no width or height.
    """
    label = found["label"]
    if label not in categories:
        raise ValueError(f"a box is labelled {label!r}; expected one of the run's labels: {', '.join(categories)}")
    left, top, width, height = found["bounding_box"]
    corners = [(left, left + width, size[0]), (top, top + height, size[1])]
    (x, right), (y, bottom) = (
        (round(min(max(low, 0.0), 1.0) * side, 2), round(min(max(high, 0.0), 1.0) * side, 2))
        for low, high, side in corners
    )
    bbox = (x, y, round(right - x, 2), round(bottom - y, 2))
    place = DecidedBox(label, categories[label], bbox, PERSON, found.get("box_uid"))
    if is_corrected(found):
        return place
    drawn: dict[str, Any] = {name: found.get(name) for name in _OF_A_MACHINE}
    return dataclasses.replace(place, source=MACHINE, score=found["confidence"], **drawn)


def heat_map(row: Row) -> np.ndarray | None:
    """The pointwise maximum of an image's maps, uint8 [height, width]; None without a map.

    Each map is resized to at least 56 points a side by bilinear interpolation, as before boxes are drawn; otherwise the
    App would show a few large squares.
    """
    shown = []
    for stored in (stored for stored in row["maps"] if is_whole(stored, row)):
        size = (max(_FINE, stored["width"]), max(_FINE, stored["height"]))
        shown.append(cv2.resize(StoredMap.of(stored).cells, size, interpolation=cv2.INTER_LINEAR))
    return np.maximum.reduce(shown) if shown else None


def heat_map_url(row: Row) -> str | None:
    """An image's heat map in colors, as a PNG in a data URL; None without a map."""
    points = heat_map(row)
    if points is None:
        return None
    _, png = cv2.imencode(".png", cv2.applyColorMap(points, cv2.COLORMAP_VIRIDIS))
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def probability(label: Row) -> float | None:
    """A label's probability; None if it stands for no class."""
    value = label["probability"]
    return None if value is None or math.isnan(value) else float(value)
