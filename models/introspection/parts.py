"""Takes a network apart: the layers up to its last feature maps, what follows them, and the head that CAM reads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from camboxes.models.introspection.probing import run_once
from camboxes.models.introspection.tokens import Layout, layout_of, prefix_tokens
from camboxes.models.introspection.traced import NoMapsError, last_layer, traced_parts


class Parts(NamedTuple):
    """A network in two parts: tail(features(images)) are its logits.

    Attributes:
      features: images to the last feature maps, or to the last tokens.
      tail: those to logits, [n, classes].
      head: the last linear layer; None where there is none, and the logits are the pooled maps themselves.
      layout: how maps lie in what `features` gives.
      prefix: how many tokens stand before those of the patches; None for a network without tokens.
    """

    features: nn.Module
    tail: nn.Module
    head: Any
    layout: Layout
    prefix: int | None


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
    try:
        parts, rows = _parts(network, name, probe)
        few = rows <= 4  # with no more cells, larger images are tried
        enough = _size_of_more_cells(network, name, probe, last_layer(parts.features)) if few else None
    except NoMapsError:
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


def _size_of_more_cells(network: Any, name: str, probe: torch.Tensor, last: str | None) -> int | None:
    """The first size, doubled from the probe's, at which the last maps of a network come from another layer.

    A network whose last maps have one cell looks as if it had none, or as if earlier maps were the last.

    Args: those of `take_apart`, and the layer that gives the last maps at the probe's size; None for none.

    Returns:
      The size in pixels; None where there is no such size.
    """

    def last_at(size: int) -> str | None:
        try:
            parts, _ = _parts(network, name, functional.interpolate(probe[:1], (size, size)))
        except ValueError:
            return None
        return last_layer(parts.features)

    sizes = [2 * probe.shape[2]]  # pixels a side
    while sizes[-1] < 256:
        sizes.append(2 * sizes[-1])
    expected = last_at(sizes[-1])
    return None if expected in (None, last) else next(size for size in sizes if last_at(size) == expected)


def _parts(network: Any, name: str, probe: torch.Tensor) -> tuple[Parts, int]:
    """The parts, and how many rows of cells the last maps have at the probe's size; see `take_apart`."""
    features: nn.Module
    tail: nn.Module
    if hasattr(network, "forward_features") and hasattr(network, "get_classifier"):
        features, tail = _Method(network, "forward_features"), _Method(network, "forward_head")
        head = network.get_classifier()
    else:
        features, tail, head = traced_parts(network, name, probe)
    shape: Sequence[int] = getattr(run_once(features, probe, name), "shape", ())  # a list of tensors has none
    prefix = prefix_tokens(network, shape)
    layout = layout_of(shape, prefix)
    if layout is None:
        raise NoMapsError(name)
    return Parts(features, tail, head, layout, prefix), layout.rows(shape)


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
