"""A network taken apart: the layers up to its last feature maps, what follows them, and the layers in between.

Nothing is hooked, and the network itself is never changed: what runs is a copy of its containers, or of its traced
graph, around the very same layers and parameters.
"""

import contextvars
import copy
import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional

from camboxes.models.introspection.attention import OpenAttention
from camboxes.models.introspection.tokens import MAPS, Layout, layout_of, prefix_tokens

LAST = ""  # the name of the last feature maps, in a `Recording`
_FEW, _LARGE = 4, 256  # cells on a side; pixels
ATTENTION = "@attention"  # asks a `Recording` for the attention of all layers


class Recording:
    """What the layers gave during one forward pass, and, where gradients are wanted, the graph that follows them.

    Attributes:
      maps: for each layer that was asked for its feature maps, [n, channels, height, width].
      attention: of each layer, in the order of execution, its attention weights, [n, heads, queries, keys], where
        ATTENTION was asked for.
      layers: those that were asked for.
      gradients: those to which gradients are wanted.
    """

    def __init__(self, layers: frozenset[str], size: Sequence[int], gradients: frozenset[str]):
        self.maps: dict[str, torch.Tensor] = {}
        self.attention: list[torch.Tensor] = []
        self.layers = layers
        self.gradients = gradients
        self._size = size

    def take(self, layer: str, output: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Keeps the maps in a layer's output, and gives what the network goes on with: a copy, which it may change."""
        if layer not in self.layers:
            return output
        return layout.output(self.keep(layer, layout.maps(output, self._size)).clone(), output)

    def keep(self, layer: str, maps: torch.Tensor) -> torch.Tensor:
        """Keeps a layer's maps, and gives them as part of the graph of gradients.

        The graph begins at the first of the layers: nothing before it is kept, whatever its parameters ask for.
        """
        self.maps[layer] = self._in_graph(layer, maps)
        return self.maps[layer]

    def take_attention(self, weights: torch.Tensor) -> torch.Tensor:
        """Keeps a layer's attention, likewise."""
        self.attention.append(self._in_graph(ATTENTION, weights))
        return self.attention[-1]

    def _in_graph(self, layer: str, value: torch.Tensor) -> torch.Tensor:
        if layer in self.gradients and not value.requires_grad:
            value = value.detach().requires_grad_()
            torch.set_grad_enabled(True)  # until the end of `recording`
        return value


_recording: contextvars.ContextVar[Recording | None] = contextvars.ContextVar("recording", default=None)


@contextmanager
def recording(
    layers: frozenset[str], size: Sequence[int], gradients: frozenset[str] = frozenset()
) -> Iterator[Recording]:
    """Records the taps of the forward passes that the calling thread makes, in evaluation mode or not at all.

    Args:
      layers: those to record; ATTENTION among them for attention.
      size: height and width of the images, in pixels.
      gradients: those of them to which gradients are wanted.
    """
    found = Recording(layers, size, gradients)
    # Not inference mode where gradients are wanted: what it makes can never be part of a graph.
    modes = (torch.inference_mode(not gradients), torch.no_grad())
    attention = OpenAttention(found.take_attention) if ATTENTION in layers else nullcontext()
    token = _recording.set(found)
    try:
        with modes[0], modes[1], attention:
            yield found
    finally:
        _recording.reset(token)


def active_recording() -> Recording | None:
    """What the calling thread records."""
    return _recording.get()


class Tap(nn.Module):
    """Shows a layer's maps to the recording of the calling thread, where there is one.

    Attributes:
      layer: its name in the recording.
      inner: the layer.
      layout: how maps lie in what it gives; the recording gets them as [n, channels, height, width].
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


class Parts(NamedTuple):
    """A network in two parts, so that tail(features(images)) are its logits.

    Attributes:
      features: images to the last feature maps, or to the last tokens.
      tail: those to logits, [n, classes].
      head: the last linear layer; None where there is none, and the logits are the pooled maps themselves.
      layout: how maps lie in what `features` gives.
      prefix: how many tokens a sequence has before those of the patches; None for a network without sequences.
    """

    features: nn.Module
    tail: nn.Module
    head: Any
    layout: Layout
    prefix: int | None


def take_apart(network: Any, name: str, probe: torch.Tensor) -> Parts:
    """Finds the last feature maps of a network, and its last layer.

    Args:
      network: a classifier of torchvision or timm, or whatever offers timm's methods or can be traced by torch.fx.
      name: for the error.
      probe: images to find the shapes with, [n, 3, height, width].

    Raises:
      ValueError: the network has no feature maps before its output, or maps of one cell at the probe's size; it takes
        no images of that size; or it cannot be traced.
    """
    try:
        parts, cells = _parts(network, name, probe)
        enough = _size_of_more_cells(network, name, probe, _cut(parts)) if cells <= _FEW else None
    except _NoMapsError:
        enough = _size_of_more_cells(network, name, probe, None)
        if enough is None:
            raise
    if enough is not None:
        raise ValueError(one_cell(name, probe.shape[2], enough))
    return parts


def one_cell(name: str, size: int, enough: int) -> str:
    """The message for a network whose last maps have one cell at a size, and more at another one."""
    return (
        f"{name} at {size} pixels: its last maps have one cell, which does not say where a class is; use a size of "
        f"{enough} pixels or more"
    )


def _size_of_more_cells(network: Any, name: str, probe: torch.Tensor, cut: str | None) -> int | None:
    """The first size, doubled from the probe's, at which the last maps of a network are others; None for none.

    Where its last maps have one cell it looks as if it had none, or as if those before were the last. Arguments: those
    of `take_apart`, and the layer behind which the last maps are found at the probe's size; None for nowhere.
    """

    def cut_at(size: int) -> str | None:
        try:
            return _cut(_parts(network, name, functional.interpolate(probe[:1], (size, size)))[0])
        except ValueError:
            return None

    sizes = [2 * probe.shape[2]]
    while sizes[-1] < _LARGE:
        sizes.append(2 * sizes[-1])
    last = cut_at(sizes[-1])
    return None if last in (None, cut) else next(size for size in sizes if cut_at(size) == last)


def _cut(parts: Parts) -> str:
    """What layer the features of a traced network end with; those of others always end with the same."""
    graph = getattr(parts.features, "graph", None)
    return "" if graph is None else str(next(iter(reversed(graph.nodes))).args[0])


def _parts(network: Any, name: str, probe: torch.Tensor) -> tuple[Parts, int]:
    """The parts, and how many rows of cells the last maps have at the probe's size; see `take_apart`."""
    features: nn.Module
    tail: nn.Module
    if hasattr(network, "forward_features") and hasattr(network, "get_classifier"):
        features, tail, head = _Features(network), _Tail(network), network.get_classifier()
    else:
        features, tail, head = _traced_parts(network, name, probe)
    shape = getattr(run_once(features, probe, name), "shape", ())  # a list of tensors has none
    prefix = prefix_tokens(network, shape)
    layout = layout_of(shape, prefix)
    if layout is None:
        raise _NoMapsError(name)
    return Parts(features, tail, head, layout, prefix), _rows(layout, shape)


def outermost_layers(network: nn.Module, probe: torch.Tensor, prefix: int | None) -> dict[int, list[str]]:
    """The dotted names of a network's blocks by their stride, in input pixels per cell, in the order of execution.

    A block holds two convolutions at least, so that a lone convolution behind the last block is none; where a network
    is not built of blocks (VGG), its layers count. Of layers inside one another the outermost is meant; a single one at
    its stride stands for the last of the blocks inside it. A block that works on tokens holds linear layers in their
    place, and is none where the logits do not depend on what it makes of the patches.

    Args:
      network: the network.
      probe: images to find the layers with, [n, 3, height, width].
      prefix: see `Parts`.

    Returns:
      Under each power of 2 the layers to whose stride it is nearest, so that patches of 14 pixels are found at 16.
    """
    heights = _map_heights(network, probe, prefix)
    layers, strides = dict(network.named_modules()), dict[int, list[str]]()
    for name, height in heights.items():
        if name in layers and height:
            strides.setdefault(2 ** round(math.log2(probe.shape[2] / height)), []).append(name)
    parts = nn.Conv2d if prefix is None else nn.Conv2d | nn.Linear

    def outermost(names: list[str]) -> list[str]:
        depth = min((name.count(".") for name in names), default=0)
        return [name for name in names if name.count(".") == depth]

    def blocks_of(found: list[str]) -> list[str]:
        blocks = [name for name in found if sum(isinstance(part, parts) for part in layers[name].modules()) > 1]
        last = inside = outermost(blocks or found)
        while len(inside) == 1:
            inside = outermost([name for name in blocks if name.startswith(f"{inside[0]}.")])
        return inside[:-1] + last[-1:]

    return {stride: blocks_of(found) for stride, found in strides.items()}


def last_norm(network: nn.Module, probe: torch.Tensor, parts: Parts) -> str:
    """The dotted name of the last norm over tokens whose patches the logits of a network depend on.

    Of a network that reads its logits from the class token this is what the last attention is given: behind that the
    patches have no influence any more. Of one without norms it is the last layer of any kind.

    Raises:
      ValueError: there is none.
    """
    layers, channels = dict(network.named_modules()), parts.features(probe[:1]).shape[2]
    read = _read_tokens(network, probe, parts.prefix)
    if not read:
        raise ValueError("the logits depend on no token of a patch: the weights of the last layer may all be zero")
    norms = [name for name in read if "Norm" in type(layers[name]).__name__ and read[name][2] == channels]
    return norms[-1] if norms else list(read)[-1]


def _read_tokens(network: nn.Module, probe: torch.Tensor, prefix: int | None) -> dict[str, tuple[int, ...]]:
    """The shapes of those sequences whose patch tokens the logits depend on, in the order in which the layers end."""
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
    return isinstance(output, torch.Tensor) and (layout_of(output.shape, prefix) or MAPS).axes == "NLC"


def observe(network: nn.Module, images: torch.Tensor, note: Callable[[str, nn.Module, Any, Any], None]) -> Any:
    """Runs a network once, and tells each layer's name, the layer, its inputs and its output, as the layers end.

    Of passes that other threads make at the same time nothing is told.

    Returns:
      What the network gives; in a graph of gradients where the images ask for one.
    """
    caller = threading.get_ident()

    def hook(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() == caller:
            note(name, layer, inputs, output)

    hooks = [
        layer.register_forward_hook(functools.partial(hook, name)) for name, layer in network.named_modules() if name
    ]
    try:
        # Not inference mode, in which tensors do not tell whether they were changed.
        with torch.inference_mode(False), torch.set_grad_enabled(images.requires_grad):
            return network(images)
    finally:
        for handle in hooks:
            handle.remove()


def _map_heights(network: nn.Module, probe: torch.Tensor, prefix: int | None) -> dict[str, int]:
    """How many rows each layer's maps have, in the order in which the layers end; 0 for no maps, or none that count."""
    heights: dict[str, int] = {}
    read = {} if prefix is None else _read_tokens(network, probe, prefix)

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(layer, fx.GraphModule):  # which calls no containers
            for node in layer.graph.nodes:
                *containers, _ = str(node.meta.get("path", "")).split(".")
                for depth in range(len(containers), 0, -1):
                    put(f"{name}.{'.'.join(containers[:depth])}", getattr(node.meta.get("tensor_meta"), "shape", ()))
        put(name, () if _is_sequence(output, prefix) and name not in read else getattr(output, "shape", ()))

    def put(name: str, shape: Any) -> None:
        heights.pop(name, None)  # a layer that runs twice counts where it last ran
        layout = layout_of(shape, prefix)
        heights[name] = _rows(layout, shape) if layout else 0

    observe(network, probe, note)
    return heights


def _rows(layout: Layout, shape: Any) -> int:
    return layout.maps(torch.empty(shape, device="meta"), (1, 1)).shape[2]


class _NoMapsError(ValueError):
    def __init__(self, name: str):
        super().__init__(
            f"{name} has no feature maps before its output: expected maps, or a sequence of tokens with one for each "
            "patch of the image; choose another network: docs/networks.md lists them"
        )


def run_once(features: nn.Module, images: torch.Tensor, name: str) -> Any:
    """What a network's features are.

    Raises:
      ValueError: it takes no images of this size, as some take images of one size, and others in whole patches; `name`
        is for the error.
    """
    try:
        with torch.no_grad():  # no inference mode: what is cached in the first pass may become part of a graph
            return features(images)
    except (AssertionError, RuntimeError, IndexError) as error:
        height, width = images.shape[2:]
        raise ValueError(
            f"{name} takes no images of {height} x {width} pixels ({error}); use the --size that its weights were made "
            "for, no other --scales, and --aspect squash"
        ) from error


class _Features(nn.Module):
    """timm's networks offer their features."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.forward_features(images)


class _Tail(nn.Module):
    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.network.forward_head(features)


def tapped(features: nn.Module, layer: str) -> nn.Module:
    """The features of `take_apart` with a `Tap` behind a layer, by its dotted name in the network.

    Around it only the containers on the way to the layer are copied, or the graph that it is called from.
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
        if isinstance(parent, Tap):  # of a layer further out
            parent = _copied_child(parent, "inner")
    parent._modules[last] = Tap(layer, parent.get_submodule(last))
    return root


def _copied_child(parent: nn.Module, name: str) -> nn.Module:
    child = parent._modules[name] = _container(parent.get_submodule(name))
    return child


def _container(module: nn.Module) -> nn.Module:
    container = copy.copy(module)
    container._modules = dict(module._modules)
    return container


def _traced_parts(network: nn.Module, name: str, probe: torch.Tensor) -> tuple[nn.Module, nn.Module, Any]:
    """Follows a traced network from its output back through its last linear layer to the last feature maps.

    torchvision's networks offer no features of their own, and each ends in its own way (a pooling layer, a function,
    a mean; a ReLU after DenseNet's features). The graph knows them all.
    """
    from torch.fx.passes.shape_prop import ShapeProp
    from torchvision.models.feature_extraction import NodePathTracer

    tracer = NodePathTracer()
    try:
        graph = tracer.trace(network)
        with torch.inference_mode():
            ShapeProp(fx.GraphModule(network, graph)).propagate(probe)
    except Exception as error:  # what cannot be traced fails in its own way
        raise ValueError(f"{name} cannot be taken apart: torch.fx cannot trace it ({error})") from error
    for node in graph.nodes:
        node.meta["path"] = tracer.node_to_qualname.get(node, "")
    output = next(node for node in graph.nodes if node.op == "output")
    node, head = output.all_input_nodes[0], None
    while not _is_map(node) or _is_pooling(node, network):
        if head is None and node.op == "call_module":
            layer = network.get_submodule(str(node.target))
            head = layer if isinstance(layer, nn.Linear) else None
        if not node.all_input_nodes:
            raise _NoMapsError(name)
        node = node.all_input_nodes[0]
    return _front(network, graph, node), _back(network, graph, node), head


def _is_map(node: fx.Node) -> bool:
    shape = getattr(node.meta.get("tensor_meta"), "shape", ())
    return len(shape) == 4 and min(shape[2:]) > 1


def _is_pooling(node: fx.Node, network: nn.Module) -> bool:
    """VGG and AlexNet bring their last maps to a fixed size; at a larger input there is more before that."""
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), nn.AdaptiveAvgPool2d)


def cut_behind(features: nn.Module, layer: str) -> nn.Module:
    """The layers of traced features up to a layer, by its dotted name."""
    assert isinstance(features, fx.GraphModule), "of a network that torch.fx traces"
    return _front(features, features.graph, _nodes_of(features.graph, layer)[-1])


def _nodes_of(graph: fx.Graph, layer: str) -> list[fx.Node]:
    found = [
        node
        for node in graph.nodes
        if node.op in ("call_module", "call_function", "call_method")
        and (str(node.meta.get("path", "")) + ".").startswith(f"{layer}.")
    ]
    if not found:
        raise ValueError(f"layer {layer!r} lies behind the last feature maps, or never runs")
    return found


def _front(network: nn.Module, graph: fx.Graph, last: fx.Node) -> fx.GraphModule:
    front, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        copies[node] = front.node_copy(node, copies.__getitem__)
        if node is last:
            break
    front.output(copies[last])
    return _module(network, front)


def _back(network: nn.Module, graph: fx.Graph, last: fx.Node) -> nn.Module:
    back = fx.Graph()
    copies = {last: back.placeholder("maps")}
    try:
        for node in list(graph.nodes)[list(graph.nodes).index(last) + 1 :]:
            copies[node] = back.node_copy(node, copies.__getitem__)
    except KeyError:  # it asks for something from before the last maps
        return _Unknown()
    return _module(network, back)


def _module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(network, graph)
    graph.eliminate_dead_code()
    module.recompile()
    return module


class _Unknown(nn.Module):
    """The tail of a network that is more than a function of its last maps: only linear(GAP(features)) can be tried."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("what follows the last feature maps takes more than these maps")


def _tapped_graph(features: fx.GraphModule, path: str, layer: str) -> nn.Module:
    graph = fx.Graph()
    graph.output(graph.graph_copy(features.graph, {}))
    last = _nodes_of(graph, path)[-1]
    tap = f"tap_{layer.replace('.', '_')}"
    with graph.inserting_after(last):
        node = graph.create_node("call_module", tap, (last,))
    last.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
    root = nn.Module()
    root.__dict__.update(_container(features).__dict__)
    root.add_module(tap, Tap(layer))
    return fx.GraphModule(root, graph)
