"""The third step: draws boxes from stored maps, during a run or later."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam

from camboxes.transforms.boxes.calibration import Calibration
from camboxes.transforms.boxes.evidence import evidence
from camboxes.transforms.boxes.from_map import BoxRule, Drawn, Keep, Threshold, WorkingMap, box_uid
from camboxes.transforms.boxes.review_priority import review
from camboxes.transforms.boxes.second_look import Seen, merge
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.counters import milliseconds
from camboxes.transforms.records import LABELED, MACHINE, NO_BOX, OK, REJECTED, Shard, no_class

Row = dict[str, Any]


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class BoxesFromMaps(beam.PTransform):
    """Draws boxes from each shard's stored maps; needs no model. Counter: milliseconds_boxes."""

    def __init__(
        self,
        threshold: Threshold = 0.25,
        min_area: float = 0.0,
        boxes: Keep = "largest",
        thresholds: Mapping[str, Threshold] | None = None,
        calibration: Calibration | None = None,
    ):
        """Takes the attributes of a `BoxRule`, and the calibration of scores; None for raw scores alone.

        Raises:
          ValueError: a value is out of its range.
        """
        super().__init__()
        rule = BoxRule(threshold, min_area, boxes, thresholds or {})
        self._draw = beam.Map(_draw_shard, rule, calibration).with_output_types(Shard)

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of shards."""
        return shards | self._draw


def _draw_shard(shard: Shard, rule: BoxRule, calibration: Calibration | None) -> Shard:
    with milliseconds("boxes"):
        rows = [draw(row, rule, calibration) for row in shard.rows.to_pylist()]
    return shard.extended(rows, LABELED, drawing_settings(rule, calibration))


def drawing_settings(rule: BoxRule, calibration: Calibration | None) -> Row:
    """The settings that decide the boxes besides the maps, for a run's records."""
    return {"rule": dataclasses.asdict(rule), "calibration": None if calibration is None else calibration.as_json()}


class DrawnMap(NamedTuple):
    """An entry of a row's maps, the map on its working grid, and its boxes, in pixels of the rectangle it covers."""

    stored: Row
    working: WorkingMap
    drawn: Drawn


class DrawnLabel(NamedTuple):
    """A row's label that has maps, and the boxes drawn from them.

    Attributes:
      label: the label's entry in the row's labels.
      maps: its maps, that of the whole image first.
      boxes: the boxes on the image; their `look` is an index into maps.
    """

    label: Row
    maps: list[DrawnMap]
    boxes: list[Seen]


def drawn_labels(row: Row, rule: BoxRule) -> Iterator[DrawnLabel]:
    """Draws boxes from the maps of each of a row's labels."""
    labels = {label["category_id"]: label for label in row["labels"]}
    for category, entries in itertools.groupby(row["maps"], key=lambda stored: stored["category_id"]):
        label, maps = labels[category], []
        for stored in entries:
            working = working_map(stored)
            maps.append(DrawnMap(stored, working, working.draw(rule.of(label["label"]))))
        looks = [(stored["rectangle"], drawn) for stored, _, drawn in maps]
        yield DrawnLabel(label, maps, merge(looks, row["width"], row["height"]))


def working_map(stored: Row) -> WorkingMap:
    """Brings an entry of the column `maps` to its working grid."""
    return WorkingMap(StoredMap.of(stored), *stored["rectangle"][2:])


def draw(row: Row, rule: BoxRule, calibration: Calibration | None = None) -> Row:
    """Replaces a row's boxes by those drawn from its maps. A row without maps gets none and keeps its status."""
    boxes: list[Row] = []
    areas: dict[int, tuple[float, ...]] = {}
    reasons = [no_class(label) for label in row["labels"] if label["class_index"] is None]
    for label, maps, seen in drawn_labels(row, rule):
        areas[label["category_id"]] = maps[0].drawn.areas
        if not seen:
            reasons.append(f"{maps[0].drawn.reason} ({label['label']})")
        for rank, (look, bbox, share, box) in enumerate(seen, start=1):
            stored, working, drawn = maps[look]
            found = evidence(working, drawn, box, label["probability"], stored) if calibration else None
            boxes.append(
                {
                    "category_id": label["category_id"],
                    "bbox": list(bbox),
                    "score": round(label["probability"] * share, 6),
                    "calibrated_score": calibration.probability(found) if calibration and found else None,
                    "rank": rank,
                    "box_uid": box_uid(row["path"], label["label"], stored["rectangle"], box.peak),
                    "component_area": round(box.area, 6),
                    "threshold": round(drawn.level, 6),
                    "source": MACHINE,
                }
            )
    if not row["maps"]:
        status, reason = row["status"], row["reason"]
    else:
        status, reason = OK if boxes else NO_BOX, "; ".join(reasons) or None
    looked = None if status == REJECTED else review(row["labels"], boxes, areas)
    return row | {"status": status, "reason": reason, "boxes": boxes, "review": looked}
