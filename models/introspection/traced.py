"""Networks that torch.fx traces: cuts their graph behind the last feature maps, or behind a layer."""

from typing import Any

import torch
from torch import fx, nn


class NoMapsError(ValueError):
    """A network has no feature maps before its output."""

    def __init__(self, name: str):
        super().__init__(
            f"{name} has no feature maps before its output: expected maps, or a sequence of tokens with one for each "
            "patch of the image; choose another network: docs/networks.md lists them"
        )


def traced_parts(network: nn.Module, name: str, probe: torch.Tensor) -> tuple[nn.Module, nn.Module, Any]:
    """Follows a traced network from its output back through its last linear layer to the last feature maps.

    torchvision's networks offer no features of their own, and each ends in its own way (a pooling layer, a function,
    a mean; a ReLU after DenseNet's features). The graph knows them all.

    Args:
      network: what torch.fx can trace.
      name: for the error.
      probe: images to find the shapes with, [n, 3, height, width].

    Returns:
      The layers up to the last feature maps, those behind them, and the last linear layer; see `Parts`.

    Raises:
      ValueError: the network cannot be traced, or has no feature maps before its output (`NoMapsError`).
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
            raise NoMapsError(name)
        node = node.all_input_nodes[0]
    return _front(network, graph, node), _back(network, graph, node), head


def cut_behind(features: nn.Module, layer: str) -> nn.Module:
    """The layers of traced features up to a layer, by its dotted name."""
    assert isinstance(features, fx.GraphModule), "of a network that torch.fx traces"
    return _front(features, features.graph, nodes_of(features.graph, layer)[-1])


def nodes_of(graph: fx.Graph, layer: str) -> list[fx.Node]:
    """The nodes of a traced graph that call a layer or a layer inside it.

    Raises:
      ValueError: there is none.
    """
    found = [
        node
        for node in graph.nodes
        if node.op in ("call_module", "call_function", "call_method")
        and (str(node.meta.get("path", "")) + ".").startswith(f"{layer}.")
    ]
    if not found:
        raise ValueError(f"layer {layer!r} lies behind the last feature maps, or never runs")
    return found


def last_layer(features: nn.Module) -> str:
    """The name of the last node of a traced graph; empty for a network that was not traced."""
    graph = getattr(features, "graph", None)
    return "" if graph is None else str(next(iter(reversed(graph.nodes))).args[0])


def _is_map(node: fx.Node) -> bool:
    shape = getattr(node.meta.get("tensor_meta"), "shape", ())
    return len(shape) == 4 and min(shape[2:]) > 1


def _is_pooling(node: fx.Node, network: nn.Module) -> bool:
    """VGG and AlexNet bring their last maps to a fixed size; at a larger input the maps before that are larger."""
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), nn.AdaptiveAvgPool2d)


def _front(network: nn.Module, graph: fx.Graph, last: fx.Node) -> fx.GraphModule:
    front, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    front.graph_copy(graph, copies)
    front.output(copies[last])
    return _module(network, front)  # which leaves out what is behind


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
