"""How alike the parts of an image are to a network's mid-level features, and maps spread along that likeness.

Two cells that look alike to the stage before the last mostly belong to one thing. So a class's map, which lights up on
the most telling part, becomes a map of the whole thing where it is spread along that likeness: a few steps of a random
walk between cells, as in IRNet (Ahn et al., CVPR 2019), but with the features of the classifier itself, forward only.
"""

from typing import NamedTuple

import torch
from torch.nn import functional

LAYER = "16"  # input pixels per cell: the last block before the maps get too coarse to tell things apart

# Of the random walk: docs/refinement.md.
_POWER, _STEPS = 4, 2


class Coherence(NamedTuple):
    """How a map m changes when it is spread along the affinity A, over the cells of the affinity's grid.

    Attributes:
      coherence: covariance(m, A m) / variance(m): how much of the map's contrast is left.
      agreement: correlation(m, A m).
    """

    coherence: torch.Tensor
    agreement: torch.Tensor


def affinity(features: torch.Tensor, power: int = 2) -> torch.Tensor:
    """The likeness of each two cells: cosine similarity, negatives to 0, to a power, each row normalised to a sum of 1.

    Args:
      features: [n, channels, height, width]; the mean over the cells is taken off first.
      power: the higher, the more only the most alike count.

    Returns:
      float32 [n, cells, cells].
    """
    vectors = features.float().flatten(2)
    vectors = functional.normalize(vectors - vectors.mean(2, keepdim=True), dim=1, eps=1e-6)
    alike = (vectors.transpose(1, 2) @ vectors).clamp(min=0) ** power
    alike.diagonal(dim1=1, dim2=2).fill_(1)  # also of a cell whose features are the mean
    return alike / alike.sum(2, keepdim=True)


def refine(maps: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Walks two steps between cells that are alike.

    Args:
      maps: [n, labels, height, width], signed, in any scale.
      features: [n, channels, rows, columns], of the same images.

    Returns:
      float32 [n, labels, rows, columns]: each value is a mean of the map's values, so its range does not grow.
    """
    alike, size = affinity(features, _POWER), (features.shape[2], features.shape[3])
    found = maps.new_zeros((*maps.shape[:2], *size), dtype=torch.float32)
    for label in range(maps.shape[1]):  # each by itself: last bits depend on the shape of what is computed
        walked = _on_grid(maps[:, label], size)[:, :, None]
        for _ in range(_STEPS):
            walked = alike @ walked
        found[:, label] = walked.reshape(-1, *size)
    return found


def coherence(maps: torch.Tensor, affinities: torch.Tensor, size: tuple[int, int]) -> Coherence:
    """What spreading by one step does to maps.

    Args:
      maps: [n, height, width], one of each image.
      affinities: what `affinity` gave, [n, cells, cells].
      size: height and width of its grid.

    Returns:
      float32 [n] each; NaN where a map is constant on the grid.
    """
    flat = _on_grid(maps, size)
    spread = (affinities @ flat[:, :, None])[:, :, 0]
    flat, spread = flat - flat.mean(1, keepdim=True), spread - spread.mean(1, keepdim=True)
    together, own = (flat * spread).sum(1), flat.square().sum(1)
    return Coherence(together / own, together / (own * spread.square().sum(1)).sqrt())


def _on_grid(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps [n, height, width] on a grid, float32 [n, cells]."""
    return functional.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False).flatten(1)
