"""True boxes, in whatever format they were given.

Boxes are x, y, width, height in pixels of the upright image, half-open: pixels count from 0, and x + width is the first
column outside the box.
"""

import dataclasses
import math
import types
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from camboxes.transforms.boxes.from_map import best_iou


class TrueImage(NamedTuple):
    """The true boxes of an image, float64 [boxes, 4] for each category name. An image without boxes holds none."""

    path: str  # as the ground truth gives it
    width: int | None  # pixels of the upright image; None where the ground truth does not say
    height: int | None
    boxes: dict[str, np.ndarray]
    ignored: dict[str, np.ndarray]  # count neither as found nor as missed: COCO's crowds, VOC's difficult objects
    wrong: Mapping[str, np.ndarray | None] = types.MappingProxyType({})  # rejected by a person; None: any box is wrong

    def is_right(self, category: str, bbox: Sequence[float]) -> bool | None:
        """Whether a box reaches IoU 0.5 with a true box of its category; None where that is unknown."""
        box = np.array([bbox])
        if category in self.boxes:
            return bool(best_iou(box, self.boxes[category])[0] >= 0.5)
        if category not in self.wrong:
            return None
        wrong = self.wrong[category]
        return False if wrong is None or best_iou(box, wrong)[0] >= 0.5 else None


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """The true boxes of a data set."""

    source: str  # the file or folder that they were read from
    categories: tuple[str, ...]  # all names, sorted; COCO also names categories without a box
    images: dict[str, TrueImage]  # by the path that the ground truth gives


class GroundTruthBuilder:
    """Collects the images and boxes that a reader finds, checks them, and builds a `GroundTruth`."""

    def __init__(self, source: str):
        self.source = source
        self.categories: set[str] = set()
        self._images: dict[str, _Image] = {}

    def add_image(self, path: str, width: Any, height: Any, where: str) -> None:
        """Adds an image. Adding it again with the same size changes nothing.

        Sides are numbers of pixels or their texts; None or "" where they are not given. Errors name the place `where`.

        Raises:
          ValueError: a side is no whole number from 1, or the image was added with another size.
        """
        size = _side(width, where), _side(height, where)
        before = self._images.setdefault(path, _Image(size, defaultdict(list), defaultdict(list))).size
        if before != size:
            raise ValueError(
                f"{where}: {path!r} has {size[0]} x {size[1]} pixels, and before it had {before[0]} x {before[1]}; "
                "expected one size for each image"
            )

    def add_box(self, path: str, category: str, box: list[float], ignored: bool, where: str) -> None:
        """Adds a box to an image that was added.

        Raises:
          ValueError: the box has no extent, or is not finite.
        """
        if not all(map(math.isfinite, box)) or box[2] <= 0 or box[3] <= 0:
            raise ValueError(
                f"{where}: the box of {category!r} is x {box[0]:g}, y {box[1]:g}, {box[2]:g} x {box[3]:g} pixels; "
                "expected finite numbers and an extent above 0: correct the box, or delete it"
            )
        self.categories.add(category)
        image = self._images[path]
        (image.ignored if ignored else image.boxes)[category].append(box)

    def build(self) -> GroundTruth:
        """The collected images and boxes.

        Raises:
          ValueError: there is no box to find.
        """
        images = {
            path: TrueImage(path, *image.size, box_arrays(image.boxes), box_arrays(image.ignored))
            for path, image in self._images.items()
        }
        if not any(image.boxes for image in images.values()):
            found = "only crowd or difficult boxes" if any(image.ignored for image in images.values()) else "no boxes"
            raise ValueError(f"ground truth {self.source!r} holds {found}; expected at least one box to judge by")
        return GroundTruth(self.source, tuple(sorted(self.categories)), images)


class _Image(NamedTuple):
    size: tuple[int | None, int | None]
    boxes: defaultdict[str, list[list[float]]]
    ignored: defaultdict[str, list[list[float]]]


def box_arrays(boxes: Mapping[str, list[list[float]]]) -> dict[str, np.ndarray]:
    """For each category the boxes as one array, float64 [boxes, 4]."""
    return {category: np.array(of_category, np.float64) for category, of_category in boxes.items()}


def _side(value: Any, where: str) -> int | None:
    """A side of an image in pixels; None where it is not given."""
    if value in (None, ""):
        return None
    try:
        side = float(value)
    except (TypeError, ValueError):
        side = math.nan
    if not (side >= 1 and side.is_integer()):
        raise ValueError(f"{where}: a side of the image is {value!r:.80}; expected whole pixels, 1 or more")
    return int(side)
