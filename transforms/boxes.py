"""Boxes from a stored map: numpy and OpenCV alone, called by every part of camboxes that draws a box.

The stored map is brought to a working grid (the image's aspect, long side at most 512) by bilinear interpolation
with half-pixel centres and min-max scaled; cells of at least the threshold are foreground; each 8-connected
component gives one box. The raw range cancels, so the uint8 cells are all that is needed: scaling a map changes
nothing, and boxes drawn during inference and boxes drawn years later are the same.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np

from camboxes.transforms.maps import StoredMap

Keep = Literal["largest", "all"]

LONG_SIDE = 512  # of the working grid, in cells: a 12-megapixel photograph costs no more than a 512-pixel one


@dataclasses.dataclass(frozen=True)
class BoxRule:
    """How a map becomes boxes.

    Attributes:
      threshold: the smallest foreground value of the min-max scaled map, in [0, 1].
      min_area: the smallest component that becomes a box, as a share of the working grid's cells, in [0, 1].
      boxes: "largest" for the largest component alone, "all" for each.
    """

    threshold: float = 0.25
    min_area: float = 0.0
    boxes: Keep = "largest"

    def __post_init__(self) -> None:
        for name in ("threshold", "min_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1")
        if self.boxes not in get_args(Keep):
            raise ValueError(f"boxes is {self.boxes!r}; expected one of {', '.join(get_args(Keep))}")


class MapBox(NamedTuple):
    """One component's box.

    Attributes:
      bbox: x, y, width, height in pixels of the image, half-open, rounded to 2 decimals, inside the image.
      mean: mean of the min-max scaled map inside the box, in [0, 1].
      area: the component's share of the working grid's cells, in (0, 1].
      peak: row and column of the component's highest cell in the stored map; among equals the first in row order.
    """

    bbox: tuple[float, float, float, float]
    mean: float
    area: float
    peak: tuple[int, int]


class Drawn(NamedTuple):
    """What came of one map: boxes, the largest component first, or the reason ("code: ...") why there are none."""

    boxes: list[MapBox]
    reason: str | None


def boxes_from_map(stored: StoredMap, width: int, height: int, rule: BoxRule) -> Drawn:
    """Draws boxes from a map that covers an image of `width` x `height` pixels."""
    if reason := stored.empty_because:
        return Drawn([], reason)
    scaled = _on_working_grid(stored.cells, width, height)
    if scaled is None:
        return Drawn([], f"image_too_small: the map is constant over {width} x {height} pixels")
    foreground = (scaled >= np.float32(rule.threshold)).astype(np.uint8)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(foreground, connectivity=8)
    grid_height, grid_width = scaled.shape
    areas = statistics[1:, cv2.CC_STAT_AREA] / scaled.size
    candidates = _largest_first(areas, rule)
    if not len(candidates):
        return Drawn([], f"component_too_small: every component covers less than {rule.min_area:g} of the image")
    peaks = _peaks(stored.cells, scaled, labels, candidates + 1)
    order = sorted(range(len(candidates)), key=lambda i: (-areas[candidates[i]], peaks[i]))
    boxes = []
    for i in order[: 1 if rule.boxes == "largest" else None]:
        left, top, box_width, box_height = (int(value) for value in statistics[candidates[i] + 1, :4])
        right, bottom = left + box_width, top + box_height
        mean = float(scaled[top:bottom, left:right].mean(dtype=np.float64))
        x, pixels_wide = _in_pixels(left, right, grid_width, width)
        y, pixels_high = _in_pixels(top, bottom, grid_height, height)
        bbox = (x, y, pixels_wide, pixels_high)
        boxes.append(MapBox(bbox, min(mean, 1.0), float(areas[candidates[i]]), peaks[i]))
    return Drawn(boxes, None)


def box_uid(path: str, label: str, rectangle: Sequence[int], peak: tuple[int, int]) -> str:
    """A name that a box keeps when its map is thresholded again: 16 hexadecimal digits.

    Args:
      path: the image's path, relative to the input root.
      label: the dataset's label.
      rectangle: x, y, width, height of the oriented image that the map covers, in pixels.
      peak: see `MapBox.peak`. Where two components merge, the higher peak's name stays.
    """
    identity = json.dumps([path, label, list(rectangle), list(peak)], ensure_ascii=False)
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _on_working_grid(cells: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """The min-max scaled map in float32; None where the grid is so small that the map is constant on it."""
    shrink = min(1.0, LONG_SIDE / max(width, height))
    grid = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    resized = cv2.resize(cells.astype(np.float32), grid, interpolation=cv2.INTER_LINEAR)
    low, high = resized.min(), resized.max()
    if low == high:
        return None
    return (resized - low) / (high - low)


def _largest_first(areas: np.ndarray, rule: BoxRule) -> np.ndarray:
    """The components (from 0) that may become boxes; for "largest" those that share the largest area."""
    kept = np.flatnonzero(areas >= rule.min_area)
    if rule.boxes == "largest" and len(kept):
        kept = kept[areas[kept] == areas[kept].max()]
    return kept


def _peaks(cells: np.ndarray, scaled: np.ndarray, labels: np.ndarray, components: np.ndarray) -> list[tuple[int, int]]:
    """Each component's highest cell in the stored map.

    A cell belongs to the component that the grid's points around the cell's centre lie in; there is but one, for the
    four points are 8-connected to each other.
    """
    (rows, columns), (grid_rows, grid_columns) = cells.shape, labels.shape
    owners = np.maximum.reduce(
        [labels[np.ix_(r, c)] for r in _around_centres(rows, grid_rows) for c in _around_centres(columns, grid_columns)]
    )
    peaks = []
    for component in components:
        owned = owners == component
        if owned.any():
            peak = int(np.where(owned, cells.astype(int), -1).argmax())
            peaks.append((peak // columns, peak % columns))
        else:  # a sliver between the centres: the cell that its highest point lies in
            highest = int(np.where(labels == component, scaled, -1).argmax())
            peaks.append(
                (highest // grid_columns * rows // grid_rows, highest % grid_columns * columns // grid_columns)
            )
    return peaks


def _around_centres(cells: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """For each cell along a side the grid's points on either side of its centre."""
    centres = (np.arange(cells) + 0.5) * points / cells - 0.5
    return np.floor(centres).clip(0).astype(int), np.ceil(centres).clip(0, points - 1).astype(int)


def _in_pixels(start: int, end: int, cells: int, pixels: int) -> tuple[float, float]:
    """Start and extent, rounded to 2 decimals, of a run of the grid's cells along a side of so many pixels."""
    low = round(start * pixels / cells, 2)
    extent = round(round(end * pixels / cells, 2) - low, 2)
    if low + extent > pixels:  # by the last bit of the sum of two decimals
        extent = round(extent - 0.01, 2)
    return low, extent
