"""Makes finer maps with the same weights: removes the last downsampling of a network.

Strided convolutions get stride 1, and the convolutions behind them are dilated, so that each keeps its receptive field
(the algorithme a trous, Chen et al., arXiv 1606.00915, section 3.1).
"""

import math

import torch
from torch import nn

from camboxes.models.introspection.probing import observe


def lower_stride(network: nn.Module, stride: int, probe: torch.Tensor) -> None:
    """Changes a network in place, so that its maps have at most `stride` input pixels per cell, a power of 2.

    Convolutions must do the downsampling, as in ResNet, RegNet, MobileNet and EfficientNet. The strides are measured
    with the images `probe`, [n, 3, height, width].

    Raises:
      ValueError: the stride is no power of 2, or a pooling layer halves the maps.
    """
    if stride < 1 or stride & (stride - 1):
        raise ValueError(f"map_stride is {stride}; expected a power of 2, such as 16 or 8")
    halved: dict[nn.Module, tuple[int, int]] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.MaxPool2d):
            before, after = (2 ** round(math.log2(probe.shape[2] / maps.shape[2])) for maps in (inputs[0], output))
            halved[layer] = before, after

    observe(network, probe, note)
    for layer, (before, after) in halved.items():
        if isinstance(layer, nn.Conv2d):
            if max(layer.kernel_size) > 1:
                times = max(1, before // stride)
                layer.dilation = tuple(dilation * times for dilation in layer.dilation)
                if not isinstance(layer.padding, str):  # timm's "same" padding is computed from the dilation
                    layer.padding = tuple(padding * times for padding in layer.padding)
            if after > before:
                step = min(after, stride) // min(before, stride)
                layer.stride = (step, step)
        elif after > max(before, stride):
            raise ValueError(
                f"map_stride {stride} is not possible: a pooling layer takes the maps from stride {before} to {after}, "
                "and only convolutions can be kept from it"
            )
