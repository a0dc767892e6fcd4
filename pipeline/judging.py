"""A run's boxes beside the true ones: for every labelled pair of an image and a category how well they agree.

`judge` looks at the boxes that the run has; `redraw` draws others, from its maps at every threshold, which takes by far
the longer, so that `sampled` may choose the images. Nothing here is a figure yet: `figures` makes those, for all images
or for a resample of them.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.ground_truth import GroundTruth, TrueImage
from camboxes.pipeline.matching import Matching, match
from camboxes.transforms import BoxRule, PlannedRun, storage, wsol
from camboxes.transforms.boxes import Threshold, WorkingMap, best_iou
from camboxes.transforms.draw import working_map
from camboxes.transforms.maps import StoredMap
from camboxes.transforms.plan import shard_file
from camboxes.transforms.records import Shard, score_of
from camboxes.transforms.second_look import merge

THRESHOLDS = np.arange(2, 92, 2) / 100
OTSU_SHARES = np.arange(30, 151, 5) / 100
CENTRE = 0.8  # of each side: the floor that a figure is read against
LITERATURE_STEP = 0.001  # of the thresholds of the literature's rule
MOST_REDRAWN = 1000  # images; a share of that many has a standard error of 1.6 points at the most

_ALL_THRESHOLDS: list[Threshold] = [*THRESHOLDS.tolist(), *(f"{share}*otsu" for share in OTSU_SHARES)]

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
    literature: wsol.BoxCounts


def judge(run: PlannedRun, truth: GroundTruth) -> Judged:
    """Judges the boxes of a finished run, one shard after the other.

    Raises:
      CallError: nothing matches, or no labelled pair has a true box.
    """
    matching = match(run, truth)
    settings = Shard("", storage.read_table(shard_file(run.output, next(iter(run.shards))), [])).settings
    categories = [category.name for category in run.categories]
    judged = set(matching.categories)
    images: list[_OfImage] = []
    counts: collections.Counter[str] = collections.Counter()
    rows = _rows(run, matching, ["path", "width", "height", "labels", "top5", "boxes"])
    for row in tqdm(rows, total=len(matching.truths), unit="image", disable=None):
        images.append(_judge_image(row, matching.truths[row["path"]], judged))
        counts.update(images[-1].counts)
    pairs = [pair for image in images for pair in image.pairs]
    if not pairs:
        raise CallError(
            f"none of the {len(images)} images that run and ground truth {truth.source!r} share has a true box of a "
            "category that it is labelled with; expected labels and boxes of the same things"
        )
    boxes = [box for image in images for box in image.boxes]
    numbers = {path: number for number, path in enumerate(matching.truths)}
    return Judged(
        categories=categories,
        paths=list(matching.truths),
        sizes=np.array([image.size for image in images], np.int64),
        image=np.array([numbers[image.path] for image in images for _ in image.pairs], np.int64),
        category=np.array([pair.category for pair in pairs], np.int64),
        iou=np.array([pair.iou for pair in pairs]),
        score=np.array([pair.score for pair in pairs]),
        raw_score=np.array([pair.raw_score for pair in pairs]),
        calibrated=np.array([pair.calibrated for pair in pairs]),
        centre=np.array([pair.centre for pair in pairs]),
        whole=np.array([pair.whole for pair in pairs]),
        top1=np.array([pair.top1 for pair in pairs]),
        top5=np.array([pair.top5 for pair in pairs]),
        detections=Detections(
            np.array([numbers[image.path] for image in images for _ in image.boxes], np.int64),
            np.array([box["category_id"] - 1 for box in boxes], np.int64),
            np.array([box["bbox"] for box in boxes], np.float64).reshape(-1, 4),
            np.array([score_of(box) for box in boxes], np.float64),
        ),
        matching=dataclasses.replace(
            matching,
            labelled_without_class=counts["labelled_without_class"],
            labelled_without_true_box=counts["labelled_without_true_box"],
            true_without_label=counts["true_without_label"],
        ),
        settings=settings,
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
    literature = wsol.BoxCounts.none(LITERATURE_STEP)
    rows = _rows(run, judged.matching, ["path", "width", "height", "labels", "maps"])
    for row in tqdm(rows, total=len(judged.paths), unit="image", disable=None):
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
    """What was judged on at most so many of the images that have a pair: those whose paths have the smallest hashes.

    The same paths give the same images, in whatever order they come. Where there are no more, `judged` as it is.
    """
    with_pairs = np.unique(judged.image).tolist()
    if len(with_pairs) <= most:
        return judged
    hashes = {place: hashlib.sha256(judged.paths[place].encode()).digest() for place in with_pairs}
    chosen = sorted(sorted(with_pairs, key=hashes.__getitem__)[:most])
    pairs = np.flatnonzero(np.isin(judged.image, chosen))
    return restricted(judged, [judged.paths[place] for place in chosen], judged.categories, pairs)


def floor_box(width: float, height: float, share: float) -> list[float]:
    """A centred box of a share of each side."""
    return [(1 - share) / 2 * width, (1 - share) / 2 * height, share * width, share * height]


_Placed = tuple[Sequence[int], WorkingMap]  # the rectangle of the image that a map covers, and the map


class _Pair(NamedTuple):
    """A pair's entries in `Judged`; `category` counts from 0."""

    category: int
    iou: float
    score: float
    raw_score: float
    calibrated: float
    centre: float
    whole: float
    top1: bool
    top5: bool


class _OfImage(NamedTuple):
    """What an image adds to `Judged`: boxes are rows' boxes, counts are fields of `Matching`."""

    path: str
    size: tuple[int, int]
    pairs: list[_Pair]
    boxes: list[Row]
    counts: dict[str, int]


class _RedrawnPair(NamedTuple):
    """What a pair adds to `Redrawn`; `iou_at` is float64 [_ALL_THRESHOLDS]."""

    iou_at: np.ndarray
    literature: wsol.BoxCounts


def _rows(run: PlannedRun, matching: Matching, columns: list[str]) -> Iterator[Row]:
    """The judged images' rows, read shard by shard."""
    for key in run.shards:
        rows = storage.read_table(shard_file(run.output, key), columns)
        yield from (row for row in rows.to_pylist() if row["path"] in matching.truths)


def _judge_image(row: Row, true: TrueImage, categories: set[str]) -> _OfImage:
    labels = sorted(
        (label for label in row["labels"] if label["label"] in categories), key=lambda label: label["category_id"]
    )
    with_truth = [label for label in labels if label["label"] in true.boxes]
    ids = {label["category_id"] for label in labels}
    return _OfImage(
        path=row["path"],
        size=(row["width"], row["height"]),
        pairs=[_judge_pair(row, label, true.boxes[label["label"]]) for label in with_truth],
        boxes=[box for box in row["boxes"] if box["category_id"] in ids],
        counts={
            "labelled_without_class": sum(label["class_index"] is None for label in row["labels"]),
            "labelled_without_true_box": len(labels) - len(with_truth),
            "true_without_label": len(categories & set(true.boxes)) - len(with_truth),
        },
    )


def _judge_pair(row: Row, label: Row, truth: np.ndarray) -> _Pair:
    boxes = [box for box in row["boxes"] if box["category_id"] == label["category_id"]]
    own = min(boxes, key=lambda box: (-score_of(box), box["rank"])) if boxes else None
    floors = np.array([floor_box(row["width"], row["height"], share) for share in (CENTRE, 1.0)])
    centre, whole = best_iou(floors, truth)
    first = [found["class_index"] for found in row["top5"]]
    return _Pair(
        category=label["category_id"] - 1,
        iou=0.0 if own is None else float(best_iou(np.array([own["bbox"]]), truth)[0]),
        score=np.nan if own is None else score_of(own),
        raw_score=np.nan if own is None else own["score"],
        calibrated=np.nan if own is None or own["calibrated_score"] is None else own["calibrated_score"],
        centre=float(centre),
        whole=float(whole),
        top1=label["class_index"] in first[:1],
        top5=label["class_index"] in first[:5],
    )


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


def _by_the_literature(row: Row, stored: StoredMap, truth: np.ndarray) -> wsol.BoxCounts:
    """A pair's points on the literature's curves, from the map as it is stored."""
    values = stored.raw_min + stored.cells / 255 * (stored.raw_max - stored.raw_min)
    corners = np.concatenate([truth[:, :2], truth[:, :2] + truth[:, 2:]], axis=1)
    scaled = wsol.scale_boxes(corners.tolist(), row["width"], row["height"])
    return wsol.BoxCounts.of(row["path"], wsol.scale_map(values), scaled, LITERATURE_STEP)


_OF_PAIRS = ("image", "category", "iou", "score", "raw_score", "calibrated", "centre", "whole", "top1", "top5")


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
