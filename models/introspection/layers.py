"""Finds the blocks of a network by their stride."""

import math
from typing import Any

import torch
from torch import fx, nn

from camboxes.models.introspection.influence import is_sequence, read_sequences
from camboxes.models.introspection.probing import observe
from camboxes.models.introspection.tokens import layout_of


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
    rows = _rows_of_maps(network, probe, prefix)
    layers, strides = dict(network.named_modules()), dict[int, list[str]]()
    for name, height in rows.items():
        if name in layers and height:
            strides.setdefault(2 ** round(math.log2(probe.shape[2] / height)), []).append(name)
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


def _rows_of_maps(network: nn.Module, probe: torch.Tensor, prefix: int | None) -> dict[str, int]:
    """How many rows the maps of each layer have, in the order in which the layers end.

    It is 0 for a layer that gives no maps, or tokens that the logits do not depend on.
    """
    rows: dict[str, int] = {}
    read = {} if prefix is None else read_sequences(network, probe, prefix)

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(layer, fx.GraphModule):  # its graph calls layers, and never the containers around them
            for node in layer.graph.nodes:
                *containers, _ = str(node.meta.get("path", "")).split(".")
                for depth in range(len(containers), 0, -1):
                    put(f"{name}.{'.'.join(containers[:depth])}", getattr(node.meta.get("tensor_meta"), "shape", ()))
        put(name, () if is_sequence(output, prefix) and name not in read else getattr(output, "shape", ()))

    def put(name: str, shape: Any) -> None:
        rows.pop(name, None)  # a layer that runs twice counts where it last ran
        layout = layout_of(shape, prefix)
        rows[name] = layout.rows(shape) if layout else 0

    observe(network, probe, note)
    return rows
