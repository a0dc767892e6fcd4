"""Calibrated scores: the probability that a box reaches IoU 0.5 with a true box, estimated from its map.

The calibration is a logistic regression on `Evidence`, standardised over the run. `camboxes tune` fits it to a few
boxed images. Every worker can apply it: it is a dot product.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from camboxes.transforms.boxes.evidence import Evidence

_CLIP = 4.0  # standard deviations, so that no single number outweighs all others


@dataclasses.dataclass(frozen=True)
class Calibration:
    """P(IoU >= 0.5 | evidence) = 1 / (1 + exp(-(intercept + sum_k weight_k * standardised evidence_k))).

    Attributes:
      intercept: log odds of a box with average evidence.
      weights: of each field of `Evidence`; all 0 if only the base rate is known.
      mean, deviation: of each field over the run's boxes.
    """

    intercept: float
    weights: Mapping[str, float]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]

    def probability(self, evidence: Evidence) -> float:
        """The calibrated score of one box, in (0, 1), rounded to 4 decimals."""
        standardised = standardise(np.array([evidence]), self.mean, self.deviation)[0]
        weights = np.array([self.weights[name] for name in Evidence._fields])
        return round(float(1 / (1 + np.exp(-(self.intercept + standardised @ weights)))), 4)

    def as_json(self) -> dict[str, Any]:
        """The calibration as a JSON object, for a file and for a run's settings."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """Reads what `as_json` gives.

        Raises:
          ValueError: the calibration was fitted to other evidence than this version has.
        """
        if set(value["weights"]) != set(Evidence._fields):
            raise ValueError(
                f"the calibration weighs {', '.join(sorted(value['weights']))}; this version of camboxes looks at "
                f"{', '.join(Evidence._fields)}: run camboxes tune again"
            )
        return cls(**value)


def standardise(evidence: np.ndarray, mean: Mapping[str, float], deviation: Mapping[str, float]) -> np.ndarray:
    """Standardises evidence [boxes, fields]: standard deviations from the mean, clipped to 4; 0 for unknown values."""
    means, deviations = (np.array([of[name] for name in Evidence._fields]) for of in (mean, deviation))
    return np.nan_to_num(np.clip((evidence - means) / deviations, -_CLIP, _CLIP), nan=0.0)
