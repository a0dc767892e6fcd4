"""Measures by cross-validation how good the calibration of some boxes is on the boxes of other images.

Each fold is scored by a fit of its own with an intercept of its own. So boxes are compared inside their fold alone:
over all folds, scores would rank the folds, and from fifty images an AUROC below 0.5 would follow by chance.
"""

from typing import NamedTuple

import numpy as np

from camboxes.pipeline.tuning.calibrating import Sample, fit, probabilities
from camboxes.pipeline.tuning.cross_validation import folds


class Quality(NamedTuple):
    """How good calibrated scores are on images that they were not fitted to."""

    boxes: int  # number of boxes that were scored
    images: int  # number of their images
    brier: float  # mean squared error of the probabilities; lower is better
    constant_brier: float  # that of one probability for all boxes: the share of right ones on the other folds
    auroc: float | None  # how well scores tell right boxes from wrong ones, 0.5 by chance; None: no fold has both
    auroc_error: float | None  # its standard error over images; None likewise

    @property
    def is_useful(self) -> bool:
        """Whether scores tell right boxes from wrong ones, by a standard error, and are better than one for all."""
        ranks = self.auroc is not None and self.auroc_error is not None and self.auroc - self.auroc_error > 0.5
        return ranks and self.brier < self.constant_brier


def cross_validated(sample: Sample, of_run: np.ndarray) -> Quality:
    """Measures the calibration that `fit` makes of a sample; `of_run` as there. The sample has two images, at least."""
    squares: list[np.ndarray] = []
    wins, pairs = np.zeros((2, len(sample.right)))
    for _, train, test in folds(sample.image):
        known, right = sample.some(train), sample.right[test]
        scores = probabilities(fit(known, of_run), sample.evidence[test])
        rate = (known.right.sum() + 0.5) / (len(train) + 1)
        squares.append(np.square([scores - right, rate - right]))
        wins[test] += _wins(scores, right)
        pairs[test] += np.where(right, (~right).sum(), right.sum())
    brier, constant = np.concatenate(squares, axis=1).mean(axis=1).tolist()
    images = len(np.unique(sample.image))
    return Quality(len(sample.right), images, brier, constant, *_auroc(wins, pairs, sample.image))


def _wins(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """For each box the number of boxes of the other kind that it is told from, float64 [boxes]; a tie counts half."""
    wins = np.empty(len(scores))
    for kind, sign in ((True, 1), (False, -1)):
        own, others = sign * scores[right == kind], np.sort(sign * scores[right != kind])
        wins[right == kind] = (np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")) / 2
    return wins


def _auroc(wins: np.ndarray, pairs: np.ndarray, image: np.ndarray) -> tuple[float | None, float | None]:
    """The share of pairs that are told apart, and its standard error: the jackknife's, over images."""
    if not pairs.any():
        return None, None
    _, place = np.unique(image, return_inverse=True)
    rest = pairs.sum() - 2 * np.bincount(place, pairs)  # each pair was counted for both of its boxes
    left_out = (wins.sum() - 2 * np.bincount(place, wins))[rest > 0] / rest[rest > 0]
    return float(wins.sum() / pairs.sum()), float(np.sqrt((len(left_out) - 1) * left_out.var()))
