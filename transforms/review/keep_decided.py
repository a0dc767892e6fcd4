"""Keeps the boxes that a person accepted, whatever threshold the other boxes are drawn with."""

import collections
from collections.abc import Mapping
from typing import Any

import apache_beam as beam

from camboxes.transforms.counters import count
from camboxes.transforms.planning.plan import PlannedRun
from camboxes.transforms.records import LABELED, NO_BOX, OK, PERSON, REJECTED, Shard
from camboxes.transforms.review.decisions import Decision, read_decisions

Row = dict[str, Any]

_COLUMNS = ("category_id", "calibrated_score", "box_uid", "component_area", "threshold", "source")  # of a box


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class KeepDecided(beam.PTransform):
    """Gives accepted images exactly the boxes that were accepted; all others stay as drawn. Counter: kept."""

    def __init__(self, decisions: Mapping[str, Decision]):
        """Takes the valid decisions, by path: see `read_decisions`."""
        super().__init__()
        self._accepted = {path: decision for path, decision in decisions.items() if decision.verdict == "accepted"}

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of shards."""
        return shards | beam.Map(_keep_accepted, self._accepted).with_output_types(Shard)


def _keep_accepted(shard: Shard, accepted: Mapping[str, Decision]) -> Shard:
    kept = sum(path in accepted for path in shard.rows.column("path").to_pylist())
    if not kept:
        return shard
    count("kept", kept)
    rows = (keep(row, accepted[row["path"]]) if row["path"] in accepted else row for row in shard.rows.to_pylist())
    return shard.extended(rows, LABELED, {})


def keep(row: Row, decision: Decision) -> Row:
    """Replaces a row's boxes by those that were accepted on its image, and clears its review entry.

    The network's boxes stay as they were. A person's boxes have score 1 and no component; they rank after the network's
    boxes of their category, the largest first. The row of a rejected image stays as it is.
    """
    if row["status"] == REJECTED:
        return row
    machines = [box for box in decision.boxes if box.source != PERSON]
    persons = [box for box in decision.boxes if box.source == PERSON]
    boxes, ranks = [], collections.Counter[int]()
    for box in (*machines, *sorted(persons, key=lambda box: -box.bbox[2] * box.bbox[3])):
        rank = ranks[box.category_id] + 1 if box.rank is None else box.rank
        ranks[box.category_id] = max(rank, ranks[box.category_id])
        own = {name: getattr(box, name) for name in _COLUMNS}
        score = 1.0 if box.score is None else box.score
        boxes.append(own | {"bbox": list(box.bbox), "score": score, "rank": rank})
    return row | {
        "status": OK if boxes else NO_BOX,
        "reason": None if boxes else "reviewed: a person found nothing to box",
        "boxes": boxes,
        "review": {"priority": 0.0, "reasons": []},
    }


def decided(run: PlannedRun) -> dict[str, Decision]:
    """Reads the valid decisions about a run, by path, and checks them against its categories.

    Raises:
      ValueError: a line is not a decision, or has a box of a category that the run does not have.
    """
    decisions = read_decisions(run.output)
    known = {(category.id, category.name) for category in run.categories}
    for path, decision in decisions.items():
        for box in decision.boxes:
            if (box.category_id, box.label) not in known:
                raise ValueError(
                    f"the decision about {path!r} has a box of {box.label!r}, category {box.category_id}, which is "
                    f"none of the categories of {run.output!r}; its review.jsonl was made for another run: move it away"
                )
    return decisions
