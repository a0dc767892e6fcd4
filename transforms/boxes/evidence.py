"""Evidence for or against a box: numbers for calibration, computed from the stored map alone.

None of them is a probability, and each alone says little; `calibration` weighs them.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from camboxes.transforms.boxes.from_map import Drawn, MapBox, WorkingMap, best_iou

_CENTRE = 0.8  # of each side: a box as photographers fill it
_NUDGES = (-0.2, -0.1, 0.1, 0.2)  # of the level


class Evidence(NamedTuple):
    """Numbers about one box.

    Attributes:
      centre: IoU with a centred box of 80% of each side.
      upper_quartile: of the scaled map; it is high where much of the image is nearly as high as the peak.
      contrast: standard deviation of the scaled map.
      mass: share of the scaled map's sum that lies inside the box.
      log_odds: log odds of the class's probability.
      components: logarithm of the number of components.
      dominance: share of the foreground that this component covers.
      fill: share of the box that its component covers.
      log_aspect: logarithm of width / height.
      top: upper edge, as a share of the image's height.
      stability: mean IoU with the best box at levels from 0.2 lower to 0.2 higher.
      persistence: IoU with the best box at a level 0.2 higher.
      coherence, agreement: see the column `maps` in `records`; NaN if they are unknown.
    """

    centre: float
    upper_quartile: float
    contrast: float
    mass: float
    log_odds: float
    components: float
    dominance: float
    fill: float
    log_aspect: float
    top: float
    stability: float
    persistence: float
    coherence: float
    agreement: float


def evidence(working: WorkingMap, drawn: Drawn, box: MapBox, probability: float, stored: dict[str, Any]) -> Evidence:
    """Computes the evidence about one of the boxes drawn from a map.

    The probability is the class's; `stored` is the map's entry in the column `maps`.
    """
    scaled = working.scaled
    rows, columns = scaled.shape
    x, y, width, height = box.bbox
    grid_box = np.array([x / working.width, y / working.height, width / working.width, height / working.height])
    left, top = round(grid_box[0] * columns), round(grid_box[1] * rows)
    right, bottom = round(left + grid_box[2] * columns), round(top + grid_box[3] * rows)
    centre = np.array([(1 - _CENTRE) / 2, (1 - _CENTRE) / 2, _CENTRE, _CENTRE])
    nudged = []
    for nudge in _NUDGES:
        _, statistics = working.components(min(max(drawn.level + nudge, 0.01), 1.0))
        nudged.append(_iou(grid_box, statistics[1:, :4] / [columns, rows, columns, rows]))
    return Evidence(
        centre=_iou(grid_box, centre[None]),
        upper_quartile=float(np.quantile(scaled, 0.75)),
        contrast=float(scaled.std(dtype=np.float64)),
        mass=float(scaled[top:bottom, left:right].sum(dtype=np.float64) / scaled.sum(dtype=np.float64)),
        log_odds=math.log((probability + 1e-4) / (1 - probability + 1e-4)),
        components=math.log(len(drawn.areas)),
        dominance=box.area / sum(drawn.areas),
        fill=box.area / float(grid_box[2] * grid_box[3]),
        log_aspect=math.log(width / height),
        top=float(grid_box[1]),
        stability=sum(nudged) / len(nudged),
        persistence=nudged[-1],
        **{name: math.nan if stored.get(name) is None else stored[name] for name in ("coherence", "agreement")},
    )


def _iou(box: np.ndarray, others: np.ndarray) -> float:
    return float(best_iou(box[None], others)[0])
