"""The options that say which network a command runs, and what is known about it."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camboxes.models import Classifier, ModelSpec
    from camboxes.models.networks.class_names import Names


def add_model_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declares the options that `model_spec` takes; gives their group."""
    model = parser.add_argument_group("network")
    model.add_argument(
        "--model",
        default="efficientnet_lite0",
        metavar="[torchvision:|timm:|open_clip:]NAME|CKPT",
        help="a classifier by name, or the folder that camboxes train wrote (default: %(default)s)",
    )
    model.add_argument(
        "--weights",
        metavar="FILE",
        help="local safetensors or state-dict file (default: the library's pretrained weights)",
    )
    for name in ("mean", "std"):
        model.add_argument(
            f"--{name}",
            type=_statistics,
            metavar="R,G,B",
            help=f"{name} of the images that the weights were trained with, for pixels from 0 to 1 (default: the "
            "library's, or the checkpoint's)",
        )
    model.add_argument(
        "--size", type=int, metavar="PIXELS", help="short side of the network's input (default: the weights')"
    )
    model.add_argument(
        "--map-stride", type=int, metavar="N", help="lower the last strides, for maps of N input pixels per cell"
    )
    model.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: cuda where there is one"
    )
    return model


def add_class_arguments(model: argparse._ArgumentGroup) -> None:
    """Declares the options that `with_classes` takes: what the network's outputs are."""
    model.add_argument(
        "--classes",
        metavar="FILE",
        help="the class names in the order of the network's outputs: a text with one a line, or .json with a list or "
        "an object, such as ImageFolder's class_to_idx (default: the checkpoint's, or ImageNet's; see "
        "docs/own_networks.md)",
    )
    model.add_argument(
        "--multilabel",
        action="store_const",
        const=True,
        help="read each output by itself, by its sigmoid (default: what the checkpoint says, else softmax; of a single "
        "output always)",
    )
    model.add_argument(
        "--prompts",
        metavar="FILE",
        help="for open_clip:NAME: the classes, one label a line, or LABEL: NAME, NAME (docs/prompts.md)",
    )


def model_spec(arguments: argparse.Namespace, scales: Sequence[int] = ()) -> "ModelSpec":
    """The spec that the options of `add_model_arguments` ask for; the first of several scales is its size.

    Raises:
      ValueError: a value out of its range, or both a size and scales.
    """
    from camboxes.models import ModelSpec

    if scales and arguments.size:
        raise ValueError(f"--size {arguments.size} and --scales were both given; the first of the scales is the size")
    return ModelSpec(
        arguments.model,
        arguments.weights,
        scales[0] if scales else arguments.size,
        map_stride=arguments.map_stride,
        device=arguments.device,
        mean=arguments.mean,
        std=arguments.std,
    )


def with_classes(spec: "ModelSpec", arguments: argparse.Namespace) -> "ModelSpec":
    """The spec with what the options of `add_class_arguments` say.

    Raises:
      ValueError: there is no such file, or it cannot be read as what it should be.
      OSError: it cannot be read.
    """
    prompts = None if arguments.prompts is None else tuple(_text("prompts", arguments.prompts).splitlines())
    names = None if arguments.classes is None else _class_names(arguments.classes)
    return dataclasses.replace(spec, prompts=prompts, classes=names, multilabel=arguments.multilabel)


def assumed(arguments: argparse.Namespace, classifier: "Classifier") -> list[str]:
    """A line on what was assumed of weights from a file, of which it says nothing itself; none where nothing was."""
    if arguments.weights is None or classifier.spec.name.startswith("open_clip:"):
        return []
    spec, count = classifier.spec, len(classifier.class_names)
    of_imagenet = f"the names of ImageNet's {count:,} classes"
    values = {
        "classes": of_imagenet if classifier.class_names[0] else f"no names for its {count:,} classes",
        "mean": f"mean {_joined(spec.mean)}",
        "std": f"std {_joined(spec.std)}",
        "multilabel": "sigmoid, for it has a single output" if count == 1 else "softmax",
    }
    left_out = {name: text for name, text in values.items() if name in arguments and getattr(arguments, name) is None}
    options = ", ".join(f"--{name}" for name in left_out)
    return [f"assumed of {arguments.weights}: {', '.join(left_out.values())} ({options})"] if left_out else []


def _joined(values: "Sequence[float] | None") -> str:
    return ",".join(f"{value:g}" for value in values or ())


def _statistics(text: str) -> tuple[float, ...]:
    from camboxes.models.spec import check_statistics

    try:
        values = tuple(float(value) for value in text.split(","))
        check_statistics("it", values)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not R,G,B, such as 0.5,0.5,0.5 ({error})") from None
    return values


def _class_names(path: str) -> "Names":
    import json

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
