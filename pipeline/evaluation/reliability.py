"""Measures how good probabilities are on boxes that they were not fitted to."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_BINS = 10  # of equal mass


class Trust(NamedTuple):
    """Brier score, calibration error, AUROC and reliability diagram."""

    boxes: int  # number of boxes
    brier: float  # mean squared error of the probabilities; lower is better
    constant_brier: float  # that of the base rate
    ece: float  # expected calibration error over ten bins of equal mass; lower is better
    constant_ece: float  # that of the base rate
    auroc: float | None  # how well they separate right boxes from wrong ones, 0.5 for chance; None if all are one kind
    bins: list[tuple[float, float, int]]  # mean probability, share of right boxes and number of boxes of each bin


def trust(scores: np.ndarray, right: np.ndarray, base_rate: float) -> Trust:
    """Measures how good the probabilities `scores` of boxes are, beside a constant; `right` says which boxes are."""
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
