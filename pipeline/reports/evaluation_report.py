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
_TOPS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # ends of an axis that four ticks divide well

Point = tuple[float, float]


class Accuracy(NamedTuple):
    """Share of pairs whose box is right, as a function of the threshold.

    Attributes:
      images: number of photographs.
      curves: for each of IOUS the points (threshold, share).
      own: the run's own threshold; None if it is not one number for all maps.
      centre: the share at IoU 0.5 for a centred box of 80% of each side.
      top: end of the axis of shares.
    """

    images: int
    curves: dict[float, list[Point]]
    own: float | None
    centre: float
    top: float


class PrecisionRecall(NamedTuple):
    """Precision over recall at IoU 0.5, all boxes in one ranking.

    Attributes:
      points: (recall, precision), by descending score.
      top: end of the axis of recall.
    """

    points: list[Point]
    top: float


class Ious(NamedTuple):
    """A histogram of the pairs' IoU.

    Attributes:
      counts: number of pairs whose IoU is in each of _BINS equal parts of [0, 1].
      without_box: number of pairs without a box; they count at 0.
      top: end of the axis of shares.
    """

    counts: list[int]
    without_box: int
    top: float


class Reliability(NamedTuple):
    """How good calibrated scores are on images that they were not fitted to.

    Attributes:
      trust: None if there are fewer than FEWEST_TO_TRUST boxes.
      boxes: number of judged boxes.
      left_out: number of boxes on images that the scores were fitted to.
      base_rate: the constant score that they are compared with.
    """

    trust: Trust | None
    boxes: int
    left_out: int
    base_rate: float


class Example(NamedTuple):
    """A pair of an image and a label to show.

    Attributes:
      path: the run's path of the image.
      width, height: size of the upright image in pixels.
      label: the pair's label.
      iou: IoU of its box; 0 if there is none.
      score: score of its box as in results.json; None if there is none.
      box: x, y, width, height in pixels; None if there is none.
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
    """The values that the template shows.

    Attributes:
      images, pairs: number of judged images and pairs.
      names: titles of the headline figures.
      figures: the headline figures, each with its interval and the two floors.
      accuracy, precision_recall, ious, reliability: the charts; the last is None if scores are not calibrated.
      classes: the most frequent categories.
      all_classes: number of categories that have pairs.
      best, worst: pairs of the highest and of the lowest IoU; of equals, those of the highest score.
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
    """Prepares the section.

    Args:
      judged: a judged run.
      redrawn: the same run or a sample of it, redrawn: the images of the curves over thresholds.
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
    # The constant should not be fitted to these boxes. If no other boxes are judged, it has to be.
    base_rate = float(right[calibrated & known if (calibrated & known).any() else unseen].mean())
    enough = unseen.sum() >= FEWEST_TO_TRUST
    return Reliability(
        trust(judged.calibrated[unseen], right[unseen], base_rate) if enough else None,
        int(unseen.sum()),
        int((calibrated & known).sum()),
        base_rate,
    )


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
    """The box that the pair was judged by: of the boxes with its score, the one with its IoU."""
    found = judged.detections
    boxes = found.bbox[
        (found.image == judged.image[pair])
        & (found.category == judged.category[pair])
        & (found.score == judged.score[pair])
    ]
    return boxes[np.abs(best_iou(boxes, true) - judged.iou[pair]).argmin()].tolist()


def _top(most: float) -> float:
    """The end of an axis that has room for the share `most`."""
    return next(top for top in _TOPS if top >= most)
