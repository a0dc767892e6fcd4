"""Finds the layers of a network by name or stride, and records what they give in a pass: maps, attention, gradients.

The maps come from taps, layers that hand the output of another layer to the recording. Nothing is hooked, and the
network itself is never changed. What runs is a copy of its containers, or of its traced graph, around the same layers
and parameters.
"""

import contextvars
import copy
import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import fx, nn

from camboxes.models.introspection.attention import OpenAttention
from camboxes.models.introspection.layers import outermost_layers
from camboxes.models.introspection.parts import Parts, nodes_of
from camboxes.models.introspection.probing import evaluating, noise
from camboxes.models.introspection.tokens import MAPS, Layout, layout_of
from camboxes.models.spec import BY_STRIDE

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
      layers: names that `Recorder.layer` gave, LAST or ATTENTION.
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

    Only the containers around the layer are copied, or the graph that calls it; layers and parameters are shared. The
    layer is given by its dotted name in the network. The features may have taps already.
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


class Recorder(nn.Module):
    """A network taken apart, with a tap behind each layer whose maps were asked for.

    Attributes:
      network: the network, unchanged.
      features: images to the last feature maps or tokens, with the taps. Another module after each new tap.
      tail: those to logits.
      names: the dotted name of each layer that was asked for, under what it was asked for as.
    """

    def __init__(self, network: nn.Module, parts: Parts, size: int):
        """Takes the parts of a network, and the side of the square images that it is probed with, in pixels."""
        super().__init__()
        self.network = network
        self.features = parts.features
        self.tail = parts.tail
        self.names: dict[str, str] = {}
        self._prefix = parts.prefix
        self._size = size
        self._modules_to_evaluate = tuple(self.modules())  # kept: finding them takes as long as a layer
        self._tapping = threading.Lock()

    @functools.cached_property
    def blocks(self) -> dict[int, list[str]]:
        """The dotted names of the network's blocks by their stride: see `outermost_layers`."""
        with evaluating(*self.network.modules()):
            return outermost_layers(self.network, noise(self.network, self._size)[:1], self._prefix)

    def layer(self, wanted: str) -> str:
        """The name of a layer whose maps can be recorded from now on.

        Args:
          wanted: its dotted name in the network; or a stride in input pixels per cell for the last block at it:
            "32[-2]" is the last but one.

        Raises:
          ValueError: there is no such layer, or its output is no map.
        """
        with self._tapping:
            if wanted not in self.names:
                self.names[wanted] = self._tap(wanted)
        return self.names[wanted]

    @contextmanager
    def recording(
        self, layers: frozenset[str], size: Sequence[int], gradients: frozenset[str] = frozenset()
    ) -> Iterator[Recording]:
        """Records the passes that the calling thread makes in the block, in evaluation mode: see `recording`."""
        with evaluating(*self._modules_to_evaluate), recording(layers, size, gradients) as found:
            yield found

    def _tap(self, wanted: str) -> str:
        by_stride = BY_STRIDE.fullmatch(wanted)
        name = self._block(int(by_stride["stride"]), int(by_stride["place"] or 1)) if by_stride else wanted
        if name not in dict(self.network.named_modules()) or not name:
            raise ValueError(f"layer {wanted!r}: the network has none of this name; expected one of named_modules()")
        if name in self.names.values():
            return name
        features = tapped(self.features, name)
        probe = noise(self.network, self._size)[:1]
        with evaluating(*features.modules()), recording(frozenset([name]), probe.shape[2:]) as found:
            features(probe)
        layout = layout_of(found.maps[name].shape, self._prefix) if name in found.maps else None
        if layout is None:
            raise ValueError(f"layer {name!r} gives no maps of [n, channels, height, width]")
        for part in features.modules():
            if isinstance(part, Tap) and part.layer == name:
                part.layout = layout
        self.features = features
        self._modules_to_evaluate = tuple(self.modules())
        return name

    def _block(self, stride: int, place: int) -> str:
        """The dotted name of a block at a stride, counted from the last one, which is 1."""
        if stride not in self.blocks:
            raise ValueError(
                f"no layer at stride {stride}; this network has layers at {', '.join(map(str, sorted(self.blocks)))}: "
                "methods without @, and refine none, need no such layer"
            )
        blocks = self.blocks[stride]
        if not 1 <= place <= len(blocks):
            raise ValueError(f"layer {stride}[-{place}]: at this stride the network has {', '.join(blocks)} alone")
        return blocks[-place]
