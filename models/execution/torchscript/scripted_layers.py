"""Layers whose frequent passes run as TorchScript programs.

Python takes some 25 us to call a layer, and asks for the interpreter's lock again after each operation, while other
threads hold it to decode images or draw boxes. A program needs neither. docs/speed.md has what that gains.
"""

import collections
from typing import Any

import torch
from torch import nn

from camboxes.models.execution.torchscript.program import Program, there_and_back
from camboxes.models.execution.torchscript.writer import write
from camboxes.models.introspection.recording import ATTENTION, Recording, active_recording

_PATIENCE = 20  # passes of a shape before its program is written, which takes four passes and .1 s
_TRIALS = 2  # TorchScript profiles the first run of a function, and optimises the next


class ScriptedLayers(nn.Module):
    """Runs layers as a program where that gives the same bits, and one by one else, or where attention is recorded."""

    def __init__(self, layers: nn.Module):
        """Takes layers in evaluation mode on a CPU; the programs share their weights."""
        super().__init__()
        self._inner = layers
        self._passes: collections.Counter[tuple[Any, ...]] = collections.Counter()
        self._programs: dict[tuple[Any, ...], Program | None] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [n, 3, height, width] to the output of the layers; taps hand their maps to the recording."""
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

    def _written(self, images: torch.Tensor, active: Recording) -> Program | None:
        """A program that gives the same bits as the layers; None where there is none.

        Layers and program are compared on other images than it was written from: values that depend on the images in a
        way that no program can express must not stay what they were.
        """
        other = images / 2
        try:
            expected = there_and_back(self._inner, other.clone(), active)
            program = write(self._inner, images.clone(), active)
            trials = [there_and_back(program.run, other.clone(), active) for _ in range(_TRIALS)]
        except RuntimeError:  # there is no such program, or maps have no gradients
            return None
        return program if all(trial.equals(expected) for trial in trials) else None
