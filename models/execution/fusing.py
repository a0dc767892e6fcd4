"""Finds the convolutions of a network with the norm and the activation behind each, and fuses or folds them."""

import collections
import copy
from typing import Any, NamedTuple

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from camboxes.models.execution.kernels import KERNELS, FusedConvolution, FusedSameConvolution, folded, pads_alike
from camboxes.models.introspection.probing import observe
from camboxes.models.introspection.recording import Tap


def fold(features: nn.Module, probe: torch.Tensor) -> None:
    """Folds each norm into the convolution in front of it, in place, on any device. Arguments: see `fuse`."""
    for convolution, norm, _, _ in _chains(features, probe):
        if norm:
            (weight, bias), layer = folded(convolution.layer, norm.layer), copy.copy(convolution.layer)
            layer._parameters = {"weight": nn.Parameter(weight, False), "bias": nn.Parameter(bias, False)}
            features.set_submodule(convolution.name, layer)
            features.set_submodule(norm.name, getattr(norm.layer, "act", nn.Identity()))


def fuse(features: nn.Module, probe: torch.Tensor, precision: torch.dtype) -> None:
    """Fuses the layers of a network, in place. The maps that a `Tap` shows stay what they were.

    The first convolutions stay in float32 while they have at most 32 channels: an error in the few channels that carry
    the whole image shows in every map, and they cost little (measured: benchmarks/records/speed.md).

    The modules that get a convolution's output tell what follows it. A function that gets it, too, is not seen, so
    compare the network's output before and after.

    Args:
      features: float32, on a CPU, in evaluation mode.
      probe: images to run it with, float32 [n, 3, height, width].
      precision: of the kernels behind the first, thin ones.

    Raises:
      RuntimeError: oneDNN is switched off, or this build of PyTorch has none.
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        raise RuntimeError("oneDNN is switched off, or this build of PyTorch has none")
    thin = True
    for convolution, norm, activation, spent in _chains(features, probe):
        layer = convolution.layer
        thin = thin and layer.out_channels <= 32
        kind = FusedSameConvolution if isinstance(layer, Conv2dSame) else FusedConvolution
        fused = kind(layer, norm and norm.layer, activation, torch.float32 if thin else precision)
        features.set_submodule(convolution.name, fused)
        if norm:
            # timm's norms have an activation of their own, which stays where the kernels have none of its kind.
            own = nn.Identity() if activation else getattr(norm.layer, "act", nn.Identity())
            features.set_submodule(norm.name, own)
        if spent:
            features.set_submodule(spent, nn.Identity())


class _Call(NamedTuple):
    """One call of a layer in a forward pass.

    Attributes:
      number: of the calls that ended before it.
      name: the layer's dotted name.
      layer: the layer.
      maps: its input.
      output: its output.
      given: how often the input had been changed in place before the call.
      left: how often the output had been changed in place by its end.
    """

    number: int
    name: str
    layer: Any
    maps: Any
    output: Any
    given: int
    left: int


_Chain = tuple[_Call, _Call | None, nn.Module | None, str]


def _chains(features: nn.Module, probe: torch.Tensor) -> list[_Chain]:
    """Runs a network once to find its convolutions, each with the layers behind it that can be fused with it.

    Arguments: see `fuse`.

    Returns:
      In the order of execution a convolution, the norm behind it, the activation behind that, and the name of the
      activation's layer. An activation that is called elsewhere, too, is none of them.
    """
    calls: list[_Call] = []

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if inputs and (isinstance(layer, nn.BatchNorm2d) or not list(layer.children())):
            given = _changes(inputs[0]) - getattr(layer, "inplace", False)
            calls.append(_Call(len(calls), name, layer, inputs[0], output, given, _changes(output)))

    observe(features, probe, note)
    times = collections.Counter(call.name for call in calls)

    def shown(call: _Call) -> bool:
        return isinstance(features.get_submodule(call.name.rpartition(".")[0]), Tap)

    def behind(call: _Call) -> _Call | None:
        """The first call that gets this one's output unchanged; None where a tap shows that output."""
        for later in () if shown(call) else calls[call.number + 1 :]:
            if later.maps is call.output and (type(later.layer) is not nn.Identity or shown(later)):
                return later if later.given == call.left else None
        return None

    def fusable(call: _Call, activation: nn.Module) -> bool:
        """Whether there are kernels, and the output stays as it is, for gradients are computed from it."""
        return type(activation) in KERNELS and _changes(call.output) == call.left

    def chain(convolution: _Call) -> _Chain:
        norm, following = None, behind(convolution)
        if following and _is_foldable(following.layer) and times[following.name] == 1:
            norm, following = following, behind(following)
            if hasattr(norm.layer, "act"):
                return convolution, norm, norm.layer.act if fusable(norm, norm.layer.act) else None, ""
        if following is None or not fusable(following, following.layer) or times[following.name] > 1:
            return convolution, norm, None, ""
        return convolution, norm, following.layer, following.name

    return [chain(call) for call in calls if times[call.name] == 1 and _is_plain(call.layer)]


def _changes(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0


def _is_plain(layer: nn.Module) -> bool:
    """Whether it is a convolution that pads with zeros, no further than its kernel reaches."""
    if not isinstance(layer, nn.Conv2d) or type(layer) not in (nn.Conv2d, Conv2dSame):
        return False
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return False
    if isinstance(layer, Conv2dSame):
        return pads_alike(layer)
    sides = zip(layer.padding, layer.dilation, layer.kernel_size, strict=True)
    return all(padding <= dilation * (size - 1) for padding, dilation, size in sides)


def _is_foldable(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None
