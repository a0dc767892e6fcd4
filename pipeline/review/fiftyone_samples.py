"""What a run's row is in FiftyOne: documents of plain values and Arrays, made without FiftyOne, and read back again.

A sample's fields, besides FiftyOne's own:

    path             the image's identity, as in the shards; coco_id its id there, shard the shard's key
    status, reason   of the row: ok, no_box, skipped, rejected
    labels           what the image is labelled, each with the class's probability as its confidence
    boxes            detections: see `detection`
    heat_map         the maps of its labels as one picture: see `heat_map`; 0 to 255 over each map's own range
    review_priority  how many of its boxes a person will probably have to correct, and review_reasons, why
    verdict          what was decided: accepted, rejected or skipped; None until then
"""

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

# A box's attributes in FiftyOne besides its label, its bounding_box and its confidence (the score).
_OF_A_MACHINE = ("calibrated_score", "threshold", "method", "rank", "component_area")

_FINE = 56  # points along a side of a heat map
_MOVED = 1e-5  # of a side: what the App's own arithmetic may add to a corner that nobody touched


def detection(label: str, size: tuple[int, int], box: Row, method: str | None) -> dict[str, Any]:
    """A box of a row, or of a decision, as the values of a FiftyOne detection.

    `drawn` and `drawn_label` hold what the machine drew: where the box's own differ, a person corrected it.

    Args:
      label: its category's name.
      size: width and height of the oriented image in pixels.
      box: with bbox in pixels, score, and any of the attributes.
      method: which kind of map it was drawn from; None for a person's.
    """
    width, height = size
    x, y, box_width, box_height = box["bbox"]
    bounding_box = [x / width, y / height, box_width / width, box_height / height]
    by_machine = source_of(box) == MACHINE
    return {
        "label": label,
        "bounding_box": bounding_box,
        "confidence": box["score"] if by_machine else None,
        "box_uid": box["box_uid"],
        "source": MACHINE if by_machine else PERSON,
        **{name: box.get(name) if by_machine else None for name in _OF_A_MACHINE},
        "method": method if by_machine else None,
        "drawn": bounding_box if by_machine else None,
        "drawn_label": label if by_machine else None,
    }


def detections(row: Row, names: Mapping[int, str], boxes: Sequence[Row] | None = None) -> list[dict[str, Any]]:
    """A row's boxes, or others drawn from its maps, as detections.

    Args:
      row: of a shard file.
      names: the run's categories: a person may have given a box a label that the image does not have.
      boxes: as in a shard file; None for the row's own.
    """
    methods = {stored["category_id"]: stored["method"] for stored in row["maps"]}
    return [
        detection(
            names[box["category_id"]],
            (row["width"], row["height"]),
            box,
            box.get("method", methods.get(box["category_id"])),
        )
        for box in (row["boxes"] if boxes is None else boxes)
    ]


def decided_detections(decision: Decision, size: tuple[int, int]) -> list[dict[str, Any]]:
    """The boxes of a decision as detections."""
    return [detection(box.label, size, vars(box), box.method) for box in decision.boxes]


def is_corrected(found: Row) -> bool:
    """Whether a person added, moved or relabelled a detection."""
    drawn = found.get("drawn")
    if found.get("source") != MACHINE or drawn is None or found.get("drawn_label") != found["label"]:
        return True
    return any(abs(a - b) > _MOVED for a, b in zip(drawn, found["bounding_box"], strict=True))


def decided_box(found: Row, size: tuple[int, int], categories: Mapping[str, int]) -> DecidedBox:
    """A detection as it goes into a decision: in pixels inside the image, a corrected one as a person's.

    Args:
      found: the detection's values.
      size: width and height of the oriented image in pixels.
      categories: the ids of the run's categories, by name.

    Raises:
      ValueError: its label is none of the run's, or it has no extent.
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
    place: dict[str, Any] = {
        "label": label,
        "category_id": categories[label],
        "bbox": bbox,
        "box_uid": found.get("box_uid"),
    }
    if is_corrected(found):
        return DecidedBox(**place, source=PERSON)
    drawn: dict[str, Any] = {name: found.get(name) for name in _OF_A_MACHINE}
    return DecidedBox(**place, source=MACHINE, score=found["confidence"], **drawn)


def heat_map(row: Row) -> np.ndarray | None:
    """The maps of a whole image as one picture, uint8 [height, width], by each point's maximum; None without a map.

    Each map is brought to at least 56 points a side by bilinear interpolation, as it is before boxes are drawn from it:
    the App would show a few large squares.
    """
    shown = []
    for stored in (stored for stored in row["maps"] if is_whole(stored, row)):
        size = (max(_FINE, stored["width"]), max(_FINE, stored["height"]))
        shown.append(cv2.resize(StoredMap.of(stored).cells, size, interpolation=cv2.INTER_LINEAR))
    return np.maximum.reduce(shown) if shown else None


def probability(label: Row) -> float | None:
    """A label's probability; None where it stands for no class."""
    value = label["probability"]
    return None if value is None or math.isnan(value) else float(value)
