"""A classification network whose last feature maps can be read, and what follows them."""

import copy
import dataclasses
import functools
import hashlib
import json
import operator
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from camboxes.models.execution import executable
from camboxes.models.execution.devices import sent
from camboxes.models.execution.process import keep_freed_memory
from camboxes.models.introspection.influence import last_norm
from camboxes.models.introspection.layers import outermost_layers
from camboxes.models.introspection.parts import take_apart
from camboxes.models.introspection.probing import run_once
from camboxes.models.introspection.recording import LAST, Recording, recording
from camboxes.models.introspection.taps import Tap, tapped
from camboxes.models.introspection.tokens import Tokens, layout_of
from camboxes.models.networks.checkpoints import DESCRIPTION, WEIGHTS, Description, find_network
from camboxes.models.networks.class_names import known_names, names_from_json
from camboxes.models.networks.preprocessing import Preprocessing, described
from camboxes.models.networks.stride import lower_stride
from camboxes.models.spec import BY_STRIDE, Device, ModelSpec

_CHANGING = threading.Lock()  # one thread at a time changes what a classifier runs

_BATCH = {"cpu": 4, "cuda": 64}  # images of 224 x 224 pixels


class Activations(NamedTuple):
    """What one forward pass gives.

    Attributes:
      features: the last feature maps before pooling, [n, channels, height, width].
      logits: float32 [n, classes].
    """

    features: torch.Tensor
    logits: torch.Tensor


class Classifier(nn.Module):
    """Feature maps and what follows them: where CAM is exact, global average pooling and a linear layer.

    Attributes:
      network: the network, unchanged.
      spec: the model's spec with nothing left open: qualified name, size, device, batch size, precision, compile, mean,
        std, multilabel. Of a classifier that is made of a network, rather than loaded, an open precision means the
        network as it is.
      preprocessing: how to bring photographs to its input.
      tokens: which tokens the logits depend on; None of a network that does not work on tokens.
      last: the name, in a `Recording`, of the last maps that the logits depend on: LAST, but for a network that reads
        them from a class token, where it is what the last attention is given.
      inexact_because: why its logits are not linear(GAP(features)), so that CAM is not defined for it; None where
        they are (Zhou et al. 2016, section 2).
      weight: the linear layer's weight, [classes, channels], where CAM is exact; None where the last maps are those of
        the classes themselves (SqueezeNet).
      bias: its bias, [classes]; likewise.
      class_names: for each class its names, the one that is shown first: a checkpoint's own, or see `known_names`;
        empty for a class without a name.
      multilabel: whether probabilities are sigmoids of the logits rather than their softmax; always of a single logit,
        whose softmax would be 1.
      training_record: how it was trained by camboxes: see `Description`; empty where it was not.
    """

    weight: torch.Tensor | None
    bias: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        spec: ModelSpec,
        class_names: Sequence[str | Sequence[str]] | None = None,
        *,
        multilabel: bool = False,
        training_record: Mapping[str, Any] | None = None,
    ):
        """Takes a network apart.

        Raises:
          ValueError: the network has no feature maps, gives anything but logits, its output is not finite, or there are
            more or fewer names than outputs.
        """
        super().__init__()
        self.network = network
        self.training_record = training_record or {}
        self._layers: dict[str, str] = {}  # wanted -> name, of those that are tapped
        self._strides: dict[int, list[str]] = {}  # once asked for: see `outermost_layers`
        self._all: tuple[nn.Module, ...] = ()  # its modules, once asked for: to find them takes time
        self._executable: list[nn.Module] = []  # at most one; in a list, so that it is no part of this module
        # The images are noise: shapes, and the equality of two ways to the same logits, are all that is asked.
        size = preprocessing.size
        self._probe = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        probe = self.probe()
        with _evaluating(*network.modules()):
            logits = run_once(network, probe, spec.name)
            _check_logits(logits, spec.name)
            parts = take_apart(network, spec.name, probe)
            self._features, self._tail, self._prefix = parts.features, parts.tail, parts.prefix
            self._last = Tap(LAST, layout=parts.layout)
            with torch.inference_mode():
                output = self._features(probe)
                features = parts.layout.maps(output, (size, size))
            self._take_head(parts.head, features, logits)
            self.tokens = self._read_tokens(output)
            class_token_alone = self.tokens and not self.tokens.patches
            self.last = self.layer(last_norm(network, probe, parts)) if class_token_alone else LAST
        self.preprocessing = dataclasses.replace(preprocessing, stride=round(size / features.shape[2]))
        self.multilabel = multilabel or logits.shape[1] == 1
        self.class_names = _checked(class_names or known_names(logits.shape[1]), logits.shape[1], spec.name)
        mean, std = preprocessing.mean, preprocessing.std
        self.spec = dataclasses.replace(spec, mean=mean, std=std, multilabel=self.multilabel)

    def __reduce__(self) -> Any:
        """How to pickle or copy it: the network and its settings, of which the rest is made again.

        What passes have made cannot be: fused layers hold weights as this processor wants them, programs are functions.
        """
        given = (self.network, self.preprocessing, self.spec, self.class_names)
        kept = {name: vars(self)[name] for name in ("multilabel", "training", "training_record", "_strides")}
        return type(self), given, (kept, list(self._layers))

    def __setstate__(self, state: Any) -> None:
        kept, layers = state
        vars(self).update(kept)
        for wanted in layers:
            self.layer(wanted)

    def _take_head(self, head: Any, features: torch.Tensor, logits: torch.Tensor) -> None:
        """Reads CAM's weights from the head where linear(GAP(features)) gives the network's own logits."""
        classes, pooled = logits.shape[1], features.mean((2, 3))
        # Without a linear layer each class has a map of its own (SqueezeNet): the pooled maps are the logits.
        weight, shape = getattr(head, "weight", None), (classes, classes)
        if weight is not None:
            weight = weight.detach().flatten(1)
            shape = weight.shape
        given = getattr(head, "bias", None)
        bias = logits.new_zeros(classes) if given is None else given.detach()
        self.inexact_because: str | None = "a hidden layer, a norm or another kind of pooling stands between"
        if shape == (classes, pooled.shape[1]):
            scale, difference = logits.abs().max(), (_linear(pooled, weight, bias) - logits).abs().max()
            if difference <= 1e-4 * scale:
                self.inexact_because = None
                self.register_buffer("weight", weight, persistent=False)
                self.register_buffer("bias", bias, persistent=False)
            else:
                self.inexact_because += f": they differ by up to {difference:.3g} where the largest is {scale:.3g}"

    def _read_tokens(self, output: torch.Tensor) -> Tokens | None:
        """What the gradient of the logits with respect to the last tokens of the probe says."""
        if self._prefix is None:
            return None
        if self._last.layout.axes != "NLC":  # as maps, they are all that is left
            return Tokens((False,) * self._prefix, patches=True)
        with torch.inference_mode(False), torch.enable_grad():
            leaf = output.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self._tail(leaf).sum(), leaf)
        read = gradient.abs().sum((0, 2)) > 0
        prefix = self._last.layout.prefix
        # Where the weights of the last layer are all zero, as some libraries begin with, nothing is said.
        return Tokens(tuple(read[:prefix].tolist()), bool(read[prefix:].any() or not read.any()))

    def forward(self, images: torch.Tensor) -> Activations:
        """Runs the network on normalised images, [n, 3, height, width]; where CAM is exact, equation 1 of the paper."""
        output = self._last(self._executed()(images)).to(images.dtype)
        features = self._last.layout.maps(output, images.shape[2:])
        if self.inexact_because is not None:
            return Activations(features, self._tail(output).float())
        return Activations(features, _linear(features.mean((2, 3)), self.weight, self.bias).float())

    def plain_logits(self, images: torch.Tensor) -> torch.Tensor:
        """The network's own logits, [n, classes], layer by layer whatever the spec asks for; with a graph if wanted."""
        with _evaluating(*self.network.modules()):
            return self.network(images)

    def check_sizes(self, preprocessing: Preprocessing) -> None:
        """Tries the images that a preprocessing makes, square ones and wide ones, on a network that works on tokens.

        Raises:
          ValueError: the network does not take them.
        """
        if self._prefix is not None:
            for shape in {preprocessing.shape(2, width) for width in (2, 3, 4)} - {tuple(self._probe.shape[2:])}:
                run_once(self._features, self.probe().new_zeros((1, 3, *shape)), self.spec.name)

    def settle(self) -> None:
        """Decides what the spec leaves open of how the network is executed, on the device that it is on.

        Raises:
          ValueError: what it asks for cannot be had.
        """
        asked = self.spec.precision, self.spec.compile
        precision, compilation = executable.resolve(self._features, self.probe(), *asked)
        self.spec = dataclasses.replace(self.spec, precision=precision, compile=compilation)

    def _executed(self) -> nn.Module:
        """What makes the last feature maps, as the spec asks for."""
        precision, compilation = self.spec.precision, self.spec.compile
        if precision == "auto" or compilation == "auto" or (precision, compilation) == ("fp32", "off"):
            return self._features
        with _CHANGING:
            if not self._executable:
                with _evaluating(*self._features.modules()):
                    probe = self.probe()
                    layers = executable.executable(self._features, probe, precision, compilation)
                    written = compilation == "on" and probe.device.type == "cpu"
                    self._executable = [executable.programmed(layers) if written else layers]
            return self._executable[0]

    def infer(self, images: torch.Tensor) -> Activations:
        """Runs a uint8 batch [n, 3, height, width], as `preprocessing.resize` makes its images, on the device."""
        with torch.inference_mode():
            return self(self.normalize(images))

    def prepare(self, images: Any) -> torch.Tensor:
        """Brings photographs to what `forward` and `class_maps` take: resized and normalised, on the device.

        Args:
          images: a photograph, or several in a list or in a batch [n, ...]: each a PIL image, or a uint8 array or
            tensor such as [height, width, 3]; see `preprocessing.rgb`.

        Returns:
          [n, 3, height, width], in the dtype of the network.

        Raises:
          ValueError: no image, what is no photograph, or photographs of different shapes where their aspect is kept.
        """
        one = not isinstance(images, Iterable) or len(getattr(images, "shape", ())) in (2, 3)
        resized = [self.preprocessing.resize(image) for image in ([images] if one else images)]
        shapes = sorted({tuple(image.shape[1:]) for image in resized})
        if len(shapes) != 1:
            found = " and ".join(f"{height} x {width}" for height, width in shapes) or "none"
            raise ValueError(
                f"{len(resized)} images were given, whose inputs are {found}; expected one shape in a batch: hand over "
                'photographs of one shape at a time, or use aspect "squash"'
            )
        return self.normalize(torch.stack(resized))

    def check_images(self, images: Any) -> None:
        """Raises a ValueError for anything but a batch as `prepare` makes it; of which values is not known."""
        parameter = next(self.network.parameters())
        if not isinstance(images, torch.Tensor) or images.dim() != 4 or images.shape[1] != 3:
            given = f"are {described(images)}"
        elif (images.dtype, images.device) != (parameter.dtype, parameter.device):
            given = f"are {images.dtype} on {images.device}"
        else:
            return
        raise ValueError(
            f"images {given}; expected {parameter.dtype} of shape [n, 3, height, width] on {parameter.device}, "
            "normalised: classifier.prepare(photographs) makes them"
        )

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Brings a uint8 batch [n, 3, height, width] to the device, and to what `forward` takes.

        Raises:
          ValueError: it is none.
        """
        if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.shape[1:2] != (3,):
            raise ValueError(
                f"images are {described(images)}; expected uint8 of shape [n, 3, height, width], as resize makes them: "
                "classifier.prepare(photographs) does both"
            )
        parameter = next(self.network.parameters())
        return self.preprocessing.normalize(sent(images, parameter.device)).to(parameter.dtype)

    def record(
        self, images: torch.Tensor, layers: frozenset[str], gradients: frozenset[str] = frozenset()
    ) -> tuple[Activations, Recording]:
        """One forward pass that also gives the maps of layers inside, and the graph of gradients from them on.

        Args:
          images: normalised, [n, 3, height, width].
          layers: names that `layer` gave, LAST or ATTENTION.
          gradients: those of them with respect to which gradients of the logits can be asked for.
        """
        self._executed()  # trials that are made for it are not to be recorded
        self._all = self._all or tuple(self.modules())
        with _evaluating(*self._all), recording(layers, images.shape[2:], gradients) as found:
            activations = self(images.clone() if gradients and images.is_inference() else images)
        return activations, found

    def layer(self, wanted: str) -> str:
        """The name of a layer whose maps can be recorded from now on.

        Args:
          wanted: its dotted name in the network; or a stride in input pixels per cell, which `map_stride` does not
            change, for the last block at it: see `outermost_layers`. "32[-2]" is the last but one.

        Raises:
          ValueError: there is no such layer, or its output is no map.
        """
        with _CHANGING:
            if wanted not in self._layers:
                self._layers[wanted] = self._tap(wanted)
        return self._layers[wanted]

    def at_stride(self, stride: int) -> "Classifier":
        """The same network, with the same weights in memory, and maps of at most `stride` input pixels per cell.

        Its layers are found at the strides that they have here.

        Raises:
          ValueError: its last strides cannot be taken out: see `lower_stride`.
        """
        weights = {id(tensor): tensor for tensor in (*self.network.parameters(), *self.network.buffers())}
        network = copy.deepcopy(self.network, weights)
        lower_stride(network, stride, self.probe()[:1])
        spec = dataclasses.replace(self.spec, map_stride=stride)
        finer = Classifier(
            network,
            self.preprocessing,
            spec,
            self.class_names,
            multilabel=self.multilabel,
            training_record=self.training_record,
        )
        if finer.preprocessing.stride > stride:
            raise ValueError(f"map_stride {stride}: the maps of {spec.name} stay at {finer.preprocessing.stride}")
        finer._strides = self._blocks()
        return finer

    def _blocks(self) -> dict[int, list[str]]:
        if not self._strides:
            with _evaluating(*self.network.modules()):
                self._strides = outermost_layers(self.network, self.probe(), self._prefix)
        return self._strides

    def _block(self, stride: int, place: int) -> str:
        """The dotted name of the block that is so many places before the last one at a stride."""
        strides = self._blocks()
        if stride not in strides:
            raise ValueError(
                f"no layer at stride {stride}; this network has layers at {', '.join(map(str, sorted(strides)))}: a "
                "--method without @ and --refine none need none of them"
            )
        blocks = strides[stride]
        if not 1 <= place <= len(blocks):
            raise ValueError(f"layer {stride}[-{place}]: at this stride the network has {', '.join(blocks)} alone")
        return blocks[-place]

    def _tap(self, wanted: str) -> str:
        by_stride = BY_STRIDE.fullmatch(wanted)
        name = self._block(int(by_stride["stride"]), int(by_stride["place"] or 1)) if by_stride else wanted
        if name not in dict(self.network.named_modules()) or not name:
            raise ValueError(f"layer {wanted!r}: the network has none of this name; expected one of named_modules()")
        if name in self._layers.values():
            return name
        before = self._features
        self._features, self._all = tapped(before, name), ()
        probe = self.probe()
        with _evaluating(*self.modules()), recording(frozenset([name]), probe.shape[2:]) as found:
            self._features(probe)
        self._executable = []
        layout = layout_of(found.maps[name].shape, self._prefix) if name in found.maps else None
        if layout is None:
            self._features, self._all = before, ()
            raise ValueError(f"layer {name!r} gives no maps of [n, channels, height, width]")
        for part in self._features.modules():
            if isinstance(part, Tap) and part.layer == name:
                part.layout = layout
        return name

    def probe(self) -> torch.Tensor:
        """Two images of noise, square, on the device, [2, 3, size, size]."""
        parameter = next(self.network.parameters())
        return self._probe.to(parameter.device, parameter.dtype)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes] to probabilities."""
        return logits.sigmoid() if self.multilabel else logits.softmax(1)

    def safetensors(self) -> bytes:
        """The network's weights as the bytes of a file for `ModelSpec.weights` of the same name."""
        from safetensors.torch import save

        return save({key: value.cpu().contiguous() for key, value in self.network.state_dict().items()})

    def files(self, training: Mapping[str, Any] | None = None) -> dict[str, bytes]:
        """A checkpoint of the classifier: the files of a folder that `ModelSpec.name` may name.

        Args:
          training: see `Description`; None for the classifier's own record.
        """
        described = Description(
            self.spec.name,
            tuple(self.class_names),
            self.preprocessing,
            self.multilabel,
            self.spec.map_stride,
            self.training_record if training is None else training,
        )
        return {WEIGHTS: self.safetensors(), DESCRIPTION: described.to_json()}

    @functools.cached_property
    def weights_sha256(self) -> str:
        """The SHA-256 of the bytes that `safetensors` gives."""
        return hashlib.sha256(self.safetensors()).hexdigest()

    @functools.cached_property
    def class_names_sha256(self) -> str:
        """The SHA-256 of the class names as JSON."""
        return hashlib.sha256(json.dumps(self.class_names).encode()).hexdigest()

    @property
    def weights_bytes(self) -> int:
        """How many bytes the network's weights take."""
        return sum(value.nbytes for value in self.network.state_dict().values())

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the maps and what they are of; weights and names by their SHA-256, and no name of a machine."""
        return self.spec.settings() | {
            "classes": len(self.class_names),
            "class_names_sha256": self.class_names_sha256,
            "weights_sha256": self.weights_sha256,
        }


def load_classifier(model: str | ModelSpec) -> Classifier:
    """Loads a classifier, ready to infer on its device, its parameters frozen.

    Raises:
      ValueError: an unknown name, weights of another network or other than those that the spec asks for, a network
        without feature maps, or an execution that cannot be had on this device.
      OSError: weights that cannot be had.
      RuntimeError: a GPU was asked for and there is none. There is no silent fall-back to the CPU.
    """
    spec = ModelSpec(model) if isinstance(model, str) else model
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "device cuda was asked for, and PyTorch sees no GPU here; use --device cpu, or mend the driver"
        )
    device: Device = ("cuda" if torch.cuda.is_available() else "cpu") if spec.device == "auto" else spec.device
    classifier = _load(dataclasses.replace(spec, device=device)).to(device).to(memory_format=torch.channels_last)
    classifier.settle()
    keep_freed_memory()
    return classifier


def load_for_elsewhere(spec: ModelSpec) -> Classifier:
    """Loads a classifier that other machines will run, to be asked for all but maps: names, settings, files.

    Nothing is tried out here, on a machine that may be of another kind, so the spec must leave nothing open of how the
    network is executed. Where that cannot be had, `load_classifier` says so on the machine that runs it.

    Raises:
      ValueError: the device, the precision or the compilation is left open; or see `load_classifier`.
      OSError: weights that cannot be had.
    """
    if left_open := [name for name in ("device", "precision", "compile") if getattr(spec, name) == "auto"]:
        raise ValueError(f"{' and '.join(left_open)} auto: what another machine can do is not known here; name it")
    return _load(spec)


def _load(spec: ModelSpec) -> Classifier:
    """A classifier in this machine's memory, for the device of its spec."""
    network, described = find_network(spec)
    preprocessing = dataclasses.replace(
        network.preprocessing,
        mean=spec.mean or network.preprocessing.mean,
        std=spec.std or network.preprocessing.std,
        size=spec.size or network.preprocessing.size,
        aspect=spec.aspect,
    )
    names = described.class_names if described and spec.classes is None else spec.classes
    multilabel = described.multilabel if described and spec.multilabel is None else bool(spec.multilabel)
    spec = dataclasses.replace(
        spec,
        name=network.name,
        weights=None,
        prompts=None,
        classes=None,
        size=preprocessing.size,
        map_stride=spec.map_stride or (described.map_stride if described else None),
        batch_size=spec.batch_size or max(1, round(_BATCH[spec.device] * (224 / preprocessing.size) ** 2)),
    )
    classifier = Classifier(
        network.module.requires_grad_(False),
        preprocessing,
        spec,
        names,
        multilabel=multilabel,
        training_record=described.training if described else None,
    )
    if spec.map_stride is not None:
        classifier = classifier.at_stride(spec.map_stride)
    if spec.weights_sha256 is not None and classifier.weights_sha256 != spec.weights_sha256:
        raise ValueError(
            f"the weights of {spec.name} have the SHA-256 {classifier.weights_sha256}; expected "
            f"{spec.weights_sha256}: the file was changed or cut short since it was staged; stage it again"
        )
    return classifier.eval()


def _check_logits(output: Any, name: str) -> None:
    """Raises a ValueError where what a network gives of the probe is no logits, or not finite."""
    if not isinstance(output, torch.Tensor) or output.dim() != 2:
        raise ValueError(
            f"{name} gives {_described(output)}; expected logits alone, a tensor of [images, classes]: put the network "
            "into a module whose forward returns them"
        )
    if not torch.isfinite(output).all():
        raise ValueError(f"the output of {name} is not finite: its weights hold NaN or infinity")


def _described(output: Any) -> str:
    if isinstance(output, torch.Tensor):
        return f"a tensor of shape {list(output.shape)}"
    parts = dict(enumerate(output)) if isinstance(output, tuple | list) else output
    named = parts if isinstance(parts, Mapping) else getattr(output, "__dict__", {})
    shown = [f"{key} {list(value.shape)}" for key, value in named.items() if isinstance(value, torch.Tensor)]
    return f"an output of the type {type(output).__name__}" + (f" with the tensors {', '.join(shown)}" if shown else "")


def _linear(pooled: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor) -> torch.Tensor:
    return pooled + bias if weight is None else functional.linear(pooled, weight, bias)


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, and the modes that there were when it is over."""
    training = list(filter(operator.attrgetter("training"), modules))
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _checked(names: Sequence[str | Sequence[str]], outputs: int, name: str) -> list[tuple[str, ...]]:
    if len(names) != outputs:
        one = " (the class that a high output stands for)" if outputs == 1 else ""
        raise ValueError(
            f"{len(names)} class names were given, and {name} has {outputs} outputs; expected one name for each{one}, "
            "in their order"
        )
    return list(names_from_json(list(names)))
