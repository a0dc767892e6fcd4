"""Folds of images, and how sure a mean over held-out pairs is.

Images are what is drawn at random: an image's labels are not independent, so errors are over images.
"""

import math
from collections.abc import Iterator

import numpy as np

_FOLDS, REPEATS = 5, 4
_Z = 1.96  # standard errors on each side of a 95% interval


def folds(image: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Splits pairs into five folds by image, four times; `image` is that of each pair.

    Yields:
      The number of the repeat, the pairs outside the fold, and the pairs inside it. Nothing if there is one image.
    """
    random = np.random.default_rng(0)
    images = np.unique(image)
    count = min(_FOLDS, len(images))
    for repeat in range(REPEATS):
        fold_of = dict(zip(random.permutation(images).tolist(), np.arange(len(images)) % count, strict=True))
        fold = np.array([fold_of[number] for number in image.tolist()])
        for number in range(count if count > 1 else 0):
            yield repeat, np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def standard_error(values: np.ndarray, image: np.ndarray) -> float:
    """The standard error of the mean of values [pairs], over images; `image` is that of each pair, of at least two."""
    _, place = np.unique(image, return_inverse=True)
    of_image = np.bincount(place, values - values.mean())
    images = len(of_image)
    return math.sqrt(images / (images - 1) * np.square(of_image).sum()) / len(values)


def interval(share: float, error: float, images: int) -> tuple[float, float]:
    """The 95% interval of a share, in [0, 1], by Wilson's formula, which holds for few images and near 0 and 1.

    Args:
      share: in [0, 1].
      error: its standard error. If it is 0, images count as independent.
      images: how many.
    """
    number = share * (1 - share) / error**2 if error else images  # so many independent pairs have this error
    middle = (share + _Z**2 / (2 * number)) / (1 + _Z**2 / number)
    half = _Z / (1 + _Z**2 / number) * math.sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
