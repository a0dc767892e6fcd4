"""A classification network whose last feature maps can be read, and what follows them."""

import copy
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from camboxes.models.execution.executor import Executor, is_near, resolve
from camboxes.models.execution.process import sent
from camboxes.models.introspection.layers import last_norm, last_tokens
from camboxes.models.introspection.parts import LinearHead, linear_head, take_apart
from camboxes.models.introspection.probing import evaluating, logits_of, noise, run_once
from camboxes.models.introspection.recording import LAST, Recorder, Recording, Tap
from camboxes.models.networks.checkpoints import DESCRIPTION, WEIGHTS, Description
from camboxes.models.networks.class_names import known_names, names_from_json
from camboxes.models.networks.preprocessing import Preprocessing, described
from camboxes.models.networks.stride import lower_stride
from camboxes.models.spec import Execution, ModelSpec, ResolvedSpec


class Activations(NamedTuple):
    """What one forward pass gives.

    Attributes:
      features: the last feature maps before pooling, [n, channels, height, width].
      logits: float32 [n, classes].
    """

    features: torch.Tensor
    logits: torch.Tensor


class Classifier(nn.Module):
    """A network as feature maps and what follows them: where CAM is exact, global average pooling and a linear layer.

    Attributes:
      network: the network, unchanged.
      spec: the model's spec with nothing left open: qualified name, size, device, batch size, precision, compile, mean,
        std, multilabel. Of a classifier that is made of a network, rather than loaded, an open precision means the
        network as it is, and an open batch size 1.
      preprocessing: how to bring photographs to its input.
      tokens: which tokens the logits depend on; None for a network that does not work on tokens.
      last: the name, in a `Recording`, of the last maps that the logits depend on: LAST, except for a network that
        reads its logits from a class token, where it is the input of the last attention.
      inexact_because: why its logits are not linear(GAP(features)), so that CAM is not defined for it; None where
        they are (Zhou et al. 2016, section 2).
      weight: the linear layer's weight, [classes, channels], where CAM is exact; None where the last maps are those of
        the classes themselves (SqueezeNet).
      bias: its bias, [classes]; likewise.
      class_names: the names of each class, the one that is shown first: a checkpoint's own, or see `known_names`;
        empty for a class without a name.
      multilabel: whether probabilities are sigmoids of the logits rather than their softmax; always for a single logit,
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
        size = preprocessing.size
        # The images are noise: shapes, and the equality of two ways to the same logits, are all that is asked.
        probe = noise(network, size)
        with evaluating(*network.modules()):
            logits = logits_of(network, probe, spec.name)
            parts = take_apart(network, spec.name, probe)
            features = parts.layout.maps(parts.output, (size, size))
            head = linear_head(parts.head, features, logits)
            self.tokens = last_tokens(parts, probe)
            self._recorder = Recorder(network, parts, size)
            class_token_alone = self.tokens and not self.tokens.patches
            self.last = self.layer(last_norm(network, probe, parts)) if class_token_alone else LAST
        self._last = Tap(LAST, layout=parts.layout)
        self._executor = Executor(Execution(spec.precision, spec.compile))
        self.inexact_because = head if isinstance(head, str) else None
        if isinstance(head, LinearHead):
            self.register_buffer("weight", head.weight, persistent=False)
            self.register_buffer("bias", head.bias, persistent=False)
        self.preprocessing = dataclasses.replace(preprocessing, stride=round(size / features.shape[2]))
        self.multilabel = multilabel or logits.shape[1] == 1
        names, outputs = class_names or known_names(logits.shape[1]), logits.shape[1]
        if len(names) != outputs:
            one = " (the class that a high output stands for)" if outputs == 1 else ""
            raise ValueError(
                f"{len(names)} class names were given, and {spec.name} has {outputs} outputs; expected one name for "
                f"each{one}, in their order"
            )
        self.class_names: list[tuple[str, ...]] = list(names_from_json(list(names)))
        known = {"mean": preprocessing.mean, "std": preprocessing.std, "multilabel": self.multilabel}
        self.spec = ResolvedSpec(**vars(spec) | {"size": size, "batch_size": spec.batch_size or 1} | known)

    def __reduce__(self) -> Any:
        """How to pickle or copy it: the network and its settings, of which the rest is made again.

        Fused layers cannot be pickled: they hold weights as this processor wants them.
        """
        blocks, layers = vars(self._recorder).get("blocks"), list(self._recorder.names)
        given = self.network, self.preprocessing, self.spec, self.class_names
        return self._make(), given, (self.training, blocks, layers)

    def __setstate__(self, state: tuple[bool, dict[int, list[str]] | None, list[str]]) -> None:
        self.training, blocks, layers = state
        if blocks:
            self._recorder.blocks = blocks
        for wanted in layers:
            self.layer(wanted)

    def forward(self, images: torch.Tensor) -> Activations:
        """Runs the network on normalised images, [n, 3, height, width]; where CAM is exact, equation 1 of the paper."""
        output = self._last(self._executed()(images)).to(images.dtype)
        features = self._last.layout.maps(output, images.shape[2:])
        if self.inexact_because is not None:
            return Activations(features, self._recorder.tail(output).float())
        return Activations(features, LinearHead(self.weight, self.bias).logits(features).float())

    def infer(self, images: torch.Tensor) -> Activations:
        """Runs a uint8 batch [n, 3, height, width], as `preprocessing.resize` makes its images, on the device."""
        with torch.inference_mode():
            return self(self.normalize(images))

    def plain_logits(self, images: torch.Tensor) -> torch.Tensor:
        """The network's own logits, [n, classes], whatever precision and compilation the spec asks for.

        Outside of no_grad they are part of a graph.
        """
        with evaluating(*self.network.modules()):
            return self.network(images)

    def record(
        self, images: torch.Tensor, layers: frozenset[str], gradients: frozenset[str] = frozenset()
    ) -> tuple[Activations, Recording]:
        """Runs the network on normalised images, [n, 3, height, width], and records layers inside: see `recording`."""
        self._executed()  # makes the layers: passes that try them are not to be recorded
        with self._recorder.recording(layers, images.shape[2:], gradients) as found:
            activations = self(images.clone() if gradients and images.is_inference() else images)
        return activations, found

    def layer(self, wanted: str) -> str:
        """The name of a layer whose maps can be recorded from now on: see `Recorder.layer`.

        The stride of a layer is the one that it has without `map_stride`.
        """
        return self._recorder.layer(wanted)

    def at_stride(self, stride: int) -> "Classifier":
        """The same network, with the same weights in memory, and maps of at most `stride` input pixels per cell.

        Its layers are found at the strides that they have here.

        Raises:
          ValueError: the network's last downsampling cannot be removed: see `lower_stride`.
        """
        weights = {id(tensor): tensor for tensor in (*self.network.parameters(), *self.network.buffers())}
        network = copy.deepcopy(self.network, weights)
        lower_stride(network, stride, self.probe())
        spec = dataclasses.replace(self.spec, map_stride=stride)
        finer = self._make()(network, self.preprocessing, spec, self.class_names)
        if finer.preprocessing.stride > stride:
            raise ValueError(f"map_stride {stride}: the maps of {self.spec.name} stay at {finer.preprocessing.stride}")
        finer._recorder.blocks = self._recorder.blocks
        return finer

    def check_sizes(self, preprocessing: Preprocessing) -> None:
        """Tries the images that a preprocessing makes, square ones and wide ones, on a network that works on tokens.

        Raises:
          ValueError: the network does not take them.
        """
        if self.tokens is not None:
            size = self.preprocessing.size
            for shape in {preprocessing.shape(2, width) for width in (2, 3, 4)} - {(size, size)}:
                run_once(self._recorder.features, self.probe().new_zeros((1, 3, *shape)), self.spec.name)

    def settled(self) -> "Classifier":
        """The same classifier, with nothing left open of how its network is executed, on the device that it is on.

        Raises:
          ValueError: the device does not support what the spec asks for.
        """
        return self.executed(resolve(self._recorder.features, self.probe(), self.execution))

    @property
    def execution(self) -> Execution:
        """How the network is executed."""
        return Execution(self.spec.precision, self.spec.compile)

    def executed(self, execution: Execution) -> "Classifier":
        """The same classifier, with its network in the same memory, executed otherwise."""
        same = Classifier.__new__(Classifier)
        vars(same).update(vars(self))
        same.spec = dataclasses.replace(self.spec, **execution._asdict())
        same._executor = Executor(execution)
        return same

    def is_near(self, execution: Execution) -> bool:
        """Whether the network runs so, and gives nearly the same maps as in float32, layer by layer."""
        return is_near(self._recorder.features, self.probe(), execution)

    def probe(self) -> torch.Tensor:
        """An image of noise, square, on the device, [1, 3, size, size]: always the same."""
        return noise(self.network, self.preprocessing.size)[:1]

    def prepare(self, images: Any) -> torch.Tensor:
        """Brings photographs to what `forward` and `class_maps` take: resized and normalised, on the device.

        Args:
          images: a photograph, or several in a list or in a batch [n, ...]: each a PIL image, or a uint8 array or
            tensor such as [height, width, 3]; see `preprocessing.rgb`.

        Returns:
          [n, 3, height, width], in the dtype of the network.

        Raises:
          ValueError: there is no image, or one that is no photograph; or shapes differ and the aspect is kept.
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

    @property
    def weights_bytes(self) -> int:
        """How many bytes the network's weights take."""
        return sum(value.nbytes for value in self.network.state_dict().values())

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the maps and what they are of; weights and names by their SHA-256, and no name of a machine."""
        return self.spec.settings() | {
            "classes": len(self.class_names),
            "class_names_sha256": hashlib.sha256(json.dumps(self.class_names).encode()).hexdigest(),
            "weights_sha256": self.weights_sha256,
        }

    def _executed(self) -> nn.Module:
        """The layers that make the last feature maps, as the spec asks for."""
        return self._executor.layers(self._recorder.features, self.probe)

    def _make(self) -> "Callable[..., Classifier]":
        """What makes a classifier with the options of this one."""
        return functools.partial(Classifier, multilabel=self.multilabel, training_record=self.training_record)
