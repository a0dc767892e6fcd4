"""A network's passes, forward and backward, as programs that run without Python.

Python takes some 25 us to call a layer, and after each operation asks for the interpreter's lock again, which other
threads hold as they decode images or draw boxes. So the operations of a pass are noted down, for each shape of images
that comes often, and become functions of TorchScript, which need neither: the same operations in the same order, to
the last bit the same maps and gradients. docs/speed.md has what that gains.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from camboxes.models.parts import ATTENTION, Recording, active_recording, recording

# Of operations whose results depend on values rather than on shapes.
_UNSTEADY = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

_PATIENCE = 20  # passes of a shape before it is noted down, which takes four, and .1 s
_TRIALS = 2  # TorchScript takes the first run of a function to find out how to do the others


class Programmed(nn.Module):
    """Layers that run as a program, where one gives the same; one by one where their attention is wanted."""

    def __init__(self, layers: nn.Module):
        """Takes layers in evaluation mode, which stay as they are: their weights are those of the programs."""
        super().__init__()
        self._inner = layers
        self._passes: collections.Counter[tuple[Any, ...]] = collections.Counter()
        self._programs: dict[tuple[Any, ...], _Program | None] = {}

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
            self._programs[key] = _noted(self._inner, images, active)
        program = self._programs[key]
        return self._inner(images) if program is None else program.run(images)


class _Program(NamedTuple):
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


class _Backward(torch.autograd.Function):
    """A program's way back, as one step of a graph, which begins at all the maps to which gradients are wanted."""

    @staticmethod
    def forward(
        ctx: Any, program: _Program, kept: list[torch.Tensor], output: torch.Tensor, *maps: torch.Tensor
    ) -> torch.Tensor:
        ctx.program, ctx.kept = program, kept
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        program: _Program = ctx.program
        return None, None, None, *program.backward(_dense(gradient), ctx.kept, program.constants)


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    """As programs take it; that of a mean has strides of its own."""
    return gradient.contiguous(memory_format=torch.channels_last if gradient.dim() == 4 else torch.contiguous_format)


def _noted(layers: nn.Module, images: torch.Tensor, active: Recording) -> _Program | None:
    """The program that does what layers do; None where there is none.

    Both are tried on other images: what depends on them in a way that is not noted down must not stay as it was here.
    """
    other, given = images / 2, images.clone()
    try:
        expected = _pass(layers, other.clone(), active)
        notes = _Notes(given)
        program = notes.program(_pass(layers, given, active, notes))
        trials = [_pass(program.run, other.clone(), active) for _ in range(_TRIALS)]
    except (_UnwritableError, RuntimeError):  # of a function that TorchScript does not take, of maps without gradients
        return None
    return program if all(trial.equals(expected) for trial in trials) else None


class _Passed(NamedTuple):
    """What came of a pass: the output, each layer's maps, and gradients to those maps to which they are wanted."""

    output: torch.Tensor
    maps: dict[str, torch.Tensor]
    gradients: Sequence[torch.Tensor]

    def equals(self, other: "_Passed") -> bool:
        """To the last bit."""
        pairs = zip(*((one.output, *one.maps.values(), *one.gradients) for one in (self, other)), strict=True)
        return list(self.maps) == list(other.maps) and all(torch.equal(*pair) for pair in pairs)


def _pass(
    run: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, active: Recording, notes: "_Notes | None" = None
) -> _Passed:
    """A pass there and back, with a recording of its own for the same layers."""
    noting = notes or nullcontext()
    with recording(active.layers, images.shape[2:], active.gradients) as found:
        with noting:
            output = run(images)
        gradients: Sequence[torch.Tensor] = ()
        if leaves := [maps for layer, maps in found.maps.items() if layer in active.gradients]:
            gradient = _dense(output.detach() - output.detach().mean())  # any one, of both signs
            if notes:
                notes.turn(gradient)
            with noting:
                gradients = torch.autograd.grad(output, leaves, gradient)
    return _Passed(output, found.maps, gradients)


class _UnwritableError(Exception):
    """Something that a program cannot say."""


class _Notes(TorchDispatchMode):
    """Notes down the operations of the calling thread."""

    def __init__(self, images: torch.Tensor):
        super().__init__()
        self._names = {_place(images): "images"}
        self._constants: list[torch.Tensor] = []
        self._ways: list[list[str]] = [[]]
        self._before: set[str] = set()  # names of the way there
        self._kept: dict[str, None] = {}  # those of them that are met on the way back
        # Where copies are made, what could be said instead, and whose storages are to stay as they are for that.
        self._copies: list[tuple[list[str], int, str, set[Any]]] = []
        self._changed: set[Any] = set()  # storages
        self._unwritable = False

    def turn(self, gradient: torch.Tensor) -> None:
        """Begins the way back."""
        self._before = set(filter(str.isidentifier, self._names.values()))  # constants are at hand on both
        self._ways.append([])
        self._names[_place(gradient)] = "gradient"

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
        results = result if isinstance(result, tuple | list) else (result,)
        names = [f"v{len(self._ways)}_{len(self._ways[-1])}_{number}" for number in range(len(results))]
        if function is torch.ops.aten.clone.default and args[0].stride() == result.stride():
            instead = f"{names[0]} = {self._written(args[0])}"
            self._copies.append((self._ways[-1], len(self._ways[-1]), instead, _storages([args[0], result])))
        self._ways[-1].append(f"{', '.join(names)} = {asked}")
        for value, name in zip(results, names, strict=True):
            if value is not None:  # a gradient that nobody wanted
                self._names.setdefault(_place(value), name)
        return result

    def program(self, passed: _Passed) -> _Program:
        """What was noted, from the images to what came of them.

        Raises:
          _UnwritableError: something could not be noted.
        """
        if self._unwritable:
            raise _UnwritableError
        there, back = [*self._ways, []][:2]
        for way, place, text, storages in self._copies:
            if not storages & self._changed:
                way[place] = text
        gradients = [self._written(gradient) for gradient in passed.gradients]
        kept = list(self._kept)
        results = [self._written(result) for result in (passed.output, *passed.maps.values())]
        back = [*(f"{name} = kept[{place}]" for place, name in enumerate(kept)), *back]
        functions = torch.jit.CompilationUnit(
            _source("forward(images: Tensor", there, results + kept)
            + _source("backward(gradient: Tensor, kept: List[Tensor]", back, gradients)
        )
        return _Program(functions.forward, functions.backward, self._constants, list(passed.maps))

    def _call(self, function: Any, given: Sequence[tuple[str | None, Any]]) -> str:
        schema = function._schema
        if _UNSTEADY & set(function.tags) or not _gives_tensors(schema):
            raise _UnwritableError
        arguments = {part.name: part for part in schema.arguments}
        written = []
        for place, (name, value) in zip(arguments, given, strict=False):
            argument, text = arguments[name or place], self._written(value)
            if isinstance(value, list | tuple):  # an empty one by itself would be one of tensors
                text = f"torch.jit.annotate({argument.type.annotation_str}, {text})"
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._changed |= _storages(value)
            written.append(text if name is None else f"{name}={text}")
        return f"torch.ops.{schema.name.replace('::', '.')}({', '.join(written)})"

    def _written(self, value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return self._name_of(value)
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self._written, value))}]"
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        if isinstance(value, float):
            return f"float({str(value)!r})"
        if value is None or isinstance(value, bool | int | str | torch.dtype | torch.layout | torch.memory_format):
            return repr(value) if isinstance(value, str) or value is None else str(value)
        raise _UnwritableError

    def _name_of(self, value: torch.Tensor) -> str:
        place = _place(value)
        if place not in self._names:
            self._names[place] = f"constants[{len(self._constants)}]"
            self._constants.append(value)
        name = self._names[place]
        if name in self._before:
            self._kept[name] = None
        return name


def _source(head: str, lines: Sequence[str], results: Sequence[str]) -> str:
    given = f"return torch.jit.annotate(List[Tensor], [{', '.join(results)}])\n\n"
    return "\n    ".join([f"def {head}, constants: List[Tensor]) -> List[Tensor]:", *lines, given])


def _gives_tensors(schema: Any) -> bool:
    """Whether an operation gives tensors, or a list of them."""
    kinds = [str(part.type) for part in schema.returns]
    return kinds == ["List[Tensor]"] or set(kinds) == {"Tensor"}


def _place(value: torch.Tensor) -> Any:
    """What two tensors have in common that are the same one: autograd has objects of its own for what it keeps.

    No other gets it while it is kept, though what it stands for be freed.
    """
    if value.is_mkldnn:  # opaque: weights, which a program keeps
        return id(value)
    return StorageWeakRef(value.untyped_storage()), value.storage_offset(), value.shape, value.stride(), value.dtype


def _storages(value: Any) -> set[Any]:
    """Those of a tensor, or of several."""
    parts = value if isinstance(value, list | tuple) else [value]
    return {StorageWeakRef(part.untyped_storage()) for part in parts if isinstance(part, torch.Tensor)}
