"""Runs a network once in evaluation mode, for what it gives, or for what each of its layers gives."""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def noise(network: nn.Module, size: int) -> torch.Tensor:
    """Two square images of noise for a network, [2, 3, size, size], in its dtype and on its device: always the same."""
    parameter = next(network.parameters())
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images.to(parameter.device, parameter.dtype)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Puts modules into evaluation mode in the block, each by itself, and restores their modes at its end."""
    training = [part for part in modules if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def run_once(features: nn.Module, images: torch.Tensor, name: str) -> Any:
    """Runs a network, or its features, on images [n, 3, height, width], without gradients.

    Raises:
      ValueError: it takes no images of this size: some networks take images of one size, others of whole patches.
    """
    try:
        with torch.no_grad():  # no inference mode: what a layer caches in the first pass may become part of a graph
            return features(images)
    except (AssertionError, RuntimeError, IndexError) as error:
        height, width = images.shape[2:]
        raise ValueError(
            f"{name} takes no images of {height} x {width} pixels ({error}); use the size that its weights were made "
            "for, no other scales, and aspect squash"
        ) from error


def logits_of(network: nn.Module, images: torch.Tensor, name: str) -> torch.Tensor:
    """The logits of a classifier, [n, classes].

    Raises:
      ValueError: see `run_once`; or the output is anything but logits, or not finite.
    """
    output = run_once(network, images, name)
    if not isinstance(output, torch.Tensor) or output.dim() != 2:
        raise ValueError(
            f"{name} gives {_described(output)}; expected logits alone, a tensor of [images, classes]: put the network "
            "into a module whose forward returns them"
        )
    if not torch.isfinite(output).all():
        raise ValueError(f"the output of {name} is not finite: its weights hold NaN or infinity")
    return output


def _described(output: Any) -> str:
    """An output's type, and the shapes of the tensors in it."""
    if isinstance(output, torch.Tensor):
        return f"a tensor of shape {list(output.shape)}"
    parts = dict(enumerate(output)) if isinstance(output, tuple | list) else output
    named = parts if isinstance(parts, Mapping) else getattr(output, "__dict__", {})
    shown = [f"{key} {list(value.shape)}" for key, value in named.items() if isinstance(value, torch.Tensor)]
    return f"an output of the type {type(output).__name__}" + (f" with the tensors {', '.join(shown)}" if shown else "")


def observe(network: nn.Module, images: torch.Tensor, note: Callable[[str, nn.Module, Any, Any], None]) -> Any:
    """Runs a network once, and tells what each layer gets and gives, as the layers end.

    Passes that other threads make at the same time are not told.

    Args:
      network: in evaluation mode; hooks are put on its layers, and removed at the end.
      images: [n, 3, height, width]; where they require gradients, so does the output.
      note: called with a layer's dotted name, the layer, its inputs and its output.

    Returns:
      The network's output.
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
