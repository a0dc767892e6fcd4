"""Trains a classifier on image-level labels, for camboxes label --model CKPT.

DATA is what camboxes label reads: a folder of class folders, or a manifest with path and label or labels. Where every
image has exactly one label, classes exclude each other (softmax); else an image may have any number of them (sigmoid),
and one without a label shows none. The network is trained as its GAP conversion, so that class activation maps are
exact for it: the head on frozen features (--train head), or after that everything (--train all). It begins with the
pretrained weights of --model, or with another training's CKPT.
Part of the images is held out to choose the best epoch by, and to report how good it is; the choice flatters that
figure. Copies of an image, by content, are never on both sides. A folder of train/ and val/ with the class
folders below is split by these folders; test/ is left out.
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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camboxes.pipeline.options import fields
from camboxes.pipeline.options.network import NetworkOptions, assumed
from camboxes.pipeline.options.source import SourceOptions
from camboxes.pipeline.training.data import TrainingData

if TYPE_CHECKING:
    from camboxes.models import Classifier
    from camboxes.models.networks.by_name import Network
    from camboxes.models.training.loop import Outcome
    from camboxes.pipeline.training.copies import Copies
    from camboxes.transforms.planning.listing import Listing

_WORKING = ("features", "head", "everything")
_SHARE = 0.2  # of the pictures: to validate on
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is executed by spreadsheets
_USED_FOR = {"train": "trained on", "val": "validated on"}
# What a training may leave in its folder; training.json marks it as one, classifier.json as finished.
_CONTENTS = ("classifier.json", "weights.safetensors", "rejected.csv", "copies.csv", *_WORKING, "training.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    fields.add_arguments(parser, SourceOptions)
    parser.add_argument("--output", required=True, metavar="CKPT", help="local folder for the classifier")
    fields.add_arguments(parser, NetworkOptions)
    parser.add_argument(
        "--train", choices=["head", "all"], default="head", help="new layers, or after that all (default: head)"
    )
    parser.add_argument(
        "--epochs", type=int, default=30, metavar="N", help="at most; fewer where it stops to help (default: 30)"
    )
    parser.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help=f"share of each label's pictures that are kept to judge by (default: {_SHARE}; none where the input comes "
        "split)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one splits otherwise (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the training that CKPT holds")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline.errors import blaming_the_call, refuse_unknown
    from camboxes.pipeline.jobs import run_folder
    from camboxes.transforms import storage
    from camboxes.transforms.planning.listing import check_labels, read_source

    with contextlib.ExitStack() as held:
        with blaming_the_call():
            refuse_unknown(beam_arguments, "see camboxes train --help")
            _check(arguments)
            run_folder.check_output(arguments.output, arguments.input, arguments.model, contents=_CONTENTS)
            source = read_source(arguments.input, arguments.root)  # before torch: a wrong path is told at once
            check_labels(source.labels(), source.containers)
            data = TrainingData.of(source)
            data.check()
            share = _share(arguments, data)
            base = _load(arguments)
            converted = _converted(arguments, data, base)
            record = _record(arguments, data, base, share)
            held.enter_context(run_folder.locked(arguments.output))
            if arguments.overwrite and Path(arguments.output, "training.json").exists():
                run_folder.remove(arguments.output, _CONTENTS)
            _check_before(arguments.output, record)
        if Path(arguments.output, "classifier.json").exists():
            print(f"{arguments.output} holds this training, finished; --overwrite trains again")
            return
        storage.write_json(storage.join(arguments.output, "training.json"), record)
        _announce(arguments, source, data, base)
        _train(arguments, data, base, converted, record["settings"])


def _check(arguments: argparse.Namespace) -> None:
    import importlib.util

    from camboxes.transforms import storage

    if missing := [
        name for name in ("lightning", "torchmetrics", "imagehash") if importlib.util.find_spec(name) is None
    ]:
        raise ValueError(f'training needs {missing[0]}, which is not installed: pip install "camboxes[train]"')
    if "open_clip:" in arguments.model:
        raise ValueError(
            f"{arguments.model} is not trained: train another network, such as efficientnet_lite0, or put the labels "
            f"into words with camboxes label --model {arguments.model.removeprefix('gap:')} --prompts FILE"
        )
    if arguments.epochs < 1:
        raise ValueError(f"--epochs is {arguments.epochs}; expected at least 1")
    if arguments.validation is not None and not 0 <= arguments.validation < 1:
        raise ValueError(f"--validation is {arguments.validation}; expected a share from 0 to less than 1")
    if not storage.is_local(arguments.output):
        raise ValueError(f"--output {arguments.output!r} is no local folder; train to one, and copy it from there")


def _share(arguments: argparse.Namespace, data: TrainingData) -> float | None:
    """The share of the pictures to validate on; None where the data set comes split."""
    if not data.is_split:
        return _SHARE if arguments.validation is None else arguments.validation
    if arguments.validation is not None:
        raise ValueError(
            f"--validation is {arguments.validation}, and the input comes split, in folders "
            f"{', '.join(sorted(data.splits))}; leave --validation out, or name a manifest of all images to split them "
            "anew"
        )
    return None


def _load(arguments: argparse.Namespace) -> "Classifier":
    from camboxes.models import load_classifier

    spec = fields.job_from(arguments, NetworkOptions).model_spec()
    # Without weights of its own a conversion begins with those of the network that it converts.
    return load_classifier(spec if spec.weights else dataclasses.replace(spec, name=spec.name.removeprefix("gap:")))


def _converted(arguments: argparse.Namespace, data: TrainingData, base: "Classifier") -> "Network":
    import torch

    from camboxes.models.networks.by_name import Network
    from camboxes.models.networks.gap_conversions import gap_network

    torch.manual_seed(arguments.seed)  # a conversion has new layers
    return gap_network(Network(base.spec.name, base.network.cpu(), base.preprocessing), len(data.classes))


def _record(
    arguments: argparse.Namespace, data: TrainingData, base: "Classifier", share: float | None
) -> dict[str, Any]:
    from camboxes.pipeline.training.copies import RULE
    from camboxes.transforms import storage

    settings = {
        "network": base.spec.name,
        "weights_sha256": base.settings["weights_sha256"],
        "mean": list(base.preprocessing.mean),
        "std": list(base.preprocessing.std),
        "size": base.spec.size,
        "map_stride": base.spec.map_stride,
        "device": base.spec.device,
        "train": arguments.train,
        "epochs": arguments.epochs,
        "validation": share,
        "splits": dict(data.splits),
        "copies": RULE,
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
    # Files below another root may be others of the same names, and features are kept of the first.
    if before.get("root") != record["root"]:
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
    from camboxes.pipeline.reports import remarks

    kind = "any number of them an image (sigmoid)" if data.multilabel else "one an image (softmax)"
    what = {"head": "its head, on frozen features", "all": "its head, then everything"}[arguments.train]
    _say(
        f"{len(data.labels)} images, {len(data.classes)} labels, {kind}; "
        f"{base.spec.name} at {base.spec.size} on {base.spec.device}: {what}"
    )
    for note in assumed(fields.job_from(arguments, NetworkOptions), base):
        _say(note)
    if not base.spec.name.startswith("gap:"):
        _say(f"it is trained as its GAP conversion, gap:{base.spec.name}")
    if data.splits:
        used = _USED_FOR | {"test": f"left out ({source.images - len(data.labels)} images)"}
        uses = ", ".join(f"{folder} is {used[split]}" for folder, split in sorted(data.splits.items()))
        _say(f"the split of the folders is taken: {uses}")
    if source.repeated:
        _say(f"{source.repeated} repeated rows dropped")
    for remark in remarks.of_input(source.passed_over, {*source.labels()}, source.splits):
        _say(remark)
    if warning := remarks.look_up(source).remark():
        _say(warning)


def _train(
    arguments: argparse.Namespace,
    data: TrainingData,
    base: "Classifier",
    converted: "Network",
    settings: Mapping[str, Any],
) -> None:
    from tqdm import tqdm

    from camboxes.models import Classifier
    from camboxes.models.networks.gap_conversions import gap_network
    from camboxes.models.training.loop import train
    from camboxes.pipeline.training.copies import Copies
    from camboxes.pipeline.training.inputs import CachedFeatures, compute_features, examples, read_view

    output = Path(arguments.output)
    network: Any = converted.module.to(base.spec.device)
    rejected, prints = compute_features(data, base, network, output / "features")
    if rejected:
        _report(rejected, output / "rejected.csv")
    usable = data.without(rejected)
    if gone := sorted({*data.classes} - {*usable.classes}):
        _say(f"labels none of whose images can be used are left out: {_named(gone)}")
    copies = Copies.among(usable.labels, prints)
    if copies.pairs:
        _tell_copies(copies, usable, output / "copies.csv")
    if data.multilabel:
        usable = usable.joined(copies)
    training, validation = _sides(usable, copies, settings)
    found = usable.without(usable.labels.keys() - {*training, *validation})
    found.check()

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
        "copies": {"images": len(copies.pairs), "with_other_labels": len(copies.contradictions)},
    }
    _write(output, trained, {"settings": settings, **used}, outcome)
    _conclude(arguments, outcome, [name for name in ("rejected.csv", "copies.csv") if (output / name).exists()])


def _tell_copies(copies: "Copies", data: TrainingData, file: Path) -> None:
    from camboxes.pipeline.reports import remarks

    alike = sum(not copies.kind(*pair).startswith("same") for pair in copies.pairs)
    kinds = f"{len(copies.pairs) - alike} of the same bytes, {alike} encoded or resized anew"
    _say(f"{remarks.of_copies(len(copies.pairs), copies.pairs[0])}: {kinds}; see {file}")
    if copies.contradictions:
        pair = copies.contradictions[0]
        remark = remarks.of_other_labels(len(copies.contradictions), [(path, copies.labels[path]) for path in pair])
        now = "all of them are trained on with the labels of each" if data.multilabel else "each is trained on as it is"
        _say(f"{remark}. Now {now}")
    _write_table(file, ("path", "copy_of", "kind"), [(*pair, copies.kind(*pair)) for pair in copies.pairs])


def _sides(data: TrainingData, copies: "Copies", settings: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The paths to train on and to validate on; says what is not judged, and why."""
    from camboxes.pipeline.reports import remarks

    if data.is_split:
        training, validation, known = data.given_split(copies.first)
        if known:
            path, trained = map(remarks.on_one_line, known[0])
            _say(
                f"WARNING: images to validate on that are copies of images to train on: {len(known)}, such as {path} "
                f"of {trained}; they would flatter the figures, and are left out"
            )
        learnt = data.counts(training)
        if strange := sorted(data.counts(validation).keys() - learnt.keys()):
            _say(f"labels without images to train on are left out: {_named(strange)}")
        validation = [path for path in validation if learnt.keys() >= {*data.labels[path]}]
    else:
        training, validation = data.split(settings["validation"], settings["seed"], copies.first)
    if not validation:
        _say("no images to validate on: the last epoch is kept, and how good it is stays unknown")
    elif unjudged := sorted(data.counts(training).keys() - data.counts(validation).keys()):
        _say(f"labels of which no further picture is there to validate on are only trained on: {_named(unjudged)}")
    return training, validation


def _report(rejected: Mapping[str, str], file: Path) -> None:
    reasons = collections.Counter(reason.partition(":")[0] for reason in rejected.values())
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    _say(f"images that cannot be used: {len(rejected)} ({counted}); see {file}")
    _write_table(file, ("path", "reason"), rejected.items())


def _write_table(file: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a CSV file whose cells no spreadsheet executes: all but the last of a row are paths."""
    from camboxes.transforms import storage

    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    for row in rows:
        table.writerow([f"./{cell}" if cell.startswith(_FORMULA) else cell for cell in row])
    storage.write_bytes(str(file), text.getvalue().encode())


def _write(output: Path, trained: "Classifier", record: Mapping[str, Any], outcome: "Outcome") -> None:
    from camboxes.pipeline.jobs import run_folder
    from camboxes.transforms import storage

    figures = {
        name: {metric: round(value, 4) for metric, value in getattr(outcome, name).items()}
        for name in ("metrics", "guessing")
    }
    epochs = {"epochs": outcome.epochs, "epoch_chosen_on": "validation" if outcome.metrics else None}
    for name, content in trained.files({**record, **epochs, **figures}).items():
        storage.write_bytes(str(output / name), content)
    run_folder.remove(str(output), _WORKING)  # what only a training that was cut short needs


def _conclude(arguments: argparse.Namespace, outcome: "Outcome", lists: Sequence[str]) -> None:
    for name, value in outcome.metrics.items():
        guess = outcome.guessing[name]
        print(f"{name.replace('_', ' ')} {100 * value:.1f}% on validation images (guessing: {100 * guess:.1f}%)")
    if outcome.metrics:
        print("the epoch was chosen on the same images, so these figures flatter: the fewer images, the more")
    files = ["weights.safetensors", "classifier.json", *lists]
    output = arguments.output.rstrip("/")
    print(f"wrote {', '.join(str(Path(output, name)) for name in files)}")
    data = ["--input", arguments.input, *(["--root", arguments.root] if arguments.root else [])]
    call = ["camboxes", "label", "--model", output, *data, "--output", f"{output}-boxes"]
    print(f"draw boxes: {shlex.join(call)}")
