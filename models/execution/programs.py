"""A network's passes, forward and backward, as programs that run without Python.

Python takes some 25 us to call a layer, and after each operation asks for the interpreter's lock again, which other
threads hold as they decode images or draw boxes. So on a CPU the passes of each shape of images that comes often become
functions of TorchScript, which need neither. docs/speed.md has what that gains.
"""

import collections
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from camboxes.models.introspection.recording import ATTENTION, Recording, active_recording, recording

_PATIENCE = 20  # passes of a shape before its program is written, which takes four, and .1 s
_TRIALS = 2  # TorchScript takes the first run of a function to find out how to do the others


class Programmed(nn.Module):
    """Layers that run as a program, where one gives the same; one by one where their attention is wanted."""

    def __init__(self, layers: nn.Module, write: "Write"):
        """Takes layers in evaluation mode, which stay as they are: their weights are those of the programs.

        Args:
          layers: what is to run.
          write: writes a program for images of a shape, which it may keep and change, and the layers of a recording;
            it raises RuntimeError where it cannot.
        """
        super().__init__()
        self._inner = layers
        self._write = write
        self._passes: collections.Counter[tuple[Any, ...]] = collections.Counter()
        self._programs: dict[tuple[Any, ...], Program | None] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [n, 3, height, width] to what the layers make of them; taps show their maps to the recording."""
        active = active_recording() or Recording(frozenset(), images.shape[2:], frozenset())
        if torch.is_grad_enabled() or ATTENTION in active.layers:
            return self._inner(images)
        wanted = active.layers, active.gradients, torch.get_num_threads()
        key = (images.shape, images.stride(), images.dtype, *wanted)
        if key not in self._programs:
            self._passes[key] += 1
            if self._passes[key] <= _PATIENCE:
                return self._inner(images)
            self._programs[key] = self._written(images, active)
        program = self._programs[key]
        return self._inner(images) if program is None else program.run(images)

    def _written(self, images: torch.Tensor, active: Recording) -> "Program | None":
        """The program that does what the layers do; None where there is none.

        Both are tried on other images: what depends on them in a way that no program tells must not stay as it was.
        """
        other = images / 2
        try:
            expected = there_and_back(self._inner, other.clone(), active)
            program = self._write(self._inner, images.clone(), active)
            trials = [there_and_back(program.run, other.clone(), active) for _ in range(_TRIALS)]
        except RuntimeError:  # there is no such program, or maps have no gradients
            return None
        return program if all(trial.equals(expected) for trial in trials) else None


class Program(NamedTuple):
    """What a pass does.

    Attributes:
      forward: of images and constants: what the layers make of them, maps, and what the way back needs.
      backward: of a gradient to the first of these, what it needs, and constants: gradients to maps.
      constants: weights, and what else is there before the pass.
      layers: those whose maps it gives.
    """

    forward: Callable[[torch.Tensor, list[torch.Tensor]], list[torch.Tensor]]
    backward: Callable[[torch.Tensor, list[torch.Tensor], list[torch.Tensor]], list[torch.Tensor]]
    constants: list[torch.Tensor]
    layers: list[str]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Does what the layers do."""
        output, *others = self.forward(images, self.constants)
        active = active_recording()
        if active is None:
            return output
        maps, kept = others[: len(self.layers)], others[len(self.layers) :]
        shown = [active.keep(layer, of_layer) for layer, of_layer in zip(self.layers, maps, strict=True)]
        leaves = [of_layer for of_layer in shown if of_layer.requires_grad]
        return _Backward.apply(self, kept, output, *leaves) if leaves else output


Write = Callable[[nn.Module, torch.Tensor, Recording], Program]


class _Backward(torch.autograd.Function):
    """A program's way back, as one step of a graph, which begins at all the maps to which gradients are wanted."""

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
    """As programs take it; that of a mean has strides of its own."""
    return gradient.contiguous(memory_format=torch.channels_last if gradient.dim() == 4 else torch.contiguous_format)


class Passed(NamedTuple):
    """What came of a pass: the output, each layer's maps, and gradients to those maps to which they are wanted."""

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
    """A pass with a recording of its own, for the same layers as another one.

    Args:
      run: what the layers do.
      images: [n, 3, height, width].
      active: the other recording.
      there: what is entered on the way there alone.
      back: likewise on the way back, of the gradient that it begins with.
    """
    with recording(active.layers, images.shape[2:], active.gradients) as found:
        with there or nullcontext():
            output = run(images)
        gradients: Sequence[torch.Tensor] = ()
        if leaves := [maps for layer, maps in found.maps.items() if layer in active.gradients]:
            gradient = _dense(output.detach() - output.detach().mean())  # any one, of both signs
            with back(gradient):
                gradients = torch.autograd.grad(output, leaves, gradient)
    return Passed(output, found.maps, gradients)
