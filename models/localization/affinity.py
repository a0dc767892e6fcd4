"""Refines maps by affinity: spreads them between cells whose mid-level features are similar.

Two cells with similar features in the stages before the last mostly belong to one object. A class's map is highest on
the object's most telling part. A few steps of a random walk between similar cells spread it over the whole object, as
in IRNet (Ahn et al., CVPR 2019), but with the features of the classifier itself, in its forward pass alone.
The border of a photograph is mostly background (Wei et al., ECCV 2012): a cell loses the share of its map whose walk
ends at the border.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

# The strides of the layers whose features are compared. The walk runs on the grid of the first, the last one that is
# fine enough to tell objects apart; the second adds edges and texture.
LAYER, FINER = "16", "8"

# The border at each side, as a share of the width or height; measured: benchmarks/records/refinement.md.
_BORDER = 1 / 28

_ROWS = 128  # of the affinity that are computed at once: of 1,000 cells they take half a mebibyte


class Coherence(NamedTuple):
    """How much maps m change when the affinity A spreads them by one step: float32 [n, labels] each."""

    coherence: torch.Tensor  # covariance(m, A m) / variance(m): how much of the map's contrast is left
    agreement: torch.Tensor  # correlation(m, A m)


class Affinity:
    """The affinity of each two cells: the product, over the stages, of their squared cosine similarities.

    Negative similarities count as 0; the mean over the cells is subtracted from each stage first. Each row of the
    affinity is normalised to a sum of 1.

    Before that it is symmetric, so only its upper half is computed, in blocks of rows that fit into a core's cache.
    """

    def __init__(self, stages: Sequence[torch.Tensor]):
        """Compares the cells of the first stage, to which finer stages are averaged.

        Args:
          stages: of the same images, [n, channels, height, width] each.
        """
        size = (stages[0].shape[2], stages[0].shape[3])
        finer = [functional.adaptive_avg_pool2d(maps.float(), size) for maps in stages[1:]]
        vectors = [_directions(maps) for maps in (stages[0].float(), *finer)]
        self._blocks = [_likeness(vectors, start) for start in range(0, size[0] * size[1], _ROWS)]
        self._sums = self._times(torch.ones_like(vectors[0][:, 0]))

    def spread(self, cells: torch.Tensor) -> torch.Tensor:
        """Multiplies it with values of the cells, float32 [n, cells]: one step of a random walk."""
        return self._times(cells) / self._sums

    def _times(self, cells: torch.Tensor) -> torch.Tensor:
        found = torch.zeros_like(cells)
        for start, block in zip(range(0, cells.shape[1], _ROWS), self._blocks, strict=True):
            end = start + block.shape[1]
            found[:, start:end] += (block @ cells[:, start:, None])[:, :, 0]
            found[:, end:] += (cells[:, None, start:end] @ block[:, :, end - start :])[:, 0]
        return found


def refine(maps: torch.Tensor, stages: Sequence[torch.Tensor]) -> torch.Tensor:
    """Spreads maps by two steps of the random walk, and takes the border's share off.

    A value v above 0 becomes (1 - b) v, where b is the share of the cell's walk that ends on the image's border.

    The maps are [n, labels, height, width], signed, in any scale; the stages are as for `Affinity`. The result is
    float32 [n, labels, rows, columns], on the first stage's grid. Each value lies between 0 and a mean of the map's
    values, so the range of a map grows at most to include 0.
    """
    affinity, size = Affinity(stages), (stages[0].shape[2], stages[0].shape[3])

    def walk(cells: torch.Tensor) -> torch.Tensor:
        return affinity.spread(affinity.spread(cells)).reshape(-1, *size)  # two steps: benchmarks/records/refinement.md

    inside = 1 - walk(_border(*size).to(maps.device).expand(len(maps), -1))
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
    affinity, size = Affinity([features]), (features.shape[2], features.shape[3])
    found = maps.new_zeros((2, *maps.shape[:2]), dtype=torch.float32)
    for label in range(maps.shape[1]):  # each by itself: last bits depend on the shape of what is computed
        flat = _on_grid(maps[:, label], size)
        spread = affinity.spread(flat)
        flat, spread = flat - flat.mean(1, keepdim=True), spread - spread.mean(1, keepdim=True)
        together, own = (flat * spread).sum(1), flat.square().sum(1)
        found[0, :, label], found[1, :, label] = together / own, together / (own * spread.square().sum(1)).sqrt()
    return Coherence(*found)


def _directions(maps: torch.Tensor) -> torch.Tensor:
    """Scales the vectors of the cells of [n, channels, height, width], less their mean, to length 1: [.., cells]."""
    vectors = maps.flatten(2)
    return functional.normalize(vectors - vectors.mean(2, keepdim=True), dim=1, eps=1e-6)


def _likeness(stages: Sequence[torch.Tensor], start: int) -> torch.Tensor:
    """Compares the cells from `start` on, a block of them, with themselves and all behind: [n, rows, cells - start].

    The stages are vectors of length 1, [n, channels, cells].
    """

    def cosines(vectors: torch.Tensor) -> torch.Tensor:
        behind = vectors[:, :, start:]
        return (behind[:, :, :_ROWS].transpose(1, 2) @ behind).clamp_(min=0)

    alike = functools.reduce(torch.Tensor.mul_, map(cosines, stages))
    alike.square_().diagonal(dim1=1, dim2=2).fill_(1)  # also of a cell whose features are the mean
    return alike


def _border(height: int, width: int) -> torch.Tensor:
    """Computes the share of each cell of a grid that lies on the border, from 0 to 1: float32 [cells]."""

    def inside(cells: int) -> torch.Tensor:
        edges = torch.linspace(0, 1, cells + 1)
        return (edges[1:].clamp(max=1 - _BORDER) - edges[:-1].clamp(min=_BORDER)).clamp(min=0) * cells

    return (1 - inside(height)[:, None] * inside(width)).flatten()


def _on_grid(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resizes maps [n, height, width] to a grid: float32 [n, cells]."""
    return functional.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False).flatten(1)
