"""The metrics of weakly supervised localization (Choe et al., CVPR 2020): plain, and as Beam combiners.

Imports nothing else of camboxes.
"""

from camboxes.transforms.wsol.combiners import BoxedMap, MaskedMap, MaxBoxAcc, PxAP
from camboxes.transforms.wsol.metrics import (
    IOU_PERCENT,
    SIDE,
    BoxAccuracy,
    BoxCounts,
    PixelCounts,
    PixelPrecision,
    contour_boxes,
    pixel_labels,
    scale_boxes,
    scale_map,
    thresholds,
)

__all__ = [
    "IOU_PERCENT",
    "SIDE",
    "BoxAccuracy",
    "BoxCounts",
    "BoxedMap",
    "MaskedMap",
    "MaxBoxAcc",
    "PixelCounts",
    "PixelPrecision",
    "PxAP",
    "contour_boxes",
    "pixel_labels",
    "scale_boxes",
    "scale_map",
    "thresholds",
]
