"""Writes a pass as functions of TorchScript, by noting down its operations while it runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from camboxes.models.execution.torchscript.program import Passed, Program, there_and_back
from camboxes.models.introspection.recording import Recording

# Tags of operations whose shapes or Python values depend on the values of tensors.
_UNSTEADY = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def write(layers: nn.Module, images: torch.Tensor, active: Recording) -> Program:
    """Writes the program of the operations that layers do on images: the same ones, in the same order.

    Raises:
      RuntimeError: an operation cannot be noted down, or TorchScript does not know it.
    """
    notes = _Notes(images)
    return notes.program(there_and_back(layers, images, active, notes, notes.turned))


class _UnwritableError(RuntimeError):
    """An operation or a value that a program cannot express."""


class _Notes(TorchDispatchMode):
    """Notes down the operations of the calling thread as lines of TorchScript."""

    def __init__(self, images: torch.Tensor):
        super().__init__()
        self._names = {_place(images): "images"}
        self._constants: list[torch.Tensor] = []
        self._ways: list[list[str]] = [[]]  # lines of the forward pass, then of the backward pass
        self._before: set[str] = set()  # names that the forward pass defines
        self._kept: dict[str, None] = {}  # those of them that the backward pass uses
        # For each copy: its place, the line without a copy, and the storages that must not change for that line.
        self._copies: list[tuple[list[str], int, str, set[Any]]] = []
        self._changed: set[Any] = set()  # storages that an operation writes to
        self._unwritable = False

    def turned(self, gradient: torch.Tensor) -> "_Notes":
        """The same notes, from the beginning of the backward pass on."""
        self._before = set(filter(str.isidentifier, self._names.values()))  # both passes have the constants
        self._ways.append([])
        self._names[_place(gradient)] = "gradient"
        return self

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
            if value is not None:  # as a gradient that nobody wants is
                self._names.setdefault(_place(value), name)
        return result

    def program(self, passed: Passed) -> Program:
        """The program of what was noted, from the images to the results of the pass.

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
        return Program(functions.forward, functions.backward, self._constants, list(passed.maps))

    def _call(self, function: Any, given: Sequence[tuple[str | None, Any]]) -> str:
        schema = function._schema
        if _UNSTEADY & set(function.tags) or not _gives_tensors(schema):
            raise _UnwritableError
        arguments = {part.name: part for part in schema.arguments}
        written = []
        for place, (name, value) in zip(arguments, given, strict=False):
            argument, text = arguments[name or place], self._written(value)
            if isinstance(value, list | tuple):  # TorchScript takes an empty one for one of tensors
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
    """A key that is equal for two objects that stand for one tensor: autograd keeps tensors as objects of its own.

    No other tensor gets the key while it is kept, even when the tensor is freed.
    """
    if value.is_mkldnn:  # opaque weights, which a program keeps
        return id(value)
    return StorageWeakRef(value.untyped_storage()), value.storage_offset(), value.shape, value.stride(), value.dtype


def _storages(value: Any) -> set[Any]:
    """The storages of a tensor, or of several."""
    parts = value if isinstance(value, list | tuple) else [value]
    return {StorageWeakRef(part.untyped_storage()) for part in parts if isinstance(part, torch.Tensor)}
