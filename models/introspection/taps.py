"""Taps: layers that hand the maps of another layer to the recording of the calling thread.

Nothing is hooked, and the network itself is never changed. What runs is a copy of its containers, or of its traced
graph, around the same layers and parameters.
"""

import copy
from typing import Any

from torch import fx, nn

from camboxes.models.introspection.recording import active_recording
from camboxes.models.introspection.tokens import MAPS, Layout
from camboxes.models.introspection.traced import nodes_of


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
        active = active_recording()
        return output if active is None else active.take(self.layer, output, self.layout)


def tapped(features: nn.Module, layer: str) -> nn.Module:
    """Copies the features of `take_apart`, with a `Tap` behind one layer of the network.

    Only the containers around the layer are copied, or the graph that calls it; layers and parameters are shared.

    Args:
      features: see `Parts`; they may have taps already.
      layer: the layer's dotted name in the network.
    """
    if isinstance(features, fx.GraphModule):
        return _tapped_graph(features, layer, layer)
    root = parent = _container(features)
    *path, last = ["network", *layer.split(".")]
    for depth, name in enumerate(path):
        child = parent.get_submodule(name)
        if isinstance(child, fx.GraphModule):
            parent._modules[name] = _tapped_graph(child, ".".join([*path[depth + 1 :], last]), layer)
            return root
        parent = _copied_child(parent, name)
        if isinstance(parent, Tap):  # of a container of this layer
            parent = _copied_child(parent, "inner")
    parent._modules[last] = Tap(layer, parent.get_submodule(last))
    return root


def _copied_child(parent: nn.Module, name: str) -> nn.Module:
    child = parent._modules[name] = _container(parent.get_submodule(name))
    return child


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
