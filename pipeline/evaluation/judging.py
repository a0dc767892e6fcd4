"""Compares a run's boxes with the true ones: how well each labelled pair of an image and a category is localized.

Nothing here is a figure yet: `figures` computes those, for all images or for a resample of them.
"""

import dataclasses
import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from camboxes.models.counts import counted
from camboxes.pipeline import sampling
from camboxes.pipeline.errors import CallError
from camboxes.pipeline.evaluation.average_precision import Boxes
from camboxes.pipeline.evaluation.matching import Matching, match
from camboxes.pipeline.formats.ground_truth import GroundTruth
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.transforms import PlannedRun
from camboxes.transforms.boxes.from_map import iou

CENTRE = 0.8  # share of each side: the centred box that figures are compared with

_NONE = -1  # no class, no box
_NULLS = {"class_index": _NONE, "calibrated_score": np.nan}  # what stands for null in a column
_OF_PAIRS = ("image", "category", "iou", "score", "raw_score", "calibrated", "centre", "whole", "top1", "top5")

Columns = dict[str, np.ndarray]  # columns of equal length by name


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """Every labelled pair of a judged image and a judged category that has true boxes there.

    Pairs are sorted by the image's id, then by the category's. A pair's own box is the box of highest score (calibrated
    if it is) that the run has for the label; of equal scores, the one of lowest rank. Its IoU is the largest with any
    true box of the pair.
    """

    categories: list[str]  # names of the run, in the order of their ids
    paths: list[str]  # the judged images, including those without a pair, in the order of their ids
    sizes: np.ndarray  # int64 [images, 2], width and height in pixels
    image: np.ndarray  # int64 [pairs], indices into paths
    category: np.ndarray  # int64 [pairs], indices into categories
    iou: np.ndarray  # float64 [pairs], IoU of the own box; 0 if there is no box
    score: np.ndarray  # float64 [pairs], of the own box as in results.json; NaN if there is no box
    raw_score: np.ndarray  # float64 [pairs], its score before calibration; NaN if there is no box
    calibrated: np.ndarray  # float64 [pairs], its calibrated score; NaN if there is none
    centre: np.ndarray  # float64 [pairs], IoU of a centred box of 80% of each side
    whole: np.ndarray  # float64 [pairs], IoU of the whole image
    top1: np.ndarray  # bool [pairs], whether the label's class is the network's first
    top5: np.ndarray  # bool [pairs], whether it is among the network's first five
    detections: Boxes  # every box of the run in the judged images and categories, with its score as in results.json
    matching: Matching  # what is judged, and what was left out
    settings: dict[str, Any]  # those that the run's shards were made with, its box rule under "rule"

    def restricted(self, paths: Sequence[str], categories: Sequence[str], pairs: np.ndarray) -> "Judged":
        """Keeps some images, categories and pairs, in the given order.

        A box is kept if its image and its category are, whether or not their pair is. The left-out lists of `matching`
        are not counted again.

        Args:
          paths: the images to keep.
          categories: the names to keep.
          pairs: int64 [pairs], indices of the pairs to keep; their images and categories must be kept.
        """
        places = {path: place for place, path in enumerate(self.paths)}
        images_kept = np.array([places[path] for path in paths], np.int64)
        categories_kept = np.array([self.categories.index(name) for name in categories], np.int64)
        image, category = np.full(len(self.paths), _NONE), np.full(len(self.categories), _NONE)  # new indices
        image[images_kept], category[categories_kept] = np.arange(len(paths)), np.arange(len(categories))
        columns = {name: getattr(self, name)[pairs] for name in _OF_PAIRS}
        columns |= {"image": image[columns["image"]], "category": category[columns["category"]]}
        found = self.detections
        boxes = found._replace(image=image[found.image], category=category[found.category])
        kept = np.flatnonzero((boxes.image != _NONE) & (boxes.category != _NONE))
        return Judged(
            categories=list(categories),
            paths=list(paths),
            sizes=self.sizes[images_kept],
            **columns,
            detections=boxes.some(kept[np.argsort(boxes.image[kept], kind="stable")]),
            matching=dataclasses.replace(
                self.matching,
                truths={path: self.matching.truths[path] for path in paths},
                categories=sorted(set(self.matching.categories) & set(categories)),
            ),
            settings=self.settings,
        )

    def sampled(self, most: int) -> "Judged":
        """Keeps at most `most` of the images that have a pair, by the rule of `pipeline.sampling`.

        If there are no more than `most`, returns the run unchanged.
        """
        with_pairs = np.unique(self.image).tolist()
        if len(with_pairs) <= most:
            return self
        chosen = sorted(sampling.first(with_pairs, most, self.paths.__getitem__))
        pairs = np.flatnonzero(np.isin(self.image, chosen))
        return self.restricted([self.paths[place] for place in chosen], self.categories, pairs)


def check_libraries() -> None:
    """Raises a CallError if a library of the `eval` extra is missing."""
    for library in ("pycocotools", "sklearn"):
        if importlib.util.find_spec(library) is None:
            raise CallError(
                f'judging boxes needs {library}, which is not installed: pip install ".[eval]" (in the clone)'
            )


def judge(run: PlannedRun, truth: GroundTruth, reporter: Reporter = LOG) -> Judged:
    """Judges the boxes of a finished run.

    Raises:
      CallError: nothing matches, or no labelled pair has a true box.
    """
    matching = match(run, truth)
    rows = _read(run, matching, reporter)
    truths, categories = list(matching.truths.values()), [category.name for category in run.categories]

    def keys(columns: Columns) -> np.ndarray:
        """One number for each image and category: int64."""
        return columns["image"] * len(categories) + columns["category"]

    labels = _some(rows.labels, np.isin(categories, matching.categories)[rows.labels["category"]])
    boxes = _some(rows.boxes, np.isin(keys(rows.boxes), keys(labels)))
    true_of_label = [
        truths[image].boxes.get(categories[category])
        for image, category in zip(labels["image"].tolist(), labels["category"].tolist(), strict=True)
    ]
    true = [boxes_of_label for boxes_of_label in true_of_label if boxes_of_label is not None]
    if not true:
        raise CallError(
            f"none of the {counted(len(matching.truths), 'image')} that run and ground truth {truth.source!r} share "
            "has a true box of a category that it is labelled with; expected labels and boxes of the same things"
        )
    pairs = _some(labels, np.array([boxes_of_label is not None for boxes_of_label in true_of_label]))
    score = np.where(np.isnan(boxes["calibrated_score"]), boxes["score"], boxes["calibrated_score"])
    own = _own_boxes(keys(pairs), keys(boxes), score, boxes["rank"])
    has_box, own_iou = own != _NONE, np.zeros(len(own))
    own_iou[has_box] = _best_ious(boxes["bbox"][own[has_box]], list(itertools.compress(true, has_box)))
    of_own = {
        name: np.append(values, np.nan)[own]
        for name, values in (("score", score), ("raw_score", boxes["score"]), ("calibrated", boxes["calibrated_score"]))
    }
    names = set(matching.categories)
    return Judged(
        categories=categories,
        paths=list(matching.truths),
        sizes=rows.sizes,
        image=pairs["image"],
        category=pairs["category"],
        iou=own_iou,
        **of_own,
        centre=_best_ious(floor_boxes(rows.sizes[pairs["image"]], CENTRE), true),
        whole=_best_ious(floor_boxes(rows.sizes[pairs["image"]], 1.0), true),
        top1=_among_first(rows.top5, pairs, 1),
        top5=_among_first(rows.top5, pairs, 5),
        detections=Boxes(boxes["image"], boxes["category"], boxes["bbox"], score, np.zeros(len(score), bool)),
        matching=dataclasses.replace(
            matching,
            labelled_without_class=int((rows.labels["class_index"] == _NONE).sum()),
            labelled_without_true_box=len(true_of_label) - len(true),
            true_without_label=sum(len(names & image.boxes.keys()) for image in truths) - len(true),
        ),
        settings=run.recorded_settings(),
    )


def judged_rows(run: PlannedRun, matching: Matching, columns: list[str]) -> Iterator[pa.Table]:
    """The judged images' rows, one table for each shard that has any; `columns` must include "path"."""
    for _, rows in run.tables(columns):
        judged = [path in matching.truths for path in rows["path"].to_pylist()]
        if any(judged):
            yield rows.filter(pa.array(judged))


def floor_boxes(sizes: np.ndarray, share: float) -> np.ndarray:
    """A centred box with a share of each side, for each of sizes [images, 2]: float64 [images, 4]."""
    return np.concatenate([(1 - share) / 2 * sizes, share * sizes], axis=1)


class _Rows(NamedTuple):
    """The judged images' rows as columns, in the order of their ids. `image` is the index of an entry's image."""

    sizes: np.ndarray  # int64 [images, 2], width and height
    labels: Columns  # image, category, class_index, sorted by image, then by category
    top5: Columns  # image, class_index, for each image the network's first classes in their order
    boxes: Columns  # image, category, rank, bbox, score, calibrated_score


def _read(run: PlannedRun, matching: Matching, reporter: Reporter) -> _Rows:
    tables: dict[str, list[pa.Table]] = {"labels": [], "top5": [], "boxes": []}
    sizes, first = [], 0
    with reporter.progress(len(matching.truths), "image", "comparing with the true boxes") as advance:
        for rows in judged_rows(run, matching, ["path", "width", "height", *tables]):
            sizes.append(np.stack([rows[name].to_numpy() for name in ("width", "height")], axis=1).astype(np.int64))
            tables["labels"].append(_entries(rows["labels"], first, ["category_id", "class_index"]))
            tables["top5"].append(_entries(rows["top5"], first, ["class_index"]))
            fields = ["category_id", "rank", "bbox", "score", "calibrated_score"]
            tables["boxes"].append(_entries(rows["boxes"], first, fields))
            first += len(rows)
            advance(len(rows))
    labels, top5, boxes = (_columns(pa.concat_tables(of_shards)) for of_shards in tables.values())
    return _Rows(np.concatenate(sizes), _some(labels, np.lexsort([labels["category"], labels["image"]])), top5, boxes)


def _entries(lists: pa.ChunkedArray, first: int, fields: Sequence[str]) -> pa.Table:
    """The entries of a column of lists, with some of their fields and `image`, which counts rows from `first`."""
    rows = lists.combine_chunks()
    entries = pc.list_flatten(rows)
    image = pc.add(pc.list_parent_indices(rows), first)
    return pa.table({"image": image} | {field: pc.struct_field(entries, field) for field in fields})


def _columns(entries: pa.Table) -> Columns:
    """A table's columns, int64 or float64 [entries]; bbox is float64 [entries, 4]; category ids become indices."""
    found = {}
    for name in entries.column_names:
        column = entries[name].combine_chunks()
        if name == "bbox":
            found[name] = column.flatten().to_numpy().reshape(-1, 4)
            continue
        values = column.fill_null(_NULLS.get(name, 0)).to_numpy()
        found[name] = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    if "category_id" in found:
        found["category"] = found.pop("category_id") - 1
    return found


def _some(columns: Columns, which: np.ndarray) -> Columns:
    return {name: column[which] for name, column in columns.items()}


def _own_boxes(pairs: np.ndarray, boxes: np.ndarray, score: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """The index of each pair's own box, intp [pairs]; _NONE if there is none.

    `pairs` and `boxes` are int64 keys. The highest score wins, of equal scores the lowest rank.
    """
    order = np.lexsort([rank, -score, boxes])
    with_box, first = np.unique(boxes[order], return_index=True)
    own = np.full(len(pairs), _NONE)
    has_box = np.isin(pairs, with_box)
    own[has_box] = order[first[np.searchsorted(with_box, pairs[has_box])]]
    return own


def _among_first(top5: Columns, pairs: Columns, number: int) -> np.ndarray:
    """Whether each pair's class is among the network's first `number` classes of its image: bool [pairs]."""
    image = top5["image"]
    first = np.arange(len(image)) - np.searchsorted(image, image) < number
    classes = 1 + max(columns["class_index"].max(initial=0) for columns in (top5, pairs))
    key, first_key = (columns["image"] * classes + columns["class_index"] for columns in (pairs, _some(top5, first)))
    return np.isin(key, first_key) & (pairs["class_index"] != _NONE)


def _best_ious(boxes: np.ndarray, true: Sequence[np.ndarray]) -> np.ndarray:
    """`best_iou` of each of boxes [boxes, 4] with true boxes of its own: float64 [boxes]."""
    if not len(boxes):
        return np.zeros(0)
    counts = [len(each) for each in true]
    ious = iou(np.repeat(boxes, counts, axis=0), np.concatenate(true))
    return np.maximum.reduceat(ious, np.cumsum([0, *counts[:-1]]))
