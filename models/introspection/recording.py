"""Records what the layers of a network give in one pass of the calling thread: maps, attention, gradients.

The maps come from taps, layers that hand the output of another layer to the recording. Nothing is hooked, and the
network itself is never changed. What runs is a copy of its containers, or of its traced graph, around the same layers
and parameters.
"""

import contextvars
import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import fx, nn

from camboxes.models.introspection.attention import OpenAttention
from camboxes.models.introspection.tokens import MAPS, Layout
from camboxes.models.introspection.traced import nodes_of

LAST = ""  # the name of the last feature maps, in a `Recording`
ATTENTION = "@attention"  # asks a `Recording` for the attention of all layers


class Recording:
    """The maps and the attention of one forward pass, and the autograd graph behind them where gradients are wanted.

    Attributes:
      maps: the feature maps of each layer that was asked for, [n, channels, height, width].
      attention: the attention weights of each layer in the order of execution, [n, heads, queries, keys], where
        ATTENTION was asked for.
    """

    def __init__(self, layers: frozenset[str], size: Sequence[int], gradients: frozenset[str]):
        self.maps: dict[str, torch.Tensor] = {}
        self.attention: list[torch.Tensor] = []
        self._layers, self._size, self._gradients = layers, size, gradients

    def take(self, layer: str, output: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Keeps the maps in a layer's output, and returns a copy that the network may change."""
        if layer not in self._layers:
            return output
        self.maps[layer] = self._in_graph(layer, layout.maps(output, self._size))
        return layout.output(self.maps[layer].clone(), output)

    def take_attention(self, weights: torch.Tensor) -> torch.Tensor:
        """Keeps a layer's attention weights, and returns them as part of the autograd graph."""
        self.attention.append(self._in_graph(ATTENTION, weights))
        return self.attention[-1]

    def _in_graph(self, layer: str, value: torch.Tensor) -> torch.Tensor:
        """Begins the autograd graph at the first layer with gradients, whatever the parameters before it ask for."""
        if layer in self._gradients and not value.requires_grad:
            value = value.detach().requires_grad_()
            torch.set_grad_enabled(True)  # until the end of `recording`
        return value


_recording: contextvars.ContextVar[Recording | None] = contextvars.ContextVar("recording", default=None)


@contextmanager
def recording(
    layers: frozenset[str], size: Sequence[int], gradients: frozenset[str] = frozenset()
) -> Iterator[Recording]:
    """Records the forward passes that the calling thread makes in the block, through the taps of the network.

    Args:
      layers: the layers to record; with ATTENTION among them also attention.
      size: height and width of the images, in pixels.
      gradients: the layers among them with respect to which gradients are wanted.
    """
    found = Recording(layers, size, gradients)
    attention = OpenAttention(found.take_attention) if ATTENTION in layers else nullcontext()
    token = _recording.set(found)
    try:
        # No inference mode where gradients are wanted: a tensor made in it can never be part of a graph.
        with torch.inference_mode(not gradients), torch.no_grad(), attention:
            yield found
    finally:
        _recording.reset(token)


class Tap(nn.Module):
    """Runs a layer and hands its maps to the recording of the calling thread, where there is one.

    Attributes:
      layer: its name in the recording.
      inner: the layer.
      layout: how maps lie in its output; the recording gets them as [n, channels, height, width].
    """

    def __init__(self, layer: str, inner: nn.Module | None = None, layout: Layout = MAPS):
        super().__init__()
        self.layer = layer
        self.inner = inner or nn.Identity()
        self.layout = layout

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the layer."""
        output = self.inner(*args, **kwargs)
        active = _recording.get()
        return output if active is None else active.take(self.layer, output, self.layout)


def tapped(features: nn.Module, layer: str) -> nn.Module:
    """Copies the features of `take_apart`, with a `Tap` behind one layer of the network.

    Only the containers around the layer are copied, or the graph that calls it; layers and parameters are shared.

    Args:
      features: see `Parts`; they may have taps already.
      layer: the layer's dotted name in the network.
    """
    network = [] if isinstance(features, fx.GraphModule) else ["network"]
    return _tapped(features, [*network, *layer.split(".")], layer)


def _tapped(module: nn.Module, path: Sequence[str], layer: str) -> nn.Module:
    """Copies a module, with a `Tap` behind the layer at a path in it."""
    if not path:
        return Tap(layer, module)
    if isinstance(module, fx.GraphModule):
        return _tapped_graph(module, ".".join(path), layer)
    container = _container(module)
    name, *rest = ["inner", *path] if isinstance(module, Tap) else path
    container._modules[name] = _tapped(module.get_submodule(name), rest, layer)
    return container


def _container(module: nn.Module) -> nn.Module:
    """A copy with the same layers, which may be exchanged in it."""
    container = copy.copy(module)
    container._modules = dict(module._modules)
    return container


def _tapped_graph(features: fx.GraphModule, path: str, layer: str) -> nn.Module:
    graph = fx.Graph()
    graph.output(graph.graph_copy(features.graph, {}))
    last = nodes_of(graph, path)[-1]
    tap = f"tap_{layer.replace('.', '_')}"
    with graph.inserting_after(last):
        node = graph.create_node("call_module", tap, (last,))
    last.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
    root = nn.Module()
    root.__dict__.update(_container(features).__dict__)
    root.add_module(tap, Tap(layer))
    return fx.GraphModule(root, graph)
