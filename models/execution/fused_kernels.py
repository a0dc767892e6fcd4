"""A convolution, the norm behind it and the activation behind that, in one kernel of the CPU's.

Run one after the other, the three bring every map to memory and back three times. oneDNN does them in one pass, with
weights that are laid out once as its kernel wants them. It is what torch.compile makes of convolutions, at once rather
than in half a minute, and for images of any shape: docs/speed.md has both.
"""

import collections
import copy
import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import fx, nn
from torch.nn import functional

from camboxes.models.introspection.probing import observe
from camboxes.models.introspection.taps import Tap

# Activations, by what oneDNN calls them.
_KERNELS = {
    nn.Identity: "none",
    nn.ReLU: "relu",
    nn.ReLU6: "hardtanh",
    nn.Hardtanh: "hardtanh",
    nn.SiLU: "swish",
    nn.Hardswish: "hardswish",
}
_THIN = 32  # channels

# Those that clip, and between which limits: applied again they change nothing, and their gradient is 0 or 1.
_LIMITS: dict[type, Callable[[Any], tuple[float, ...]]] = {
    nn.Identity: lambda _: (),
    nn.ReLU: lambda _: (0.0, math.inf),
    nn.ReLU6: lambda activation: (activation.min_val, activation.max_val),
    nn.Hardtanh: lambda activation: (activation.min_val, activation.max_val),
}


class FusedConvolution(nn.Module):
    """A convolution in one kernel with what follows it. Gradients of its maps flow through it, at more cost.

    Attributes:
      precision: of the kernel and its weights.
      activation: the last part of it.
      widened: whether what it gives is brought to float32.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        norm: nn.BatchNorm2d | None,
        activation: nn.Module | None,
        precision: torch.dtype,
    ):
        """Folds the norm into the weights.

        Args:
          convolution: of float32 weights, its padding in numbers.
          norm: in evaluation mode.
          activation: one of _KERNELS.
          precision: of the kernel and its weights; maps are brought to it.
        """
        super().__init__()
        weight, bias = _folded(convolution, norm)
        # No parameters: what is laid out for a kernel cannot be moved or saved.
        self._weight = weight.to(precision)
        self._bias = bias.to(precision)
        self.precision = precision
        self.activation = activation or nn.Identity()
        self._padding: list[int] = [*map(int, convolution.padding)]
        self._stride, self._dilation = list(convolution.stride), list(convolution.dilation)
        self._groups = convolution.groups
        # What is added to what came before loses least in float32; where that is narrow, it costs little.
        self.widened = type(self.activation) is nn.Identity and convolution.out_channels < convolution.in_channels
        self._reach = [step * (size - 1) for step, size in zip(self._dilation, weight.shape[2:], strict=True)]
        self._around = [reach - padding for reach, padding in zip(self._reach, self._padding, strict=True)]
        self._packed = _Packed(self._weight, self._padding, self._stride, self._dilation, self._groups)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [n, channels, height, width] to maps."""
        maps = maps.to(self.precision)
        if not maps.requires_grad:
            return self.convolve(maps, self.activation)
        if type(self.activation) in _LIMITS:
            return _Convolution.apply(maps, self, self.activation, None)
        return self.activation(_Convolution.apply(maps, self, nn.Identity(), None))

    def convolve(self, maps: torch.Tensor, activation: nn.Module, others: torch.Tensor | None = None) -> torch.Tensor:
        """The convolution and the norm of maps, what is added to that, and an activation behind it all."""
        limits = [activation.min_val, activation.max_val] if isinstance(activation, nn.Hardtanh) else []
        kernel, weight = _KERNELS[type(activation)], self._packed.to_meet(maps)
        convolution = weight, self._bias, self._padding, self._stride, self._dilation, self._groups
        if others is not None:
            return torch.ops.mkldnn._convolution_pointwise.binary(
                maps, others, *convolution, "add", 1.0, kernel, limits, ""
            )
        found = torch.ops.mkldnn._convolution_pointwise(maps, *convolution, kernel, limits, "")
        return found.float() if self.widened else found

    def backward(self, gradient: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The gradient with respect to maps of height x width, from that to the convolution's output.

        It is a convolution, too, in the same kernels (PyTorch's own backward takes ten times as long in bfloat16): of
        the gradient, with zeros where a stride left cells out, and the weights turned round.
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
        return torch.ops.mkldnn._convolution_pointwise(
            gradient,
            self._turned.to_meet(gradient),
            None,
            self._around,
            [1, 1],
            self._dilation,
            self._groups,
            "none",
            [],
            "",
        )

    @functools.cached_property
    def _turned(self) -> "_Packed":
        """Weights for gradients: mirrored, and within each group outputs and inputs exchanged."""
        exchanged = self._weight.unflatten(0, (self._groups, -1)).transpose(1, 2).flatten(0, 1)
        return _Packed(exchanged.flip(2, 3), self._around, [1, 1], self._dilation, self._groups)


class FusedSum(nn.Module):
    """A convolution, others' maps added to its own, and a rectifier behind the sum: in one kernel."""

    def __init__(self, convolution: FusedConvolution):
        """Takes a convolution without an activation."""
        super().__init__()
        self._convolution = convolution
        self._rectifier = nn.ReLU()

    def forward(self, maps: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Maps [n, channels, height, width], and those that are added to what becomes of them, to maps."""
        maps, others = maps.to(self._convolution.precision), others.to(self._convolution.precision)
        if maps.requires_grad or others.requires_grad:
            return _Convolution.apply(maps, self._convolution, self._rectifier, others)
        return self._convolution.convolve(maps, self._rectifier, others)


class _Packed:
    """A convolution's weights, laid out as the kernel wants them.

    Which layout that is depends on the size of the maps. One that the kernel does not want is brought to the other in
    each call, which takes up to twenty times as long as the convolution itself.
    """

    def __init__(self, weight: torch.Tensor, padding: list[int], stride: list[int], dilation: list[int], groups: int):
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._convolution = padding, stride, dilation, groups
        self._layouts: dict[bytes, torch.Tensor] = {}  # two or three, however many sizes there are
        self._of_size: dict[tuple[int, ...], torch.Tensor] = {}

    def to_meet(self, maps: torch.Tensor) -> torch.Tensor:
        """The weights for maps of such a size, and for as many threads as the caller's."""
        size = torch.get_num_threads(), *maps.shape
        if size not in self._of_size:
            with torch.inference_mode(False), torch.no_grad():
                packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                    self._weight.to_mkldnn(), *self._convolution, list(maps.shape)
                )
                layout = bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).tolist())
            self._of_size[size] = self._layouts.setdefault(layout, packed)
        return self._of_size[size]


class FusedSameConvolution(nn.Module):
    """A `FusedConvolution` with timm's padding "same", which adds one line more behind the maps where it is odd.

    No copy of the maps is made for that: a kernel with one more line of weights in front, which are 0, gives the same
    with as much padding on both sides.
    """

    def __init__(
        self,
        convolution: Conv2dSame,
        norm: nn.BatchNorm2d | None,
        activation: nn.Module | None,
        precision: torch.dtype,
    ):
        """Arguments: those of `FusedConvolution`."""
        super().__init__()
        self._layers = convolution, norm, activation  # no submodules: they stay in float32
        self._precision = precision
        self._fused: dict[tuple[int, ...], FusedConvolution] = {}  # for a padding, both sides together

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [n, channels, height, width] to maps."""
        convolution = self._layers[0]
        padding = tuple(
            max(0, (math.ceil(side / stride) - 1) * stride + dilation * (size - 1) + 1 - side)
            for side, size, stride, dilation in zip(
                maps.shape[2:], convolution.kernel_size, convolution.stride, convolution.dilation, strict=True
            )
        )
        if padding not in self._fused:
            self._fused[padding] = self._fuse(*padding)
        return self._fused[padding](maps)

    def _fuse(self, rows: int, columns: int) -> FusedConvolution:
        convolution, norm, activation = self._layers
        with torch.inference_mode(False), torch.no_grad():  # whatever the mode of the pass that is the first to ask
            weight = functional.pad(convolution.weight, (columns % 2, 0, rows % 2, 0))
            padded = nn.Conv2d(
                convolution.in_channels,
                convolution.out_channels,
                (weight.shape[2], weight.shape[3]),
                (convolution.stride[0], convolution.stride[1]),
                (math.ceil(rows / 2), math.ceil(columns / 2)),
                groups=convolution.groups,
                device="meta",
            )
            padded.weight, padded.bias = nn.Parameter(weight, requires_grad=False), convolution.bias
            return FusedConvolution(padded, norm, activation, self._precision)


class _Convolution(torch.autograd.Function):
    """`FusedConvolution.convolve` with gradients; none to its weights. Of activations those of _LIMITS."""

    @staticmethod
    def forward(
        ctx: Any, maps: torch.Tensor, layer: FusedConvolution, activation: nn.Module, others: torch.Tensor | None
    ) -> torch.Tensor:
        found = layer.convolve(maps, activation, others)
        ctx.layer, ctx.size, ctx.limits = layer, maps.shape[2:], _LIMITS[type(activation)](activation)
        if ctx.limits:
            ctx.save_for_backward(found.clone())  # the network may go on to change it in place
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, torch.Tensor | None]:
        if ctx.limits:  # what reached a limit stands still; that the output tells as well as the input
            gradient = torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, *ctx.limits)
        others = gradient if ctx.needs_input_grad[3] else None
        return ctx.layer.backward(gradient, *ctx.size), None, None, others


def fold(features: nn.Module, probe: torch.Tensor) -> None:
    """Folds each norm into the convolution in front of it, in place: what `fuse` does on any device, and no more.

    Arguments: those of `fuse`, on that device.
    """
    for chain in _chains(features, probe):
        if chain.norm:
            convolution, norm = copy.copy(chain.convolution.layer), chain.norm.layer
            weight, bias = _folded(convolution, norm)
            convolution._parameters = {"weight": nn.Parameter(weight, False), "bias": nn.Parameter(bias, False)}
            _put(features, chain.convolution.name, convolution)
            _put(features, chain.norm.name, getattr(norm, "act", nn.Identity()))


def fuse(features: nn.Module, probe: torch.Tensor, precision: torch.dtype) -> None:
    """Fuses the layers of a network, in place. Where a `Tap` shows a layer's maps, they stay what they were.

    The first convolutions, as long as they are thin, are left in float32: what is lost where a few channels carry the
    whole image is felt in every map, and they cost little (measured: docs/speed.md).

    What follows a convolution is told from the modules that get its output. A function that gets it, too, is not seen:
    so hold what the network gives afterwards against what it gave.

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
    for chain in _chains(features, probe):
        convolution, norm = chain.convolution.layer, chain.norm and chain.norm.layer
        thin = thin and convolution.out_channels <= _THIN
        kind = FusedSameConvolution if isinstance(convolution, Conv2dSame) else FusedConvolution
        fused = kind(convolution, norm, chain.activation, torch.float32 if thin else precision)
        _put(features, chain.convolution.name, fused)
        if chain.norm:
            # timm's norms bring an activation of their own, which stays where it is of another kind.
            own = nn.Identity() if chain.activation else getattr(norm, "act", nn.Identity())
            _put(features, chain.norm.name, own)
        if chain.spent:
            _put(features, chain.spent, nn.Identity())
    for part in list(features.modules()):
        if isinstance(part, fx.GraphModule):
            _fuse_calls(part)


def _fuse_calls(traced: fx.GraphModule) -> None:
    """Takes calls of rectifiers out of a traced network, which may call one in many places.

    Those behind a convolution that has it in its kernel already, and those behind a sum that a kernel can have, too.
    """
    layers = dict(traced.named_modules(remove_duplicate=False))

    def layer_of(node: Any) -> Any:
        return layers.get(node.target) if isinstance(node, fx.Node) and node.op == "call_module" else None

    def source(node: Any) -> Any:
        return source(node.all_input_nodes[0]) if type(layer_of(node)) is nn.Identity else node

    for node in traced.graph.nodes:
        if type(rectifier := layer_of(node)) is not nn.ReLU:
            continue
        given = source(node.all_input_nodes[0])
        if isinstance(layer_of(given), FusedConvolution) and layer_of(given).activation is rectifier:
            node.replace_all_uses_with(given)
        elif given.target in (operator.add, operator.iadd, torch.add) and len(given.users) == 1 and not given.kwargs:
            parts = [source(part) for part in given.args]
            if len({_shape(part) for part in parts}) > 1:  # one is spread over the other
                continue
            for convolution, others in itertools.permutations(parts, 2):
                layer = layer_of(convolution)
                plain = isinstance(layer, FusedConvolution) and type(layer.activation) is nn.Identity
                if plain and not layer.widened and len(convolution.users) == 1:
                    name = f"{convolution.name}_sum"
                    traced.add_submodule(name, FusedSum(layer))
                    with traced.graph.inserting_before(node):
                        joined = traced.graph.call_module(name, (convolution.all_input_nodes[0], others))
                    joined.meta = node.meta
                    node.replace_all_uses_with(joined)
                    break
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _shape(part: Any) -> Any:
    return getattr(part.meta.get("tensor_meta"), "shape", part) if isinstance(part, fx.Node) else part


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution and a norm in one (Jacob et al., arXiv 1712.05877, section 3.2)."""
    weight, bias = convolution.weight.detach(), convolution.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None and norm.running_var is not None, "others are not foldable"
    share = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.detach())
    shift = 0 if norm.bias is None else norm.bias.detach()
    return weight * share[:, None, None, None], (bias - norm.running_mean) * share + shift


class _Call(NamedTuple):
    """A layer's turn in a forward pass; `given` and `left` count how often maps and output had been changed by then."""

    name: str
    layer: Any
    maps: Any
    output: Any
    given: int
    left: int


class _Chain(NamedTuple):
    """Layers to become one.

    Attributes:
      convolution: the first.
      norm: the one behind it.
      activation: the one behind that.
      spent: the name of the activation, where it is not needed any more.
    """

    convolution: _Call
    norm: _Call | None
    activation: nn.Module | None
    spent: str


def _chains(features: nn.Module, probe: torch.Tensor) -> list[_Chain]:
    calls: list[_Call] = []

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if inputs and (isinstance(layer, nn.BatchNorm2d) or not list(layer.children())):
            given = _changes(inputs[0]) - getattr(layer, "inplace", False)
            calls.append(_Call(name, layer, inputs[0], output, given, _changes(output)))

    def shown(call: _Call) -> bool:
        return isinstance(features.get_submodule(call.name.rpartition(".")[0]), Tap)

    observe(features, probe, note)
    times = collections.Counter(call.name for call in calls)

    def behind(number: int) -> int | None:
        """Which call is the first to get what this one gives, as it is; None where the maps between them are shown."""
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


def _chain(
    calls: Sequence[_Call], number: int, behind: Callable[[int], int | None], times: Mapping[str, int]
) -> _Chain:
    """The chain that begins with a convolution."""
    convolution, norm = calls[number], None
    following = behind(number)
    if following is not None and _is_foldable(calls[following].layer) and times[calls[following].name] == 1:
        norm, following = calls[following], behind(following)
        if hasattr(norm.layer, "act"):
            return _Chain(convolution, norm, norm.layer.act if type(norm.layer.act) in _KERNELS else None, "")
    if following is None or type(calls[following].layer) not in _KERNELS:
        return _Chain(convolution, norm, None, "")
    name, activation, *_ = calls[following]
    if times[name] == 1:
        return _Chain(convolution, norm, activation, name)
    # One that others use, too, stays: a second time it changes nothing.
    return _Chain(convolution, norm, activation if type(activation) in _LIMITS else None, "")


def _is_plain(convolution: nn.Conv2d) -> bool:
    """Whether it is padded with zeros, as much on both sides, and by no more than it reaches."""
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


def _put(features: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(features.get_submodule(parent), last, layer)
