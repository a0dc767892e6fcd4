"""The metrics of weakly supervised localization as Beam combiners, for millions of maps in a job.

    p | beam.Create(boxed_maps) | beam.CombineGlobally(MaxBoxAcc(step=0.001))    # → BoxAccuracy
    p | beam.Create(masked_maps) | beam.CombineGlobally(PxAP(step=0.001))        # → PixelPrecision

They add up the accumulators of `metrics`, which are integers. So every runner, order and number of workers gives the
value of the plain functions. Maps, boxes and masks are resized to 224 x 224 inside. Both fail on an empty collection,
which has no value.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np

from camboxes.transforms.wsol.metrics import (
    BoxAccuracy,
    BoxCounts,
    PixelCounts,
    PixelPrecision,
    naming,
    pixel_labels,
    scale_boxes,
    scale_map,
)

Counts = BoxCounts | PixelCounts


class BoxedMap(NamedTuple):
    """One image's map and its ground truth, for `MaxBoxAcc`.

    Attributes:
      name: names the image in errors.
      score_map: [height, width] of any size, signed, of the class whose boxes these are.
      boxes: x0, y0, x1, y1 in pixels of the image; at least one.
      width, height: of the image, in pixels.
    """

    name: str
    score_map: np.ndarray
    boxes: Sequence[Sequence[float]]
    width: int
    height: int


class MaskedMap(NamedTuple):
    """One image's map and its ground truth, for `PxAP`.

    Attributes:
      name: names the image in errors.
      score_map: [height, width] of any size, signed, of the class whose masks these are.
      masks: [height, width] of any size each, foreground above 0.5; at least one.
      ignore: what is neither foreground nor background, likewise, or None.
    """

    name: str
    score_map: np.ndarray
    masks: Sequence[np.ndarray]
    ignore: np.ndarray | None = None


class _CountMaps(beam.CombineFn):
    """Adds up the counts of maps; a subclass makes the counts of one map.

    Attributes:
      kind: the kind of counts.
    """

    kind: type[Counts]

    def __init__(self, step: float = 0.001):
        """Takes the step of the thresholds."""
        super().__init__()
        self._step = step

    def create_accumulator(self) -> Counts:
        """Counts nothing."""
        return self.kind.none(self._step)

    def merge_accumulators(self, accumulators: Iterable[Counts]) -> Counts:
        """Adds up."""
        return sum(accumulators, self.create_accumulator())

    def extract_output(self, accumulator: Counts) -> BoxAccuracy | PixelPrecision:
        """The metrics."""
        return accumulator.result()

    def get_accumulator_coder(self) -> "CountsCoder":
        """Not pickle: equal accumulators have equal bytes."""
        return CountsCoder(self.kind)


class MaxBoxAcc(_CountMaps):
    """`BoxedMap`s → `BoxAccuracy`: MaxBoxAcc and MaxBoxAccV2."""

    kind = BoxCounts

    def add_input(self, accumulator: BoxCounts, element: BoxedMap) -> BoxCounts:
        """Judges one map."""
        with naming(element.name):
            boxes = scale_boxes(element.boxes, element.width, element.height)
            score_map = scale_map(element.score_map)
        return accumulator + BoxCounts.of(element.name, score_map, boxes, self._step)


class PxAP(_CountMaps):
    """`MaskedMap`s → `PixelPrecision`: PxAP."""

    kind = PixelCounts

    def add_input(self, accumulator: PixelCounts, element: MaskedMap) -> PixelCounts:
        """Judges one map."""
        labels = pixel_labels(element.name, element.masks, element.ignore)
        with naming(element.name):
            score_map = scale_map(element.score_map)
        return accumulator + PixelCounts.of(element.name, score_map, labels, self._step)


class CountsCoder(beam.coders.Coder):
    """The step and the number of images (little-endian float64, int64), then the counts as little-endian int64."""

    def __init__(self, kind: type[Counts]):
        """Takes the kind of accumulator."""
        self._kind = kind

    def encode(self, value: Counts) -> bytes:
        """Serialises an accumulator."""
        return struct.pack("<dq", value.step, value.images) + value.counts.astype("<i8").tobytes()

    def decode(self, encoded: bytes) -> Counts:
        """The inverse of encode."""
        step, images = struct.unpack_from("<dq", encoded)
        counts = np.frombuffer(encoded, "<i8", offset=16).reshape(self._kind.shape(step))
        return self._kind(step, images, counts.astype(np.int64))

    def is_deterministic(self) -> bool:
        """Equal accumulators have equal bytes."""
        return True

    def to_type_hint(self) -> type[Counts]:
        """The type that this coder serves."""
        return self._kind
