"""Reads a network's tensors from files in the wild: inside a wrapper, behind a prefix, with another head.

Nothing in a file is executed: other things that a training saved (its arguments, paths, numbers of numpy's) are read as
objects that do nothing.
"""

import json
import re
import shlex
import textwrap
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

State = dict[str, torch.Tensor]

# Keys under which trainings save a network's tensors. The first one wins: averaged tensors, as in timm.
_WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "net", "network")

# Parts that torch.compile and FSDP add to the names of layers.
_WRAPPED = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")

# Kinds of dict that trainings save settings in; torch.load can only fill a plain one in their place.
_DICTS: dict[str, Any] = {
    "collections.defaultdict": lambda *_: OrderedDict(),
    "lightning.fabric.utilities.data.AttributeDict": OrderedDict,
    "lightning_fabric.utilities.data.AttributeDict": OrderedDict,
    "pytorch_lightning.utilities.parsing.AttributeDict": OrderedDict,
}
_LOADING = threading.Lock()  # torch.load's list of allowed classes is global to all threads
_SHOWN = 3  # names in a message


class _StandIn:
    """Stands for an object of a class that is not imported."""

    def __init__(self, *_: Any):
        pass

    __setstate__ = __init__


def read_state(path: Path | str) -> State:
    """Reads the tensors of a .safetensors file or a file of torch.save, by their names in the file.

    In a file of several things, the first of `state_dict_ema`, `model_ema`, `ema`, `state_dict`, `model_state_dict`,
    `model`, `net` and `network` is taken; without any of these, the only dict that holds tensors by name.

    Raises:
      ValueError: the file cannot be read, or holds several networks. Where a command can write a readable file from it,
        the message ends with that command.
      OSError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise OSError(f"weights {path}: there is no such file")
    content = _content(path)
    states = dict(_states(content, ()))
    if not states:
        raise ValueError(
            f"weights {path} hold {_described(content)}; expected tensors by name, as network.state_dict() gives them"
            f"{_cleaning(path, _pickled_network(content))}"
        )
    known = [place for name in _WRAPPERS for place in states if place[:1] == (name,)]
    if len(states) > 1 and not known:
        first = "".join(f"[{json.dumps(key)}]" for key in next(iter(states)))
        raise ValueError(
            f"weights {path} hold several networks: {', '.join(map('.'.join, states))}; keep one"
            f"{_cleaning(path, f'found{first}')}"
        )
    return states[(known or list(states))[0]]


def without_prefix(state: State, wanted: Collection[str], path: str) -> State:
    """Removes the prefix behind which the file `path` holds most of a network's tensors, whose names are `wanted`.

    Raises:
      ValueError: the file holds the network behind several prefixes.
    """
    state = {_WRAPPED.sub("", key): value for key, value in state.items()}
    ends = ((key, found.end()) for key in state for found in re.finditer(r"^|\.", key))
    counts = Counter(key[:end] for key, end in ends if key[end:] in wanted)
    most = max(counts.values(), default=0)
    prefixes = [prefix for prefix, count in counts.items() if count == most]
    if "" in prefixes or 2 * most <= len(wanted):
        return state
    if len(prefixes) > 1:
        raise ValueError(
            f"weights {path} hold this network several times, behind {', '.join(prefixes)}; name one as it is"
            f"{_renaming(path, f'key.removeprefix({json.dumps(prefixes[0])})')}"
        )
    # What stands behind the prefix comes last: it wins over a tensor of the same name beside it.
    return {
        key.removeprefix(prefixes[0]): state[key] for key in sorted(state, key=lambda key: key.startswith(prefixes[0]))
    }


def head_of(network: nn.Module) -> str:
    """Finds the dotted name of the last linear layer; of the last convolution where there is none (SqueezeNet)."""
    for kind in (nn.Linear, nn.Conv2d):
        found = [name for name, layer in network.named_modules() if isinstance(layer, kind)]
        if found:
            return found[-1]
    return ""


def with_linear_head(state: State, network: nn.Module) -> State:
    """Renames the linear layer of the file's head as the network names its own.

    `fc.1.weight` and `fc.1.bias` alone come from nn.Sequential(nn.Dropout(), nn.Linear()) in the place of `fc`. Where
    the network has its linear layer at `classifier.1`, `classifier` is a linear layer in the place of the whole head.
    """
    head = head_of(network)
    place = re.sub(r"(\.[01])+$", "", head)
    layer = re.compile(rf"({re.escape(place)}(?:\.[01])*)\.(?:weight|bias)")
    wanted = network.state_dict()
    theirs = {key: layer.fullmatch(key) for key in state if key.startswith(f"{place}.") and key not in wanted}
    names = {match[1] if match else "" for match in theirs.values()}
    if len(names) != 1 or "" in names or any(key in state for key in (f"{head}.weight", f"{head}.bias")):
        return state
    [name] = names
    return {key.replace(name, head, 1) if key in theirs else key: value for key, value in state.items()}


def mismatch(state: State, network: nn.Module, wrong: Sequence[str], path: str) -> str:
    """Explains in one line why a file does not fit a network: what is missing, what is there instead, what to do.

    `wrong` are the names of the tensors that the file lacks, or has in another shape, after the functions above.
    """
    wanted, head = network.state_dict(), head_of(network)
    others = [key for key, value in state.items() if key not in wanted or value.shape != wanted[key].shape]
    said = (
        f"{len(wrong)} of its {len(wanted)} tensors are missing or of another shape; wanted {_listed(wanted, wrong)}; "
        f"found {_listed(state, others)}"
    )
    root = head.partition(".")[0]
    if any(key.partition(".")[0] != root for key in wrong):
        renamed = 'key.removeprefix("PREFIX.")'
        return f"{said}; if only the names differ, change them{_renaming(path, renamed)}"
    theirs = [key for key in others if key.partition(".")[0] == root and state[key].dim() > 1]
    if theirs:
        return (
            f"{said}: its head has another structure, for {len(state[theirs[-1]])} classes; expected the linear layer "
            f"{head} alone behind global average pooling: put one in the place of the head, and train it"
        )
    if not others:
        return f"{said}: the file has no head; train the linear layer {head} and save it too"
    layers = {key.rpartition(".")[0] for key in others}
    name = layers.pop() if len(layers) == 1 else "HEAD"
    renamed = f"key.replace({json.dumps(f'{name}.')}, {json.dumps(f'{head}.')})"
    return f"{said}; if that is the linear layer behind global average pooling, rename it{_renaming(path, renamed)}"


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with _LOADING, torch.serialization.safe_globals(_stand_ins(path)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling errors of every kind; safetensors' own error class
        # Of torch.load's long errors, which class the file needs; for one that is not imported, how to read it.
        said = str(error).rpartition("WeightsUnpickler error: ")[2]
        said = re.split("Please use|Check the documentation|In PyTorch 2.6", said)[0]
        refused = re.search("Unsupported global|Can only", str(error))
        tensors = 'found.state_dict() if hasattr(found, "state_dict") else found.get("state_dict", found)'
        raise ValueError(
            f"weights {path}: not readable as safetensors or as a PyTorch state dict "
            f"({textwrap.shorten(f'{type(error).__name__}: {said}', 200)}){_cleaning(path, tensors if refused else '')}"
        ) from error


def _stand_ins(path: Path) -> list[Any]:
    """Lists stand-ins for the classes and functions in a file that torch.load does not know as harmless."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a file of torch.save, or in its old format: torch.load raises the error, if any
        return []
    return [(_DICTS.get(name) or type(name, (_StandIn,), {"__module__": "builtins"}), name) for name in names]


def _states(content: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], State]]:
    """Finds all dicts of tensors in a file: their places, and the tensors by name."""
    if not isinstance(content, Mapping):
        return
    found = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if any(key.endswith(".weight") for key in found):
        yield place, found
        return
    for key, value in content.items():
        if isinstance(key, str):
            yield from _states(value, (*place, key))


def _described(content: Any) -> str:
    if isinstance(content, torch.Tensor):
        return f"a tensor of shape {tuple(content.shape)}"
    if isinstance(content, _StandIn):
        return f"an object of the class {type(content).__name__}"
    if isinstance(content, Mapping) and content:
        kinds = [f"{key} ({type(value).__name__})" for key, value in content.items()]
        return f"a dict of {', '.join(kinds[:_SHOWN])}" + (", …" if len(kinds) > _SHOWN else "")
    sized = isinstance(content, list | tuple | dict)
    return f"a {type(content).__name__} of {len(content)}" if sized else repr(content)


def _pickled_network(content: Any) -> str:
    """Gives code that reaches the tensors of a network that was pickled whole; empty where there is none."""
    if isinstance(content, _StandIn):
        return "found.state_dict()"
    objects = content if isinstance(content, Mapping) else {}
    found = [name for name in _WRAPPERS if isinstance(objects.get(name), _StandIn)]
    return f"found[{json.dumps(found[0])}].state_dict()" if found else ""


def _cleaning(path: Path, tensors: str) -> str:
    """Gives the command that writes a file of tensors alone, for the end of a message; empty where there are none."""
    if not tensors:
        return ""
    code = (
        f'import torch; found = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False); '
        f'torch.save({tensors}, "clean.pth")'
    )
    return f"; if you trust the file, which may run code then: python -c {shlex.quote(code)}"


def _renaming(path: Path | str, name: str) -> str:
    """Gives the command that renames the tensors of a file, for the end of a message."""
    code = (
        "import torch; from camboxes.models.networks.state_dicts import read_state; "
        f'torch.save({{{name}: value for key, value in read_state({json.dumps(str(path))}).items()}}, "clean.pth")'
    )
    return f": python -c {shlex.quote(code)}"


def _listed(tensors: Mapping[str, torch.Tensor], names: Sequence[str]) -> str:
    shown = [f"{name} {tuple(tensors[name].shape)}" for name in names[:_SHOWN]]
    return (", ".join(shown) or "nothing else") + (", …" if len(names) > _SHOWN else "")
