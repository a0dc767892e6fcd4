"""Bootstraps over images: draws the weights of each resample, and computes intervals from the resampled figures.

Images are drawn, not pairs, because the labels of one image are not independent.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 95  # percent of the resamples that lie inside an interval
SEED = 0

_CELLS = 2**21  # of one array of a chunk of resamples: 16 MiB


class Estimate(NamedTuple):
    """A figure over all images, with the interval that holds LEVEL percent of the resamples; None: not defined."""

    value: float | None
    low: float | None
    high: float | None


def image_weights(paths: Sequence[str], resamples: int, seed: int, pairs: int = 0) -> Iterator[np.ndarray]:
    """Yields how often each image is drawn, in chunks of resamples: float64 [resamples of the chunk, images].

    Each resample draws as many images as there are. Weights depend on the set of paths and on the seed, not on the
    order of the paths, so two runs over the same images get the same resamples. Fewer resamples are the first of more.
    A chunk is small enough for an array [resamples, pairs], too.
    """
    count = len(paths)
    places = np.argsort(np.array(paths, object))  # the index of the path that is n-th by name
    random = np.random.default_rng(seed)
    chunk = max(1, _CELLS // max(count, pairs))
    for start in range(0, resamples, chunk):
        weights = np.empty((min(chunk, resamples - start), count))
        for row in weights:
            row[places] = np.bincount(random.integers(count, size=count), minlength=count)
        yield weights


def bootstrap(
    compute: Callable[[np.ndarray], np.ndarray],
    paths: Sequence[str],
    resamples: int,
    pairs: int = 0,
    advance: Callable[[int], object] = lambda rows: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes figures over all images and over resamples of them.

    Args:
      compute: gives figures [rows, ...] for image weights [rows, images].
      paths: the images' paths; the same paths give the same resamples.
      resamples: how many.
      pairs: number of pairs, if `compute` makes an array [rows, pairs].
      advance: is called with the number of resamples done since the last call.

    Returns:
      The figures [...] over all images, and those over each resample [resamples, ...].
    """
    samples = []
    for weights in image_weights(paths, resamples, SEED, pairs):
        samples.append(compute(weights))
        advance(len(weights))
    return compute(np.ones((1, len(paths))))[0], np.concatenate(samples)


def estimates(values: np.ndarray, samples: np.ndarray) -> list[Estimate]:
    """Gives values [figures] intervals from samples [resamples, figures]; NaN stands for a figure that is not defined.

    A resample in which a figure is not defined is left out of its interval.
    """
    found = []
    for value, sample in zip(values.tolist(), samples.T, strict=True):
        defined = sample[~np.isnan(sample)]
        if np.isnan(value) or not len(defined):
            found.append(Estimate(None if np.isnan(value) else value, None, None))
        else:
            low, high = np.percentile(defined, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
            found.append(Estimate(value, float(low), float(high)))
    return found
