"""The linear layer that CAM reads: a network's own, where linear(GAP(features)) gives the network's logits."""

from typing import Any, NamedTuple

import torch
from torch.nn import functional


class LinearHead(NamedTuple):
    """What follows the last feature maps where CAM is exact: global average pooling, and this.

    Attributes:
      weight: [classes, channels]; None where each class has a map of its own (SqueezeNet).
      bias: [classes].
    """

    weight: torch.Tensor | None
    bias: torch.Tensor

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Feature maps [n, channels, height, width] to logits [n, classes]: equation 1 of Zhou et al. 2016."""
        pooled = features.mean((2, 3))
        return pooled + self.bias if self.weight is None else functional.linear(pooled, self.weight, self.bias)


def linear_head(head: Any, features: torch.Tensor, logits: torch.Tensor) -> LinearHead | str:
    """Finds the head for which linear(GAP(features)) is a network's logits, or says why there is none.

    Args:
      head: the network's last linear layer; None where it has none.
      features: the last feature maps of some images, [n, channels, height, width].
      logits: the network's own logits of them, [n, classes].
    """
    because = "a hidden layer, a norm or another kind of pooling stands between"
    classes, channels = logits.shape[1], features.shape[1]
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    weight = None if weight is None else weight.detach().flatten(1)
    bias = logits.new_zeros(classes) if bias is None else bias.detach()
    # Without a linear layer each class has a map of its own (SqueezeNet): the pooled maps are the logits.
    if ((classes, classes) if weight is None else tuple(weight.shape)) != (classes, channels):
        return because
    found = LinearHead(weight, bias)
    scale, difference = logits.abs().max(), (found.logits(features) - logits).abs().max()
    if difference <= 1e-4 * scale:
        return found
    return f"{because}: they differ by up to {difference:.3g} where the largest is {scale:.3g}"
