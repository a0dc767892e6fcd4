"""The third step: boxes from the stored maps, during a run or years later."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from camboxes.transforms.boxes import BoxRule, Keep, box_uid, boxes_from_map
from camboxes.transforms.maps import StoredMap
from camboxes.transforms.metering import milliseconds
from camboxes.transforms.records import LABELED, NO_BOX, OK, Shard


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class BoxesFromMaps(beam.PTransform):
    """Draws boxes from each shard's stored maps; needs no model. Counter: milliseconds_boxes."""

    def __init__(self, threshold: float = 0.25, min_area: float = 0.0, boxes: Keep = "largest"):
        """Takes the attributes of a `BoxRule`.

        Raises:
          ValueError: a value out of its range.
        """
        super().__init__()
        self._rule = BoxRule(threshold, min_area, boxes)

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of shards."""
        return shards | beam.ParDo(_DrawBoxes(self._rule))


@beam.typehints.with_output_types(Shard)
class _DrawBoxes(beam.DoFn):
    def __init__(self, rule: BoxRule):
        self._rule = rule

    def process(self, shard: Shard) -> Iterator[Shard]:
        with milliseconds("boxes"):
            rows = [draw(row, self._rule) for row in shard.rows.to_pylist()]
        yield shard.extended(rows, LABELED, {"rule": dataclasses.asdict(self._rule)})


def draw(row: dict[str, Any], rule: BoxRule) -> dict[str, Any]:
    """A row with boxes drawn from its maps, whatever boxes it had; rows without maps get none and keep their status."""
    if not row["maps"]:
        return row | {"boxes": []}
    labels = {label["category_id"]: label for label in row["labels"]}
    boxes, reasons = (
        [],
        [
            f"no_class: {label['label']} stands for no class of the network"
            for label in row["labels"]
            if label["class_index"] is None
        ],
    )
    for stored in row["maps"]:
        label = labels[stored["category_id"]]
        cells = np.frombuffer(stored["cells"], np.uint8).reshape(stored["height"], stored["width"])
        left, top, width, height = stored["rectangle"]
        drawn = boxes_from_map(StoredMap(cells, stored["raw_min"], stored["raw_max"]), width, height, rule)
        if drawn.reason:
            reasons.append(f"{drawn.reason} ({label['label']})")
        for rank, box in enumerate(drawn.boxes, start=1):
            x, y, *extent = box.bbox
            boxes.append(
                {
                    "category_id": label["category_id"],
                    "bbox": [x + left, y + top, *extent],
                    "score": round(label["probability"] * box.mean, 6),
                    "rank": rank,
                    "box_uid": box_uid(row["path"], label["label"], stored["rectangle"], box.peak),
                    "component_area": round(box.area, 6),
                    "threshold": rule.threshold,
                }
            )
    return row | {"status": OK if boxes else NO_BOX, "reason": "; ".join(reasons) or None, "boxes": boxes}
