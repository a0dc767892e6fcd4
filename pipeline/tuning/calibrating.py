"""Fits calibrated scores to a few boxed images.

Fifty boxes do not determine fourteen weights. So the weights' directions were learnt beforehand, one on each of two
very different data sets (photographs of one thing, crowded scenes). The fit decides how much of each direction the run
needs; single weights are fitted too, under a strong penalty. `benchmarks/tuning.py --write` makes the directions.
"""

import importlib.resources
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from camboxes.pipeline.evaluation.matching import Matching
from camboxes.transforms import BoxRule, PlannedRun
from camboxes.transforms.boxes.calibration import Calibration, standardise
from camboxes.transforms.boxes.evidence import Evidence, evidence
from camboxes.transforms.boxes_from_maps import drawn_labels
from camboxes.transforms.ordered_threads import OrderedMap

_FEWEST, _FEWEST_OF_A_KIND = 10, 3  # boxes; right boxes, and wrong boxes
_TO_JUDGE = 10  # right boxes, and wrong boxes, below which chance passes for a signal
_SHARED, _APART, _OWN = 3.0, 1.5, 0.3  # how freely the directions' sum, their difference and single weights are fitted
_STRENGTH = 0.1  # scikit-learn's C
_IMAGES = 2000  # of the run, at most, to standardise the evidence by
_AHEAD = 64  # images read ahead of the threads


class Sample(NamedTuple):
    """Judged boxes."""

    image: np.ndarray  # int64 [boxes], the image of each
    evidence: np.ndarray  # float64 [boxes, fields of Evidence]
    right: np.ndarray  # bool [boxes], whether each reaches IoU 0.5

    @property
    def is_small(self) -> bool:
        """Whether there are fewer than ten boxes, three right ones, three wrong ones or two images."""
        right, boxes = int(self.right.sum()), len(self.right)
        return boxes < _FEWEST or min(right, boxes - right) < _FEWEST_OF_A_KIND or len(np.unique(self.image)) < 2

    @property
    def shows_quality(self) -> bool:
        """Whether there are ten right and ten wrong boxes, to judge a calibration by."""
        right = int(self.right.sum())
        return min(right, len(self.right) - right) >= _TO_JUDGE and not self.is_small

    def some(self, boxes: np.ndarray) -> "Sample":
        """Selects boxes by indices."""
        return Sample(self.image[boxes], self.evidence[boxes], self.right[boxes])


def samples(run: PlannedRun, matching: Matching, rule: BoxRule) -> tuple[Sample, np.ndarray]:
    """Draws boxes of a finished run by a rule, and collects their evidence.

    Returns:
      The judged boxes, and the evidence of all boxes on up to 2,000 images spread over the run, float64 [boxes, fields
      of Evidence].
    """
    step = math.ceil(run.images / _IMAGES)
    numbers = {path: number for number, path in enumerate(matching.truths)}
    categories, fields = set(matching.categories), len(Evidence._fields)

    def of_row(row: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[Evidence, bool | None]]]:
        """The evidence of each box of a row, and whether the box is right; None if that is not known."""
        found: list[tuple[Evidence, bool | None]] = []
        for label, maps, seen in drawn_labels(row, rule):
            truth = matching.truths.get(row["path"]) if label["label"] in categories else None
            for look, bbox, _, box in seen:
                stored, working, drawn = maps[look]
                right = truth.is_right(label["label"], bbox) if truth else None
                found.append((evidence(working, drawn, box, label["probability"], stored), right))
        return row, found

    average: list[Evidence] = []
    image, seen, right = [], [], []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        columns = ["image_id", "path", "width", "height", "labels", "maps"]
        rows = (row for row in run.rows(columns) if row["path"] in numbers or row["image_id"] % step == 0)
        for row, found in OrderedMap("evidence", threads, of_row, _AHEAD).all(rows):
            if row["image_id"] % step == 0:
                average += [each for each, _ in found]
            for each, is_right in found:
                if is_right is not None:
                    image.append(numbers[row["path"]])
                    seen.append(each)
                    right.append(is_right)
    boxed = Sample(np.array(image, np.int64), np.array(seen).reshape(-1, fields), np.array(right, bool))
    return boxed, np.array(average or seen).reshape(-1, fields)


Directions = list[dict[str, float]]


def known_directions() -> Directions:
    """Reads the directions that come with camboxes: weights of the standardised evidence."""
    text = importlib.resources.files(__package__).joinpath("calibration_directions.json").read_text("utf-8")
    return list(json.loads(text)["directions"].values())


def fit(sample: Sample, of_run: np.ndarray, directions: Directions | None = None) -> Calibration:
    """Fits a calibration to boxes.

    Of a small sample it gives every box the base rate.

    Args:
      sample: the boxes.
      of_run: float64 [boxes, fields of Evidence], of a sample of the run's boxes: evidence is standardised by it.
      directions: None for `known_directions`.
    """
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(of_run)
        counts = np.maximum(known.sum(axis=0), 1)
        means = np.where(known, of_run, 0).sum(axis=0) / counts
        deviations = np.sqrt(np.square(np.where(known, of_run - means, 0)).sum(axis=0) / counts)
    mean = dict(zip(Evidence._fields, means.tolist(), strict=True))
    deviation = dict(zip(Evidence._fields, np.where(deviations > 1e-9, deviations, 1.0).tolist(), strict=True))
    if sample.is_small:
        rate = (sample.right.sum() + 0.5) / (len(sample.right) + 1)
        return Calibration(float(np.log(rate / (1 - rate))), dict.fromkeys(Evidence._fields, 0.0), mean, deviation)
    from sklearn.linear_model import LogisticRegression

    basis = _basis(directions or known_directions())
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit(standardise(sample.evidence, mean, deviation) @ basis, sample.right)
    weights = dict(zip(Evidence._fields, (basis @ model.coef_[0]).tolist(), strict=True))
    return Calibration(float(model.intercept_[0]), weights, mean, deviation)


def _basis(directions: Directions) -> np.ndarray:
    """The columns whose weights are fitted, [fields of Evidence, columns]; a longer one is penalised less."""
    first, *others = (np.array([weights[name] for name in Evidence._fields]) for weights in directions)
    together = sum(others, first) / (1 + len(others))
    apart = [_APART * (other - first) / 2 for other in others]
    return np.stack([_SHARED * together, *apart, *(_OWN * np.eye(len(Evidence._fields)))], axis=1)


def probabilities(calibration: Calibration, evidence: np.ndarray) -> np.ndarray:
    """Calibrated scores, float64 [boxes]."""
    return np.array([calibration.probability(Evidence(*row)) for row in evidence.tolist()])
