"""Finds layers by running a network: its blocks by their stride, and the tokens that its logits depend on."""

import math
from typing import Any

import torch
from torch import fx, nn

from camboxes.models.introspection.parts import Parts
from camboxes.models.introspection.probing import observe
from camboxes.models.introspection.tokens import MAPS, Tokens, layout_of


def outermost_layers(network: nn.Module, probe: torch.Tensor, prefix: int | None) -> dict[int, list[str]]:
    """The dotted names of a network's blocks by their stride, in input pixels per cell, in the order of execution.

    A block holds at least two convolutions, so a lone convolution behind the last block is none; where a network is not
    built of blocks (VGG), its layers count. Of nested layers the outermost is meant; a single one at its stride stands
    for the last of the blocks inside it. A block that works on tokens holds linear layers instead, and is left out
    where the logits do not depend on its tokens of the patches.

    Args:
      network: the network.
      probe: images to find the layers with, [n, 3, height, width].
      prefix: see `Parts`.

    Returns:
      Under each power of 2 the layers whose stride is nearest to it: patches of 14 pixels are found at 16.
    """
    layers, strides = dict(network.named_modules()), dict[int, list[str]]()
    for name, shape in _shapes(network, probe, prefix).items():
        layout = layout_of(shape, prefix)
        if layout and name in layers:
            strides.setdefault(2 ** round(math.log2(probe.shape[2] / layout.rows(shape))), []).append(name)
    kinds = nn.Conv2d if prefix is None else nn.Conv2d | nn.Linear

    def outermost(names: list[str]) -> list[str]:
        depth = min((name.count(".") for name in names), default=0)
        return [name for name in names if name.count(".") == depth]

    def blocks_of(found: list[str]) -> list[str]:
        blocks = [name for name in found if sum(isinstance(part, kinds) for part in layers[name].modules()) > 1]
        last = inside = outermost(blocks or found)
        while len(inside) == 1:
            inside = outermost([name for name in blocks if name.startswith(f"{inside[0]}.")])
        return inside[:-1] + last[-1:]

    return {stride: blocks_of(found) for stride, found in strides.items()}


def _shapes(network: nn.Module, probe: torch.Tensor, prefix: int | None) -> dict[str, Any]:
    """The shape that each layer gives, in the order in which the layers end; of tokens those that the logits depend on.

    The graph of a traced part calls layers, and never the containers around them, which are noted as well.
    """
    shapes: dict[str, Any] = {}
    read = {} if prefix is None else _read_sequences(network, probe, prefix)

    def put(name: str, shape: Any) -> None:
        shapes.pop(name, None)  # a layer that runs twice counts where it last ran
        shapes[name] = shape

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        for node in layer.graph.nodes if isinstance(layer, fx.GraphModule) else ():
            *containers, _ = str(node.meta.get("path", "")).split(".")
            for depth in range(len(containers), 0, -1):
                put(f"{name}.{'.'.join(containers[:depth])}", getattr(node.meta.get("tensor_meta"), "shape", ()))
        put(name, () if _is_sequence(output, prefix) and name not in read else getattr(output, "shape", ()))

    observe(network, probe, note)
    return shapes


def last_tokens(parts: Parts, probe: torch.Tensor) -> Tokens | None:
    """Which tokens of a network's last features the logits depend on; None for a network without tokens."""
    if parts.prefix is None:
        return None
    if parts.layout.axes != "NLC":  # the features are maps: the other tokens are gone
        return Tokens((False,) * parts.prefix, patches=True)
    with torch.inference_mode():
        output = parts.features(probe)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = output.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(parts.tail(leaf).sum(), leaf)
    read = gradient.abs().sum((0, 2)) > 0
    prefix = parts.layout.prefix
    # Where all weights of the last layer are zero, as some libraries initialise it, no gradient tells anything.
    return Tokens(tuple(read[:prefix].tolist()), bool(read[prefix:].any() or not read.any()))


def last_norm(network: nn.Module, probe: torch.Tensor, parts: Parts) -> str:
    """The dotted name of the last norm over tokens in which the logits depend on those of the patches.

    In a network that reads its logits from the class token this is the input of the last attention: behind that the
    patches have no influence any more. In a network without norms it is the last such layer of any kind.

    Raises:
      ValueError: there is none.
    """
    layers, channels = dict(network.named_modules()), parts.features(probe[:1]).shape[2]
    read = _read_sequences(network, probe, parts.prefix)
    if not read:
        raise ValueError("the logits depend on no token of a patch: the weights of the last layer may all be zero")
    norms = [name for name in read if "Norm" in type(layers[name]).__name__ and read[name][2] == channels]
    return norms[-1] if norms else list(read)[-1]


def _read_sequences(network: nn.Module, probe: torch.Tensor, prefix: int | None) -> dict[str, tuple[int, ...]]:
    """The shape of each sequence with patch tokens that the logits depend on, by its layer, in the order they end."""
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if _is_sequence(output, prefix) and output.requires_grad:
            outputs.pop(name, None)
            outputs[name] = output

    with torch.inference_mode(False), torch.enable_grad():
        logits = observe(network, probe[:1].clone().requires_grad_(), note)
        gradients = torch.autograd.grad(logits.sum(), list(outputs.values()), allow_unused=True) if outputs else ()
    return {
        name: tuple(output.shape)
        for (name, output), gradient in zip(outputs.items(), gradients, strict=True)
        if gradient is not None and gradient[:, prefix:].any()
    }


def _is_sequence(output: Any, prefix: int | None) -> bool:
    """Whether a layer's output is a sequence of tokens."""
    return isinstance(output, torch.Tensor) and (layout_of(output.shape, prefix) or MAPS).axes == "NLC"
