"""Score-CAM (Wang et al., CVPR Workshops 2020, arXiv 1910.01279): weights channels by the logits of masked images."""

import torch
from torch.nn import functional

from camboxes.models.classifier import Classifier


def score_cam(classifier: Classifier, image: torch.Tensor, maps: torch.Tensor, class_ids: torch.Tensor) -> torch.Tensor:
    """Computes relu(sum_k alpha_k A_k), alpha = softmax over k of the logit of the image under the mask A_k.

    A mask is A_k resized to the image's size and then min-max scaled (equation 3); the baseline of equation 4 cancels
    in the softmax. Equal masks are run once: all empty channels share one (half of the channels of EfficientNet-Lite0),
    and so do channels with a single active cell at the same place. All the image's classes are read from the same
    passes. Memory: that of one pass of `spec.batch_size` images.

    Args:
      classifier: the network.
      image: normalised, [3, height, width].
      maps: a layer's activations A, float32 [channels, height, width].
      class_ids: int64 [labels].

    Returns:
      float32 [labels, height, width], of the maps' resolution.
    """
    size = classifier.spec.batch_size
    masks, of_channel = torch.unique(_scaled(maps[:, None])[:, 0].flatten(1), dim=0, return_inverse=True)
    masks = masks.unflatten(1, (1, *maps.shape[1:]))
    scores = []
    for batch in masks.split(size):
        # All passes have one shape: the last bits of a result depend on it.
        padded = functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, size - len(batch)))
        large = functional.interpolate(padded, image.shape[1:], mode="bilinear", align_corners=False)
        masked = (image * _scaled(large).to(image.dtype)).contiguous(memory_format=torch.channels_last)
        activations, _ = classifier.record(masked, frozenset())
        scores.append(activations.logits[: len(batch), class_ids])
    weights = torch.cat(scores)[of_channel].softmax(0)
    return functional.relu(torch.einsum("kl,kyx->lyx", weights, maps))


def _scaled(maps: torch.Tensor) -> torch.Tensor:
    """Min-max scales each map, [..., height, width]; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0)
