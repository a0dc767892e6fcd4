"""Occlusion sensitivity (Zeiler and Fergus, ECCV 2014, arXiv 1311.2901, section 4.2): drops of the logits."""

import itertools
import math

import torch
from torch.nn import functional

from camboxes.models.classifier import Classifier

_WINDOW = 2  # strides on a side; measured: docs/methods.md


def occlusion(classifier: Classifier, image: torch.Tensor, class_ids: torch.Tensor, stride: int) -> torch.Tensor:
    """Computes for each cell the mean drop logit(image) - logit(occluded image) over the grey windows that cover it.

    A window of 2 x 2 cells moves by one cell of stride x stride pixels. It is filled with 0, the mean colour of the
    training images. Where the stride does not divide a side of the image, its last cells are smaller; a side of one
    cell is covered as a whole. All the image's classes are read from the same passes. Memory: that of one pass of
    `spec.batch_size` images.

    Args:
      classifier: the network.
      image: normalised, [3, height, width].
      class_ids: int64 [labels].
      stride: a cell's side in pixels.

    Returns:
      float32 [labels, ceil(height / stride), ceil(width / stride)], signed.
    """
    size = classifier.spec.batch_size
    cells = [math.ceil(side / stride) for side in image.shape[1:]]
    window = [min(_WINDOW, count) for count in cells]
    places = [count - reach + 1 for count, reach in zip(cells, window, strict=True)]
    rows, columns = (
        [slice(place * stride, (place + reach) * stride) for place in range(count)]
        for count, reach in zip(places, window, strict=True)
    )
    nowhere = slice(0)  # the first image is not occluded
    windows = [(nowhere, nowhere), *itertools.product(rows, columns)]
    logits = []
    for start in range(0, len(windows), size):
        some = windows[start : start + size]
        # All passes have one shape: the last bits of a result depend on it.
        occluded = image.repeat(size, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        for slot, (of_rows, of_columns) in enumerate(some):
            occluded[slot, :, of_rows, of_columns] = 0
        activations, _ = classifier.record(occluded, frozenset())
        logits.append(activations.logits[: len(some), class_ids])
    whole, others = torch.cat(logits).split([1, len(windows) - 1])
    drops = (whole - others).T.unflatten(1, (1, *places))
    return (_over_windows(drops, window) / _over_windows(torch.ones_like(drops), window))[:, 0]


def _over_windows(drops: torch.Tensor, window: list[int]) -> torch.Tensor:
    """Sums, up to a factor, over the windows that cover each cell."""
    height, width = window
    return functional.avg_pool2d(functional.pad(drops, (width - 1, width - 1, height - 1, height - 1)), window, 1)
