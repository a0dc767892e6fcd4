"""A second look at four overlapping quarters of an image, for objects that are too small in the whole image.

Each quarter is mapped like an image. The map of the whole image takes precedence: a box of a quarter counts only where
there is no box of its label yet, and its score is halved. Measurements: benchmarks/records/refinement.md.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from camboxes.transforms.boxes.from_map import Drawn, MapBox, best_iou

SIDE = 0.6  # of the image's side: a quarter shares a third of its own with each neighbour
_WEIGHT = 0.5  # of its boxes' scores
_OVERLAP = 0.3  # IoU with a box of the same label from which on both count as the same box
_EDGE = 1.0  # pixels


class Seen(NamedTuple):
    """A label's box on the image.

    Attributes:
      look: index of the map that it was drawn from, among the label's maps.
      bbox: x, y, width, height in pixels of the image.
      share: its score divided by the label's probability: the map's mean in the box; half of that in a second look.
      box: the box as it was drawn, in pixels of the map's rectangle.
    """

    look: int
    bbox: tuple[float, float, float, float]
    share: float
    box: MapBox


def quarters(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """The rectangles of the second look: x, y, width and height in pixels. An image of a pixel or two has none."""
    own_width, own_height = round(SIDE * width), round(SIDE * height)
    if not (0 < own_width < width and 0 < own_height < height):
        return []
    return [(x, y, own_width, own_height) for y in (0, height - own_height) for x in (0, width - own_width)]


def is_whole(stored: Any, row: Any) -> bool:
    """Whether an entry of the column `maps` covers the whole image."""
    return list(stored["rectangle"]) == [0, 0, row["width"], row["height"]]


def merge(looks: Iterable[tuple[Sequence[int], Drawn]], width: int, height: int) -> list[Seen]:
    """Merges the boxes of one label from all its maps: those of the whole image, then those that the second look adds.

    Boxes that touch an inner edge of their quarter are left out, because the quarter cuts the object off. A look is the
    rectangle in the image, of `width` x `height` pixels, and the drawn boxes of one of the label's maps.
    """
    whole, second = [], []
    for number, (rectangle, drawn) in enumerate(looks):
        left, top = rectangle[:2]
        for box in drawn.boxes:
            x, y = round(box.bbox[0] + left, 2), round(box.bbox[1] + top, 2)
            bbox = (x, y, _inside(x, box.bbox[2], width), _inside(y, box.bbox[3], height))
            if list(rectangle) == [0, 0, width, height]:
                whole.append(Seen(number, bbox, box.mean, box))
            elif not _is_cut(box.bbox, rectangle, width, height):
                second.append(Seen(number, bbox, _WEIGHT * box.mean, box))
    found = whole
    for seen in sorted(second, key=lambda seen: (-seen.share, seen.look)):
        others = np.array([other.bbox for other in found]).reshape(-1, 4)
        if not len(others) or best_iou(np.array([seen.bbox]), others)[0] < _OVERLAP:
            found.append(seen)
    return found


def _inside(start: float, extent: float, side: int) -> float:
    """The extent, 0.01 smaller if rounding would put its end outside the image."""
    return extent if start + extent <= side else round(extent - 0.01, 2)


def _is_cut(bbox: Sequence[float], rectangle: Sequence[int], width: int, height: int) -> bool:
    axes = zip(bbox[:2], bbox[2:], rectangle[:2], rectangle[2:], (width, height), strict=True)
    return any(
        (first > 0 and start <= _EDGE) or (first + own < side and start + extent >= own - _EDGE)
        for start, extent, first, own, side in axes
    )
