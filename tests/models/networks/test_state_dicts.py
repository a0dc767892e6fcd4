"""Files of weights as people have them, each a real file of torch.save or safetensors."""

import argparse
import collections
import dataclasses
import datetime
import enum
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from camboxes.models.networks.by_name import empty_network, load_network

NAME, CLASSES = "timm:test_resnet", 7  # a small ResNet, whose head is called fc


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    rate: float = 0.1


@dataclasses.dataclass(slots=True)
class Slotted:
    rate: float = 0.1


class Kept(dict):
    """A dict of a user's own."""


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    found = empty_network(NAME).module.state_dict()
    channels = found["fc.weight"].shape[1]
    return found | {"fc.weight": torch.randn(CLASSES, channels), "fc.bias": torch.randn(CLASSES)}


def _behind(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def _renamed(state, old, new):
    return {key.replace(old, new): value for key, value in state.items()}


def _zeros(state):
    return {key: torch.zeros_like(value) for key, value in state.items()}


def _optimizer(state):
    return {"state": {0: {"exp_avg": state["fc.weight"]}}, "param_groups": [{"lr": 0.1}]}


LEFT_BEHIND = {
    "arguments": argparse.Namespace(rate=0.1, output=pathlib.Path("/somewhere")),
    "windows": pathlib.PureWindowsPath("c:/somewhere"),
    "best": np.float64(0.5),
    "curve": np.zeros(3),
    "began": datetime.datetime(2026, 1, 1),
    "color": Color.RED,
    "settings": Settings(),
    "slotted": Slotted(),
    "plain": types.SimpleNamespace(rate=0.1),
    "counts": collections.defaultdict(list, {"a": [1]}),
    "seen": {1, 2},
    "function": torch.nn.functional.relu,
    "class": Settings,
    Color.RED: 3,
}

FILES = {
    "as it is": lambda s: s,
    **{prefix: lambda s, prefix=prefix: _behind(prefix, s) for prefix in (
        "_orig_mod.", "module.", "model.", "net.", "backbone.", "encoder.", "module._orig_mod.", "_orig_mod.module.",
        "model.backbone._orig_mod.", "_fsdp_wrapped_module.",
    )},
    "compiled in part": lambda s: _renamed(s, "layer1.", "layer1._orig_mod."),
    "model_state_dict": lambda s: {"epoch": 3, "model_state_dict": s, "optimizer_state_dict": _optimizer(s)},
    "both": lambda s: {"state_dict": _behind("module.", s), "optimizer": _optimizer(s)},
    "state_dict_ema": lambda s: {"state_dict": _zeros(s), "state_dict_ema": s},
    "model_ema": lambda s: {"model": _zeros(s), "model_ema": s},
    "ema": lambda s: {"model": _zeros(s), "ema": {"module": s, "updates": 3}},
    "a name of their own": lambda s: {"classifier": s, "rng": {"cpu": torch.zeros(3)}, "optimizer": _optimizer(s)},
    "lightning": lambda s: {
        "state_dict": _behind("model.", s) | {"criterion.weight": torch.ones(7)}, "hyper_parameters": LEFT_BEHIND,
    },
    "the same name outside": lambda s: _behind("model.", s) | {"fc.weight": torch.zeros(3, 4)},
    "not tensors": lambda s: s | {"epoch": 3, "extra": {"a": "b"}},
    "halves": lambda s: {key: value.half() if value.is_floating_point() else value for key, value in s.items()},
    "Dropout and Linear": lambda s: _renamed(s, "fc.", "fc.1."),
    "Sequential of one": lambda s: _behind("model.", _renamed(s, "fc.", "fc.0.")),
}  # fmt: skip


@pytest.mark.parametrize("made", FILES.values(), ids=FILES)
def test_the_tensors_are_found(state, made, tmp_path):
    torch.save(made(state), tmp_path / "w.pth")
    found = load_network(NAME, str(tmp_path / "w.pth")).module.state_dict()
    for key, value in state.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "state_dict.model."])
def test_the_same_in_safetensors(state, prefix, tmp_path):
    save_file(_behind(prefix, state), tmp_path / "w.safetensors")
    found = load_network(NAME, str(tmp_path / "w.safetensors")).module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_a_head_of_which_the_network_itself_has_two_layers(tmp_path):
    """torchvision's MobileNetV2 ends in Dropout and Linear; people put a linear layer in the place of both."""
    torch.manual_seed(0)
    state = empty_network("torchvision:mobilenet_v2").module.state_dict()
    weight, bias = torch.randn(CLASSES, 1280), torch.randn(CLASSES)
    del state["classifier.1.weight"], state["classifier.1.bias"]
    for place in ("classifier", "classifier.1.1"):
        torch.save(state | {f"{place}.weight": weight, f"{place}.bias": bias}, tmp_path / "w.pth")
        found = load_network("mobilenet_v2", str(tmp_path / "w.pth")).module.state_dict()
        assert torch.equal(found["classifier.1.weight"], weight) and torch.equal(found["classifier.1.bias"], bias)


def test_a_head_that_is_a_convolution(tmp_path):
    torch.manual_seed(0)
    state = empty_network("torchvision:squeezenet1_1").module.state_dict()
    state |= {"classifier.1.weight": torch.randn(CLASSES, 512, 1, 1), "classifier.1.bias": torch.randn(CLASSES)}
    torch.save(_behind("module.", state), tmp_path / "w.pth")
    found = load_network("squeezenet1_1", str(tmp_path / "w.pth")).module.state_dict()
    assert torch.equal(found["classifier.1.weight"], state["classifier.1.weight"])


def test_a_vision_transformer_of_torchvision_behind_a_prefix(tmp_path):
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(224, 32, 12, 12, 768, 3072, num_classes=CLASSES).eval()
    torch.save({"state_dict": _behind("model.", network.state_dict())}, tmp_path / "w.ckpt")
    found = load_network("vit_b_32", str(tmp_path / "w.ckpt")).module
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(found(images), network(images), rtol=1e-4, atol=1e-4)


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)


def _hidden(state):
    head = {"fc.0.weight": torch.zeros(32, 64), "fc.0.bias": torch.zeros(32)}
    return _headless(state) | head | {"fc.3.weight": torch.zeros(CLASSES, 32), "fc.3.bias": torch.zeros(CLASSES)}


def _headless(state):
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


REFUSED = {
    "a list": (lambda s: [s], "hold a list of 1; expected tensors by name, as network.state_dict() gives them"),
    "an empty list": (lambda s: [], "hold a list of 0; expected tensors by name"),
    "an empty dict": (lambda s: {}, "hold a dict of 0; expected tensors by name"),
    "a tensor": (lambda s: torch.zeros(3, 4), "hold a tensor of shape (3, 4); expected tensors by name"),
    "nothing": (lambda s: None, "hold None; expected tensors by name"),
    "numbers": (lambda s: {"epoch": 3, "best": 0.5}, "hold a dict of epoch (int), best (float); expected tensors by"),
    "a network": (lambda s: Whole(), f"hold an object of the class {__name__}.Whole; expected tensors by name"),
    "two networks": (lambda s: {"student": s, "teacher": s}, "hold several networks: student, teacher; keep one"),
    "two prefixes": (
        lambda s: _behind("student.", s) | _behind("teacher.", s),
        "hold this network several times, behind student., teacher.; name one as it is",
    ),
    "a dict of their own": (lambda s: {"model": s, "kept": Kept(a=1)}, "UnpicklingError: Can only SETITEM for dict"),
    "a hidden layer": (
        _hidden,
        r"wanted fc.weight \(\d+, \d+\), fc.bias \(\d+,\); found fc.0.weight \(32, 64\), fc.0.bias \(32,\), "
        r"fc.3.weight \(7, 32\), …: its head has another structure, for 7 classes; expected the linear layer fc alone",
    ),
    "no head": (_headless, "found nothing else: the file has no head; train the linear layer fc and save it too"),
}  # fmt: skip


@pytest.mark.parametrize(("made", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_told_in_one_line(state, made, message, tmp_path):
    torch.save(made(state), tmp_path / "w.pth")
    pattern = message if "\\" in message else re.escape(message)
    with pytest.raises(ValueError, match=pattern) as error:
        load_network(NAME, str(tmp_path / "w.pth"))
    assert "\n" not in str(error.value) and str(error.value).startswith(f"weights {tmp_path / 'w.pth'}")


CLEANED = {
    "two prefixes": lambda s: _behind("student.", s) | _behind("teacher.", _zeros(s)),
    "another name": lambda s: _renamed(s, "fc.", "head."),
    "another name, beside the prefix": lambda s: _renamed(_behind("backbone.", s), "backbone.fc.", "head."),
    "two networks": lambda s: {"student": s, "teacher": _zeros(s)},
}


@pytest.mark.parametrize("made", CLEANED.values(), ids=CLEANED)
def test_the_command_in_the_message_cleans_the_file(state, made, tmp_path, monkeypatch):
    torch.save(made(state), tmp_path / "it's.pth")
    with pytest.raises(ValueError, match="python -c ") as error:
        load_network(NAME, str(tmp_path / "it's.pth"))
    [code] = shlex.split(str(error.value).rpartition(": python -c ")[2])
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    found = load_network(NAME, str(tmp_path / "clean.pth")).module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize("place", ["", "model"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_that_was_pickled_whole(place, zipped, tmp_path):
    """Its class is not imported; the command, which does that, is given with a warning."""
    torch.manual_seed(0)
    network = empty_network(NAME).module
    content = {place: network, "epoch": 3} if place else network
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="if you trust the file, which may run code then: python -c ") as error:
        load_network(NAME, str(tmp_path / "w.pth"))
    assert "timm.models.resnet.ResNet" in str(error.value) and "\n" not in str(error.value)
    if zipped:
        call = shlex.split(str(error.value).rpartition(": python -c ")[2])
        subprocess.run([sys.executable, "-c", *call], check=True, cwd=tmp_path)
        found = load_network(NAME, str(tmp_path / "clean.pth")).module.state_dict()
        assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())


class Evil:
    def __init__(self, function, *given):
        self._given = function, given

    def __reduce__(self):
        return self._given


@pytest.mark.parametrize("function", [os.mkdir, subprocess.check_call, eval])
def test_what_a_file_asks_to_be_called_is_not_called(state, function, tmp_path):
    """Whether such a file is refused or read: nothing in it runs."""
    made = tmp_path / "was_here"
    given = {subprocess.check_call: ["mkdir", str(made)], eval: f"__import__('os').mkdir({str(made)!r})"}
    torch.save({"state_dict": state, "evil": Evil(function, given.get(function, str(made)))}, tmp_path / "w.pth")
    try:
        load_network(NAME, str(tmp_path / "w.pth"))
    except ValueError as error:
        assert "trust" not in str(error)
    assert not made.exists()
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert made.exists()  # it would have


def test_what_a_file_was_allowed_is_not_allowed_afterwards(state, tmp_path):
    torch.save({"state_dict": state, "arguments": argparse.Namespace(a=1)}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    load_network(NAME, str(tmp_path / "w.pth"))
    assert set(torch.serialization.get_safe_globals()) == before


def test_weights_of_another_network_name_what_was_found_and_wanted(state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        ValueError,
        match=r"are not those of torchvision:resnet18: \d+ of its 122 tensors are missing or of another shape; wanted "
        r"conv1.weight \(64, 3, 7, 7\), .*; found .*; if only the names differ, change them: python -c",
    ) as error:
        load_network("resnet18", str(tmp_path / "w.pth"))
    assert "\n" not in str(error.value)
