"""Takes a network apart: the layers up to its last feature maps, what follows them, and the head that CAM reads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional

from camboxes.models.introspection.probing import run_once
from camboxes.models.introspection.tokens import Layout, layout_of, prefix_tokens


class Parts(NamedTuple):
    """A network in two parts: tail(features(images)) are its logits.

    Attributes:
      features: images to the last feature maps, or to the last tokens.
      tail: those to logits, [n, classes].
      head: the last linear layer; None where there is none, and the logits are the pooled maps themselves.
      layout: how maps lie in what `features` gives.
      prefix: how many tokens stand before those of the patches; None for a network without tokens.
      output: what `features` gives for the probe.
    """

    features: nn.Module
    tail: nn.Module
    head: Any
    layout: Layout
    prefix: int | None
    output: torch.Tensor


def take_apart(network: Any, name: str, probe: torch.Tensor) -> Parts:
    """Finds the last feature maps of a network, and its last layer.

    Args:
      network: a classifier of torchvision or timm, or one that offers timm's methods or that torch.fx can trace.
      name: for the error.
      probe: images to find the shapes with, [n, 3, height, width].

    Raises:
      ValueError: the network has no feature maps before its output, or maps of one cell at the probe's size; it takes
        no images of that size; or it cannot be traced.
    """
    parts = _parts(network, name, probe)
    if parts is None or parts.layout.rows(parts.output.shape) <= 4:  # of so few cells, larger images are tried
        enough = _size_of_more_cells(network, name, probe, parts and _last_layer(parts))
        if enough is not None:
            raise ValueError(one_cell(name, probe.shape[2], enough))
    if parts is None:
        raise ValueError(
            f"{name} has no feature maps before its output: expected maps, or a sequence of tokens with one for each "
            "patch of the image; choose another network: docs/reference/networks.md lists them"
        )
    return parts


def one_cell(name: str, size: int, enough: int) -> str:
    """The message for a network whose last maps have one cell at a size, and more at another one."""
    return (
        f"{name} at {size} pixels: its last maps have one cell, which does not say where a class is; use a size of "
        f"{enough} pixels or more"
    )


def cut_behind(features: nn.Module, layer: str) -> nn.Module:
    """The layers of traced features up to a layer, by its dotted name."""
    assert isinstance(features, fx.GraphModule), "of a network that torch.fx traces"
    return _front(features, features.graph, nodes_of(features.graph, layer)[-1])


def nodes_of(graph: fx.Graph, layer: str) -> list[fx.Node]:
    """The nodes of a traced graph that call a layer or a layer inside it.

    A graph that was pickled has lost the paths of its nodes: there only layers that it calls themselves are found.

    Raises:
      ValueError: there is none.
    """

    def inside(node: fx.Node) -> bool:
        path = node.meta.get("path")
        return node.target == layer if path is None else f"{path}.".startswith(f"{layer}.")

    calls = ("call_module", "call_function", "call_method")
    found = [node for node in graph.nodes if node.op in calls and inside(node)]
    if not found:
        raise ValueError(f"layer {layer!r} lies behind the last feature maps, or never runs")
    return found


def _size_of_more_cells(network: Any, name: str, probe: torch.Tensor, last: str | None) -> int | None:
    """The first size, doubled from the probe's, at which the last maps of a network come from another layer.

    A network whose last maps have one cell looks as if it had none, or as if earlier maps were the last.

    Args: those of `take_apart`, and the layer that gives the last maps at the probe's size; None for none.

    Returns:
      The size in pixels; None where there is no such size.
    """

    def last_at(size: int) -> str | None:
        try:
            parts = _parts(network, name, functional.interpolate(probe[:1], (size, size)))
        except ValueError:
            return None
        return parts and _last_layer(parts)

    sizes = [2 * probe.shape[2]]  # pixels a side
    while sizes[-1] < 256:
        sizes.append(2 * sizes[-1])
    expected = last_at(sizes[-1])
    return None if expected in (None, last) else next(size for size in sizes if last_at(size) == expected)


def _last_layer(parts: Parts) -> str:
    """The name of the last node of a traced network; empty for a network that was not traced."""
    graph = getattr(parts.features, "graph", None)
    return "" if graph is None else str(next(iter(reversed(graph.nodes))).args[0])


def _parts(network: Any, name: str, probe: torch.Tensor) -> Parts | None:
    """The parts; None where there are no feature maps. Arguments: see `take_apart`."""
    features: nn.Module
    tail: nn.Module
    if hasattr(network, "forward_features") and hasattr(network, "get_classifier"):
        features, tail = _Method(network, "forward_features"), _Method(network, "forward_head")
        head = network.get_classifier()
    elif found := _traced_parts(network, name, probe):
        features, tail, head = found
    else:
        return None
    output = run_once(features, probe, name)
    shape: Sequence[int] = getattr(output, "shape", ())  # a list of tensors has none
    prefix = prefix_tokens(network, shape)
    layout = layout_of(shape, prefix)
    return layout and Parts(features, tail, head, layout, prefix, output)


class LinearHead(NamedTuple):
    """What follows the last feature maps where CAM is exact: global average pooling, and this.

    Attributes:
      weight: [classes, channels]; None where each class has a map of its own (SqueezeNet).
      bias: [classes].
    """

    weight: torch.Tensor | None
    bias: torch.Tensor

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Feature maps [n, channels, height, width] to logits [n, classes]: equation 1 of Zhou et al. 2016."""
        pooled = features.mean((2, 3))
        return pooled + self.bias if self.weight is None else functional.linear(pooled, self.weight, self.bias)


def linear_head(head: Any, features: torch.Tensor, logits: torch.Tensor) -> LinearHead | str:
    """Finds the head for which linear(GAP(features)) is a network's logits, or says why there is none.

    Args:
      head: the network's last linear layer; None where it has none.
      features: the last feature maps of some images, [n, channels, height, width].
      logits: the network's own logits of them, [n, classes].
    """
    because = "a hidden layer, a norm or another kind of pooling stands between"
    classes, channels = logits.shape[1], features.shape[1]
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    weight = None if weight is None else weight.detach().flatten(1)
    bias = logits.new_zeros(classes) if bias is None else bias.detach()
    # Without a linear layer each class has a map of its own (SqueezeNet): the pooled maps are the logits.
    if ((classes, classes) if weight is None else tuple(weight.shape)) != (classes, channels):
        return because
    found = LinearHead(weight, bias)
    scale, difference = logits.abs().max(), (found.logits(features) - logits).abs().max()
    if difference <= 1e-4 * scale:
        return found
    return f"{because}: they differ by up to {difference:.3g} where the largest is {scale:.3g}"


class _Method(nn.Module):
    """A method of a network as a module."""

    def __init__(self, network: nn.Module, method: str):
        super().__init__()
        self.network = network
        self._method = method

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return getattr(self.network, self._method)(given)


def _traced_parts(network: nn.Module, name: str, probe: torch.Tensor) -> tuple[nn.Module, nn.Module, Any] | None:
    """Follows a traced network from its output back through its last linear layer to the last feature maps.

    torchvision's networks offer no features of their own, and each ends in its own way (a pooling layer, a function,
    a mean; a ReLU after DenseNet's features). The graph knows them all.

    Returns:
      The layers up to the last maps, those behind them, and the last linear layer; None where there are no maps.
    """
    from torch.fx.passes.shape_prop import ShapeProp
    from torchvision.models.feature_extraction import NodePathTracer

    tracer = NodePathTracer()
    try:
        graph = tracer.trace(network)
        with torch.inference_mode():
            ShapeProp(fx.GraphModule(network, graph)).propagate(probe)
    except Exception as error:  # each network that cannot be traced fails in its own way
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
            return None
        node = node.all_input_nodes[0]
    return _front(network, graph, node), _back(network, graph, node), head


def _is_map(node: fx.Node) -> bool:
    shape = getattr(node.meta.get("tensor_meta"), "shape", ())
    return len(shape) == 4 and min(shape[2:]) > 1


def _is_pooling(node: fx.Node, network: nn.Module) -> bool:
    """VGG and AlexNet bring their last maps to a fixed size; at a larger input the maps before that are larger."""
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), nn.AdaptiveAvgPool2d)


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
    except KeyError:  # a node takes something from before the last maps
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
