"""Stored score maps: uint8 cells at the map's own resolution, with the range before quantisation."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class StoredMap:
    """A quantised score map.

    Attributes:
      cells: uint8 [height, width]; 0 stands for raw_min and 255 for raw_max.
      raw_min, raw_max: the map's range before quantisation; NaN if the map was not finite.
    """

    cells: np.ndarray
    raw_min: float
    raw_max: float

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "StoredMap":
        """Reads an entry of the column `maps`."""
        cells = np.frombuffer(entry["cells"], np.uint8).reshape(entry["height"], entry["width"])
        return cls(cells, entry["raw_min"], entry["raw_max"])

    def entry(self) -> dict[str, Any]:
        """The fields of an entry of the column `maps` that hold the map."""
        height, width = self.cells.shape
        own = {"height": height, "width": width, "cells": self.cells.tobytes()}
        return own | {"raw_min": self.raw_min, "raw_max": self.raw_max}

    @property
    def empty_because(self) -> str | None:
        """The reason why the map gives no box at any threshold; None if it can give one."""
        if not (math.isfinite(self.raw_min) and math.isfinite(self.raw_max)):
            return "map_not_finite: the map holds NaN or infinity"
        if self.raw_max <= 0:
            return "map_not_positive: no cell of the map is positive for the class"
        if self.cells.min() == self.cells.max():
            return "map_constant: every cell of the map has the same value"
        return None


def quantize(score_map: np.ndarray) -> StoredMap:
    """Quantises a float map [height, width] to 256 steps between its smallest and its largest value."""
    score_map = np.asarray(score_map, np.float32)
    low, high = float(score_map.min()), float(score_map.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return StoredMap(np.zeros(score_map.shape, np.uint8), math.nan, math.nan)
    # In float64: high - low of two float32 values can overflow float32.
    scale = 255 / (high - low) if high > low else 0.0
    cells = np.rint((score_map.astype(np.float64) - low) * scale)
    return StoredMap(cells.astype(np.uint8), low, high)
