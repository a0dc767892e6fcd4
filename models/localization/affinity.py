"""Refines maps by affinity: spreads them between cells whose mid-level features are similar.

Two cells with similar features in the stages before the last mostly belong to one object. A class's map is highest on
the object's most telling part. A few steps of a random walk between similar cells spread it over the whole object, as
in IRNet (Ahn et al., CVPR 2019), but with the features of the classifier itself, in its forward pass alone.
The border of a photograph is mostly background (Wei et al., ECCV 2012): a cell loses the share of its map whose walk
ends at the border.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

# The strides of the layers whose features are compared. The walk runs on the grid of the first, the last one that is
# fine enough to tell objects apart; the second adds edges and texture.
LAYER, FINER = "16", "8"

# The border at each side, as a share of the width or height; measured: benchmarks/records/refinement.md.
_BORDER = 1 / 28


class Coherence(NamedTuple):
    """How much maps m change when the affinity A spreads them by one step: float32 [n, labels] each."""

    coherence: torch.Tensor  # covariance(m, A m) / variance(m): how much of the map's contrast is left
    agreement: torch.Tensor  # correlation(m, A m)


def affinity(stages: Sequence[torch.Tensor]) -> torch.Tensor:
    """Computes the affinity of each two cells: the product, over the stages, of their squared cosine similarities.

    Negative similarities count as 0; each row is normalised to a sum of 1. The stages are [n, channels, height, width],
    of the same images. The cells are those of the first stage; finer stages are averaged to them. The mean over the
    cells is subtracted from each stage first. The result is float32 [n, cells, cells].
    """
    size = (stages[0].shape[2], stages[0].shape[3])
    alike = _cosines(stages[0].float())
    for maps in stages[1:]:
        alike *= _cosines(functional.adaptive_avg_pool2d(maps.float(), size))
    alike.square_().diagonal(dim1=1, dim2=2).fill_(1)  # also of a cell whose features are the mean
    return alike.div_(alike.sum(2, keepdim=True))


def refine(maps: torch.Tensor, stages: Sequence[torch.Tensor]) -> torch.Tensor:
    """Spreads maps by two steps of the random walk, and takes the border's share off.

    A value v above 0 becomes (1 - b) v, where b is the share of the cell's walk that ends on the image's border.

    The maps are [n, labels, height, width], signed, in any scale; the stages are as for `affinity`. The result is
    float32 [n, labels, rows, columns], on the first stage's grid. Each value lies between 0 and a mean of the map's
    values, so the range of a map grows at most to include 0.
    """
    alike, size = affinity(stages), (stages[0].shape[2], stages[0].shape[3])

    def walk(cells: torch.Tensor) -> torch.Tensor:
        return (alike @ (alike @ cells[:, :, None])).reshape(-1, *size)  # two steps: benchmarks/records/refinement.md

    inside = 1 - walk(_border(*size).to(alike).expand(len(maps), -1))
    found = maps.new_zeros((*maps.shape[:2], *size), dtype=torch.float32)
    for label in range(maps.shape[1]):  # each by itself: last bits depend on the shape of what is computed
        walked = walk(_on_grid(maps[:, label], size))
        found[:, label] = torch.where(walked > 0, walked * inside, walked)
    return found


def coherence(maps: torch.Tensor, features: torch.Tensor) -> Coherence:
    """Measures how much one step of spreading changes maps.

    The maps, [n, labels, height, width], are spread on the grid of the features of the same images, [n, channels, rows,
    columns]. Of a map that is constant on this grid nothing is known: NaN.
    """
    alike, size = affinity([features]), (features.shape[2], features.shape[3])
    found = maps.new_zeros((2, *maps.shape[:2]), dtype=torch.float32)
    for label in range(maps.shape[1]):  # each by itself: last bits depend on the shape of what is computed
        flat = _on_grid(maps[:, label], size)
        spread = (alike @ flat[:, :, None])[:, :, 0]
        flat, spread = flat - flat.mean(1, keepdim=True), spread - spread.mean(1, keepdim=True)
        together, own = (flat * spread).sum(1), flat.square().sum(1)
        found[0, :, label], found[1, :, label] = together / own, together / (own * spread.square().sum(1)).sqrt()
    return Coherence(*found)


def _cosines(maps: torch.Tensor) -> torch.Tensor:
    """Computes the cosine similarities, at least 0, of the cells of [n, channels, height, width]: [n, cells, cells]."""
    vectors = maps.flatten(2)
    vectors = functional.normalize(vectors - vectors.mean(2, keepdim=True), dim=1, eps=1e-6)
    return (vectors.transpose(1, 2) @ vectors).clamp_(min=0)


def _border(height: int, width: int) -> torch.Tensor:
    """Computes the share of each cell of a grid that lies on the border, from 0 to 1: float32 [cells]."""

    def inside(cells: int) -> torch.Tensor:
        edges = torch.linspace(0, 1, cells + 1)
        return (edges[1:].clamp(max=1 - _BORDER) - edges[:-1].clamp(min=_BORDER)).clamp(min=0) * cells

    return (1 - inside(height)[:, None] * inside(width)).flatten()


def _on_grid(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resizes maps [n, height, width] to a grid: float32 [n, cells]."""
    return functional.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False).flatten(1)
