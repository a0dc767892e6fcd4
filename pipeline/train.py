"""Trains a classifier on image-level labels, for camboxes label --model CKPT.

DATA is what camboxes label reads: a folder of class folders, or a manifest with path and label or labels. Where every
image has exactly one label, classes exclude each other (softmax); else an image may have any number of them (sigmoid),
and one without a label shows none. The network is trained as its GAP conversion, so that class activation maps are
exact for it: the head on frozen features (--train head), or after that everything (--train all). It begins with the
pretrained weights of --model, or with another training's CKPT.
Called again with the same options, a training that was cut short continues.
"""

import argparse
import collections
import contextlib
import csv
import dataclasses
import functools
import io
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camboxes.pipeline.label import add_model_arguments, add_source_arguments, model_spec
from camboxes.pipeline.training_data import TrainingData

if TYPE_CHECKING:
    from camboxes.models import Classifier
    from camboxes.models.training import Outcome
    from camboxes.transforms.listing import Listing

_WORKING = ("features", "head", "everything")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is executed by spreadsheets
# What a training may leave in its folder; training.json marks it as one, classifier.json as finished.
_CONTENTS = ("classifier.json", "weights.safetensors", "rejected.csv", *_WORKING, "training.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    add_source_arguments(parser)
    parser.add_argument("--output", required=True, metavar="CKPT", help="local folder for the classifier")
    add_model_arguments(parser)
    parser.add_argument(
        "--train", choices=["head", "all"], default="head", help="new layers, or after that all (default: head)"
    )
    parser.add_argument(
        "--epochs", type=int, default=30, metavar="N", help="at most; fewer where it stops to help (default: 30)"
    )
    parser.add_argument(
        "--validation",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of each label's images that are kept to judge by (default: 0.2)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one splits otherwise (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the training that CKPT holds")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline import runs
    from camboxes.pipeline.errors import blaming_the_call, refuse_unknown
    from camboxes.transforms import storage
    from camboxes.transforms.listing import check_labels, read_source

    with contextlib.ExitStack() as held:
        with blaming_the_call():
            refuse_unknown(beam_arguments, "see camboxes train --help")
            _check(arguments)
            runs.check_output(arguments.output, arguments.input, arguments.model, contents=_CONTENTS)
            source = read_source(arguments.input, arguments.root)  # before torch: a wrong path is told at once
            check_labels(source.labels(), source.containers)
            data = TrainingData.of(source)
            data.check()
            base = _load(arguments)
            record = _record(arguments, data, base)
            held.enter_context(runs.locked(arguments.output))
            if arguments.overwrite and Path(arguments.output, "training.json").exists():
                runs.remove(arguments.output, _CONTENTS)
            _check_before(arguments.output, record)
        if Path(arguments.output, "classifier.json").exists():
            print(f"{arguments.output} holds this training, finished; --overwrite trains again")
            return
        storage.write_json(storage.join(arguments.output, "training.json"), record)
        _announce(arguments, source, data, base)
        _train(arguments, data, base, record["settings"])


def _check(arguments: argparse.Namespace) -> None:
    import importlib.util

    from camboxes.transforms import storage

    if importlib.util.find_spec("lightning") is None:
        raise ValueError('training needs lightning, which is not installed: pip install "camboxes[train]"')
    if "open_clip:" in arguments.model:
        raise ValueError(
            f"{arguments.model} is not trained: train another network, such as efficientnet_lite0, or put the labels "
            f"into words with camboxes label --model {arguments.model.removeprefix('gap:')} --prompts FILE"
        )
    if arguments.epochs < 1:
        raise ValueError(f"--epochs is {arguments.epochs}; expected at least 1")
    if not 0 <= arguments.validation < 1:
        raise ValueError(f"--validation is {arguments.validation}; expected a share from 0 to less than 1")
    if not storage.is_local(arguments.output):
        raise ValueError(f"--output {arguments.output!r} is no local folder; train to one, and copy it from there")


def _load(arguments: argparse.Namespace) -> "Classifier":
    from camboxes.models import load_classifier

    spec = model_spec(arguments)
    # Without weights of its own a conversion begins with those of the network that it converts.
    return load_classifier(spec if spec.weights else dataclasses.replace(spec, name=spec.name.removeprefix("gap:")))


def _record(arguments: argparse.Namespace, data: TrainingData, base: "Classifier") -> dict[str, Any]:
    from camboxes.transforms import storage

    settings = {
        "network": base.spec.name,
        "weights_sha256": base.settings["weights_sha256"],
        "size": base.spec.size,
        "map_stride": base.spec.map_stride,
        "device": base.spec.device,
        "train": arguments.train,
        "epochs": arguments.epochs,
        "validation": arguments.validation,
        "seed": arguments.seed,
    }
    root = str(Path(data.root).resolve()) if storage.is_local(data.root) else data.root
    images = {"images": len(data.labels), "root": root, "input": data.fingerprint()}
    return {"schema_version": 1, "settings": settings, **images}


def _check_before(output: str, record: Mapping[str, Any]) -> None:
    """Raises a ValueError where the folder holds another training, or what is none."""
    from camboxes.transforms import storage

    file = Path(output, "training.json")
    others = [name for name in _CONTENTS if Path(output, name).exists()]
    if others and not file.exists():
        raise ValueError(
            f"--output {output!r} holds {', '.join(others)}, which no training has left there (training.json is "
            "missing); choose another folder"
        )
    before = storage.read_json(str(file)) if others else record
    differences = [
        f"{name} was {json.dumps(before['settings'].get(name))}, is {json.dumps(value)}"
        for name, value in record["settings"].items()
        if before["settings"].get(name) != value
    ]
    if before["input"] != record["input"]:
        differences.append(
            f"the input's paths or labels changed ({before['images']} images then, {record['images']} now)"
        )
    if (
        before.get("root") != record["root"]
    ):  # its files may be others of the same names; features are kept of the first
        differences.append(f"the images lay below {before.get('root')!r}, lie below {record['root']!r}")
    if differences:
        raise ValueError(
            f"--output {output!r} holds another training: {'; '.join(differences)}. "
            "Choose another folder, or replace it with --overwrite"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _named(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")


def _announce(arguments: argparse.Namespace, source: "Listing", data: TrainingData, base: "Classifier") -> None:
    from camboxes.pipeline import remarks

    kind = "any number of them an image (sigmoid)" if data.multilabel else "one an image (softmax)"
    what = {"head": "its head, on frozen features", "all": "its head, then everything"}[arguments.train]
    _say(
        f"{len(data.labels)} images, {len(data.classes)} labels, {kind}; "
        f"{base.spec.name} at {base.spec.size} on {base.spec.device}: {what}"
    )
    if not base.spec.name.startswith("gap:"):
        _say(f"it is trained as its GAP conversion, gap:{base.spec.name}")
    once = sorted(label for label, count in data.counts(data.labels).items() if count == 1)
    if once and arguments.validation:
        _say(f"labels that occur once are trained on, not validated: {_named(once)}")
    if source.repeated:
        _say(f"{source.repeated} repeated rows dropped")
    for remark in remarks.of_input(source.passed_over, data.classes, source.splits):
        _say(remark)
    if warning := remarks.look_up(source).remark():
        _say(warning)


def _train(arguments: argparse.Namespace, data: TrainingData, base: "Classifier", settings: Mapping[str, Any]) -> None:
    import torch
    from tqdm import tqdm

    from camboxes.models import Classifier
    from camboxes.models.conversions import gap_network
    from camboxes.models.networks import Network
    from camboxes.models.training import train
    from camboxes.pipeline.training_inputs import CachedFeatures, compute_features, examples, read_view

    output = Path(arguments.output)
    torch.manual_seed(arguments.seed)  # a conversion has new layers
    converted = gap_network(Network(base.spec.name, base.network.cpu(), base.preprocessing), len(data.classes))
    network: Any = converted.module.to(base.spec.device)
    rejected = compute_features(data, base, network, output / "features")
    if rejected:
        _report(rejected, output / "rejected.csv")
    found = data.without(rejected)
    if gone := sorted({*data.classes} - {*found.classes}):
        _say(f"labels none of whose images can be used are left out: {_named(gone)}")
    found.check()
    training, validation = found.split(arguments.validation, arguments.seed)
    if not validation:
        _say("no images to validate on: the last epoch is kept, and how good it is stays unknown")

    network = gap_network(converted, len(found.classes)).module
    reads: dict[str, Any] = {"head": CachedFeatures(output / "features", data.labels)}
    if arguments.train == "all":
        reads["everything"] = functools.partial(
            read_view, root=data.root, preprocessing=base.preprocessing, seed=arguments.seed
        )
    images = arguments.epochs * len(training)
    for part, read in reads.items():
        with tqdm(total=images, desc=f"training {part}", unit="image", disable=None) as bar:
            outcome = train(
                network,
                base.preprocessing,
                examples(found, training, read),
                examples(found, validation, read) if validation else None,
                everything=part == "everything",
                epochs=arguments.epochs,
                seed=arguments.seed,
                device=base.spec.device,
                folder=output / part,
                progress=bar.update,
            )
    names = [(label,) for label in found.classes]
    spec = dataclasses.replace(base.spec, name=converted.name)
    trained = Classifier(network.eval(), base.preprocessing, spec, names, multilabel=data.multilabel)
    sides = {"training": training, "validation": validation}
    counts = {side: found.counts(paths) for side, paths in sides.items()}
    used = {
        "images": {side: len(paths) for side, paths in sides.items()} | {"rejected": len(rejected)},
        "labels": {label: {side: counts[side][label] for side in sides} for label in found.classes},
    }
    _write(output, trained, {"settings": settings, **used}, outcome)
    _conclude(arguments, outcome, rejected)


def _report(rejected: Mapping[str, str], file: Path) -> None:
    from camboxes.transforms import storage

    reasons = collections.Counter(reason.partition(":")[0] for reason in rejected.values())
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    _say(f"images that cannot be used: {len(rejected)} ({counted}); see {file}")
    text = io.StringIO(newline="")
    inert = {f"./{path}" if path.startswith(_FORMULA) else path: reason for path, reason in rejected.items()}
    csv.writer(text, lineterminator="\n").writerows([("path", "reason"), *inert.items()])
    storage.write_bytes(str(file), text.getvalue().encode())


def _write(output: Path, trained: "Classifier", record: Mapping[str, Any], outcome: "Outcome") -> None:
    from camboxes.pipeline import runs
    from camboxes.transforms import storage

    figures = {
        name: {metric: round(value, 4) for metric, value in getattr(outcome, name).items()}
        for name in ("metrics", "guessing")
    }
    for name, content in trained.files({**record, "epochs": outcome.epochs, **figures}).items():
        storage.write_bytes(str(output / name), content)
    runs.remove(str(output), _WORKING)  # what only a training that was cut short needs


def _conclude(arguments: argparse.Namespace, outcome: "Outcome", rejected: Mapping[str, str]) -> None:
    for name, value in outcome.metrics.items():
        guess = outcome.guessing[name]
        print(f"{name.replace('_', ' ')} {100 * value:.1f}% on validation images (guessing: {100 * guess:.1f}%)")
    files = ["weights.safetensors", "classifier.json", *(["rejected.csv"] if rejected else [])]
    output = arguments.output.rstrip("/")
    print(f"wrote {', '.join(str(Path(output, name)) for name in files)}")
    data = ["--input", arguments.input, *(["--root", arguments.root] if arguments.root else [])]
    call = ["camboxes", "label", "--model", output, *data, "--output", f"{output}-boxes"]
    print(f"draw boxes: {shlex.join(call)}")
