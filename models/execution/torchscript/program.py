"""A program: what a forward pass does, and the backward pass behind it, as two functions."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from camboxes.models.introspection.recording import Recording, active_recording, recording


class Program(NamedTuple):
    """The operations of a pass, forward and backward.

    Attributes:
      forward: images and constants to the layers' output, then the recorded maps, then what `backward` needs.
      backward: a gradient of the output, what `forward` gave for it, and constants to the gradients of maps.
      constants: weights, and whatever else exists before the pass.
      layers: the layers whose maps `forward` gives.
    """

    forward: Callable[[torch.Tensor, list[torch.Tensor]], list[torch.Tensor]]
    backward: Callable[[torch.Tensor, list[torch.Tensor], list[torch.Tensor]], list[torch.Tensor]]
    constants: list[torch.Tensor]
    layers: list[str]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Gives the output of the layers, and hands their maps to the active recording."""
        output, *others = self.forward(images, self.constants)
        active = active_recording()
        if active is None:
            return output
        maps, kept = others[: len(self.layers)], others[len(self.layers) :]
        shown = [active.keep(layer, of_layer) for layer, of_layer in zip(self.layers, maps, strict=True)]
        leaves = [of_layer for of_layer in shown if of_layer.requires_grad]
        return _Backward.apply(self, kept, output, *leaves) if leaves else output


class _Backward(torch.autograd.Function):
    """A program's backward pass as one node of the graph, behind all the maps whose gradients are wanted."""

    @staticmethod
    def forward(
        ctx: Any, program: Program, kept: list[torch.Tensor], output: torch.Tensor, *maps: torch.Tensor
    ) -> torch.Tensor:
        ctx.program, ctx.kept = program, kept
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        program: Program = ctx.program
        return None, None, None, *program.backward(_dense(gradient), ctx.kept, program.constants)


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient in the memory layout that programs expect; the gradient of a mean is an expanded tensor."""
    return gradient.contiguous(memory_format=torch.channels_last if gradient.dim() == 4 else torch.contiguous_format)


class Passed(NamedTuple):
    """The results of a pass: the output, the maps of each layer, and the gradients of the maps that want them."""

    output: torch.Tensor
    maps: dict[str, torch.Tensor]
    gradients: Sequence[torch.Tensor]

    def equals(self, other: "Passed") -> bool:
        """Whether another pass gave the same, to the last bit."""
        pairs = zip(*((one.output, *one.maps.values(), *one.gradients) for one in (self, other)), strict=True)
        return list(self.maps) == list(other.maps) and all(torch.equal(*pair) for pair in pairs)


def there_and_back(
    run: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    active: Recording,
    there: AbstractContextManager[Any] | None = None,
    back: Callable[[torch.Tensor], AbstractContextManager[Any]] = lambda _: nullcontext(),
) -> Passed:
    """Makes a forward pass, and a backward pass where the recording wants gradients, in a recording of its own.

    Args:
      run: images to the output of the layers.
      images: [n, 3, height, width].
      active: a recording of the same layers and gradients.
      there: entered around the forward pass alone.
      back: given the gradient of the output, gives what is entered around the backward pass alone.
    """
    with recording(active.layers, images.shape[2:], active.gradients) as found:
        with there or nullcontext():
            output = run(images)
        gradients: Sequence[torch.Tensor] = ()
        if leaves := [maps for layer, maps in found.maps.items() if layer in active.gradients]:
            gradient = _dense(output.detach() - output.detach().mean())  # any gradient, with both signs
            with back(gradient):
                gradients = torch.autograd.grad(output, leaves, gradient)
    return Passed(output, found.maps, gradients)
