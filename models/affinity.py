"""How alike the parts of an image are to a network's mid-level features, and maps spread along that likeness.

Two cells that look alike to the stage before the last mostly belong to one thing. Where spreading a class's map along
that likeness hardly changes it, the map follows what the network sees as one thing; where it flattens, it does not.
"""

from typing import NamedTuple

import torch
from torch.nn import functional

LAYER = "16"  # input pixels per cell: the last block before the maps get too coarse to tell things apart


class Coherence(NamedTuple):
    """How a map m changes when it is spread along the affinity A, over the cells of the affinity's grid.

    Attributes:
      coherence: covariance(m, A m) / variance(m): how much of the map's contrast is left.
      agreement: correlation(m, A m).
    """

    coherence: torch.Tensor
    agreement: torch.Tensor


def affinity(features: torch.Tensor) -> torch.Tensor:
    """The likeness of each two cells: cosine similarity, negatives to 0, squared, each row normalised to a sum of 1.

    Args:
      features: [n, channels, height, width]; the mean over the cells is taken off first.

    Returns:
      float32 [n, cells, cells].
    """
    vectors = features.float().flatten(2)
    vectors = functional.normalize(vectors - vectors.mean(2, keepdim=True), dim=1, eps=1e-6)
    alike = (vectors.transpose(1, 2) @ vectors).clamp(min=0).square()
    return alike / alike.sum(2, keepdim=True)


def coherence(maps: torch.Tensor, affinities: torch.Tensor, size: tuple[int, int]) -> Coherence:
    """What spreading does to maps.

    Args:
      maps: [n, height, width], one of each image.
      affinities: what `affinity` gave, [n, cells, cells].
      size: height and width of its grid.

    Returns:
      float32 [n] each; NaN where a map is constant on the grid.
    """
    flat = functional.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False).flatten(1)
    spread = (affinities @ flat[:, :, None])[:, :, 0]
    flat, spread = flat - flat.mean(1, keepdim=True), spread - spread.mean(1, keepdim=True)
    together, own = (flat * spread).sum(1), flat.square().sum(1)
    return Coherence(together / own, together / (own * spread.square().sum(1)).sqrt())
