"""Fits calibrated scores to a few boxed images, and says how far they can be trusted.

Fifty boxes do not determine fourteen weights. So the weights' directions were learned beforehand, one on each of two
data sets unlike each other (photographs of one thing, crowded scenes), and what is fitted is how much of each is in the
run at hand, and, slowly, what else its own boxes say. `benchmarks/tuning.py --write` makes the directions.
"""

import importlib.resources
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from camboxes.pipeline.evaluation.matching import Matching
from camboxes.pipeline.tuning.thresholds import folds
from camboxes.transforms import BoxRule, PlannedRun
from camboxes.transforms.boxes.calibration import Calibration, standardise
from camboxes.transforms.boxes.evidence import Evidence, evidence
from camboxes.transforms.boxes_from_maps import drawn_labels
from camboxes.transforms.ordered_threads import ahead

_FEWEST = 10  # boxes, and
_FEWEST_OF_A_KIND = 3  # right ones, and wrong ones: below, the base rate is all that can be said
_SHARED, _APART, _OWN = 3.0, 1.5, 0.3  # how freely the directions' sum, their difference and single weights are fitted
_STRENGTH = 0.1  # scikit-learn's C
_BINS = 10  # of equal mass
_IMAGES = 2000  # of the run, at most, that say what is average
_AHEAD = 64  # images


class Sample(NamedTuple):
    """Boxes that can be judged.

    Attributes:
      image: int64 [boxes], which image each is on.
      evidence: float64 [boxes, fields of Evidence].
      right: bool [boxes], whether each reaches IoU 0.5.
    """

    image: np.ndarray
    evidence: np.ndarray
    right: np.ndarray

    def some(self, boxes: np.ndarray) -> "Sample":
        """A part of the boxes."""
        return Sample(self.image[boxes], self.evidence[boxes], self.right[boxes])


class Samples(NamedTuple):
    """What a calibration is fitted to.

    Attributes:
      boxed: boxes of which it is known whether they are right, and whether they are.
      of_run: evidence of the boxes of up to 2,000 images spread over the run, float64 [boxes, fields of Evidence].
    """

    boxed: Sample
    of_run: np.ndarray


def samples(run: PlannedRun, matching: Matching, rule: BoxRule) -> Samples:
    """Draws boxes by a rule, and looks at them.

    Args:
      run: a finished run.
      matching: its images that the ground truth has boxes of.
      rule: how boxes are drawn.
    """
    step, categories = math.ceil(run.images / _IMAGES), set(matching.categories)

    def of_row(row: dict[str, Any]) -> tuple[str, list[Evidence], list[tuple[Evidence, bool]]]:
        average, boxed = [], []
        truth = matching.truths.get(row["path"])
        for label, maps, seen in drawn_labels(row, rule):
            for look, bbox, _, box in seen:
                stored, working, drawn = maps[look]
                found = evidence(working, drawn, box, label["probability"], stored)
                average.append(found)
                right = truth.is_right(label["label"], bbox) if truth else None
                if right is not None and label["label"] in categories:
                    boxed.append((found, right))
        return row["path"], average if row["image_id"] % step == 0 else [], boxed

    average: list[Evidence] = []
    image, seen, right = [], [], []
    numbers = {path: number for number, path in enumerate(matching.truths)}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        columns = ["image_id", "path", "width", "height", "labels", "maps"]
        rows = (row for row in run.rows(columns) if row["path"] in numbers or row["image_id"] % step == 0)
        for path, of_run, boxed in ahead("evidence", threads, of_row, rows, _AHEAD):
            average += of_run
            for found, is_right in boxed:
                image.append(numbers[path])
                seen.append(found)
                right.append(is_right)
    fields = len(Evidence._fields)
    return Samples(
        Sample(np.array(image, np.int64), np.array(seen).reshape(-1, fields), np.array(right, bool)),
        np.array(average or seen).reshape(-1, fields),
    )


class Trust(NamedTuple):
    """How good probabilities are on boxes that they were not fitted to.

    Attributes:
      boxes: how many.
      brier, constant_brier: mean squared error, and that of the base rate; lower is better.
      ece, constant_ece: expected calibration error over ten bins of equal mass, likewise.
      auroc: how well they tell right boxes from wrong ones, 0.5 for chance; None where all are of one kind.
      bins: of the reliability diagram: mean probability, share of right boxes, boxes.
    """

    boxes: int
    brier: float
    constant_brier: float
    ece: float
    constant_ece: float
    auroc: float | None
    bins: list[tuple[float, float, int]]


Directions = list[dict[str, float]]


def known_directions() -> Directions:
    """The directions that come with camboxes: weights of the standardised evidence."""
    text = importlib.resources.files(__package__).joinpath("calibration_directions.json").read_text("utf-8")
    return list(json.loads(text)["directions"].values())


def fit(sample: Sample, of_run: np.ndarray, directions: Directions | None = None) -> Calibration:
    """Fits a calibration.

    Args:
      sample: the boxes to fit it to.
      of_run: evidence of the run's boxes, or a sample of them, float64 [boxes, fields of Evidence]: what is average.
      directions: None for `known_directions`.

    Returns:
      The base rate alone where there are fewer than ten boxes, or fewer than three right or three wrong ones.
    """
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(of_run)
        counts = np.maximum(known.sum(axis=0), 1)
        means = np.where(known, of_run, 0).sum(axis=0) / counts
        deviations = np.sqrt(np.square(np.where(known, of_run - means, 0)).sum(axis=0) / counts)
    mean = dict(zip(Evidence._fields, means.tolist(), strict=True))
    deviation = dict(zip(Evidence._fields, np.where(deviations > 1e-9, deviations, 1.0).tolist(), strict=True))
    right = int(sample.right.sum())
    if len(sample.right) < _FEWEST or min(right, len(sample.right) - right) < _FEWEST_OF_A_KIND:
        rate = (right + 0.5) / (len(sample.right) + 1)
        return Calibration(float(np.log(rate / (1 - rate))), dict.fromkeys(Evidence._fields, 0.0), mean, deviation)
    from sklearn.linear_model import LogisticRegression

    basis = _basis(directions or known_directions())
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit(standardise(sample.evidence, mean, deviation) @ basis, sample.right)
    weights = dict(zip(Evidence._fields, (basis @ model.coef_[0]).tolist(), strict=True))
    return Calibration(float(model.intercept_[0]), weights, mean, deviation)


def _basis(directions: Directions) -> np.ndarray:
    """The columns that are fitted, [fields of Evidence, columns]; a longer one is penalised less."""
    first, *others = (np.array([weights[name] for name in Evidence._fields]) for weights in directions)
    together = sum(others, first) / (1 + len(others))
    apart = [_APART * (other - first) / 2 for other in others]
    return np.stack([_SHARED * together, *apart, *(_OWN * np.eye(len(Evidence._fields)))], axis=1)


def probabilities(calibration: Calibration, evidence: np.ndarray) -> np.ndarray:
    """Calibrated scores, float64 [boxes]."""
    return np.array([calibration.probability(Evidence(*row)) for row in evidence.tolist()])


def held_out(sample: Sample, of_run: np.ndarray) -> np.ndarray:
    """Of each box the score that a fit to images of other folds gives, float64 [repeats, boxes]."""
    found: dict[int, np.ndarray] = {}
    for repeat, train, test in folds(sample.image):
        scores = found.setdefault(repeat, np.empty(len(sample.right)))
        scores[test] = probabilities(fit(sample.some(train), of_run), sample.evidence[test])
    return np.array(list(found.values())).reshape(-1, len(sample.right))


def trust(scores: np.ndarray, right: np.ndarray, base_rate: float) -> Trust:
    """Judges probabilities, float64 [boxes], that were not fitted to these boxes.

    Args:
      scores: the probabilities.
      right: bool [boxes].
      base_rate: the constant that they are compared with.
    """
    from sklearn.metrics import roc_auc_score

    one_kind = right.all() or not right.any()
    return Trust(
        boxes=len(right),
        brier=float(np.square(scores - right).mean()),
        constant_brier=float(np.square(base_rate - right).mean()),
        ece=_ece(scores, right),
        constant_ece=_ece(np.full(len(right), base_rate), right),
        auroc=None if one_kind else float(roc_auc_score(right, scores)),
        bins=list(_bins(scores, right)),
    )


def _ece(scores: np.ndarray, right: np.ndarray) -> float:
    return sum(abs(mean - share) * count for mean, share, count in _bins(scores, right)) / len(right)


def _bins(scores: np.ndarray, right: np.ndarray) -> Iterator[tuple[float, float, int]]:
    """Mean score, share of right boxes and size of each tenth of the boxes, by score."""
    for part in np.array_split(np.argsort(scores, kind="stable"), min(_BINS, len(scores))):
        yield float(scores[part].mean()), float(right[part].mean()), len(part)
