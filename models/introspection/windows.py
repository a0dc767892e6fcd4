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
    """Those of a layer.

    Attributes:
      size: height and width of the layer's maps; of a sequence (1, its length).
      cells: for each window its cells in the order of its attention, counted from 1 row by row; 0 for padding. int64
        [windows, cells].
    """

    size: tuple[int, int]
    cells: torch.Tensor


def windows_of(
    network: nn.Module, tokens: Tokens | None, images: Sequence[int], size: torch.Size, layers: int
) -> list[Windows]:
    """The windows of each layer of ViT or of Swin; of another network they are not those of its attention.

    Args:
      network: with attention.
      tokens: which of its last tokens the logits depend on; None of a network that does not work on tokens.
      images: the shape of the images.
      size: height and width of the last maps.
      layers: how many have attention.
    """
    if tokens is None:
        return _swin_windows(network, images[2], images[3])
    length = len(tokens.prefix) + size.numel()
    return [Windows((1, length), torch.arange(1, length + 1)[None])] * layers


def _swin_windows(network: nn.Module, height: int, width: int) -> list[Windows]:
    """Those of a Swin transformer (Liu et al., ICCV 2021), timm's or torchvision's; none of any other network.

    What shifts cells, pads them and deals them out are the layers themselves, which are given the cells' numbers.
    """
    blocks: list[tuple[Any, Any]] = []  # each with what runs it
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
        elif attention.num_heads != blocks[number - 1][0].num_heads:  # two by two patches were merged in between
            height, width = -(-height // 2), -(-width // 2)
        numbers = torch.arange(1.0, height * width + 1).view(1, height, width, 1)
        with _UpToLinear() as dealt, torch.inference_mode():
            run(numbers)
        found.append(Windows((height, width), dealt.given.flatten(1).long()))
    return found


class _UpToLinear(TorchFunctionMode):
    """Ends its block at the first linear layer over the cells' numbers, maps of one channel.

    Attributes:
      given: what that layer is given.
    """

    given: torch.Tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear and args[0].shape[-1] == 1:
            self.given = args[0]
            raise _ReachedError
        return func(*args, **(kwargs or {}))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        super().__exit__(kind, error, trace)
        return kind is _ReachedError


class _ReachedError(Exception):
    pass
