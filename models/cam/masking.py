"""Methods that compare the logits of an image whose pixels are masked: Score-CAM and occlusion.

An image is normalised, [3, height, width]; class ids are int64 [labels]. All of an image's classes are read from the
same passes. Memory: that of one pass of `spec.batch_size` images.
"""

import itertools
import math
from collections.abc import Iterable

import torch
from torch.nn import functional

from camboxes.models.classifier import Classifier

_WINDOW = 2  # strides on a side of an occluded window; measured: benchmarks/records/methods.md


def score_cam(classifier: Classifier, image: torch.Tensor, maps: torch.Tensor, class_ids: torch.Tensor) -> torch.Tensor:
    """Score-CAM (Wang et al., CVPR Workshops 2020, arXiv 1910.01279): relu(sum_k alpha_k A_k).

    alpha is the softmax over k of the logit of the image under the mask A_k. A mask is A_k resized to the image's size
    and then min-max scaled (equation 3); the baseline of equation 4 cancels in the softmax. Equal masks are run once:
    all empty channels share one (half of the channels of EfficientNet-Lite0), and so do channels with a single active
    cell at the same place.

    A is float32 [channels, height, width], the result [labels, height, width].
    """
    size = classifier.spec.batch_size
    masks, of_channel = torch.unique(_scaled(maps[:, None])[:, 0].flatten(1), dim=0, return_inverse=True)
    masks = masks.unflatten(1, (1, *maps.shape[1:]))
    padded = functional.pad(masks, (0, 0, 0, 0, 0, 0, 0, -len(masks) % size))

    def masked(some: torch.Tensor) -> torch.Tensor:
        large = functional.interpolate(some, image.shape[1:], mode="bilinear", align_corners=False)
        return image * _scaled(large).to(image.dtype)

    weights = _logits(classifier, map(masked, padded.split(size)), class_ids)[of_channel].softmax(0)
    return functional.relu(torch.einsum("kl,kyx->lyx", weights, maps))


def occlusion(classifier: Classifier, image: torch.Tensor, class_ids: torch.Tensor, stride: int) -> torch.Tensor:
    """Occlusion sensitivity (Zeiler and Fergus, ECCV 2014, arXiv 1311.2901, section 4.2): drops of the logits.

    A cell's value is the mean of logit(image) - logit(occluded image) over the grey windows that cover it. A window of
    2 x 2 cells moves by one cell of stride x stride pixels. It is filled with 0, the mean colour of the training
    images. Where the stride does not divide a side of the image, its last cells are smaller; a side of one cell is
    covered as a whole.

    Returns:
      float32 [labels, ceil(height / stride), ceil(width / stride)], signed.
    """
    cells = [math.ceil(side / stride) for side in image.shape[1:]]
    window = [min(_WINDOW, count) for count in cells]
    rows, columns = (
        [slice(place * stride, (place + reach) * stride) for place in range(count - reach + 1)]
        for count, reach in zip(cells, window, strict=True)
    )
    windows = [(slice(0), slice(0)), *itertools.product(rows, columns)]  # the first image is not occluded

    def occluded(start: int) -> torch.Tensor:
        images = image.repeat(classifier.spec.batch_size, 1, 1, 1)
        for slot, (of_rows, of_columns) in enumerate(windows[start : start + len(images)]):
            images[slot, :, of_rows, of_columns] = 0
        return images

    starts = range(0, len(windows), classifier.spec.batch_size)
    logits = _logits(classifier, map(occluded, starts), class_ids)
    drops = (logits[0] - logits[1 : len(windows)]).T.unflatten(1, (1, len(rows), len(columns)))
    return (_over_windows(drops, window) / _over_windows(torch.ones_like(drops), window))[:, 0]


def _logits(classifier: Classifier, batches: Iterable[torch.Tensor], class_ids: torch.Tensor) -> torch.Tensor:
    """Computes the logits of classes, [images, labels]. All batches have one shape: last bits depend on it."""
    laid_out = (batch.contiguous(memory_format=torch.channels_last) for batch in batches)
    return torch.cat([classifier.record(batch, frozenset())[0].logits[:, class_ids] for batch in laid_out])


def _scaled(maps: torch.Tensor) -> torch.Tensor:
    """Min-max scales each map, [..., height, width]; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0)


def _over_windows(drops: torch.Tensor, window: list[int]) -> torch.Tensor:
    """Sums, up to a factor, over the windows that cover each cell."""
    height, width = window
    return functional.avg_pool2d(functional.pad(drops, (width - 1, width - 1, height - 1, height - 1)), window, 1)
