"""Draws boxes from a stored map, with numpy and OpenCV alone.

The stored map is resized to a working grid (the image's aspect, long side at most 512) by bilinear interpolation with
half-pixel centres, and min-max scaled. Cells of at least the threshold are foreground. Each 8-connected component gives
one box. The raw range cancels, so the uint8 cells suffice: scaling a map changes nothing, and boxes drawn during
inference and later are the same.

A threshold is a share of the scaled map's range (0.25), or of the map's Otsu level ("0.8*otsu"): the value that best
splits the map's cells into two groups (Otsu, IEEE Transactions on Systems, Man, and Cybernetics, 1979). The second kind
adapts to the image, and suits every method in measurements: benchmarks/records/evaluation.md.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import cv2
import numpy as np

from camboxes.transforms.boxes.instances import AREA, split
from camboxes.transforms.boxes.stored_maps import StoredMap

if TYPE_CHECKING:
    from camboxes.models import Classifier, MapSpec

Keep = Literal["largest", "peak", "all", "instances"]
Threshold = float | str  # 0.25, or "0.8*otsu"

# Thresholds for maps without refinement, of networks that 0.25 does not suit in measurements:
# benchmarks/records/evaluation.md.
_PLAIN_THRESHOLDS = {"timm:tf_efficientnet_lite1": 0.15, "timm:tf_efficientnet_lite2": 0.15}

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FEW = 8  # components: up to so many are flood-filled one by one, more are labelled together
_OPEN = 255  # a foreground point that is in no component yet
LONG_SIDE = 512  # of the working grid, in cells: a 12-megapixel photograph costs no more than a 512-pixel one


class Cut(NamedTuple):
    """A parsed threshold.

    Attributes:
      share: of the scaled map's range, or of its Otsu level; at least 0.
      otsu: whether it is a share of the Otsu level.
    """

    share: float
    otsu: bool

    @classmethod
    def parse(cls, threshold: Threshold) -> "Cut":
        """Parses a number, or a text such as "0.25", "0.8*otsu" or "otsu".

        Raises:
          ValueError: the threshold is neither, or out of its range.
        """
        text = str(threshold)
        number, otsu = "1" if text == "otsu" else text.removesuffix("*otsu"), text.endswith("otsu")
        share = float(number) if _NUMBER.fullmatch(number) else math.nan
        if not 0 <= share <= (2 if otsu else 1):
            raise ValueError(
                f"threshold is {threshold!r}; expected a share from 0 to 1 of the map's range, as 0.25, or from 0 to 2 "
                'of its Otsu level, as "0.8*otsu"'
            )
        return cls(share, otsu)


@dataclasses.dataclass(frozen=True)
class BoxRule:
    """The rule that turns a map into boxes.

    Attributes:
      threshold: the smallest foreground value of the min-max scaled map, in [0, 1]; or a share of its Otsu level.
      min_area: the smallest component that becomes a box, as a share of the working grid's cells, in [0, 1].
      boxes: which components become boxes. "largest": the largest one; "peak": the one with the map's highest value;
        "all": each; "instances": each large region that `instances` splits components into.
      thresholds: the thresholds of labels that have their own.
    """

    threshold: Threshold = 0.25
    min_area: float = 0.0
    boxes: Keep = "largest"
    thresholds: Mapping[str, Threshold] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.cut, [Cut.parse(threshold) for threshold in self.thresholds.values()]
        if not 0 <= self.min_area <= 1:
            raise ValueError(f"min_area is {self.min_area}; expected a share from 0 to 1")
        if self.boxes not in get_args(Keep):
            raise ValueError(f"boxes is {self.boxes!r}; expected one of {', '.join(get_args(Keep))}")

    @functools.cached_property
    def cut(self) -> Cut:
        """The threshold, parsed."""
        return Cut.parse(self.threshold)

    @classmethod
    def default_for(cls, classifier: "Classifier", maps: "MapSpec") -> "BoxRule":
        """The rule that `camboxes label` uses by default: the component at the peak, at a measured threshold.

        Refined maps are cut at their Otsu level, others at a share of their range, which depends on the network.
        """
        return cls.default_of(classifier.spec.name, maps)

    @classmethod
    def default_of(cls, network: str, maps: "MapSpec") -> "BoxRule":
        """See `default_for`; of a network that is not loaded, by its qualified name."""
        refined = maps.refine == "affinity"
        return cls("1*otsu" if refined else _PLAIN_THRESHOLDS.get(network, 0.25), boxes="peak")

    def of(self, label: str) -> "BoxRule":
        """The rule for the maps of a label."""
        return dataclasses.replace(self, threshold=self.thresholds.get(label, self.threshold), thresholds={})


class MapBox(NamedTuple):
    """The box of one component; for instances read "region" for "component" here.

    Attributes:
      bbox: x, y, width, height in pixels of the image, half-open, rounded to 2 decimals, inside the image.
      mean: mean of the min-max scaled map inside the box, in [0, 1].
      area: the component's share of the working grid's cells, in (0, 1].
      peak: row and column of the component's highest cell in the stored map; the first in row order of equal ones. No
        two boxes of a map have the same.
    """

    bbox: tuple[float, float, float, float]
    mean: float
    area: float
    peak: tuple[int, int]


class Drawn(NamedTuple):
    """The boxes of one map.

    Attributes:
      boxes: the largest component first.
      reason: "code: ...", the reason why there are no boxes; None if there are.
      level: the smallest foreground value, in [0, 1]: the value of the threshold for this map.
      areas: areas of all components, as shares of the working grid's cells, the largest first.
    """

    boxes: list[MapBox]
    reason: str | None
    level: float = 0.0
    areas: tuple[float, ...] = ()


# Of values up to 255 in float32. A map that varies less than this over an image's pixels counts as constant.
_ROUNDING = 1e-4


class WorkingMap:
    """A stored map on the working grid of the image that it covers, ready to be cut at any number of thresholds.

    Attributes:
      stored: the map.
      width, height: of the image, in pixels.
      empty_because: "code: ...", the reason why the map gives no box at any threshold; None if it can give one.
      scaled: float32 [grid height, grid width], in [0, 1], min-max scaled; zeros if the map is empty.
    """

    def __init__(self, stored: StoredMap, width: int, height: int):
        self.stored, self.width, self.height = stored, width, height
        self.empty_because = stored.empty_because
        shrink = min(1.0, LONG_SIDE / max(width, height))
        grid = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        resized: np.ndarray = cv2.resize(stored.cells.astype(np.float32), grid, interpolation=cv2.INTER_LINEAR)
        low, high = self._range = tuple(np.float32(value) for value in cv2.minMaxLoc(resized)[:2])
        if self.empty_because is None and high - low < _ROUNDING:
            self.empty_because = f"image_too_small: the map is constant over {width} x {height} pixels"
        if self.empty_because:
            resized[:] = 0
        else:  # in place: to allocate another grid costs as much as to compute it
            resized -= low
            resized /= high - low
        self.scaled = resized

    @functools.cached_property
    def otsu(self) -> float:
        """The Otsu level, in [0, 1]: it splits the cells into two groups with the least variance inside each."""
        level, _ = cv2.threshold((self.scaled * 255).astype(np.uint8), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        return (level + 1) / 255  # OpenCV's foreground is strictly above

    def level(self, rule: BoxRule) -> float:
        """The smallest foreground value at a rule's threshold, in [0, 1]."""
        share, otsu = rule.cut
        return min(share * self.otsu, 1.0) if otsu else share

    def draw(self, rule: BoxRule) -> Drawn:
        """Draws boxes by a rule. The rule's thresholds by label are ignored: the caller chooses by `BoxRule.of`."""
        if self.empty_because:
            return Drawn([], self.empty_because)
        level = self.level(rule)
        labels, statistics = self.components(level)
        owners = _owners(self.stored.cells.shape, labels)
        smallest = rule.min_area
        if rule.boxes == "instances":
            low, high = self._range
            labels, owners = split(labels, owners, (self.stored.cells - low) / (high - low), level)
            statistics = _statistics(labels)
            smallest = max(smallest, AREA * statistics[1:, cv2.CC_STAT_AREA].max() / self.scaled.size)
        areas = statistics[1:, cv2.CC_STAT_AREA] / self.scaled.size
        all_areas = tuple(sorted(areas[areas > 0].tolist(), reverse=True))
        candidates = np.flatnonzero(areas >= smallest)
        if rule.boxes == "peak":
            candidates = candidates[candidates + 1 == labels.flat[self.scaled.argmax()]]
        elif rule.boxes == "largest" and len(candidates):
            candidates = candidates[areas[candidates] == areas[candidates].max()]
        if not len(candidates):
            called = {"peak": "the component at the peak", "instances": "every region"}
            which = called.get(rule.boxes, "every component")
            reason = f"component_too_small: {which} covers less than {rule.min_area:g} of the image"
            return Drawn([], reason, level, all_areas)
        peaks = _peaks(self.stored.cells, owners, self.scaled, labels, candidates + 1)
        joined: dict[tuple[int, int], tuple[int, int, int, int, int]] = {}
        for peak, (left, top, width, height, points) in zip(peaks, statistics[candidates + 1].tolist(), strict=True):
            # Interpolation rounds a plateau's values up and down. At the plateau's level it falls into slivers, which
            # share the plateau's cell: they are one component.
            x, y, right, bottom, before = joined.get(peak, (left, top, left + width, top + height, 0))
            right, bottom = max(right, left + width), max(bottom, top + height)
            joined[peak] = (min(x, left), min(y, top), right, bottom, before + points)
        boxes = []
        for peak in sorted(joined, key=lambda peak: (-joined[peak][4], peak)):
            left, top, right, bottom, points = joined[peak]
            mean = cv2.mean(self.scaled[top:bottom, left:right])[0]  # summed in float64
            bbox = self._in_pixels(left, top, right - left, bottom - top)
            boxes.append(MapBox(bbox, min(mean, 1.0), points / self.scaled.size, peak))
        if rule.boxes in ("largest", "peak"):
            del boxes[1:]
        return Drawn(boxes, None, level, all_areas)

    def components(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Finds the components of the grid points of at least `level`.

        Returns:
          The component of each grid point, from 1, 0 for none: integers [grid height, grid width]. And x, y, width,
          height and area of each component in points: int32 [1 + components, 5]; the first row stands for no component.
        """
        return _components(self.scaled, level)

    def outlines(self, rules: Sequence[BoxRule]) -> list[tuple[float, ...] | None]:
        """Draws the first box by each of many rules, in a fraction of the time that `draw` takes for each.

        Components at a higher level lie inside those at a lower level. So each level is searched only inside the
        components of the level below.

        Args:
          rules: with boxes "largest" or "peak"; they differ in their thresholds alone.

        Returns:
          `MapBox.bbox` for each rule; None if there is no box.
        """
        found: list[tuple[float, ...] | None] = [None] * len(rules)
        if self.empty_because:
            return found
        levels = [self.level(rule) for rule in rules]
        row, column = divmod(int(self.scaled.argmax()), self.scaled.shape[1])
        left, top, inside = 0, 0, self.scaled
        for number in sorted(range(len(levels)), key=levels.__getitem__):
            if rules[number].boxes == "peak":
                components = largest = _component_at(inside, levels[number], (column - left, row - top))
            else:
                components = _components(inside, levels[number])[1][1:]
                areas = components[:, cv2.CC_STAT_AREA]
                largest = components[areas == areas.max()]
            if len(largest) > 1:  # their peaks in the stored map decide which comes first
                boxes = self.draw(rules[number]).boxes
                found[number] = boxes[0].bbox if boxes else None
            elif largest[0, cv2.CC_STAT_AREA] / self.scaled.size >= rules[number].min_area:
                x, y, width, height, _ = largest[0].tolist()
                found[number] = self._in_pixels(left + x, top + y, width, height)
            (x, y), (right, bottom) = components[:, :2].min(0), (components[:, :2] + components[:, 2:4]).max(0)
            left, top, inside = left + int(x), top + int(y), inside[y:bottom, x:right]
        return found

    def _in_pixels(self, left: int, top: int, width: int, height: int) -> tuple[float, float, float, float]:
        grid_height, grid_width = self.scaled.shape
        x, pixels_wide = _in_pixels(left, left + width, grid_width, self.width)
        y, pixels_high = _in_pixels(top, top + height, grid_height, self.height)
        return x, y, pixels_wide, pixels_high


def boxes_from_map(stored: StoredMap, width: int, height: int, rule: BoxRule) -> Drawn:
    """Draws boxes by a rule from a map that covers an image of `width` x `height` pixels."""
    return WorkingMap(stored, width, height).draw(rule)


def box_uid(path: str, label: str, rectangle: Sequence[int], peak: tuple[int, int]) -> str:
    """The identifier of a box, 16 hexadecimal digits. It stays the same when the map is thresholded again.

    Args:
      path: the image's path, relative to the input root.
      label: the dataset's label.
      rectangle: x, y, width, height of the oriented image that the map covers, in pixels.
      peak: see `MapBox.peak`. If two components merge, the identifier of the higher peak stays.
    """
    identity = json.dumps([path, label, list(rectangle), list(peak)], ensure_ascii=False)
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def best_iou(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The highest IoU of each box [boxes, 4] with any of [truth, 4]: float64 [boxes].

    Boxes are x, y, width, height, half-open, with positive width and height.
    """
    return iou(boxes[:, None], truth[None]).max(axis=1)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes [..., 4] with other boxes, element by element with broadcasting: float64 [...]."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    return common / (boxes[..., 2:].prod(axis=-1) + others[..., 2:].prod(axis=-1) - common)


def _components(scaled: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Finds components as `WorkingMap.components` does, in a part of the scaled map."""
    foreground = (scaled >= np.float32(level)).view(np.uint8)
    foreground *= _OPEN
    if (statistics := _fill(foreground)) is not None:
        return foreground, statistics
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(foreground, connectivity=8, ltype=cv2.CV_16U)
    return labels, statistics


def _component_at(scaled: np.ndarray, level: float, point: tuple[int, int]) -> np.ndarray:
    """The statistics, int [1, 5], of the component of points of at least `level` that a point (x, y) is in."""
    foreground = (scaled >= np.float32(level)).view(np.uint8)
    area, _, _, rectangle = cv2.floodFill(foreground, None, point, _OPEN, flags=8)
    return np.array([[*rectangle, area]])


def _fill(labels: np.ndarray) -> np.ndarray | None:
    """Numbers components in place, and returns their statistics as `WorkingMap.components` does; None if they are many.

    Flood fill takes less than half as long as labelling for a few components, and most maps have one or two. The labels
    are uint8, _OPEN in the foreground, else 0; if None is returned, the foreground holds some numbers other than 0.
    """
    points, statistics, first = labels.reshape(-1), [[0, 0, 0, 0, 0]], 0
    left = cv2.countNonZero(labels)
    while left:
        if len(statistics) > _FEW:
            return None
        first += int(points[first:].argmax())  # finds _OPEN, the highest number
        row, column = divmod(first, labels.shape[1])
        area, _, _, rectangle = cv2.floodFill(labels, None, (column, row), len(statistics), flags=8)
        statistics.append([*rectangle, area])
        left -= area
    return np.array(statistics, np.int32)


def _owners(cells: tuple[int, ...], labels: np.ndarray) -> np.ndarray:
    """The component of each stored cell: int [rows, columns], 0 for none.

    A cell belongs to the component of the grid points around its centre. These four points are 8-connected to each
    other, so there is only one such component.
    """
    (rows, columns), (grid_rows, grid_columns) = cells, labels.shape
    around = itertools.product(_around_centres(rows, grid_rows), _around_centres(columns, grid_columns))
    return np.maximum.reduce([labels[of_rows[:, None], of_columns] for of_rows, of_columns in around])


def _peaks(
    cells: np.ndarray, owners: np.ndarray, scaled: np.ndarray, labels: np.ndarray, components: np.ndarray
) -> list[tuple[int, int]]:
    """Each component's highest cell in the stored map."""
    (rows, columns), (grid_rows, grid_columns) = cells.shape, labels.shape
    peaks = []
    for component in components:
        owned = owners == component
        if owned.any():
            peak = int(np.where(owned, cells.astype(int), -1).argmax())
            peaks.append((peak // columns, peak % columns))
        else:  # a sliver between the centres: take the cell that its highest point is in
            highest = int(np.where(labels == component, scaled, -1).argmax())
            peaks.append(
                (highest // grid_columns * rows // grid_rows, highest % grid_columns * columns // grid_columns)
            )
    return peaks


def _statistics(labels: np.ndarray) -> np.ndarray:
    """The statistics that OpenCV gives for components, for any regions: int [numbers, 5]."""
    insides = ((labels == number).astype(np.uint8) for number in range(labels.max() + 1))
    return np.array([(*cv2.boundingRect(inside), cv2.countNonZero(inside)) for inside in insides])


@functools.lru_cache
def _around_centres(cells: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """The grid points on either side of each cell's centre, along one side of the map."""
    centres = (np.arange(cells) + 0.5) * points / cells - 0.5
    return np.floor(centres).clip(0).astype(int), np.ceil(centres).clip(0, points - 1).astype(int)


def _in_pixels(start: int, end: int, cells: int, pixels: int) -> tuple[float, float]:
    """Converts a range of grid cells, along a side of so many pixels, to start and extent rounded to 2 decimals."""
    low = round(start * pixels / cells, 2)
    extent = round(round(end * pixels / cells, 2) - low, 2)
    if low + extent > pixels:  # by the last bit of a sum of two decimals
        extent = round(extent - 0.01, 2)
    return low, extent
