"""A network's forward pass as one program, which runs without Python.

Python takes some 25 us to call a layer, and after each operation asks for the interpreter's lock again, which other
threads hold as they decode images or draw boxes. So the operations of a pass are noted down, once for each shape of
images, and become one function of TorchScript, which needs neither: the same operations in the same order, to the last
bit the same maps. docs/speed.md has what that gains.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from camboxes.models.parts import Recording, active_recording

# Of operations that do not do the same each time, or whose results depend on values rather than on shapes.
_UNSTEADY = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

_TRIALS = 3  # TorchScript takes the first runs of a function to find out how to do the others


class Programmed(nn.Module):
    """Layers that run as a program, where one gives the same; one by one where more than maps is wanted of them."""

    def __init__(self, layers: nn.Module):
        """Takes layers in evaluation mode, which stay as they are: their weights are those of the programs."""
        super().__init__()
        self._inner = layers
        self._programs: dict[tuple[Any, ...], _Program | None] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [n, 3, height, width] to what the layers make of them; taps show their maps to the recording."""
        active = active_recording()
        if torch.is_grad_enabled() or (active is not None and active.layer_by_layer):
            return self._inner(images)
        asked = frozenset() if active is None else active.layers
        modes = torch.is_inference_mode_enabled(), torch.get_num_threads()
        key = (images.shape, images.stride(), images.dtype, asked, *modes)
        if key not in self._programs:
            output, self._programs[key] = _noted(self._inner, images, active)
            return output
        program = self._programs[key]
        if program is None:
            return self._inner(images)
        output, *maps = program.run(images)
        if active is not None:
            active.maps |= zip(program.layers, maps, strict=True)
        return output


class _Program(NamedTuple):
    """What a pass does.

    Attributes:
      function: of images and constants.
      constants: weights, and what else is there before the pass.
      layers: those whose maps it gives behind its output.
    """

    function: Any
    constants: list[torch.Tensor]
    layers: list[str]

    def run(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.function(images, self.constants)


def _noted(layers: nn.Module, images: torch.Tensor, active: Recording | None) -> tuple[torch.Tensor, _Program | None]:
    """What layers make of images, and the program that does the same; None where there is none.

    Both are tried on other images: what depends on them in a way that is not noted down must not stay as it was here.
    """
    maps: dict[str, torch.Tensor] = {} if active is None else active.maps
    output = layers(images)  # as the first pass of a shape it may prepare weights for that
    shown = dict(maps)
    with _Notes(given := images.clone()) as notes:
        results = [layers(given), *maps.values()]
    expected = [layers((other := images / 2).clone()), *maps.values()]
    maps |= shown
    try:
        program = notes.program(results, list(shown))
        trials = [program.run(other.clone()) for _ in range(_TRIALS)]
    except (_UnwritableError, RuntimeError):  # TorchScript's own, of a function that it does not take
        return output, None
    same = all(torch.equal(found, wanted) for trial in trials for found, wanted in zip(trial, expected, strict=True))
    return output, program if same else None


class _UnwritableError(Exception):
    """Something that a program cannot say."""


class _Notes(TorchDispatchMode):
    """Notes down the operations of the calling thread."""

    def __init__(self, images: torch.Tensor):
        super().__init__()
        self._names = {id(images): "images"}
        self._constants: list[torch.Tensor] = []
        self._lines: list[str] = []
        self._kept: list[Any] = [images]  # what has a name: another one must not get its id
        self._unwritable = False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [(None, value) for value in args] + list((kwargs or {}).items())
        try:
            asked = self._call(function, given)
        except _UnwritableError:
            self._unwritable = True
            return function(*args, **(kwargs or {}))
        result = function(*args, **(kwargs or {}))
        self._lines.append(f"{self._named(result)} = {asked}")
        return result

    def program(self, results: Sequence[torch.Tensor], layers: list[str]) -> _Program:
        """What was noted, from the images to these results.

        Raises:
          _UnwritableError: something could not be noted.
        """
        if self._unwritable:
            raise _UnwritableError
        given = ", ".join(self._written(result) for result in results)
        lines = [*self._lines, f"return [{given}]\n"]
        source = "\n    ".join(["def run(images: Tensor, constants: List[Tensor]) -> List[Tensor]:", *lines])
        return _Program(torch.jit.CompilationUnit(source).run, self._constants, layers)

    def _call(self, function: Any, given: Sequence[tuple[str | None, Any]]) -> str:
        schema = function._schema
        if _UNSTEADY & set(function.tags) or not all(str(part.type) == "Tensor" for part in schema.returns):
            raise _UnwritableError
        kinds = {part.name: part.type.annotation_str for part in schema.arguments}
        written = []
        for place, (name, value) in zip(kinds, given, strict=False):
            text = self._written(value)
            if isinstance(value, list | tuple):  # an empty one by itself would be one of tensors
                text = f"torch.jit.annotate({kinds[name or place]}, {text})"
            written.append(text if name is None else f"{name}={text}")
        return f"torch.ops.{schema.name.replace('::', '.')}({', '.join(written)})"

    def _named(self, result: Any) -> str:
        """Gives names to what an operation made."""
        results = result if isinstance(result, tuple) else (result,)
        names = [f"v{len(self._kept) + number}" for number in range(len(results))]
        self._names |= zip(map(id, results), names, strict=True)
        self._kept += results
        return ", ".join(names)

    def _written(self, value: Any) -> str:
        if isinstance(value, torch.Tensor):
            if id(value) not in self._names:
                self._names[id(value)] = f"constants[{len(self._constants)}]"
                self._constants.append(value)
            return self._names[id(value)]
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self._written, value))}]"
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        if isinstance(value, float):
            return f"float({str(value)!r})"
        if value is None or isinstance(value, bool | int | str | torch.dtype | torch.layout | torch.memory_format):
            return repr(value) if isinstance(value, str) or value is None else str(value)
        raise _UnwritableError
