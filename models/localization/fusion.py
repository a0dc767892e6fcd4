"""Maps of several resolutions brought together."""

from collections.abc import Sequence

import torch
from torch.nn import functional

_BACKGROUND = 1 / 24  # what it claims of every cell, where labels compete


def fuse(terms: Sequence[tuple[float | torch.Tensor, Sequence[torch.Tensor]]]) -> torch.Tensor:
    """The weighted mean of terms, each the geometric mean of its maps.

    Maps are brought to the largest height and width among them, and min-max scaled. One without a positive cell speaks
    against its class, and counts as 0 everywhere. A single map is left as it is.

    Args:
      terms: weights, positive, one for all images or of each, [n, 1, 1]; and maps: each [n, labels, height, width], of
        the same images and labels, signed, in any scale.

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
    """What labels claim of an image, see `compete`: maps as `fuse` makes them, each term's first map counted twice.

    That is the one surest of the class (CAM in "cam*layercam@16"); the others are finer. Arguments: see `fuse`.
    """
    return fuse([(weight, [maps[0], *maps]) for weight, maps in terms])


def compete(maps: torch.Tensor, claimed: torch.Tensor) -> torch.Tensor:
    """The labels of one image share its cells out: each keeps of its scaled map the share c⁴ / (Σ c⁴ + 1/24).

    c is its scaled claim, the sum is over all labels of the image, and the 1/24 is the background's. It and the power
    were measured: docs/refinement.md.

    Args:
      maps: [labels, height, width], signed, in any scale; of all labels of the image.
      claimed: likewise.

    Returns:
      [labels, height, width], in [0, 1]; one label alone keeps its map as it is.
    """
    if len(maps) < 2:
        return maps
    size = (maps.shape[1], maps.shape[2])
    shares = _scaled(claimed[:, None], size)[:, 0] ** 4
    return _scaled(maps[:, None], size)[:, 0] * shares / (shares.sum(0) + _BACKGROUND)


def _scaled(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    large = functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
    # What is not finite stays so: a comparison with NaN is false.
    return torch.where((high <= 0) | (high <= low), 0, (large - low) / (high - low))
