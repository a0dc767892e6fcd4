"""Loads the image of a planned row for the network: its digest, its pixels at each scale, or its row in another run."""

import dataclasses
import hashlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from camboxes.transforms.boxes.second_look import SIDE, quarters
from camboxes.transforms.containers.members import Image
from camboxes.transforms.contents.shard_contents import image_bytes
from camboxes.transforms.images.decoding import BadImageError, Limits, check_not_blank, decode_at_least
from camboxes.transforms.planning.label_matching import LabelMatcher, UnmatchedLabelsError, UnnamedClassesError
from camboxes.transforms.planning.reuse import ReusableRows
from camboxes.transforms.sources.background import CONTRADICTION, contradiction

if TYPE_CHECKING:
    import torch

    from camboxes.models import Localizer

Row = dict[str, Any]
Rectangle = tuple[int, int, int, int]


class PlannedImage(NamedTuple):
    """An image that is to be loaded.

    Attributes:
      shard: of the image; only compared with other images' shards.
      number: its place in the shard, from 0.
      row: in the schema PLANNED.
      content: see `contents`.
      is_last: whether it is the shard's last one.
    """

    shard: Any
    number: int
    row: Row
    content: Image | None
    is_last: bool


class LoadedImage(NamedTuple):
    """An image ready for the network, or the error or the row that finishes it.

    Attributes:
      planned: the image; its labels have class indices.
      digest: SHA-256 of its bytes, hexadecimal; None where they cannot be read.
      width, height: of the whole upright photograph in pixels; None where it was not decoded.
      rectangles: the parts of the photograph that the network looks at, as (x, y, width, height) in pixels; the whole
        photograph comes first. None where no label stands for a class: there is nothing to look for.
      pixels: of each rectangle at each scale, as `Localizer.resize` gives them.
      finished: the error that rejects the image, or its row in another run; None where the network looks at it.
    """

    planned: PlannedImage
    digest: str | None = None
    width: int | None = None
    height: int | None = None
    rectangles: tuple[Rectangle, ...] = ()
    pixels: "tuple[tuple[torch.Tensor, ...], ...]" = ()
    finished: BadImageError | Row | None = None


@dataclasses.dataclass(frozen=True)
class ImageLoader:
    """Loads images for a network, from any thread; takes rows from another run where that is `reusable`."""

    localizer: "Localizer"
    matcher: LabelMatcher
    reusable: ReusableRows | None
    limits: Limits

    def load(self, planned: PlannedImage) -> LoadedImage:
        """Reads an image, matches its labels, and decodes it unless another run has its row."""
        for label in planned.row["labels"]:
            if label["class_indices"] is None:
                label["class_indices"] = self._match(label)
        image, second_look = LoadedImage(planned), self.localizer.settings["second_look"]
        # Two pixels for one of the largest scale's. With one for one, one box in ten is another:
        # benchmarks/records/speed.md.
        side = math.ceil(2 * max(self.localizer.settings["scales"]) / (SIDE if second_look else 1))
        classes = any(label["class_indices"] for label in planned.row["labels"])
        try:
            if planned.row["labels"] and planned.row["background"]:
                labels = [label["label"] for label in planned.row["labels"]]
                raise BadImageError(CONTRADICTION, contradiction(labels, planned.row["background"]))
            data = image_bytes(planned.row, planned.content, self.limits)
            digest = hashlib.sha256(data).hexdigest()
            image = image._replace(digest=digest)
            if classes and self.reusable is not None and (known := self.reusable.find(digest, planned.row)) is not None:
                self.limits.check_pixels(known["width"], known["height"])
                return image._replace(finished=known)
            pixels, width, height = decode_at_least(data, side, decode_jpeg, self.limits)
            check_not_blank(pixels)
        except BadImageError as error:
            return image._replace(finished=error)
        image = image._replace(width=width, height=height)
        if not classes:
            return image
        rectangles = ((0, 0, width, height), *(quarters(width, height) if second_look else ()))
        resized = tuple(self.localizer.resize(crop(pixels, of, width, height)) for of in rectangles)
        return image._replace(rectangles=rectangles, pixels=resized)

    def _match(self, label: Row) -> tuple[int, ...]:
        """The classes that a label stands for; empty if it has no category, or the network has no class for it."""
        if label["category_id"] is None:
            return ()
        try:
            return self.matcher.match(label["label"])
        except UnnamedClassesError:  # no image's label can be matched
            raise
        except UnmatchedLabelsError:
            return ()


def crop(pixels: np.ndarray, rectangle: Rectangle, width: int, height: int) -> np.ndarray:
    """Crops a rectangle of a photograph of width x height, of which `pixels` may be a smaller version."""
    x, y, wide, high = rectangle
    rows, columns = pixels.shape[:2]
    left, right = round(x * columns / width), round((x + wide) * columns / width)
    top, bottom = round(y * rows / height), round((y + high) * rows / height)
    return pixels[top:bottom, left:right]


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decodes a whole JPEG with torchvision, in half of Pillow's time, to the pixels that Pillow gives.

    Returns:
      uint8 [height, width, 3], RGB, without EXIF orientation; contiguous, the layout in which resizing is fastest.

    Raises:
      RuntimeError: the data cannot be decoded.
    """
    import torch
    from torchvision import io

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return io.decode_jpeg(encoded, mode=io.ImageReadMode.RGB).permute(1, 2, 0).numpy()
