"""Which tokens the logits of a network depend on, told by gradients."""

from typing import Any

import torch
from torch import nn

from camboxes.models.introspection.parts import Parts
from camboxes.models.introspection.probing import observe
from camboxes.models.introspection.tokens import MAPS, Tokens, layout_of


def last_tokens(parts: Parts, probe: torch.Tensor) -> Tokens | None:
    """Which tokens of a network's last features the logits depend on; None for a network without tokens.

    Args:
      parts: the network.
      probe: images to find out with, [n, 3, height, width].
    """
    if parts.prefix is None:
        return None
    if parts.layout.axes != "NLC":  # the features are maps: the other tokens are gone
        return Tokens((False,) * parts.prefix, patches=True)
    with torch.inference_mode():
        output = parts.features(probe)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = output.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(parts.tail(leaf).sum(), leaf)
    read = gradient.abs().sum((0, 2)) > 0
    prefix = parts.layout.prefix
    # Where all weights of the last layer are zero, as some libraries initialise it, no gradient tells anything.
    return Tokens(tuple(read[:prefix].tolist()), bool(read[prefix:].any() or not read.any()))


def last_norm(network: nn.Module, probe: torch.Tensor, parts: Parts) -> str:
    """The dotted name of the last norm over tokens in which the logits depend on those of the patches.

    In a network that reads its logits from the class token this is the input of the last attention: behind that the
    patches have no influence any more. In a network without norms it is the last such layer of any kind.

    Raises:
      ValueError: there is none.
    """
    layers, channels = dict(network.named_modules()), parts.features(probe[:1]).shape[2]
    read = read_sequences(network, probe, parts.prefix)
    if not read:
        raise ValueError("the logits depend on no token of a patch: the weights of the last layer may all be zero")
    norms = [name for name in read if "Norm" in type(layers[name]).__name__ and read[name][2] == channels]
    return norms[-1] if norms else list(read)[-1]


def read_sequences(network: nn.Module, probe: torch.Tensor, prefix: int | None) -> dict[str, tuple[int, ...]]:
    """The layers whose output is a sequence with patch tokens that the logits depend on.

    Args:
      network: the network.
      probe: images to find out with, [n, 3, height, width].
      prefix: see `Parts`.

    Returns:
      The shape of each layer's sequence under its dotted name, in the order in which the layers end.
    """
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if is_sequence(output, prefix) and output.requires_grad:
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


def is_sequence(output: Any, prefix: int | None) -> bool:
    """Whether a layer's output is a sequence of tokens; `prefix`: see `Parts`."""
    return isinstance(output, torch.Tensor) and (layout_of(output.shape, prefix) or MAPS).axes == "NLC"
