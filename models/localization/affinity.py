"""How alike the parts of an image are to a network's mid-level features, and maps spread along that likeness.

Two cells that look alike to the stages before the last mostly belong to one thing. So a class's map, which lights up on
the most telling part, becomes a map of the whole thing where it is spread along that likeness: a few steps of a random
walk between cells, as in IRNet (Ahn et al., CVPR 2019), but with the features of the classifier itself, forward only.
Photographs mostly have background at their border (Wei et al., ECCV 2012): the more of a cell's walk ends there, the
less of the map it keeps.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

# Input pixels per cell: the last block before the maps get too coarse to tell things apart, whose grid the walk goes
# over, and the one before it, which knows more of edges and texture.
LAYER, FINER = "16", "8"

# Both of docs/refinement.md.
_STEPS = 2  # of the random walk
_BORDER = 1 / 28  # of the width, or height, that is border at each side


class Coherence(NamedTuple):
    """How a map m changes when it is spread along the affinity A, over the cells of the affinity's grid.

    Attributes:
      coherence: covariance(m, A m) / variance(m): how much of the map's contrast is left.
      agreement: correlation(m, A m).
    """

    coherence: torch.Tensor
    agreement: torch.Tensor


def affinity(stages: Sequence[torch.Tensor]) -> torch.Tensor:
    """The likeness of each two cells: the product, over the stages, of their squared cosine similarities.

    Negative similarities count as 0; each row is normalised to a sum of 1.

    Args:
      stages: each [n, channels, height, width], of the same images. Cells are the first one's; a finer stage's are
        averaged to them. Of each stage the mean over the cells is taken off first.

    Returns:
      float32 [n, cells, cells].
    """
    size = (stages[0].shape[2], stages[0].shape[3])
    alike = _cosines(stages[0].float())
    for maps in stages[1:]:
        alike *= _cosines(functional.adaptive_avg_pool2d(maps.float(), size))
    alike.square_().diagonal(dim1=1, dim2=2).fill_(1)  # also of a cell whose features are the mean
    return alike.div_(alike.sum(2, keepdim=True))


def refine(maps: torch.Tensor, stages: Sequence[torch.Tensor]) -> torch.Tensor:
    """Walks two steps between cells that are alike, and takes off what belongs to the border.

    Of a value v above 0 is left (1 - b) v, where b is the share of the cell's walk that ends on the image's border.

    Args:
      maps: [n, labels, height, width], signed, in any scale.
      stages: as for `affinity`, of the same images.

    Returns:
      float32 [n, labels, rows, columns], on the first stage's grid: each value is at most a mean of the map's values,
      or 0, so its range grows by no more than a 0.
    """
    alike, size = affinity(stages), (stages[0].shape[2], stages[0].shape[3])

    def walk(cells: torch.Tensor) -> torch.Tensor:
        walked = cells[:, :, None]
        for _ in range(_STEPS):
            walked = alike @ walked
        return walked.reshape(-1, *size)

    inside = 1 - walk(_border(*size).to(alike).expand(len(maps), -1))
    found = maps.new_zeros((*maps.shape[:2], *size), dtype=torch.float32)
    for label in range(maps.shape[1]):  # each by itself: last bits depend on the shape of what is computed
        walked = walk(_on_grid(maps[:, label], size))
        found[:, label] = torch.where(walked > 0, walked * inside, walked)
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


def _cosines(maps: torch.Tensor) -> torch.Tensor:
    """Of each two cells of [n, channels, height, width] the cosine similarity, at least 0: [n, cells, cells]."""
    vectors = maps.flatten(2)
    vectors = functional.normalize(vectors - vectors.mean(2, keepdim=True), dim=1, eps=1e-6)
    return _products(vectors.transpose(1, 2)).clamp_(min=0)


def _products(vectors: torch.Tensor) -> torch.Tensor:
    """Of each two vectors of [n, cells, channels] the scalar product: [n, cells, cells]."""
    if vectors.is_cpu and torch.backends.mkldnn.enabled and _onednn_multiplies():
        # PyTorch multiplies with MKL, which takes twice as long as oneDNN on AMD's processors.
        return torch.stack([_onednn_products(some) for some in vectors.contiguous()])
    return vectors @ vectors.transpose(1, 2)


def _onednn_products(vectors: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(vectors, vectors, None, "none", [], "")


@functools.cache
def _onednn_multiplies() -> bool:
    """Whether this build of PyTorch has the kernel: those for other processors come without oneDNN, or a part of it."""
    try:
        return torch.equal(_onednn_products(torch.eye(2)), torch.eye(2))
    except (AttributeError, RuntimeError):
        return False


def _border(height: int, width: int) -> torch.Tensor:
    """How much of each cell of a grid lies on the border, from 0 to 1: float32 [cells]."""

    def inside(cells: int) -> torch.Tensor:
        edges = torch.linspace(0, 1, cells + 1)
        return (edges[1:].clamp(max=1 - _BORDER) - edges[:-1].clamp(min=_BORDER)).clamp(min=0) * cells

    return (1 - inside(height)[:, None] * inside(width)).flatten()


def _on_grid(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps [n, height, width] on a grid, float32 [n, cells]."""
    return functional.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False).flatten(1)
