"""The bootstrap over images: how often each is drawn, and the intervals that figures of the resamples give.

Images are drawn, not pairs: labels of one image are not independent.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 95  # percent of the resamples inside an interval

_CELLS = 2**21  # of a chunk of weights: 16 MiB


class Estimate(NamedTuple):
    """A figure and its percentile interval; None where it is not defined.

    Attributes:
      value: over all images.
      low, high: what LEVEL percent of the resamples lie between.
    """

    value: float | None
    low: float | None
    high: float | None


def image_weights(paths: Sequence[str], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn, for one resample after another: float64 [some of the resamples, images].

    Each resample draws as many images as there are. A path's weights depend on the set of paths and the seed, not on
    their order, so that two runs over the same images share their resamples; fewer resamples are the first of more.
    """
    count = len(paths)
    places = np.argsort(np.array(paths, object))  # of the path that is n-th by name
    random = np.random.default_rng(seed)
    chunk = max(1, _CELLS // count)
    for start in range(0, resamples, chunk):
        weights = np.empty((min(chunk, resamples - start), count))
        for row in weights:
            row[places] = np.bincount(random.integers(count, size=count), minlength=count)
        yield weights


def estimates(values: np.ndarray, resampled: np.ndarray) -> list[Estimate]:
    """Estimates of several figures.

    Args:
      values: [figures]; NaN where one is not defined.
      resampled: [resamples, figures]; a resample in which a figure is NaN is left out of its interval.
    """
    found = []
    for value, sample in zip(values.tolist(), resampled.T, strict=True):
        defined = sample[~np.isnan(sample)]
        if np.isnan(value) or not len(defined):
            found.append(Estimate(None if np.isnan(value) else value, None, None))
        else:
            low, high = np.percentile(defined, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
            found.append(Estimate(value, float(low), float(high)))
    return found
