"""Prepares the section of report.html on true boxes: figures, curves, and the best and worst boxes.

Its size is bounded for a run of any size. `evaluation.html.jinja` lays it out. Curves and histograms are in shares from
0 to 1, figures in percent.
"""

import collections
import math
from collections.abc import Set
from typing import NamedTuple

import numpy as np

from camboxes.pipeline.evaluation.average_precision import Boxes, match_boxes
from camboxes.pipeline.evaluation.figures import HEADLINE, IOUS, NAMES, ClassFigures, Evaluation, Figure, true_boxes
from camboxes.pipeline.evaluation.judging import Judged
from camboxes.pipeline.evaluation.redrawing import Redrawn
from camboxes.pipeline.evaluation.reliability import Trust, trust
from camboxes.transforms.boxes.from_map import Cut, best_iou

FEWEST_TO_TRUST = 20  # boxes; with fewer a reliability diagram is noise

_BINS = 20  # of a histogram
_POINTS = 200  # of a curve, at most
_CLASSES = 40  # at most
_BEST, _WORST = 12, 24
_OF_ONE_CLASS = 2  # of the best, and of the worst, if there are enough classes

Point = tuple[float, float]


class AccuracyCurves(NamedTuple):
    """Share of pairs whose box is right, as a function of the threshold."""

    images: int  # number of photographs
    curves: dict[float, list[Point]]  # for each of IOUS the points (threshold, share)
    own: float | None  # the run's own threshold; None if it is not one number for all maps
    centre: float  # the share at IoU 0.5 for a centred box of 80% of each side
    top: float  # end of the axis of shares


class PrecisionRecall(NamedTuple):
    """Precision over recall at IoU 0.5, all boxes in one ranking."""

    points: list[Point]  # (recall, precision), by descending score
    top: float  # end of the axis of recall


class Ious(NamedTuple):
    """A histogram of the pairs' IoU."""

    counts: list[int]  # number of pairs whose IoU is in each of _BINS equal parts of [0, 1]
    without_box: int  # number of pairs without a box; they count at 0
    top: float  # end of the axis of shares


class Reliability(NamedTuple):
    """How good calibrated scores are on images that they were not fitted to."""

    trust: Trust | None  # None if there are fewer than FEWEST_TO_TRUST boxes
    boxes: int  # number of judged boxes
    left_out: int  # number of boxes on images that the scores were fitted to
    base_rate: float  # the constant score that they are compared with


class Example(NamedTuple):
    """A pair of an image and a label to show; boxes are x, y, width, height in pixels of the upright image."""

    path: str  # the run's
    width: int
    height: int
    label: str
    iou: float  # of its box; 0 if there is none
    score: float | None  # of its box as in results.json; None if there is none
    box: list[float] | None
    true: list[list[float]]  # the true boxes of the label


class Section(NamedTuple):
    """The values that the template shows."""

    images: int  # number of judged images
    pairs: int  # number of judged pairs
    names: dict[str, str]  # titles of the headline figures
    figures: dict[str, Figure]  # the headline figures, each with its interval and the two floors
    accuracy: AccuracyCurves
    precision_recall: PrecisionRecall
    ious: Ious
    reliability: Reliability | None  # None if scores are not calibrated
    classes: dict[str, ClassFigures]  # the most frequent categories
    all_classes: int  # number of categories that have pairs
    best: list[Example]  # pairs of the highest IoU; of equals, those of the highest score
    worst: list[Example]  # pairs of the lowest IoU, likewise


def section(judged: Judged, redrawn: Redrawn, evaluation: Evaluation, fitted: Set[str]) -> Section:
    """Prepares the section on a judged run and its figures.

    Curves over thresholds are of the images of `redrawn`: the same run or a sample of it. `fitted` are the paths of the
    images that the run's scores were calibrated on; figures on them would flatter.
    """
    with_pairs = {name: of_class for name, of_class in evaluation.classes.items() if of_class.pairs}
    most = sorted(with_pairs, key=lambda name: (-with_pairs[name].pairs, name))[:_CLASSES]
    best, worst = _examples(judged)
    return Section(
        images=len(judged.paths),
        pairs=len(judged.image),
        names={name: NAMES[name] for name in HEADLINE},
        figures={name: evaluation.figures[name] for name in HEADLINE},
        accuracy=_accuracy(redrawn),
        precision_recall=_precision_recall(judged),
        ious=_ious(judged),
        reliability=_reliability(judged, fitted),
        classes={name: with_pairs[name] for name in most},
        all_classes=len(with_pairs),
        best=best,
        worst=worst,
    )


def _accuracy(judged: Redrawn) -> AccuracyCurves:
    shares = {delta: (judged.iou_at >= delta).mean(axis=0).tolist() for delta in IOUS}
    curves = {delta: list(zip(judged.thresholds.tolist(), curve, strict=True)) for delta, curve in shares.items()}
    rule = judged.settings["rule"]
    threshold = Cut.parse(rule["threshold"])
    own = None if threshold.otsu or rule.get("thresholds") else threshold.share
    centre = float((judged.centre >= 0.5).mean())
    return AccuracyCurves(len(judged.paths), curves, own, centre, _top(max(centre, *map(max, shares.values()))))


def _precision_recall(judged: Judged) -> PrecisionRecall:
    """Like AP, this leaves out categories without a true box."""
    true = true_boxes(judged)
    drawn = judged.detections.some(np.isin(judged.detections.category, true.category[~true.crowd]))
    [matches] = match_boxes(*(_as_one_category(boxes, len(judged.categories)) for boxes in (true, drawn)))
    hits, misses = matches.hit[0], matches.miss[0]
    hits, misses = (np.cumsum(kind[hits | misses]) for kind in (hits, misses))
    if not len(hits):
        return PrecisionRecall([], 1.0)
    shown = np.unique(np.linspace(0, len(hits) - 1, _POINTS).round().astype(int))
    recall, precision = hits / len(matches.true_image), hits / (hits + misses)
    points = list(zip(recall[shown].tolist(), precision[shown].tolist(), strict=True))
    return PrecisionRecall(points, _top(float(recall[-1])))


def _as_one_category(boxes: Boxes, categories: int) -> Boxes:
    """Turns each category of an image into an image of its own: boxes match as before, but in one ranking."""
    return boxes._replace(image=boxes.image * categories + boxes.category, category=np.zeros_like(boxes.category))


def _ious(judged: Judged) -> Ious:
    counts = np.bincount(np.minimum((judged.iou * _BINS).astype(int), _BINS - 1), minlength=_BINS)
    return Ious(counts.tolist(), int(np.isnan(judged.score).sum()), _top(float(counts.max() / counts.sum())))


def _reliability(judged: Judged, fitted: Set[str]) -> Reliability | None:
    calibrated = ~np.isnan(judged.calibrated)
    if not calibrated.any():
        return None
    known = np.array([path in fitted for path in judged.paths])[judged.image]
    unseen, right = calibrated & ~known, judged.iou >= 0.5
    boxes, left_out = int(unseen.sum()), int((calibrated & known).sum())
    # The constant should not be fitted to these boxes. If no other boxes are judged, it has to be.
    base_rate = float(right[calibrated & known if left_out else unseen].mean())
    enough = boxes >= FEWEST_TO_TRUST
    trusted = trust(judged.calibrated[unseen], right[unseen], base_rate) if enough else None
    return Reliability(trusted, boxes, left_out, base_rate)


def _examples(judged: Judged) -> tuple[list[Example], list[Example]]:
    """The best and the worst pairs. At most a third of the pairs are among the best."""
    score = np.nan_to_num(judged.score, nan=-1.0)
    best = _spread(judged, np.lexsort([-score, -judged.iou]), min(_BEST, math.ceil(len(score) / 3)))
    others = [pair for pair in np.lexsort([-score, judged.iou]).tolist() if pair not in best]
    worst = _spread(judged, np.array(others, int), _WORST)
    return [_example(judged, pair) for pair in best], [_example(judged, pair) for pair in worst]


def _spread(judged: Judged, order: np.ndarray, most: int) -> list[int]:
    """The first `most` pairs of an order, with few of any one class."""
    of_one_class = max(_OF_ONE_CLASS, math.ceil(most / len(np.unique(judged.category))))
    taken: collections.Counter[int] = collections.Counter()
    chosen: list[int] = []
    for pair, category in zip(order.tolist(), judged.category[order].tolist(), strict=True):
        if len(chosen) < most and taken[category] < of_one_class:
            taken[category] += 1
            chosen.append(pair)
    return chosen


def _example(judged: Judged, pair: int) -> Example:
    image, category = int(judged.image[pair]), int(judged.category[pair])
    path, label = judged.paths[image], judged.categories[category]
    true = judged.matching.truths[path].boxes[label]
    iou, score, box = float(judged.iou[pair]), None, None
    if not math.isnan(judged.score[pair]):
        score, found = float(judged.score[pair]), judged.detections
        boxes = found.bbox[(found.image == image) & (found.category == category) & (found.score == score)]
        box = boxes[np.abs(best_iou(boxes, true) - iou).argmin()].tolist()  # of those with its score, that with its IoU
    width, height = judged.sizes[image].tolist()
    return Example(path, width, height, label, iou, score, box, true.tolist())


def _top(most: float) -> float:
    """The end of an axis that has room for the share `most`, and that four ticks divide well."""
    return next(top for top in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if top >= most)
