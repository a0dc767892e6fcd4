"""Chooses thresholds for a data set on a few boxed images, overall and by class.

Each candidate is judged by a soft version of "IoU >= 0.5", smoothed over neighbouring candidates. On fifty images a
single image moves the plain share of hits by two points, so its highest point is mostly noise (benchmarks/tuning.py).
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from camboxes.pipeline.evaluation.redrawing import Redrawn
from camboxes.transforms.boxes.from_map import Threshold

_SOFTNESS = 0.05  # of IoU
_SMOOTHING = 2.0  # standard deviation, in candidates
_SHRINKAGES = (4.0, 16.0, 64.0)  # number of boxes that the overall curve counts as, beside a class's own boxes
_FOLDS, _REPEATS = 5, 4
_FEWEST = 10  # pairs; with fewer, nothing is chosen


class Choice(NamedTuple):
    """The chosen thresholds, and how good they are expected to be."""

    threshold: Threshold  # the overall threshold
    thresholds: dict[str, Threshold]  # by name, for categories with a threshold of their own
    shrinkage: float | None  # see _SHRINKAGES; None if all classes share one threshold
    expected: "dict[str, Expected]"  # on held-out images: "as it was", "overall" and, if it was chosen, "per class"


class Expected(NamedTuple):
    """Results on images that the thresholds were not chosen on, by cross-validation, in percent."""

    known: float  # GT-known Loc at IoU 0.5
    error: float  # its standard error, in percentage points
    mean_iou: float


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

    All classes share one threshold, unless thresholds by class are better on held-out images by more than twice the
    standard error of the difference. With fewer than ten pairs the run's own thresholds stay.
    """
    candidates = Candidates.of(judged)
    expected = {"as it was": _expected(judged.iou)}
    if len(judged.iou) < _FEWEST:
        rule = judged.settings["rule"]
        return Choice(rule["threshold"], rule.get("thresholds", {}), None, expected)
    gains = _soft_hits(candidates.iou)
    held_out: dict[float | None, np.ndarray] = {None: _held_out(candidates, gains, judged, None)}
    expected["overall"] = _expected(held_out[None])
    best: float | None = None
    for shrinkage in _SHRINKAGES if len(np.unique(judged.category)) > 1 else ():
        held_out[shrinkage] = _held_out(candidates, gains, judged, shrinkage)
        gain = _soft_hits(held_out[shrinkage]).mean(axis=0) - _soft_hits(held_out[best]).mean(axis=0)
        if gain.mean() > 2 * gain.std() / np.sqrt(len(gain)):
            best = shrinkage
    if best is not None:
        expected["per class"] = _expected(held_out[best])
    overall, by_class = _fit(candidates, gains, judged.category, np.arange(len(judged.iou)), best)
    thresholds = {
        judged.categories[category]: candidates.thresholds[candidate]
        for category, candidate in by_class.items()
        if candidate != overall
    }
    return Choice(candidates.thresholds[overall], thresholds, best, expected)


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
    found = np.empty((_REPEATS, len(judged.iou)))
    for repeat, train, test in folds(judged.image):
        overall, by_class = _fit(candidates, gains, judged.category, train, shrinkage)
        chosen = [by_class.get(number, overall) for number in judged.category[test].tolist()]
        found[repeat, test] = candidates.iou[test, chosen]
    return found


def folds(image: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Splits pairs into five folds by image, four times; `image` is that of each pair.

    Yields:
      The number of the repeat, the pairs outside the fold, and the pairs inside it. Nothing if there is one image.
    """
    random = np.random.default_rng(0)
    images = np.unique(image)
    count = min(_FOLDS, len(images))
    for repeat in range(_REPEATS):
        fold_of = dict(zip(random.permutation(images).tolist(), np.arange(len(images)) % count, strict=True))
        fold = np.array([fold_of[number] for number in image.tolist()])
        for number in range(count if count > 1 else 0):
            yield repeat, np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _soft_hits(iou: np.ndarray) -> np.ndarray:
    """A soft version of iou >= 0.5, in [0, 1]."""
    return 1 / (1 + np.exp((0.5 - iou) / _SOFTNESS))


def _expected(iou: np.ndarray) -> Expected:
    """Summarises IoU [pairs] or [repeats, pairs]."""
    hits = (iou >= 0.5).reshape(-1, iou.shape[-1]).mean(axis=0)
    return Expected(100 * float(hits.mean()), 100 * float(hits.std() / np.sqrt(len(hits))), 100 * float(iou.mean()))
