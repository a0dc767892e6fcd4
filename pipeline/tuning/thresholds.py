"""Chooses thresholds for a data set on a few boxed images, overall and by class.

Each candidate is judged by a soft version of "IoU >= 0.5", smoothed over neighbouring candidates. On fifty images a
single image moves the plain share of hits by two points, so its highest point is mostly noise (benchmarks/tuning.py).
For the same reason the run's own rule stays unless another is clearly better on held-out images.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from camboxes.pipeline.evaluation.redrawing import Redrawn
from camboxes.pipeline.tuning.cross_validation import REPEATS, folds, interval, standard_error
from camboxes.transforms.boxes.from_map import Threshold

_SOFTNESS = 0.05  # of IoU
_SMOOTHING = 2.0  # standard deviation, in candidates
_SHRINKAGES = (4.0, 16.0, 64.0)  # number of boxes that the overall curve counts as, beside a class's own boxes
_MARGIN = 1.0  # standard errors by which a rule must be better than a simpler one: benchmarks/tuning_draws.py
FEWEST = 10  # images with pairs; with fewer, nothing is chosen
OWN, OVERALL, BY_CLASS = "as it was", "overall", "per class"  # the rules that are tried


class Choice(NamedTuple):
    """The chosen thresholds, and how good they are expected to be."""

    rule: str  # OWN, OVERALL or BY_CLASS
    threshold: Threshold  # the overall threshold
    thresholds: dict[str, Threshold]  # by name, for categories with a threshold of their own
    shrinkage: float | None  # see _SHRINKAGES; None unless classes were given thresholds of their own
    expected: "dict[str, Expected]"  # by rule: OWN; OVERALL, if there are enough images; BY_CLASS, if it was chosen


class Expected(NamedTuple):
    """Results on images that the thresholds were not chosen on, by cross-validation, in percent."""

    known: float  # GT-known Loc at IoU 0.5
    low: float  # its 95% interval
    high: float
    mean_iou: float
    gain: float  # over the run's own rule, in percentage points of soft hits, which move less by chance
    error: float  # the standard error of the gain, paired over images


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Thresholds to choose from, and the IoU of each pair's box at each of them."""

    thresholds: list[Threshold]
    families: list[slice]  # of the candidates; inside a family, neighbours are similar
    iou: np.ndarray  # float [pairs, candidates]

    @classmethod
    def of(cls, judged: Redrawn) -> "Candidates":
        """The candidates of a redrawn run: fixed thresholds, and shares of the Otsu level."""
        fixed, adaptive = judged.thresholds.tolist(), [f"{share:g}*otsu" for share in judged.otsu_shares]
        families = [slice(0, len(fixed)), slice(len(fixed), len(fixed) + len(adaptive))]
        return cls([*fixed, *adaptive], families, np.concatenate([judged.iou_at, judged.iou_at_otsu], axis=1))

    def smoothed(self, curve: np.ndarray) -> np.ndarray:
        """Smooths curves over the candidates, [..., candidates], inside each family."""
        parts = []
        for family in self.families:
            places = np.arange(family.stop - family.start)
            kernel = np.exp(-0.5 * ((places[:, None] - places) / _SMOOTHING) ** 2)
            parts.append(curve[..., family] @ (kernel / kernel.sum(axis=0)))
        return np.concatenate(parts, axis=-1)


def choose(judged: Redrawn) -> Choice:
    """Chooses thresholds for a run.

    The run's own rule stays unless one threshold for all classes is better on held-out images: by more than the
    standard error of the difference in soft hits, and not worse in plain ones. Likewise thresholds by class must be
    better than both. With fewer than ten images the run's own rule stays.
    """
    rule: dict[str, Any] = judged.settings["rule"]
    images = len(np.unique(judged.image))
    if images < FEWEST:
        return Choice(OWN, rule["threshold"], rule.get("thresholds", {}), None, {})
    candidates, own = Candidates.of(judged), judged.iou[None]
    gains = _soft_hits(candidates.iou)
    overall = _held_out(candidates, gains, judged, None)
    chosen, best, shrinkage = OWN, own, None
    if _is_better(overall, own, judged.image):
        chosen, best = OVERALL, overall
    for strength in _SHRINKAGES if len(np.unique(judged.category)) > 1 else ():
        by_class = _held_out(candidates, gains, judged, strength)
        if all(_is_better(by_class, other, judged.image) for other in (own, overall, best)):
            chosen, best, shrinkage = BY_CLASS, by_class, strength
    expected = {name: _expected(iou, judged) for name, iou in ((OWN, own), (OVERALL, overall), (chosen, best))}
    if chosen == OWN:
        return Choice(OWN, rule["threshold"], rule.get("thresholds", {}), None, expected)
    number, numbers = _fit(candidates, gains, judged.category, np.arange(len(judged.iou)), shrinkage)
    thresholds = {
        judged.categories[category]: candidates.thresholds[candidate]
        for category, candidate in numbers.items()
        if candidate != number
    }
    return Choice(chosen, candidates.thresholds[number], thresholds, shrinkage, expected)


def _fit(
    candidates: Candidates, gains: np.ndarray, category: np.ndarray, pairs: np.ndarray, shrinkage: float | None
) -> tuple[int, dict[int, int]]:
    """Finds the best candidate for some pairs, and for each of their categories; the latter only with a shrinkage."""
    overall = gains[pairs].mean(axis=0)
    best = int(candidates.smoothed(overall).argmax())
    if shrinkage is None:
        return best, {}
    family, found = next(of for of in candidates.families if of.start <= best < of.stop), {}
    for number in np.unique(category[pairs]):
        own = gains[pairs[category[pairs] == number]]
        curve = (own.sum(axis=0) + shrinkage * overall) / (len(own) + shrinkage)
        found[int(number)] = family.start + int(candidates.smoothed(curve)[family].argmax())
    return best, found


def _held_out(candidates: Candidates, gains: np.ndarray, judged: Redrawn, shrinkage: float | None) -> np.ndarray:
    """IoU of each pair at the threshold that was chosen on images of other folds: float [repeats, pairs]."""
    found = np.empty((REPEATS, len(judged.iou)))
    for repeat, train, test in folds(judged.image):
        overall, by_class = _fit(candidates, gains, judged.category, train, shrinkage)
        chosen = [by_class.get(number, overall) for number in judged.category[test].tolist()]
        found[repeat, test] = candidates.iou[test, chosen]
    return found


def _soft_hits(iou: np.ndarray) -> np.ndarray:
    """A soft version of iou >= 0.5, in [0, 1]."""
    return 1 / (1 + np.exp((0.5 - iou) / _SOFTNESS))


def _gain(iou: np.ndarray, other: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    """By how much a rule's IoU [repeats, pairs] is better than another's, in soft hits; the standard error of that."""
    gain = _soft_hits(iou).mean(axis=0) - _soft_hits(other).mean(axis=0)
    return float(gain.mean()), standard_error(gain, image)


def _is_better(iou: np.ndarray, other: np.ndarray, image: np.ndarray) -> bool:
    """Whether a rule is better by the margin in soft hits, and not worse in plain ones."""
    gain, error = _gain(iou, other, image)
    return gain > _MARGIN * error and bool((iou >= 0.5).mean() >= (other >= 0.5).mean())


def _expected(iou: np.ndarray, judged: Redrawn) -> Expected:
    """Summarises IoU [repeats, pairs]."""
    hits = (iou >= 0.5).mean(axis=0)
    known, images = float(hits.mean()), len(np.unique(judged.image))
    low, high = interval(known, standard_error(hits, judged.image), images)
    figures = (known, low, high, float(iou.mean()), *_gain(iou, judged.iou[None], judged.image))
    return Expected(*(100 * figure for figure in figures))
