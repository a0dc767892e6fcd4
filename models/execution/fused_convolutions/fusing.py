"""Puts fused convolutions in place of a network's layers, or folds its norms into its convolutions."""

import copy
import itertools
import operator
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import fx, nn

from camboxes.models.execution.fused_convolutions.chains import chains
from camboxes.models.execution.fused_convolutions.kernels import (
    FusedConvolution,
    FusedSameConvolution,
    FusedSum,
    folded,
)

_THIN = 32  # channels


def fold(features: nn.Module, probe: torch.Tensor) -> None:
    """Folds each norm into the convolution in front of it, in place, on any device. Arguments: see `fuse`."""
    for chain in chains(features, probe):
        if chain.norm:
            convolution, norm = copy.copy(chain.convolution.layer), chain.norm.layer
            weight, bias = folded(convolution, norm)
            convolution._parameters = {"weight": nn.Parameter(weight, False), "bias": nn.Parameter(bias, False)}
            _put(features, chain.convolution.name, convolution)
            _put(features, chain.norm.name, getattr(norm, "act", nn.Identity()))


def fuse(features: nn.Module, probe: torch.Tensor, precision: torch.dtype) -> None:
    """Fuses the layers of a network, in place. The maps that a `Tap` shows stay what they were.

    The first convolutions stay in float32 while they have at most 32 channels: an error in the few channels that carry
    the whole image shows in every map, and they cost little (measured: docs/speed.md).

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
    for chain in chains(features, probe):
        convolution, norm = chain.convolution.layer, chain.norm and chain.norm.layer
        thin = thin and convolution.out_channels <= _THIN
        kind = FusedSameConvolution if isinstance(convolution, Conv2dSame) else FusedConvolution
        fused = kind(convolution, norm, chain.activation, torch.float32 if thin else precision)
        _put(features, chain.convolution.name, fused)
        if chain.norm:
            # timm's norms have an activation of their own, which stays where the kernels have none of its kind.
            own = nn.Identity() if chain.activation else getattr(norm, "act", nn.Identity())
            _put(features, chain.norm.name, own)
        if chain.spent:
            _put(features, chain.spent, nn.Identity())
    for part in list(features.modules()):
        if isinstance(part, fx.GraphModule):
            _fuse_calls(part)


def _fuse_calls(traced: fx.GraphModule) -> None:
    """Removes calls of rectifiers from a traced network, which may call one rectifier in many places.

    Removed are those behind a convolution whose kernel has it already, and those behind a sum that a kernel can do.
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
            if len({_shape(part) for part in parts}) > 1:  # one is broadcast to the other
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


def _put(features: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(features.get_submodule(parent), last, layer)
