"""Fuses maps of several resolutions, and lets the labels of an image compete for its cells."""

from collections.abc import Sequence

import torch
from torch.nn import functional


def fuse(terms: Sequence[tuple[float | torch.Tensor, Sequence[torch.Tensor]]]) -> torch.Tensor:
    """Computes the weighted mean of terms, each the geometric mean of its maps.

    Maps are resized to the largest height and width among them, and min-max scaled. A map without a positive cell
    speaks against its class: it counts as 0 everywhere. A single map is returned as it is.

    Args:
      terms: pairs of a positive weight, a number or [n, 1, 1] with one for each image, and the term's maps, each
        [n, labels, height, width], of the same images and labels, signed, in any scale.

    Returns:
      [n, labels, height, width], in [0, 1].
    """
    maps = [part for _, parts in terms for part in parts]
    if len(maps) == 1:
        return maps[0]
    size = max(part.shape[2] for part in maps), max(part.shape[3] for part in maps)
    total = maps[0].new_zeros((*maps[0].shape[:2], *size))
    share = sum(weight for weight, _ in terms)
    for label in range(total.shape[1]):  # each by itself: last bits depend on the shape of what is computed
        for weight, parts in terms:
            scaled = [_scaled(part[:, label : label + 1], size) for part in parts]
            total[:, label] += weight / share * torch.stack(scaled).prod(0)[:, 0] ** (1 / len(parts))
    return total


def claims(terms: Sequence[tuple[float | torch.Tensor, Sequence[torch.Tensor]]]) -> torch.Tensor:
    """Computes the claims of labels to cells, for `compete`: as `fuse`, with the first map of each term counted twice.

    The first map is the surest of the class (CAM in "cam*layercam@16"); the others are finer. Arguments: see `fuse`.
    """
    return fuse([(weight, [maps[0], *maps]) for weight, maps in terms])


def compete(maps: torch.Tensor, claimed: torch.Tensor) -> torch.Tensor:
    """Lets the labels of one image compete for each cell: a label keeps the share c⁴ / (Σ c⁴ + 1/24) of its scaled map.

    c is the label's scaled claim to the cell, the sum runs over all labels of the image, and 1/24 is the background's
    claim. The power and the background's claim were measured: benchmarks/records/refinement.md.

    Maps and claims are [labels, height, width], signed, in any scale. The result is in [0, 1]; the map of a single
    label is returned as it is.
    """
    if len(maps) < 2:
        return maps
    size = (maps.shape[1], maps.shape[2])
    shares = _scaled(claimed[:, None], size)[:, 0] ** 4
    return _scaled(maps[:, None], size)[:, 0] * shares / (shares.sum(0) + 1 / 24)


def _scaled(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    large = functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
    # What is not finite stays so: a comparison with NaN is false.
    return torch.where((high <= 0) | (high <= low), 0, (large - low) / (high - low))
