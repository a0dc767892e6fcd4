"""A run's boxes beside the true ones: for every labelled pair of an image and a category how well they agree.

`judge` looks at the boxes that the run has; `redraw` draws others, from its maps at every threshold, which takes by far
the longer, so that `sampled` may choose the images. Nothing here is a figure yet: `figures` makes those, for all images
or for a resample of them.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from camboxes.pipeline import sampling
from camboxes.pipeline.errors import CallError
from camboxes.pipeline.evaluation.matching import Matching, match
from camboxes.pipeline.formats.ground_truth import GroundTruth
from camboxes.transforms import BoxRule, PlannedRun
from camboxes.transforms.boxes.from_map import Threshold, WorkingMap, best_iou, iou
from camboxes.transforms.boxes.second_look import merge
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.boxes_from_maps import working_map
from camboxes.transforms.wsol import metrics

THRESHOLDS = np.arange(2, 92, 2) / 100
OTSU_SHARES = np.arange(30, 151, 5) / 100
CENTRE = 0.8  # of each side: the floor that a figure is read against
LITERATURE_STEP = 0.001  # of the thresholds of the literature's rule
MOST_REDRAWN = 1000  # images; a share of that many has a standard error of 1.6 points at the most

_ALL_THRESHOLDS: list[Threshold] = [*THRESHOLDS.tolist(), *(f"{share}*otsu" for share in OTSU_SHARES)]

_NO_CLASS = _NO_BOX = -1

Row = Mapping[str, Any]


class Detections(NamedTuple):
    """All boxes that the run has in the judged images and categories, as results.json holds them.

    Attributes:
      image, category: int64 [boxes], as in `Judged`.
      bbox: float64 [boxes, 4], x, y, width, height in pixels.
      score: float64 [boxes], calibrated where it is.
    """

    image: np.ndarray
    category: np.ndarray
    bbox: np.ndarray
    score: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """Every labelled pair of a judged image and a judged category that has true boxes there.

    In the order of the image's id, then of the category's. A pair's own box is the label's of highest score (calibrated
    where it is), among equals of lowest rank; its IoU is that with the best true box.

    Attributes:
      categories: names of the run, in the order of their ids.
      paths: of the judged images, also those without such a pair, in the order of their ids.
      sizes: int64 [images, 2], width and height in pixels.
      image, category: int64 [pairs], indices into paths and categories.
      iou: float64 [pairs], of the own box; 0 where there is no box.
      score: float64 [pairs], of the own box as results.json carries it; NaN where there is no box.
      raw_score, calibrated: float64 [pairs], likewise, before and after calibration; NaN where there is none.
      centre, whole: float64 [pairs], IoU of a centred box of 80% of each side, and of the whole image.
      top1, top5: bool [pairs], whether the label's class is the network's first, or among its first five.
      detections: every box of the run.
      matching: what is judged, and what was left out.
      settings: what the run's shards were made with, its box rule under "rule".
    """

    categories: list[str]
    paths: list[str]
    sizes: np.ndarray
    image: np.ndarray
    category: np.ndarray
    iou: np.ndarray
    score: np.ndarray
    raw_score: np.ndarray
    calibrated: np.ndarray
    centre: np.ndarray
    whole: np.ndarray
    top1: np.ndarray
    top5: np.ndarray
    detections: Detections
    matching: Matching
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Redrawn(Judged):
    """What was judged, and what other thresholds make of the pairs.

    Attributes:
      thresholds: float64 [thresholds].
      otsu_shares: float64 [shares], thresholds as shares of the Otsu level.
      iou_at: float32 [pairs, thresholds], IoU of the own box that the run's rule gives with each of them for its own.
      iou_at_otsu: float32 [pairs, shares], likewise.
      literature: by the rule of `transforms.wsol`, from the stored maps, over the pairs.
    """

    thresholds: np.ndarray
    otsu_shares: np.ndarray
    iou_at: np.ndarray
    iou_at_otsu: np.ndarray
    literature: metrics.BoxCounts


def judge(run: PlannedRun, truth: GroundTruth) -> Judged:
    """Judges the boxes of a finished run, one shard after the other.

    Raises:
      CallError: nothing matches, or no labelled pair has a true box.
    """
    matching = match(run, truth)
    categories = [category.name for category in run.categories]
    of_shards: list[_OfShard] = []
    first = 0
    counts: collections.Counter[str] = collections.Counter()
    with tqdm(total=len(matching.truths), unit="image", disable=None) as bar:
        for rows in _rows(run, matching, ["path", "width", "height", "labels", "top5", "boxes"]):
            of_shards.append(_judge_shard(rows, matching, categories, first))
            counts.update(of_shards[-1].counts)
            first += len(rows)
            bar.update(len(rows))
    pairs = {name: np.concatenate([of_shard.pairs[name] for of_shard in of_shards]) for name in _OF_PAIRS}
    if not len(pairs["image"]):
        raise CallError(
            f"none of the {len(matching.truths)} images that run and ground truth {truth.source!r} share has a true "
            "box of a category that it is labelled with; expected labels and boxes of the same things"
        )
    return Judged(
        categories=categories,
        paths=list(matching.truths),
        sizes=np.concatenate([of_shard.sizes for of_shard in of_shards]),
        **pairs,
        detections=Detections(*map(np.concatenate, zip(*(of_shard.boxes for of_shard in of_shards), strict=True))),
        matching=dataclasses.replace(
            matching,
            labelled_without_class=counts["labelled_without_class"],
            labelled_without_true_box=counts["labelled_without_true_box"],
            true_without_label=counts["true_without_label"],
        ),
        settings=run.recorded_settings(),
    )


def redraw(run: PlannedRun, judged: Judged) -> Redrawn:
    """Draws the boxes of every judged pair again from the run's stored maps, at each threshold.

    Raises:
      CallError: a judged pair has no stored map.
    """
    rule = BoxRule(**judged.settings["rule"])
    pairs_of: dict[str, list[int]] = collections.defaultdict(list)
    for pair, image in enumerate(judged.image.tolist()):
        pairs_of[judged.paths[image]].append(pair)

    iou_at = np.empty((len(judged.image), len(_ALL_THRESHOLDS)), np.float32)
    literature = metrics.BoxCounts.none(LITERATURE_STEP)
    rows = _rows(run, judged.matching, ["path", "width", "height", "labels", "maps"])
    every = itertools.chain.from_iterable(of_shard.to_pylist() for of_shard in rows)
    for row in tqdm(every, total=len(judged.paths), unit="image", disable=None):
        labels = {label["label"]: label for label in row["labels"]}
        for pair in pairs_of.get(row["path"], ()):
            name = judged.categories[judged.category[pair]]
            redrawn = _redraw_pair(row, labels[name], judged.matching.truths[row["path"]].boxes[name], rule)
            iou_at[pair] = redrawn.iou_at
            literature += redrawn.literature
    return Redrawn(
        **vars(judged),
        thresholds=THRESHOLDS,
        otsu_shares=OTSU_SHARES,
        iou_at=iou_at[:, : len(THRESHOLDS)],
        iou_at_otsu=iou_at[:, len(THRESHOLDS) :],
        literature=literature,
    )


def sampled(judged: Judged, most: int) -> Judged:
    """What was judged on a sample by path of the images that have a pair; `judged` as it is where there are no more."""
    with_pairs = np.unique(judged.image).tolist()
    if len(with_pairs) <= most:
        return judged
    chosen = sorted(sampling.first(with_pairs, most, judged.paths.__getitem__))
    pairs = np.flatnonzero(np.isin(judged.image, chosen))
    return restricted(judged, [judged.paths[place] for place in chosen], judged.categories, pairs)


def floor_boxes(sizes: np.ndarray, share: float) -> np.ndarray:
    """A centred box of a share of each side, for each of sizes [images, 2]: float64 [images, 4]."""
    return np.concatenate([(1 - share) / 2 * sizes, share * sizes], axis=1)


_OF_PAIRS = ("image", "category", "iou", "score", "raw_score", "calibrated", "centre", "whole", "top1", "top5")
_Columns = dict[str, np.ndarray]  # of what a shard holds of one kind, by name
_Placed = tuple[Sequence[int], WorkingMap]  # the rectangle of the image that a map covers, and the map


class _OfShard(NamedTuple):
    """What a shard adds to `Judged`.

    Attributes:
      sizes: int64 [images, 2].
      pairs: those of _OF_PAIRS.
      boxes: of `Judged.detections`.
      counts: fields of `Matching`.
    """

    sizes: np.ndarray
    pairs: _Columns
    boxes: Detections
    counts: dict[str, int]


class _RedrawnPair(NamedTuple):
    """What a pair adds to `Redrawn`; `iou_at` is float64 [_ALL_THRESHOLDS]."""

    iou_at: np.ndarray
    literature: metrics.BoxCounts


def _rows(run: PlannedRun, matching: Matching, columns: list[str]) -> Iterator[pa.Table]:
    """The judged images' rows of one shard after another that has any."""
    for _, rows in run.tables(columns):
        judged = [path in matching.truths for path in rows["path"].to_pylist()]
        if any(judged):
            yield rows.filter(pa.array(judged))


def _judge_shard(rows: pa.Table, matching: Matching, categories: list[str], first: int) -> _OfShard:
    """Judges all pairs of a shard together.

    Args:
      rows: of its judged images.
      matching: what is judged, and the true boxes.
      categories: of the run.
      first: the index of the first of these images.
    """
    truths = [matching.truths[path] for path in rows["path"].to_pylist()]
    sizes = np.stack([rows[name].to_numpy() for name in ("width", "height")], axis=1).astype(np.int64)
    labels, boxes = _labels(rows["labels"]), _boxes(rows["boxes"])
    counts = {"labelled_without_class": int((labels["class_index"] == _NO_CLASS).sum())}
    labels = _some(labels, np.isin(categories, matching.categories)[labels["category"]])
    boxes = _some(boxes, np.isin(_place(boxes, categories), _place(labels, categories)))

    places = zip(labels["row"].tolist(), labels["category"].tolist(), strict=True)
    found = [truths[row].boxes.get(categories[category]) for row, category in places]
    truth = [true for true in found if true is not None]
    names = set(matching.categories)
    counts["labelled_without_true_box"] = len(found) - len(truth)
    counts["true_without_label"] = sum(len(names & image.boxes.keys()) for image in truths) - len(truth)
    pairs = _some(labels, np.array([true is not None for true in found], bool))

    own = _own_boxes(boxes, _place(boxes, categories), _place(pairs, categories))
    has_box, of_own = own != _NO_BOX, np.zeros(len(own))
    of_own[has_box] = _best_ious(boxes["bbox"][own[has_box]], list(itertools.compress(truth, has_box)))
    columns = {
        "image": pairs["row"] + first,
        "category": pairs["category"],
        "iou": of_own,
        **{name: np.append(boxes[name], np.nan)[own] for name in ("score", "raw_score", "calibrated")},
        "centre": _best_ious(floor_boxes(sizes[pairs["row"]], CENTRE), truth),
        "whole": _best_ious(floor_boxes(sizes[pairs["row"]], 1.0), truth),
        "top1": _among_first(rows["top5"], pairs, 1),
        "top5": _among_first(rows["top5"], pairs, 5),
    }
    detections = Detections(boxes["row"] + first, boxes["category"], boxes["bbox"], boxes["score"])
    return _OfShard(sizes, columns, detections, counts)


def _labels(column: pa.ChunkedArray) -> _Columns:
    """A shard's labels by row, then by category: int64 [labels] row, category and class_index (_NO_CLASS for none)."""
    row, labels = _entries(column)
    category = _numbers(labels, "category_id") - 1
    found = {"row": row, "category": category, "class_index": _numbers(labels, "class_index", _NO_CLASS)}
    return _some(found, np.lexsort([category, row]))


def _boxes(column: pa.ChunkedArray) -> _Columns:
    """A shard's boxes as they stand.

    Returns:
      row, category, rank: int64 [boxes].
      bbox: float64 [boxes, 4].
      score, raw_score, calibrated: float64 [boxes], as in `Judged`.
    """
    row, boxes = _entries(column)
    raw_score, calibrated = _numbers(boxes, "score"), _numbers(boxes, "calibrated_score", np.nan)
    return {
        "row": row,
        "category": _numbers(boxes, "category_id") - 1,
        "rank": _numbers(boxes, "rank"),
        "bbox": pc.struct_field(boxes, "bbox").flatten().to_numpy().reshape(-1, 4),
        "score": np.where(np.isnan(calibrated), raw_score, calibrated),
        "raw_score": raw_score,
        "calibrated": calibrated,
    }


def _entries(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.StructArray]:
    """The row of each entry of a column of lists, int64 [entries], and the entries."""
    lists = column.combine_chunks()
    return pc.list_parent_indices(lists).to_numpy().astype(np.int64), pc.list_flatten(lists)


def _numbers(entries: pa.StructArray, name: str, null: float = 0) -> np.ndarray:
    """A field of each entry, int64 or float64 [entries]; `null` where it has none."""
    values = pc.struct_field(entries, name).fill_null(null).to_numpy()
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def _some(columns: _Columns, which: np.ndarray) -> _Columns:
    return {name: column[which] for name, column in columns.items()}


def _place(columns: _Columns, categories: Sequence[str]) -> np.ndarray:
    """A number for each row and category: int64."""
    return columns["row"] * len(categories) + columns["category"]


def _own_boxes(boxes: _Columns, of_boxes: np.ndarray, of_pairs: np.ndarray) -> np.ndarray:
    """Each pair's own box, see `Judged`: intp [pairs]; _NO_BOX where there is none. Both have their `_place`."""
    order = np.lexsort([boxes["rank"], -boxes["score"], of_boxes])
    places, first = np.unique(of_boxes[order], return_index=True)
    own = np.full(len(of_pairs), _NO_BOX)
    has_box = np.isin(of_pairs, places)
    own[has_box] = order[first[np.searchsorted(places, of_pairs[has_box])]]
    return own


def _among_first(top: pa.ChunkedArray, pairs: _Columns, number: int) -> np.ndarray:
    """Whether each pair's class is among the network's first so many of its row: bool [pairs]."""
    row, entries = _entries(top)
    class_index = _numbers(entries, "class_index")
    first = np.arange(len(row)) - np.searchsorted(row, row) < number
    classes = 1 + max(of.max(initial=0) for of in (class_index, pairs["class_index"]))
    looked_for = pairs["row"] * classes + pairs["class_index"]
    return np.isin(looked_for, (row * classes + class_index)[first]) & (pairs["class_index"] != _NO_CLASS)


def _best_ious(boxes: np.ndarray, truth: Sequence[np.ndarray]) -> np.ndarray:
    """`best_iou` of each box [boxes, 4] with true boxes of its own: float64 [boxes]."""
    if not len(boxes):
        return np.zeros(0)
    counts = [len(true) for true in truth]
    ious = iou(np.repeat(boxes, counts, axis=0), np.concatenate(truth))
    return np.maximum.reduceat(ious, np.cumsum([0, *counts[:-1]]))


def _redraw_pair(row: Row, label: Row, truth: np.ndarray, rule: BoxRule) -> _RedrawnPair:
    entries = [stored for stored in row["maps"] if stored["category_id"] == label["category_id"]]
    maps = [(stored["rectangle"], working_map(stored)) for stored in entries]
    if not maps:
        raise CallError(
            f"the run has no map of {label['label']!r} on {row['path']!r} to draw its boxes from at other "
            "thresholds; judge the run that camboxes label or rebox wrote, with its maps"
        )
    return _RedrawnPair(
        _iou_at_thresholds(maps, (row["width"], row["height"]), label["probability"], truth, rule),
        _by_the_literature(row, maps[0][1].stored, truth),
    )


def _iou_at_thresholds(
    maps: Sequence[_Placed], size: tuple[int, int], probability: float, truth: np.ndarray, rule: BoxRule
) -> np.ndarray:
    """IoU of the box that the rule gives at each threshold, chosen among several as the own box is."""
    if len(maps) == 1 and rule.boxes in ("largest", "peak"):
        found = maps[0][1].outlines(rule, _ALL_THRESHOLDS)
    else:
        found = []
        for threshold in _ALL_THRESHOLDS:
            at = dataclasses.replace(rule, threshold=threshold, thresholds={})
            seen = merge([(rectangle, working.draw(at)) for rectangle, working in maps], *size)
            own = max(seen, key=lambda box: round(probability * box.share, 6), default=None)  # among equals the first
            found.append(None if own is None else own.bbox)
    ious = np.zeros(len(found))
    drawn = [number for number, bbox in enumerate(found) if bbox is not None]
    if drawn:
        ious[drawn] = best_iou(np.array([found[number] for number in drawn]), truth)
    return ious


def _by_the_literature(row: Row, stored: StoredMap, truth: np.ndarray) -> metrics.BoxCounts:
    """A pair's points on the literature's curves, from the map as it is stored."""
    values = stored.raw_min + stored.cells / 255 * (stored.raw_max - stored.raw_min)
    corners = np.concatenate([truth[:, :2], truth[:, :2] + truth[:, 2:]], axis=1)
    scaled = metrics.scale_boxes(corners.tolist(), row["width"], row["height"])
    return metrics.BoxCounts.of(row["path"], metrics.scale_map(values), scaled, LITERATURE_STEP)


def restricted(judged: Judged, paths: Sequence[str], categories: Sequence[str], pairs: np.ndarray) -> Judged:
    """A part of what was judged, in an order of the caller's, so that two runs can be compared pair by pair.

    Boxes stay where their image and category do, whether or not their pair does. What `matching` says of left-out
    things is not counted anew.

    Args:
      judged: a judged run.
      paths: the images to keep.
      categories: the names to keep.
      pairs: int64 [pairs], indices of those to keep, each of an image and a category that are kept.
    """
    places = {path: place for place, path in enumerate(judged.paths)}
    numbers = {name: number for number, name in enumerate(judged.categories)}
    images_kept = np.array([places[path] for path in paths], np.int64)
    categories_kept = np.array([numbers[name] for name in categories], np.int64)
    image, category = np.full(len(places), -1), np.full(len(numbers), -1)
    image[images_kept] = np.arange(len(paths))
    category[categories_kept] = np.arange(len(categories))
    columns = {name: getattr(judged, name)[pairs] for name in _OF_PAIRS}
    columns |= {"image": image[columns["image"]], "category": category[columns["category"]]}
    found = judged.detections
    boxes = np.flatnonzero((image[found.image] >= 0) & (category[found.category] >= 0))
    boxes = boxes[np.argsort(image[found.image[boxes]], kind="stable")]
    return Judged(
        categories=list(categories),
        paths=list(paths),
        sizes=judged.sizes[images_kept],
        **columns,
        detections=Detections(
            image[found.image[boxes]], category[found.category[boxes]], found.bbox[boxes], found.score[boxes]
        ),
        matching=dataclasses.replace(
            judged.matching,
            truths={path: judged.matching.truths[path] for path in paths},
            categories=sorted(set(judged.matching.categories) & set(categories)),
        ),
        settings=judged.settings,
    )
