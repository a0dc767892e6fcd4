"""A convolution, the norm behind it and the activation behind that, in one oneDNN kernel on a CPU.

Run one after the other, the three bring every map to memory and back three times. oneDNN does them in one pass, with
weights that are laid out once as its kernel wants them. It is what torch.compile makes of convolutions, at once rather
than in half a minute, and for images of any shape: benchmarks/records/speed.md has both.
"""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import nn

# Activations that the kernels have, by oneDNN's names.
KERNELS = {
    nn.Identity: "none",
    nn.ReLU: "relu",
    nn.ReLU6: "hardtanh",
    nn.Hardtanh: "hardtanh",
    nn.SiLU: "swish",
    nn.Hardswish: "hardswish",
}

# The limits of activations that clip: their gradient is 0 or 1.
LIMITS: dict[type, Callable[[Any], tuple[float, ...]]] = {
    nn.Identity: lambda _: (),
    nn.ReLU: lambda _: (0.0, math.inf),
    nn.ReLU6: lambda activation: (activation.min_val, activation.max_val),
    nn.Hardtanh: lambda activation: (activation.min_val, activation.max_val),
}


class FusedConvolution(nn.Module):
    """A convolution, a norm and an activation in one kernel. Gradients flow through it, at more cost.

    Attributes:
      precision: of the kernel and its weights.
      activation: the last of the three.
      widened: whether its output is converted to float32.
    """

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, activation: nn.Module | None, precision: torch.dtype
    ):
        """Folds the norm into the weights.

        Args:
          convolution: with float32 weights, and its padding as numbers.
          norm: in evaluation mode.
          activation: one of KERNELS.
          precision: of the kernel and its weights; maps are converted to it.
        """
        super().__init__()
        weight, bias = folded(convolution, norm)
        # No parameters: weights that are laid out for a kernel cannot be moved or saved.
        self._weight = weight.to(precision)
        self.precision = precision
        self.activation = activation or nn.Identity()
        self._padding: list[int] = [*map(int, convolution.padding)]
        self._stride, self._dilation = list(convolution.stride), list(convolution.dilation)
        self._groups = convolution.groups
        # Such an output is added to others, which loses least in float32; where it is narrow, that costs little.
        self.widened = type(self.activation) is nn.Identity and convolution.out_channels < convolution.in_channels
        self._reach = [step * (size - 1) for step, size in zip(self._dilation, weight.shape[2:], strict=True)]
        described = self._padding, self._stride, self._dilation, self._groups
        self._packed = _Packed(self._weight, bias.to(precision), *described)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [n, channels, height, width] to maps."""
        maps = maps.to(self.precision)
        if not maps.requires_grad:
            return self.convolve(maps, self.activation)
        if type(self.activation) in LIMITS:
            return _Convolution.apply(maps, self, self.activation)
        return self.activation(_Convolution.apply(maps, self, nn.Identity()))

    def convolve(self, maps: torch.Tensor, activation: nn.Module) -> torch.Tensor:
        """Convolution and norm of the maps, then the activation."""
        found = self._packed.convolve(maps, activation)
        return found.float() if self.widened else found

    def backward(self, gradient: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The gradient with respect to maps of height x width, from the one with respect to the convolution's output.

        It is a convolution in the same kernels, of the gradient, with zeros where the stride skipped cells, with the
        flipped weights. PyTorch's own backward takes ten times as long in bfloat16.
        """
        gradient = gradient.to(self.precision)
        if self._stride != [1, 1]:
            rows, columns = (
                side + 2 * padding - reach
                for side, padding, reach in zip((height, width), self._padding, self._reach, strict=True)
            )
            size = (*gradient.shape[:2], rows, columns)
            spread = torch.empty(size, dtype=self.precision, memory_format=torch.channels_last).zero_()
            spread[:, :, :: self._stride[0], :: self._stride[1]] = gradient
            gradient = spread
        return self._turned.convolve(gradient, nn.Identity())

    @functools.cached_property
    def _turned(self) -> "_Packed":
        """Weights for gradients: flipped, and within each group outputs and inputs exchanged."""
        exchanged = self._weight.unflatten(0, (self._groups, -1)).transpose(1, 2).flatten(0, 1)
        around = [reach - padding for reach, padding in zip(self._reach, self._padding, strict=True)]
        return _Packed(exchanged.flip(2, 3), None, around, [1, 1], self._dilation, self._groups)


class FusedSameConvolution(nn.Module):
    """A `FusedConvolution` with timm's padding "same": how many lines of zeros there are depends on the maps' size.

    Kernels pad both sides alike. Where the maps need one line more behind them than in front, they get a stride more at
    both sides, and the output's first line, which is one too many, is left out.
    """

    def __init__(
        self, convolution: Conv2dSame, norm: nn.BatchNorm2d | None, activation: nn.Module | None, precision: torch.dtype
    ):
        """Arguments: those of `FusedConvolution`; `pads_alike` is true of the convolution."""
        super().__init__()
        self._sides = list(zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True))

        def padded(*padding: int) -> FusedConvolution:
            same = copy.copy(convolution)
            same.padding = padding
            # Made in the first pass of such a size, whatever its mode; later ones may need gradients.
            with torch.inference_mode(False), torch.no_grad():
                return FusedConvolution(same, norm, activation, precision)

        self._padded = functools.cache(padded)  # four at most, as a side needs one line more or not

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [n, channels, height, width] to maps."""
        needed = [get_same_padding(length, *side) for length, side in zip(maps.shape[2:], self._sides, strict=True)]
        more = [lines % 2 for lines in needed]
        padding = [
            lines // 2 + one * stride for lines, one, (_, stride, _) in zip(needed, more, self._sides, strict=True)
        ]
        found = self._padded(*padding)(maps)
        return found[:, :, more[0] :, more[1] :].contiguous(memory_format=torch.channels_last)


def pads_alike(convolution: Conv2dSame) -> bool:
    """Whether a `FusedSameConvolution` needs no more lines of zeros than the kernel reaches, for maps of any size."""
    sides = zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
    return all(size == 1 or stride <= dilation * (size - 1) // 2 + 1 for size, stride, dilation in sides)


class _Packed:
    """A convolution in one kernel, its weights laid out as the kernel wants them.

    The layout depends on the size of the maps. Weights in another layout are converted in each call, which takes up to
    twenty times as long as the convolution itself.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *described: Any):
        """Takes weights, bias, and as numbers the padding, stride, dilation and groups."""
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._bias = bias
        self._described = described
        self._layouts: dict[bytes, torch.Tensor] = {}  # two or three, however many sizes there are
        self._of_size: dict[tuple[int, ...], torch.Tensor] = {}

    def convolve(self, maps: torch.Tensor, activation: nn.Module) -> torch.Tensor:
        """The convolution of the maps, then the activation."""
        limits = [activation.min_val, activation.max_val] if isinstance(activation, nn.Hardtanh) else []
        convolution, kernel = (self._to_meet(maps), self._bias, *self._described), KERNELS[type(activation)]
        return torch.ops.mkldnn._convolution_pointwise(maps, *convolution, kernel, limits, "")

    def _to_meet(self, maps: torch.Tensor) -> torch.Tensor:
        """The weights for maps of this size, and for the number of threads that the caller has."""
        size = torch.get_num_threads(), *maps.shape
        if size not in self._of_size:
            with torch.inference_mode(False), torch.no_grad():
                packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                    self._weight.to_mkldnn(), *self._described, list(maps.shape)
                )
                layout = bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).tolist())
            self._of_size[size] = self._layouts.setdefault(layout, packed)
        return self._of_size[size]


class _Convolution(torch.autograd.Function):
    """`FusedConvolution.convolve` with the gradient of its maps; for the activations of LIMITS."""

    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, layer: FusedConvolution, activation: nn.Module) -> torch.Tensor:
        found = layer.convolve(maps, activation)
        ctx.layer, ctx.size, ctx.limits = layer, maps.shape[2:], LIMITS[type(activation)](activation)
        if ctx.limits:
            ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        if ctx.limits:  # it is 0 where the output is at a limit
            gradient = torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, *ctx.limits)
        return ctx.layer.backward(gradient, *ctx.size), None, None


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution and a norm in one (Jacob et al., arXiv 1712.05877, section 3.2)."""
    weight, bias = convolution.weight.detach(), convolution.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None and norm.running_var is not None, "others are not foldable"
    share = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.detach())
    shift = 0 if norm.bias is None else norm.bias.detach()
    return weight * share[:, None, None, None], (bias - norm.running_mean) * share + shift
