"""The actions of a reviewer on a run's dataset: draw the boxes of one or many images again, decide, undo.

Every box is drawn by `camboxes.transforms.boxes_from_maps`, as in the Beam job. A decision is written to
OUT/review.jsonl first, then to FiftyOne's database. Boxes that a person added, moved or relabelled, and those of a
decided image, are never drawn again.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camboxes.pipeline.review import fiftyone_samples
from camboxes.pipeline.review.fiftyone_dataset import COLUMNS, INFO, detections_document, over, set_fields
from camboxes.transforms import BoxRule, PlannedRun
from camboxes.transforms.boxes_from_maps import draw, drawn_labels
from camboxes.transforms.planning.plan import read_shard, shard_file
from camboxes.transforms.records import MACHINE, source_of
from camboxes.transforms.review.decisions import FILE, Decision, Verdict, append_decision, read_decisions

if TYPE_CHECKING:
    import fiftyone as fo

_FIELDS = ("filepath", "path", "coco_id", "shard", "status", "reason", "verdict", "decided", "metadata", "boxes")
_BATCH = 500  # images that are drawn and written together


class ReviewError(Exception):
    """A reviewer's request cannot be carried out. The message is one sentence for the panel."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """The panel's rule for drawing boxes.

    Attributes:
      boxes: the rule for each map; None for the boxes of the run, by each label's own threshold, and calibrated.
      label: the label whose boxes are drawn; None for all labels.
    """

    boxes: BoxRule | None
    label: str | None = None

    def drawn(self, sample: Mapping[str, Any], row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A sample's detections by this rule; corrected boxes and those of other labels stay."""
        if self.boxes is None:
            found = [box for box in row["boxes"] if source_of(box) == MACHINE]
        else:
            found = draw(dict(row), self.boxes)["boxes"]
        present = sample["boxes"]["detections"]
        corrected = [box for box in present if fiftyone_samples.is_corrected(box)]
        kept = [box for box in present if box in corrected or self.label not in (None, box["label"])]
        uids = {box.get("box_uid") for box in corrected}
        names = {of["category_id"]: of["label"] for of in row["labels"]}
        fresh = [
            box
            for box in fiftyone_samples.detections(row, names, found)
            if self.label in (None, box["label"]) and box["box_uid"] not in uids
        ]
        return [*kept, *over([box for box in present if box not in kept], fresh)]


class Reviewed:
    """A dataset that `fiftyone_dataset.load` made, with its run.

    Attributes:
      dataset: FiftyOne's dataset.
      run: the plan of the run.

    Raises:
      ReviewError: the dataset holds no run, or the run's folder is gone or holds another run.
    """

    def __init__(self, dataset: "fo.Dataset"):
        held = dataset.info.get(INFO)
        if held is None:
            raise ReviewError(f"dataset {dataset.name!r} holds no run; camboxes review --run OUT loads one")
        self.dataset = dataset
        self.run = _planned(held["run"], _changed(Path(held["run"], "plan", "plan.json")))
        if dict(self.run.fingerprints) != dict(held["fingerprints"]):
            raise ReviewError(
                f"dataset {dataset.name!r} holds the run that was in {held['run']!r} before; to review the one that is "
                "there now, call camboxes review again"
            )

    def sample(self, key: str) -> dict[str, Any]:
        """Reads a sample's fields in FiftyOne's form.

        Raises:
          ReviewError: there is no sample with this id, or it is not an image of the run.
        """
        from bson import ObjectId

        found = self.dataset._sample_collection.find_one({"_id": ObjectId(key)}, _FIELDS)
        if found is None:
            raise ReviewError(f"dataset {self.dataset.name!r} has no sample {key}; reload the page")
        if found.get("shard") is None:
            raise ReviewError("this image was added to the dataset by hand, and is none of the run's")
        return found

    def row(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Reads a sample's row in the run."""
        changed = _changed(Path(shard_file(self.run.output, sample["shard"])))
        return _rows_of_shard(self.run.output, sample["shard"], changed)[sample["path"]]

    def redraw(self, key: str, rule: Rule) -> dict[str, Any]:
        """Draws a sample's boxes by a rule, stores them in the database, and returns `seen`.

        Raises:
          ReviewError: the image was decided, or could not be read.
        """
        sample, row = self._undecided(key)
        return self._store(sample, rule.drawn(sample, row))

    def reset(self, key: str) -> dict[str, Any]:
        """Restores the boxes that a sample has in the run; corrections that were not accepted are lost.

        Returns, raises: see `redraw`.
        """
        sample, row = self._undecided(key)
        names = {category.id: category.name for category in self.run.categories}
        return self._store(sample, over(sample["boxes"]["detections"], fiftyone_samples.detections(row, names)))

    def decide(self, key: str, verdict: Verdict, shown: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Records a decision about a sample with its present boxes; returns `seen`.

        `shown` has the label and bounding_box of each box that the person saw.

        Raises:
          ReviewError: the image could not be read, its boxes are not those that were shown, a box has a label that the
            run does not have, or the decision could not be written.
        """
        sample = self.sample(key)
        row = self._readable(sample)
        if _places(shown) != _places(sample["boxes"]["detections"]):
            raise ReviewError("its boxes were changed meanwhile, here or in another window; look at it again")
        size = (row["width"], row["height"])
        categories = {category.name: category.id for category in self.run.categories}
        try:
            boxes = tuple(fiftyone_samples.decided_box(box, size, categories) for box in sample["boxes"]["detections"])
            decision = Decision(sample["path"], sample["coco_id"], verdict, boxes=boxes)
        except ValueError as error:
            raise ReviewError(str(error)) from error
        self._write(decision)
        fields: dict[str, Any] = {"verdict": verdict, "decided": decision.time}
        if verdict == "accepted":
            decided = fiftyone_samples.decided_detections(decision, size)
            present = sample["boxes"]["detections"]
            fields["boxes"] = detections_document([a | b for a, b in zip(present, decided, strict=True)])
        set_fields(self.dataset, {key: fields})
        return self.seen(sample | fields)

    def undo(self, key: str) -> dict[str, Any]:
        """Cancels the last decision about a sample; the decision before it, if any, is valid again. Returns `seen`.

        Raises:
          ReviewError: there is no decision about the sample.
        """
        sample = self.sample(key)
        if sample.get("verdict") is None:
            raise ReviewError(f"{sample['path']} was not decided; there is nothing to take back")
        self._write(Decision(sample["path"], sample["coco_id"], "undone"))
        before = read_decisions(self.run.output).get(sample["path"])
        fields: dict[str, Any] = {"verdict": before and before.verdict, "decided": before and before.time}
        if before is not None and before.verdict == "accepted":
            row = self.row(sample)
            decided = fiftyone_samples.decided_detections(before, (row["width"], row["height"]))
            fields["boxes"] = detections_document(over(sample["boxes"]["detections"], decided))
        set_fields(self.dataset, {key: fields})
        return self.seen(sample | fields)

    def seen(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The values that the panel shows for a sample.

        Returns:
          path, filepath, status, reason, verdict; map: see `fiftyone_samples.heat_map_url`; labels: label, probability,
          and level, the threshold of its boxes as a share of the map's range, None without a map; top5; corrected:
          number of a person's boxes; boxes in FiftyOne's form; rule: the run's min_area and boxes.
        """
        row = self.row(sample)
        boxes = sample["boxes"]["detections"]
        rule = BoxRule(**self.run.settings.get("rule", {}))
        # A label's first box counts: each map of a second look has its own threshold.
        at = {box["label"]: box["threshold"] for box in reversed(boxes) if box.get("threshold") is not None}
        if any(label["label"] not in at for label in row["labels"]):
            whole = ((label["label"], maps[0]) for label, maps, _ in drawn_labels(row, rule))
            at = {name: of.drawn.level for name, of in whole if not of.working.empty_because} | at
        return {
            "path": sample["path"],
            **{name: sample.get(name) for name in ("filepath", "status", "reason", "verdict")},
            "map": fiftyone_samples.heat_map_url(row),
            "labels": [
                {
                    "label": label["label"],
                    "probability": fiftyone_samples.probability(label),
                    "level": at.get(label["label"]),
                }
                for label in row["labels"]
            ],
            "top5": [{"name": guess["name"], "probability": guess["probability"]} for guess in row["top5"] or []],
            "corrected": sum(map(fiftyone_samples.is_corrected, boxes)),
            "boxes": [box | {"_id": str(box["_id"])} for box in boxes],
            "rule": {"min_area": rule.min_area, "boxes": rule.boxes},
        }

    def apply(self, keys: Sequence[str], rule: Rule) -> Iterator[int]:
        """Draws the boxes of many samples by a rule, except decided and unreadable ones.

        Yields:
          The number of samples that are done, after each batch.
        """
        from bson import ObjectId

        done = 0
        for start in range(0, len(keys), _BATCH):
            wanted: dict[str, Any] = {"_id": {"$in": [ObjectId(key) for key in keys[start : start + _BATCH]]}}
            wanted |= {"verdict": None, "status": {"$nin": [None, "rejected"]}}  # None: added by hand
            if rule.label is not None:
                wanted["labels.classifications.label"] = rule.label
            samples = list(self.dataset._sample_collection.find(wanted, _FIELDS))
            samples.sort(key=lambda sample: sample["shard"])  # a shard is read once
            changes = {
                str(sample["_id"]): {"boxes": detections_document(rule.drawn(sample, self.row(sample)))}
                for sample in samples
            }
            set_fields(self.dataset, changes, undecided=True)
            done += len(changes)
            yield done

    def counts(self) -> dict[str, int]:
        """The number of images by verdict; undecided images are "open", rejected files "unreadable"."""
        found = self.dataset._sample_collection.aggregate(
            [{"$group": {"_id": {"verdict": "$verdict", "status": "$status"}, "images": {"$sum": 1}}}]
        )
        counts = dict.fromkeys(("accepted", "rejected", "skipped", "open", "unreadable"), 0)
        for group in found:
            verdict = group["_id"].get("verdict")
            unreadable = verdict is None and group["_id"].get("status") == "rejected"
            counts["unreadable" if unreadable else verdict or "open"] += group["images"]
        return counts

    def progress(self) -> list[dict[str, Any]]:
        """The number of readable images of each label, in total, accepted, rejected and skipped."""
        verdicts = ("accepted", "rejected", "skipped")
        is_one_of = {name: {"$sum": {"$cond": [{"$eq": ["$verdict", name]}, 1, 0]}} for name in verdicts}
        found = self.dataset._sample_collection.aggregate(
            [
                {"$match": {"status": {"$ne": "rejected"}}},
                {"$project": {"verdict": 1, "label": "$labels.classifications.label"}},
                {"$unwind": "$label"},
                {"$group": {"_id": "$label", "images": {"$sum": 1}, **is_one_of}},
                {"$sort": {"_id": 1}},
            ]
        )
        return [{"label": group.pop("_id"), **group} for group in found]

    def _readable(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        row = self.row(sample)
        if row["width"] is None:
            raise ReviewError(f"{sample['path']} could not be read ({sample['reason']}); there is nothing to review")
        return row

    def _undecided(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """A sample that was not decided, and its row."""
        sample = self.sample(key)
        if sample.get("verdict") is not None:
            raise ReviewError(f"this image was {sample['verdict']}; undo that to draw its boxes again")
        return sample, self._readable(sample)

    def _write(self, decision: Decision) -> None:
        try:
            append_decision(self.run.output, decision)
        except OSError as error:
            raise ReviewError(f"{FILE} cannot be written: {error.strerror or error}") from error

    def _store(self, sample: Mapping[str, Any], boxes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        fields = {"boxes": detections_document(boxes)}
        set_fields(self.dataset, {sample["_id"]: fields}, undecided=True)
        return self.seen({**sample, **fields})


def _places(boxes: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[float]]]:
    """What tells whether boxes are the same: their labels and places."""
    return [(box["label"], list(box["bounding_box"])) for box in boxes]


def _changed(path: Path) -> int:
    """The time of a file's last change, in ns, a key of the caches below; raises a ReviewError if the file is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise ReviewError(f"{str(path)!r} cannot be read ({error.strerror}); put the run back where it was") from error


@functools.lru_cache(maxsize=4)
def _planned(run: str, changed: int) -> PlannedRun:
    planned = PlannedRun.load(run)
    assert planned is not None
    return planned


@functools.lru_cache(maxsize=32)
def _rows_of_shard(run: str, key: str, changed: int) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in read_shard(run, key, COLUMNS).rows.to_pylist()}
