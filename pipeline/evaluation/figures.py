"""Computes the figures of a judged run, each with an interval and with two floors to compare it with.

A floor is the same figure for a box that does not depend on the photograph: a centred box of 80% of each side, or the
whole image. All figures are in percent.

    gt_known_30, _50, _70   pairs whose own box reaches that IoU with a true box of the category
    top1_loc, top5_loc      pairs whose box reaches 0.5 and whose class is the network's first, or among its first five
    top1_error, top5_error  100 minus these
    corloc                  mean over categories of gt_known_50
    mean_iou                mean IoU of the own boxes; a pair without a box counts as 0
    ap, ap50, ar            COCO's, as pycocotools gives them, over the judged images and categories, ar with 100 boxes
                            an image; true boxes of a category that the image is not labelled with are missed, and boxes
                            of labels without a true box are wrong

Intervals of AP are biased upwards for rare categories: a resample holds fewer different images of each.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from camboxes.models.counts import counted
from camboxes.pipeline.evaluation.average_precision import Boxes, Matches, match_boxes, precision
from camboxes.pipeline.evaluation.judging import CENTRE, Judged, floor_boxes
from camboxes.pipeline.evaluation.redrawing import Redrawn
from camboxes.pipeline.evaluation.resampling import Estimate, bootstrap, estimates
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.transforms.wsol import metrics

NAMES = {
    "gt_known_30": "GT-known Loc, IoU 0.3",
    "gt_known_50": "GT-known Loc, IoU 0.5",
    "gt_known_70": "GT-known Loc, IoU 0.7",
    "top1_loc": "Top-1 Loc",
    "top1_error": "Top-1 error",
    "top5_loc": "Top-5 Loc",
    "top5_error": "Top-5 error",
    "corloc": "CorLoc",
    "mean_iou": "mean IoU",
    "ap": "COCO AP",
    "ap50": "COCO AP50",
    "ar": "COCO AR",
}
HEADLINE = tuple(name for name in NAMES if name not in ("top1_loc", "top5_loc"))  # the errors say the same
IOUS = (0.3, 0.5, 0.7)
GT_KNOWN = ("gt_known_30", "gt_known_50", "gt_known_70")  # one for each of IOUS
DETECTION = ("ap", "ap50", "ar")
LOCALIZATION = tuple(name for name in NAMES if name not in DETECTION)

RESAMPLES, RESAMPLES_OF_DETECTION = 1000, 200


class Figure(NamedTuple):
    """One figure: of the run's boxes, of a centred box in place of each, and of the whole image in place of each."""

    run: Estimate
    centre: Estimate
    whole: Estimate


class ClassFigures(NamedTuple):
    """Figures of one category; without intervals if all of its pairs are on one image."""

    pairs: int  # number of labelled pairs with a true box
    gt_known_50: Figure  # every value is None if there is no pair
    mean_iou: Figure  # likewise
    ap50: Figure


class BestThresholds(NamedTuple):
    """Figures at the best thresholds. These are chosen on the boxes that they are judged on, so the figures flatter."""

    judged: int  # number of judged images
    images: int  # number of images that these figures cover; fewer if those were too many to redraw
    threshold: list[float]  # the best threshold of the run's rule for each of IOUS; of equals, the lowest
    gt_known: list[Figure]  # at these thresholds; for the interval, each resample chooses its own thresholds
    v2: Figure  # mean of gt_known
    max_box_acc: float  # by the literature's rule (`transforms.wsol`), from the stored maps, over the pairs
    max_box_acc_v2: float  # likewise
    literature_threshold: list[float]  # the best of MaxBoxAccV2 for each of IOUS, as shares of the map's maximum

    @property
    def caveat(self) -> str:
        """What a reader of these figures must know."""
        caveat = "chosen on the boxes that they are judged on, so too optimistic"
        if self.images == self.judged:
            return caveat
        return f"{caveat}; of {self.images:,} of {counted(self.judged, 'image')}, chosen by a hash of their paths"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """All figures of a run."""

    figures: dict[str, Figure]  # at the run's own threshold, by the names that the module lists
    best: BestThresholds
    classes: dict[str, ClassFigures]  # by name, for categories that have a true box on the judged images


class LocalizationFigures(NamedTuple):
    """Figures of the own boxes for each row of image weights, float64; NaN if no image with a weight is judged."""

    overall: np.ndarray  # [rows, LOCALIZATION, 3], the last axis: run, centre, whole
    gt_known_50: np.ndarray  # [rows, categories that have pairs, 3]
    mean_iou: np.ndarray  # likewise


class Detection(NamedTuple):
    """Figures of all boxes for each row of image weights, float64; NaN likewise."""

    overall: np.ndarray  # [rows, DETECTION, 3]
    ap50: np.ndarray  # [rows, categories that have true boxes, 3]


def compute_figures(judged: Judged, redrawn: Redrawn, reporter: Reporter = LOG) -> Evaluation:
    """Computes all figures of a judged run, with intervals from RESAMPLES resamples of its images (AP and AR: fewer).

    The best thresholds are chosen on the images of `redrawn`: the same run or a sample of it, redrawn.
    """
    with reporter.step("matching boxes"):
        true = true_boxes(judged)
        matches = [match_boxes(true, boxes) for boxes in (judged.detections, *_floors(judged))]

    def of_own_boxes(weights: np.ndarray) -> np.ndarray:
        return np.concatenate(localization(judged, weights), axis=1)

    def of_all_boxes(weights: np.ndarray) -> np.ndarray:
        return np.concatenate(detection(matches, weights), axis=1)

    with reporter.progress(RESAMPLES + RESAMPLES_OF_DETECTION, "resample", "intervals") as advance:
        localized = _figures(*bootstrap(of_own_boxes, judged.paths, RESAMPLES, len(judged.image), advance))
        detected = _figures(*bootstrap(of_all_boxes, judged.paths, RESAMPLES_OF_DETECTION, advance=advance))
    overall = [*localized[: len(LOCALIZATION)], *detected[: len(DETECTION)]]
    of_classes = localized[len(LOCALIZATION) :]
    known, iou = of_classes[: len(of_classes) // 2], of_classes[len(of_classes) // 2 :]
    return Evaluation(
        figures=dict(zip([*LOCALIZATION, *DETECTION], overall, strict=True)),
        best=_best(len(judged.paths), redrawn),
        classes=_classes(judged, matches[0], known, iou, detected[len(DETECTION) :]),
    )


def localization(judged: Judged, weights: np.ndarray) -> LocalizationFigures:
    """Computes the figures of the own boxes for each row of image weights, [rows, images]."""
    iou = np.stack([judged.iou, judged.centre, judged.whole], axis=1)
    at_30, at_50, at_70 = (np.where(iou >= delta, 100.0, 0.0) for delta in IOUS)
    top1, top5 = (at_50 * first[:, None] for first in (judged.top1, judged.top5))
    order = np.argsort(judged.category, kind="stable")
    of_pair = weights[:, judged.image[order]]
    columns = np.concatenate([at_30, at_70, top1, top5, at_50, 100 * iou], axis=1)[order]
    known_30, known_70, top1, top5, known_50, mean = np.split(_mean(of_pair, columns), 6, axis=1)
    starts = np.unique(judged.category[order], return_index=True)[1].tolist()
    by_category = [
        _mean(of_pair[:, start:end], columns[start:end, -6:])
        for start, end in itertools.pairwise([*starts, len(order)])
    ]
    of_category, mean_of_category = np.split(np.stack(by_category, axis=1), 2, axis=2)
    with np.errstate(invalid="ignore"):
        corloc = np.nansum(of_category, axis=1) / (~np.isnan(of_category)).sum(axis=1)
    overall = [known_30, known_50, known_70, top1, 100 - top1, top5, 100 - top5, corloc, mean]
    return LocalizationFigures(np.stack(overall, axis=1), of_category, mean_of_category)


def detection(matches: Sequence[Sequence[Matches]], weights: np.ndarray) -> Detection:
    """Computes the figures of all boxes for each row of image weights, [rows, images].

    `matches` are those of the run and of both floors, or of any runs to compare: the last axis of the figures.
    """
    found = [precision(each, weights) for each in matches]
    overall = np.stack([np.stack([each.ap, each.ap50, each.ar], axis=1) for each in found], axis=2)
    return Detection(overall, np.stack([each.ap50_of for each in found], axis=2))


def known_at_best(judged: Redrawn, weights: np.ndarray) -> np.ndarray:
    """GT-known Loc at its best threshold for each row of image weights and each of IOUS: [rows, 3]."""
    return np.stack([_known_at(judged, weights, delta).max(axis=1) for delta in IOUS], axis=1)


def true_boxes(judged: Judged) -> Boxes:
    """Collects the true boxes and the crowds of the judged images and categories."""
    numbers = {name: number for number, name in enumerate(judged.categories)}
    names = set(judged.matching.categories)
    found = [
        (place, numbers[name], box, is_crowd)
        for place, true in enumerate(judged.matching.truths[path] for path in judged.paths)
        for is_crowd, boxes in ((False, true.boxes), (True, true.ignored))
        for name in sorted(boxes.keys() & names)
        for box in boxes[name]
    ]
    image, category, bbox, crowd = map(np.array, zip(*found, strict=True))
    return Boxes(image, category, bbox, np.zeros(len(found)), crowd)


def _floors(judged: Judged) -> Iterator[Boxes]:
    """The boxes of each floor: one for each pair that has boxes, with the highest of their scores."""
    found = judged.detections
    order = np.argsort(-found.score, kind="stable")
    pairs = found.image[order] * len(judged.categories) + found.category[order]
    highest = found.some(order[np.unique(pairs, return_index=True)[1]])
    for share in (CENTRE, 1.0):
        yield highest._replace(bbox=floor_boxes(judged.sizes[highest.image], share))


def _known_at(judged: Redrawn, weights: np.ndarray, delta: float) -> np.ndarray:
    """GT-known Loc at IoU delta for each row of image weights and each threshold: [rows, thresholds]."""
    return _mean(weights[:, judged.image], np.where(judged.iou_at >= delta, 100.0, 0.0))


def _mean(of_pair: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means of values [pairs, columns] for each row of weights [rows, pairs]: [rows, columns]."""
    with np.errstate(invalid="ignore"):
        return of_pair @ values / of_pair.sum(axis=1, keepdims=True)


def _figures(values: np.ndarray, samples: np.ndarray) -> list[Figure]:
    """Figures from values [figures, 3] and resampled values [resamples, figures, 3]."""
    found = estimates(values.reshape(-1), samples.reshape(len(samples), -1))
    return [Figure(*found[start : start + 3]) for start in range(0, len(found), 3)]


def _best(judged: int, redrawn: Redrawn) -> BestThresholds:
    curves = [_known_at(redrawn, np.ones((1, len(redrawn.paths))), delta)[0] for delta in IOUS]

    def compute(weights: np.ndarray) -> np.ndarray:
        """`known_at_best` and its mean, beside the floors, which have no threshold: [rows, 4, 3]."""
        known = localization(redrawn, weights).overall[:, : len(IOUS)]
        known[:, :, 0] = known_at_best(redrawn, weights)
        return np.concatenate([known, known.mean(axis=1, keepdims=True)], axis=1)

    *known, mean = _figures(*bootstrap(compute, redrawn.paths, RESAMPLES, len(redrawn.image)))
    accuracy = redrawn.literature.result()
    shares = metrics.thresholds(redrawn.literature.step)
    return BestThresholds(
        judged=judged,
        images=len(redrawn.paths),
        threshold=[float(redrawn.thresholds[curve.argmax()]) for curve in curves],
        gt_known=known,
        v2=mean,
        max_box_acc=accuracy.max_box_acc.value,
        max_box_acc_v2=accuracy.max_box_acc_v2.value,
        literature_threshold=[float(shares[curve.argmax()]) for curve in accuracy.max_box_acc_v2.curves],
    )


def _classes(
    judged: Judged, matches: Sequence[Matches], known: list[Figure], iou: list[Figure], ap50: list[Figure]
) -> dict[str, ClassFigures]:
    """Figures by category; `known` and `iou` of those that have pairs, the others of those with true boxes."""
    numbers, pairs = np.unique(judged.category, return_counts=True)
    of_pairs = dict(zip(numbers.tolist(), zip(pairs.tolist(), known, iou, strict=True), strict=True))
    undefined = Figure(*[Estimate(None, None, None)] * 3)
    classes = {}
    for each, of_boxes in zip(matches, ap50, strict=True):
        number, *figures = of_pairs.get(each.category, (0, undefined, undefined))
        figures = [figure if number > 1 else _without_intervals(figure) for figure in figures]
        images = np.unique(each.true_image)
        figures.append(of_boxes if len(images) > 1 else _without_intervals(of_boxes))
        classes[judged.categories[each.category]] = ClassFigures(number, *figures)
    return classes


def _without_intervals(figure: Figure) -> Figure:
    return Figure(*(Estimate(estimate.value, None, None) for estimate in figure))
