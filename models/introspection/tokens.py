"""Tokens as maps: the tokens of an image's patches, laid out as the patches lie in the image.

A vision transformer (Dosovitskiy et al., ICLR 2021) hands a sequence from layer to layer: class, distillation and
register tokens first, then one token for each patch, row by row.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class Layout(NamedTuple):
    """How the maps of a layer lie in its output.

    Attributes:
      axes: "NCHW" for maps, "NHWC" for maps with their channels last, or "NLC" for a sequence of tokens.
      prefix: how many tokens of a sequence stand before those of the patches.
    """

    axes: str = "NCHW"
    prefix: int = 0

    def maps(self, output: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Reads the maps [n, channels, height, width] from an output for images of a height and width in pixels."""
        if self.axes == "NHWC":
            return output.permute(0, 3, 1, 2)
        if self.axes == "NLC":
            patches = output[:, self.prefix :].transpose(1, 2)
            return patches.unflatten(2, grid(patches.shape[2], size[0] / size[1]))
        return output

    def rows(self, shape: Sequence[int]) -> int:
        """How many rows of cells the maps have in an output of a shape, for a square image."""
        return self.maps(torch.empty(shape, device="meta"), (1, 1)).shape[2]

    def output(self, maps: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Writes maps back into an output, the inverse of `maps`; prefix tokens are taken from the output `before`."""
        if self.axes == "NHWC":
            return maps.permute(0, 2, 3, 1)
        if self.axes == "NLC":
            return torch.cat([before[:, : self.prefix], maps.flatten(2).transpose(1, 2)], 1)
        return maps


MAPS = Layout()  # [n, channels, height, width]


class Tokens(NamedTuple):
    """Which tokens of the last sequence of a network its logits depend on.

    Attributes:
      prefix: for each token before those of the patches, whether the logits depend on it.
      patches: whether they depend on the tokens of the patches.
    """

    prefix: tuple[bool, ...]
    patches: bool

    def share(self, patches: int) -> torch.Tensor:
        """The share of each token in the logits, float32, with a sum of 1, for a sequence with so many patches."""
        read = torch.tensor([*self.prefix, *[self.patches] * patches]).float()
        return read / read.sum()


def layout_of(shape: Sequence[int], prefix: int | None) -> Layout | None:
    """The layout of a layer's output for a square image; None where it holds no maps of more than one cell.

    Args:
      shape: the output's.
      prefix: how many tokens the network puts before those of the patches; a layer may give the patches alone. None for
        a network that does not work on tokens.
    """
    if len(shape) == 4 and shape[2] == shape[3] > 1:
        return Layout()
    if len(shape) == 4 and shape[1] == shape[2] > 1:
        return Layout("NHWC")
    for some in () if len(shape) != 3 or prefix is None else (prefix, 0):
        if shape[1] - some > 1 and math.isqrt(shape[1] - some) ** 2 == shape[1] - some:
            return Layout("NLC", some)
    return None


@functools.lru_cache
def grid(patches: int, aspect: float) -> tuple[int, int]:
    """Height and width of an image in patches: the factors of their number whose ratio is nearest to the image's.

    The aspect is the image's height divided by its width.
    """
    heights = [height for height in range(1, patches + 1) if patches % height == 0]
    height = min(heights, key=lambda height: abs(math.log(height * height / (patches * aspect))))
    return height, patches // height


def prefix_tokens(network: Any, shape: Sequence[int]) -> int | None:
    """How many tokens a network puts before those of the patches; None where it is not known to work on tokens.

    Args:
      network: timm's networks say it, at any depth. Of any other, the tokens beyond the largest square are taken.
      shape: the shape of its last features for a square image.
    """
    for part in network.modules():
        if hasattr(part, "num_prefix_tokens"):
            return part.num_prefix_tokens
    return shape[1] - math.isqrt(shape[1]) ** 2 if len(shape) == 3 else None
