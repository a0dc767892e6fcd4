"""Which cells of an image attend to one another in each layer of a transformer: all of them, or those of a window."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.models.swin_transformer import ShiftedWindowAttention

from camboxes.models.introspection.tokens import Tokens


class Windows(NamedTuple):
    """The windows of a layer: cells in one window attend to one another, and to no others.

    Attributes:
      size: height and width of the layer's maps; (1, length) for a sequence.
      cells: the cells of each window in the order of its attention, counted from 1 row by row; 0 for padding. int64
        [windows, cells].
    """

    size: tuple[int, int]
    cells: torch.Tensor


def windows_of(
    network: nn.Module, tokens: Tokens | None, images: Sequence[int], size: torch.Size, layers: int
) -> list[Windows]:
    """The windows of each layer of a ViT or a Swin; for any other network the result does not fit its attention.

    Args:
      network: a network with attention.
      tokens: which of its last tokens the logits depend on; None for a network that does not work on tokens.
      images: the shape of the images.
      size: height and width of the last maps.
      layers: how many layers have attention.
    """
    if tokens is None:
        return _swin_windows(network, images[2], images[3])
    length = len(tokens.prefix) + size.numel()
    return [Windows((1, length), torch.arange(1, length + 1)[None])] * layers


def _swin_windows(network: nn.Module, height: int, width: int) -> list[Windows]:
    """The windows of a Swin transformer (Liu et al., ICCV 2021), timm's or torchvision's; none for other networks.

    The layers themselves shift cells, pad them and cut them into windows: they are run on the numbers of the cells.
    """
    blocks: list[tuple[Any, Any]] = []  # the attention of each block, and what runs it on maps
    for part in network.modules():
        if isinstance(part, SwinTransformerBlock | SwinTransformerV2Block):
            blocks.append((part.attn, part._attn))
        elif isinstance(part, ShiftedWindowAttention):
            blocks.append((part, part))
    found: list[Windows] = []
    for number, (attention, run) in enumerate(blocks):
        if number == 0:
            [stride, *_] = [part.stride for part in network.modules() if isinstance(part, nn.Conv2d)]
            height, width = height // stride[0], width // stride[1]
        elif attention.num_heads != blocks[number - 1][0].num_heads:  # a layer in between merged 2 x 2 patches
            height, width = -(-height // 2), -(-width // 2)
        numbers = torch.arange(1.0, height * width + 1).view(1, height, width, 1)
        try:
            with _UpToLinear(), torch.inference_mode():
                run(numbers)
        except _ReachedError as reached:
            found.append(Windows((height, width), reached.args[0].flatten(1).long()))
    return found


class _UpToLinear(TorchFunctionMode):
    """Leaves the block at the first linear layer over the numbers of cells, which are maps of one channel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear and args[0].shape[-1] == 1:
            raise _ReachedError(args[0])
        return func(*args, **(kwargs or {}))


class _ReachedError(Exception):
    """Holds the input of that layer."""
