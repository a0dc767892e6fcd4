"""What report.html says where true boxes are given: the figures, the curves behind them, and the best and worst boxes.

All of it is of bounded size, whatever the run's; how it looks stands in `evaluation.html.jinja`. Curves and histograms
are in shares from 0 to 1, figures in percent.
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
from camboxes.pipeline.tuning.calibrating import Trust, trust
from camboxes.transforms.boxes.from_map import Cut, best_iou

FEWEST_TO_TRUST = 20  # boxes; below, a reliability diagram is noise

_BINS = 20  # of a histogram
_POINTS = 200  # of a curve, at most
_CLASSES = 40  # at most
_BEST, _WORST = 12, 24
_OF_ONE_CLASS = 2  # of the best, and of the worst, where there are classes enough
_TOPS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of an axis: those that four ticks divide well

Point = tuple[float, float]


class Accuracy(NamedTuple):
    """Share of pairs whose box is right, by the threshold that boxes are drawn at.

    Attributes:
      images: how many photographs it is of.
      curves: for each of IOUS points of threshold and share.
      own: the run's own threshold; None where it is not one number for all maps.
      centre: the share at IoU 0.5 of a centred box of 80% of each side.
      top: where the axis of shares ends.
    """

    images: int
    curves: dict[float, list[Point]]
    own: float | None
    centre: float
    top: float


class PrecisionRecall(NamedTuple):
    """Precision over recall at IoU 0.5, all boxes in one ranking.

    Attributes:
      points: of recall and precision, by descending score.
      top: where the axis of recall ends.
    """

    points: list[Point]
    top: float


class Ious(NamedTuple):
    """How well boxes fit.

    Attributes:
      counts: pairs by the IoU of their box, in _BINS equal parts of [0, 1].
      without_box: pairs that have none, and count at 0.
      top: where the axis of shares of pairs ends.
    """

    counts: list[int]
    without_box: int
    top: float


class Reliability(NamedTuple):
    """How far calibrated scores can be trusted on images that they were not fitted to.

    Attributes:
      trust: None where fewer than FEWEST_TO_TRUST boxes are left.
      boxes: how many are judged.
      left_out: boxes on images that the scores were fitted to.
      base_rate: the constant score that they are compared with.
    """

    trust: Trust | None
    boxes: int
    left_out: int
    base_rate: float


class Example(NamedTuple):
    """A pair of an image and a label, to be looked at.

    Attributes:
      path: the run's.
      width, height: of the upright image, in pixels.
      label: the pair's.
      iou: of its box, 0 where there is none.
      score: of its box, as results.json carries it.
      box: x, y, width, height in pixels; score and box are None where there is none.
      true: the true boxes of the label.
    """

    path: str
    width: int
    height: int
    label: str
    iou: float
    score: float | None
    box: list[float] | None
    true: list[list[float]]


class Section(NamedTuple):
    """What the template shows.

    Attributes:
      images, pairs: how many are judged.
      names: what the headline figures are called.
      figures: the same figures, each with its interval and the two floors.
      accuracy, precision_recall, ious, reliability: see there; the last is None where scores are not calibrated.
      classes: the most frequent categories.
      all_classes: how many categories have pairs.
      best, worst: pairs of the highest and of the lowest IoU, among equals of the highest score.
    """

    images: int
    pairs: int
    names: dict[str, str]
    figures: dict[str, Figure]
    accuracy: Accuracy
    precision_recall: PrecisionRecall
    ious: Ious
    reliability: Reliability | None
    classes: dict[str, ClassFigures]
    all_classes: int
    best: list[Example]
    worst: list[Example]


def section(judged: Judged, redrawn: Redrawn, evaluation: Evaluation, fitted: Set[str]) -> Section:
    """Gathers what the report shows of an evaluation.

    Args:
      judged: a judged run.
      redrawn: it, or what was sampled of it: the images of the curve over thresholds.
      evaluation: its figures.
      fitted: the run's paths of the images that its scores were calibrated on; figures on them would flatter.
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


def _accuracy(judged: Redrawn) -> Accuracy:
    curves = {
        delta: list(zip(judged.thresholds.tolist(), (judged.iou_at >= delta).mean(axis=0).tolist(), strict=True))
        for delta in IOUS
    }
    rule = judged.settings["rule"]
    own = Cut.parse(rule["threshold"])
    centre = float((judged.centre >= 0.5).mean())
    return Accuracy(
        len(judged.paths),
        curves,
        None if own.otsu or rule.get("thresholds") else own.share,
        centre,
        _top(max(centre, *(share for curve in curves.values() for _, share in curve))),
    )


def _precision_recall(judged: Judged) -> PrecisionRecall:
    """A category without any true box is no part of it, as it is none of AP."""
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
    """Each category of an image as an image of its own: boxes match as before, and stand in one ranking."""
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
    # What a constant would say without having seen these boxes; where the others are not judged, these must do.
    base_rate = float(right[calibrated & known if (calibrated & known).any() else unseen].mean())
    enough = unseen.sum() >= FEWEST_TO_TRUST
    return Reliability(
        trust(judged.calibrated[unseen], right[unseen], base_rate) if enough else None,
        int(unseen.sum()),
        int((calibrated & known).sum()),
        base_rate,
    )


def _examples(judged: Judged) -> tuple[list[Example], list[Example]]:
    """The best and the worst; of a small run at most a third are best, for the rest are the worse ones."""
    score = np.nan_to_num(judged.score, nan=-1.0)
    best = _spread(judged, np.lexsort([-score, -judged.iou]), min(_BEST, math.ceil(len(score) / 3)))
    others = [pair for pair in np.lexsort([-score, judged.iou]).tolist() if pair not in best]
    worst = _spread(judged, np.array(others, int), _WORST)
    return [_example(judged, pair) for pair in best], [_example(judged, pair) for pair in worst]


def _spread(judged: Judged, order: np.ndarray, most: int) -> list[int]:
    """The first pairs of an order, few of one class."""
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
    width, height = judged.sizes[image].tolist()
    score = float(judged.score[pair])
    has_box = not math.isnan(score)
    return Example(
        path=path,
        width=width,
        height=height,
        label=label,
        iou=float(judged.iou[pair]),
        score=score if has_box else None,
        box=_own_box(judged, pair, true) if has_box else None,
        true=true.tolist(),
    )


def _own_box(judged: Judged, pair: int, true: np.ndarray) -> list[float]:
    """The box that the pair was judged by: of those with its score the one with its IoU."""
    found = judged.detections
    boxes = found.bbox[
        (found.image == judged.image[pair])
        & (found.category == judged.category[pair])
        & (found.score == judged.score[pair])
    ]
    return boxes[np.abs(best_iou(boxes, true) - judged.iou[pair]).argmin()].tolist()


def _top(most: float) -> float:
    """Where an axis ends that has room for a share."""
    return next(top for top in _TOPS if top >= most)
