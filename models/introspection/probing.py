"""Runs a network once as it is, for what it gives, or for what each of its layers gives."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def run_once(features: nn.Module, images: torch.Tensor, name: str) -> Any:
    """Runs a network, or its features, without gradients.

    Args:
      features: the layers to run.
      images: [n, 3, height, width].
      name: the network's, for the error.

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
