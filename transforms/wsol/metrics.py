"""The weakly supervised localization metrics: MaxBoxAcc, MaxBoxAccV2 and PxAP (Choe et al., CVPR 2020).

Pure functions over full-resolution maps. They give the same bits as the authors' evaluator, so figures compare with
published ones. The steps:

    1. boxes are scaled as if the image were squashed to 224 x 224, and truncated              `scale_boxes`
    2. the map is resized to 224 x 224 by INTER_CUBIC, then min-max scaled                     `scale_map`
    3. g = uint8(map * 255), cut = int(t * max g), foreground g > cut, for t = arange(0, 1, step)
    4. each contour of the foreground gives a box, holes included                              `contour_boxes`
    5. a box is correct where it reaches IoU delta with any ground-truth box                   `BoxCounts.of`
    6. per delta the best t over the data set                                                  `BoxCounts.result`

    PxAP needs masks instead of boxes: `pixel_labels`, `PixelCounts.of`, `PixelCounts.result`

The evaluation of a map is a small accumulator of integers, so accumulators give the same figures in any order and
grouping. The best t is chosen on the data that it is judged on, which flatters: compare with the curve at a t that was
chosen elsewhere. camboxes does not draw boxes in this way (see `boxes.from_map`): here corners are inclusive, and a
threshold is a share of the map's maximum.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import cv2
import numpy as np

from camboxes.models.counts import counted

SIDE = 224  # pixels; maps, boxes and masks are compared on a square of this side
IOU_PERCENT = (30, 50, 70)  # delta; MaxBoxAcc is the second, MaxBoxAccV2 the mean of all
FOREGROUND, BACKGROUND, IGNORED = 1, 0, 255  # of `pixel_labels`

_NO_BOX = np.zeros((1, 4), np.int64)  # the definition's box if there is no contour


@contextlib.contextmanager
def naming(image: str) -> Iterator[None]:
    """Prefixes the message of a ValueError with the image's name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error


def thresholds(step: float) -> np.ndarray:
    """The thresholds t = arange(0, 1, step), float64, as shares of a map's maximum; the step is in (0, 1]."""
    if not 0 < step <= 1:
        raise ValueError(f"step is {step}; expected a share in (0, 1], such as 0.001")
    return np.arange(0, 1, step)


def scale_boxes(boxes: Sequence[Sequence[float]], width: int, height: int) -> np.ndarray:
    """Step 1: boxes (x0, y0, x1, y1 in pixels of the image) on the square: int64 [boxes, 4], truncated.

    Raises:
      ValueError: a coordinate is not finite, or the image has no pixel.
    """
    if width < 1 or height < 1:
        raise ValueError(f"the image has {width} x {height} pixels; expected at least one")
    given = np.reshape(np.asarray(boxes, np.float64), (-1, 4))
    if not np.isfinite(given).all():
        raise ValueError(f"expected finite boxes x0, y0, x1, y1, not {given.tolist()}")
    return (given * SIDE / [width, height, width, height]).astype(np.int64)


def scale_map(score_map: np.ndarray) -> np.ndarray:
    """Step 2: a signed map [height, width] on the square: float32 [224, 224] in [0, 1], min-max scaled after resizing.

    A map that is constant, or holds NaN or infinity, becomes zeros.

    Raises:
      ValueError: the map is not [height, width], or has no cell.
    """
    if score_map.ndim != 2 or not score_map.size:
        raise ValueError(f"the map's shape is {score_map.shape}; expected [height, width], with at least one cell")
    given = np.asarray(score_map, np.float32)
    resized = cv2.resize(given, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    with np.errstate(invalid="ignore", over="ignore"):
        low = resized.min()
        spread = resized.max() - low
    # A constant map may vary by rounding after the interpolation. A spread of NaN fails the comparison.
    if given.min() == given.max() or not 0 < spread < np.inf:
        return np.zeros_like(resized)
    return (resized - low) / spread


def pixel_labels(name: str, masks: Sequence[np.ndarray], ignore: np.ndarray | None = None) -> np.ndarray:
    """Labels each pixel of the square for PxAP: uint8 [224, 224] of FOREGROUND, BACKGROUND and IGNORED.

    Masks of the class's objects are [height, width] of any size; values above 0.5 are foreground. Pixels of `ignore`
    count as neither, unless they are foreground. The name is for errors.

    Raises:
      ValueError: there is no mask.
    """
    if not len(masks):
        raise ValueError(f"{name}: there is no mask; expected at least one [height, width], or leave the image out")
    foreground = np.any([_on_square(mask) for mask in masks], axis=0)
    ignored = np.zeros_like(foreground) if ignore is None else _on_square(ignore)
    return np.where(foreground, FOREGROUND, np.where(ignored, IGNORED, BACKGROUND)).astype(np.uint8)


class ContourBoxes(NamedTuple):
    """A map's boxes at every threshold, stored once for each distinct foreground.

    Boxes are int64 x0, y0, x1, y1 on the square, with inclusive corners.

    Attributes:
      every: [boxes, 4] for each distinct foreground: a box per contour, for MaxBoxAccV2; [0, 0, 0, 0] without contour.
      largest: [foregrounds, 4], the box of the contour with the largest area, for MaxBoxAcc.
      foreground: intp [thresholds], the index of the foreground at each threshold.
    """

    every: list[np.ndarray]
    largest: np.ndarray
    foreground: np.ndarray


def contour_boxes(score_map: np.ndarray, step: float) -> ContourBoxes:
    """Steps 3 to 5: the boxes of a map [224, 224] in [0, 1] at each of `thresholds`.

    Raises:
      ValueError: the map has another shape, or values outside of [0, 1].
    """
    _check_map(score_map)
    grey = (score_map * 255).astype(np.uint8)
    # There are at most 256 distinct foregrounds: a cut has that of the lowest grey level above it.
    levels = np.flatnonzero(cv2.calcHist([grey], [0], None, [256], [0, 256]))
    cuts = (thresholds(step) * int(levels[-1])).astype(np.intp)
    above, foreground = np.unique(np.searchsorted(levels, cuts, side="right"), return_inverse=True)
    if above[-1] == len(levels):  # only a map of zeros has nothing above a cut
        return ContourBoxes([_NO_BOX], _NO_BOX, foreground)
    rectangles: list[Sequence[int]] = []
    ends, largest = [], []
    rows, columns = (_extents(grey.max(axis=axis), levels[above]) for axis in (1, 0))
    for level, (top, bottom), (left, right) in zip(levels[above].tolist(), rows, columns, strict=True):
        boxes, first = _boxes_from(grey[top:bottom, left:right], level)
        largest.append(len(rectangles) + first)
        rectangles += [(left + x, top + y, width, height) for x, y, width, height in boxes]
        ends.append(len(rectangles))
    corners = np.array(rectangles, np.int64)
    corners[:, 2:] = np.minimum(corners[:, :2] + corners[:, 2:], SIDE - 1)
    starts = [0, *ends[:-1]]
    every = [corners[start:end] for start, end in zip(starts, ends, strict=True)]
    return ContourBoxes(every, corners[largest], foreground)


class Accuracy(NamedTuple):
    """MaxBoxAcc or MaxBoxAccV2 over a data set, in percent.

    Attributes:
      value: the metric.
      best: float64 [3], the highest point of each curve.
      curves: float64 [3, thresholds], the share of correct images by IOU_PERCENT and threshold.
    """

    value: float
    best: np.ndarray
    curves: np.ndarray


class BoxAccuracy(NamedTuple):
    """Both box metrics of a data set."""

    max_box_acc: Accuracy
    max_box_acc_v2: Accuracy


class PixelPrecision(NamedTuple):
    """PxAP over a data set.

    Attributes:
      value: the metric, in percent.
      precision, recall: float64 [thresholds + 2] in [0, 1], from the highest edge down; precision is NaN where no pixel
        is above.
    """

    value: float
    precision: np.ndarray
    recall: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Counts:
    """An accumulator of counts, int64 of the shape `shape(step)`, over a number of images."""

    step: float
    images: int
    counts: np.ndarray

    @classmethod
    def shape(cls, step: float) -> tuple[int, ...]:
        """The shape of the counts."""
        raise NotImplementedError

    @classmethod
    def none(cls, step: float) -> Self:
        """The accumulator of no image."""
        return cls(step, 0, np.zeros(cls.shape(step), np.int64))

    def __add__(self, other: Self) -> Self:
        if self.step != other.step:
            raise ValueError(f"steps {self.step} and {other.step} do not add up; judge all maps with the same step")
        return type(self)(self.step, self.images + other.images, self.counts + other.counts)


class BoxCounts(_Counts):
    """The accumulator of the box metrics.

    Correct images by rule (the largest contour's box, every contour's), IOU_PERCENT and threshold.
    """

    @classmethod
    def shape(cls, step: float) -> tuple[int, ...]:
        """2, 3, thresholds."""
        return 2, len(IOU_PERCENT), len(thresholds(step))

    @classmethod
    def of(cls, name: str, score_map: np.ndarray, boxes: np.ndarray, step: float) -> Self:
        """Judges one map, of `scale_map`, by the ground truth, of `scale_boxes`; the name is for errors.

        Raises:
          ValueError: there is no ground-truth box, one has its corners the wrong way round, or the map is none.
        """
        truth = np.reshape(np.asarray(boxes, np.int64), (-1, 4))
        if not len(truth):
            raise ValueError(f"{name}: there is no ground-truth box; expected at least one, or leave the image out")
        if (truth[:, 2:] < truth[:, :2]).any():
            raise ValueError(f"{name}: expected boxes x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, not {truth.tolist()}")
        with naming(name):
            found = contour_boxes(score_map, step)
        starts = np.cumsum([0, *(len(boxes) for boxes in found.every[:-1])])
        of_every = np.maximum.reduceat(_best_iou(np.concatenate(found.every), truth), starts)
        best = np.stack([_best_iou(found.largest, truth), of_every])
        correct = best[:, None, :] >= np.array(IOU_PERCENT)[:, None] / 100
        return cls(step, 1, correct[:, :, found.foreground].astype(np.int64))

    def result(self) -> BoxAccuracy:
        """Step 6; raises a ValueError if no image was judged."""
        if not self.images:
            raise ValueError("no image was judged; expected at least one with a map and a ground-truth box")
        curves = self.counts * 100.0 / self.images
        best = curves.max(axis=2)
        half = IOU_PERCENT.index(50)
        return BoxAccuracy(
            Accuracy(float(best[0, half]), best[0], curves[0]), Accuracy(float(best[1].mean()), best[1], curves[1])
        )


class PixelCounts(_Counts):
    """The accumulator of PxAP: pixels by [foreground, background] and by the bins of [t ..., 1, 2, 3]."""

    @classmethod
    def shape(cls, step: float) -> tuple[int, ...]:
        """2, thresholds + 2."""
        return 2, len(thresholds(step)) + 2

    @classmethod
    def of(cls, name: str, score_map: np.ndarray, labels: np.ndarray, step: float) -> Self:
        """Judges one map, of `scale_map`, by the labels of `pixel_labels`; the name is for errors.

        Raises:
          ValueError: the map or the labels are none.
        """
        with naming(name):
            _check_map(score_map)
        if np.shape(labels) != (SIDE, SIDE):
            raise ValueError(f"{name}: the labels' shape is {np.shape(labels)}; expected what pixel_labels gives")
        edges = np.append(thresholds(step), [1.0, 2.0, 3.0])
        counts = [np.histogram(score_map[labels == label], edges)[0] for label in (FOREGROUND, BACKGROUND)]
        return cls(step, 1, np.array(counts, np.int64))

    def result(self) -> PixelPrecision:
        """The area under precision and recall, from the highest edge down: the sum of precision[1:] * diff(recall).

        Raises:
          ValueError: no pixel is foreground, or no image was judged.
        """
        true, false = self.counts[:, ::-1].cumsum(axis=1)
        if not true[-1]:
            raise ValueError(
                f"none of {counted(self.images, 'image')} has a foreground pixel; expected masks of the objects"
            )
        with np.errstate(invalid="ignore"):
            precision = true / (true + false)
        recall = true / true[-1]
        area = np.where(true + false > 0, precision, 0)[1:] * np.diff(recall)
        return PixelPrecision(float(area.sum() * 100), precision, recall)


def _extents(highest: np.ndarray, levels: np.ndarray) -> list[tuple[int, int]]:
    """The start and end of the foreground along one side, for each level.

    `highest` has the highest value of each row, or of each column. No level is above all of them.
    """
    inside = highest >= levels[:, None]
    ends = len(highest) - inside[:, ::-1].argmax(axis=1)
    return list(zip(inside.argmax(axis=1).tolist(), ends.tolist(), strict=True))


def _boxes_from(grey: np.ndarray, level: int) -> tuple[list[Sequence[int]], int]:
    """The x, y, width and height of each contour of grey >= level, and the index of that with the largest area."""
    _, foreground = cv2.threshold(grey, level - 1, 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    boxes = [cv2.boundingRect(contour) for contour in contours]
    if len(boxes) == 1:
        return boxes, 0
    areas = [cv2.contourArea(contour) for contour in contours]
    return boxes, areas.index(max(areas))


def _best_iou(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The highest IoU of each box [boxes, 4] with any of [truth, 4], corners inclusive: float64 [boxes]."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    common = np.maximum(high - low + 1, 0).prod(axis=2)
    areas, true_areas = ((these[:, 2:] - these[:, :2] + 1).prod(axis=1) for these in (boxes, truth))
    return (common / (areas[:, None] + true_areas - common)).max(axis=1)


def _on_square(mask: np.ndarray) -> np.ndarray:
    """Resizes a mask to the square by nearest neighbour: bool [224, 224]."""
    return cv2.resize(np.asarray(mask, np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0.5


def _check_map(score_map: np.ndarray) -> None:
    if score_map.shape != (SIDE, SIDE):
        raise ValueError(f"the map's shape is {score_map.shape}; expected ({SIDE}, {SIDE}), which scale_map gives")
    low, high = score_map.min(), score_map.max()
    if not (low >= 0 and high <= 1):  # nor where one is NaN
        raise ValueError(f"the map goes from {low} to {high}; expected values in [0, 1], which scale_map gives")
