"""Finds the convolutions of a network with the norm and the activation behind each, by running it once."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from camboxes.models.execution.fused_convolutions.kernels import KERNELS, LIMITS
from camboxes.models.introspection.probing import observe
from camboxes.models.introspection.taps import Tap


class Call(NamedTuple):
    """One call of a layer in a forward pass.

    Attributes:
      name: the layer's dotted name.
      layer: the layer.
      maps: its input.
      output: its output.
      given: how often the input had been changed in place before the call.
      left: how often the output had been changed in place by its end.
    """

    name: str
    layer: Any
    maps: Any
    output: Any
    given: int
    left: int


class Chain(NamedTuple):
    """A convolution, and the layers behind it that can be fused with it.

    Attributes:
      convolution: the convolution.
      norm: the norm behind it.
      activation: the activation behind that.
      spent: the name of the activation's layer, where nothing else calls it.
    """

    convolution: Call
    norm: Call | None
    activation: nn.Module | None
    spent: str


def chains(features: nn.Module, probe: torch.Tensor) -> list[Chain]:
    """The chains of a network, in the order of execution.

    Args:
      features: float32, in evaluation mode.
      probe: images to run it with, float32 [n, 3, height, width].
    """
    calls: list[Call] = []

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if inputs and (isinstance(layer, nn.BatchNorm2d) or not list(layer.children())):
            given = _changes(inputs[0]) - getattr(layer, "inplace", False)
            calls.append(Call(name, layer, inputs[0], output, given, _changes(output)))

    def shown(call: Call) -> bool:
        return isinstance(features.get_submodule(call.name.rpartition(".")[0]), Tap)

    observe(features, probe, note)
    times = collections.Counter(call.name for call in calls)

    def behind(number: int) -> int | None:
        """The number of the first call that gets this one's output unchanged; None where a tap shows that output."""
        for later in range(number + 1, len(calls) if not shown(calls[number]) else 0):
            call = calls[later]
            if call.maps is calls[number].output and (type(call.layer) is not nn.Identity or shown(call)):
                return later if call.given == calls[number].left else None
        return None

    return [
        _chain(calls, number, behind, times)
        for number, call in enumerate(calls)
        if type(call.layer) in (nn.Conv2d, Conv2dSame) and times[call.name] == 1 and _is_plain(call.layer)
    ]


def _changes(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0


def _chain(calls: Sequence[Call], number: int, behind: Callable[[int], int | None], times: Mapping[str, int]) -> Chain:
    """The chain that begins with a convolution."""
    convolution, norm = calls[number], None
    following = behind(number)
    if following is not None and _is_foldable(calls[following].layer) and times[calls[following].name] == 1:
        norm, following = calls[following], behind(following)
        if hasattr(norm.layer, "act"):
            return Chain(convolution, norm, norm.layer.act if type(norm.layer.act) in KERNELS else None, "")
    if following is None or type(calls[following].layer) not in KERNELS:
        return Chain(convolution, norm, None, "")
    name, activation, *_ = calls[following]
    if times[name] == 1:
        return Chain(convolution, norm, activation, name)
    # An activation that is called elsewhere, too, stays in place: a second time it changes nothing.
    return Chain(convolution, norm, activation if type(activation) in LIMITS else None, "")


def _is_plain(convolution: nn.Conv2d) -> bool:
    """Whether it pads with zeros, equally on both sides, and by no more than the kernel reaches."""
    if type(convolution) is Conv2dSame:
        return convolution.dilation == (1, 1)
    if isinstance(convolution.padding, str):
        return False
    sides = zip(convolution.padding, convolution.dilation, convolution.kernel_size, strict=True)
    return convolution.padding_mode == "zeros" and all(
        int(padding) <= int(dilation) * (int(size) - 1) for padding, dilation, size in sides
    )


def _is_foldable(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None
