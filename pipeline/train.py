"""Trains a classifier on image-level labels, for camboxes label --model CKPT.

DATA is what camboxes label reads: a folder of class folders, or a manifest with path and label or labels. Where every
image has exactly one label, classes exclude each other (softmax); else an image may have any number of them (sigmoid),
and one without a label shows none. The network is trained as its GAP conversion, so that class activation maps are
exact for it: the head on frozen features (--train head), or after that everything (--train all).
Called again with the same options, a training that was cut short continues.
"""

import argparse
import collections
import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from camboxes.models import Classifier
    from camboxes.models.conversions import GapNetwork
    from camboxes.models.preprocessing import Preprocessing
    from camboxes.models.training import Examples, Outcome
    from camboxes.transforms.sources import Source

_WORKING = ("features", "head", "everything")
# What a training may leave in its folder; training.json marks it as one, classifier.json as finished.
_CONTENTS = (
    "classifier.json",
    "weights.safetensors",
    "rejected.csv",
    *_WORKING,
    "training.json",
)

_CHUNK = 256  # images in a file of features


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--input", required=True, metavar="DATA", help="class folders or a manifest (see above)")
    parser.add_argument("--output", required=True, metavar="CKPT", help="local folder for the classifier")
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="what a manifest's paths are relative to (default: its folder); nothing outside is read",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--model",
        default="efficientnet_lite0",
        metavar="[gap:]NAME",
        help="a network of torchvision or timm, or another training's CKPT to begin with (default: %(default)s)",
    )
    network.add_argument(
        "--weights",
        metavar="FILE",
        help="local safetensors or state-dict file (default: the library's pretrained ones)",
    )
    network.add_argument("--size", type=int, metavar="PIXELS", help="side of the input (default: the weights')")
    network.add_argument(
        "--map-stride", type=int, metavar="N", help="input pixels per cell of the maps (default: the network's)"
    )
    network.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: cuda where there is one"
    )
    parser.add_argument(
        "--train",
        choices=["head", "all"],
        default="head",
        help="the new layers alone, or after that all of them (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=30,
        metavar="N",
        help="at most; fewer where it stops to help (default: %(default)s)",
    )
    parser.add_argument(
        "--validation",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of each label's images that are kept to judge by (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one splits otherwise (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the training that CKPT holds")


@dataclasses.dataclass(frozen=True)
class _Data:
    """A data set to train on.

    Attributes:
      root: see `Source`.
      labels: for each image's path its labels, in the order of the paths.
      classes: all labels, sorted.
      multilabel: whether an image may have another number of labels than one.
    """

    root: str
    labels: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    multilabel: bool

    @classmethod
    def of(cls, source: "Source") -> "_Data":
        labels = dict(sorted(source.labels.items()))
        classes = tuple(sorted({label for of_image in labels.values() for label in of_image}))
        return cls(source.root, labels, classes, any(len(of_image) != 1 for of_image in labels.values()))

    def without(self, paths: Mapping[str, str]) -> "_Data":
        """The rest of the images, and the labels that these have."""
        labels = {path: of_image for path, of_image in self.labels.items() if path not in paths}
        classes = {label for of_image in labels.values() for label in of_image}
        return dataclasses.replace(self, labels=labels, classes=tuple(sorted(classes)))

    def check(self) -> None:
        """Raises a ValueError where there is nothing to learn."""
        if not self.classes:
            raise ValueError("no image has a label; expected at least two labels, or one and images without it")
        if len(self.classes) == 1 and all(self.labels.values()):
            raise ValueError(
                f"all images are labelled {self.classes[0]!r}, so there is nothing to tell it from; add images of a "
                "background class, or, in a manifest, images with an empty label"
            )

    def fingerprint(self) -> str:
        """SHA-256 of paths and labels."""
        return hashlib.sha256(json.dumps([*self.labels.items()], ensure_ascii=False).encode()).hexdigest()


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline import runs
    from camboxes.pipeline.errors import CallError, blaming_the_call
    from camboxes.transforms import storage
    from camboxes.transforms.sources import read_source

    with contextlib.ExitStack() as held:
        with blaming_the_call():
            if beam_arguments:
                raise CallError(f"unknown option {' '.join(beam_arguments)}; see camboxes train --help")
            _check(arguments)
            runs.check_output(arguments.output, arguments.input, arguments.model)
            source = read_source(arguments.input, arguments.root)  # before torch: a wrong path is told at once
            data = _Data.of(source)
            data.check()
            base = _load(arguments)
            record = _record(arguments, data, base)
            held.enter_context(runs.locked(arguments.output))
            _check_contents(arguments.output)
            if arguments.overwrite:
                runs.remove(arguments.output, _CONTENTS)
            _check_same(arguments.output, record)
        if storage.exists(storage.join(arguments.output, "classifier.json")):
            print(f"{arguments.output} holds this training, finished; --overwrite trains again")
            return
        storage.write_json(storage.join(arguments.output, "training.json"), record)
        _announce(arguments, source, data, base)
        try:
            _train(arguments, data, base, record)
        except KeyboardInterrupt:
            raise RuntimeError("interrupted; the same call goes on where it stopped") from None


def _check(arguments: argparse.Namespace) -> None:
    import importlib.util

    from camboxes.transforms import storage

    if importlib.util.find_spec("lightning") is None:
        raise ValueError('training needs lightning, which is not installed: pip install "camboxes[train]"')
    if arguments.epochs < 1:
        raise ValueError(f"--epochs is {arguments.epochs}; expected at least 1")
    if not 0 <= arguments.validation < 1:
        raise ValueError(f"--validation is {arguments.validation}; expected a share from 0 to less than 1")
    if not storage.is_local(arguments.output):
        raise ValueError(f"--output {arguments.output!r} is no local folder; train to one, and copy it from there")


def _load(arguments: argparse.Namespace) -> "Classifier":
    from camboxes.models import ModelSpec, load_classifier

    # Without weights of its own a conversion begins with those of the network that it converts.
    name = arguments.model if arguments.weights else arguments.model.removeprefix("gap:")
    return load_classifier(
        ModelSpec(name, arguments.weights, arguments.size, map_stride=arguments.map_stride, device=arguments.device)
    )


def _record(arguments: argparse.Namespace, data: _Data, base: "Classifier") -> dict[str, Any]:
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
    return {"schema_version": 1, "settings": settings, "images": len(data.labels), "input": data.fingerprint()}


def _check_contents(output: str) -> None:
    others = [name for name in _CONTENTS if Path(output, name).exists()]
    if others and not Path(output, "training.json").exists():
        raise ValueError(
            f"--output {output!r} holds {', '.join(others)}, which no training has left there (training.json is "
            "missing); choose another folder"
        )


def _check_same(output: str, record: Mapping[str, Any]) -> None:
    from camboxes.pipeline.errors import CallError
    from camboxes.transforms import storage

    path = storage.join(output, "training.json")
    if not storage.exists(path):
        return
    before = storage.read_json(path)
    now = record["settings"]
    differences = [
        f"{name} was {json.dumps(before['settings'].get(name))}, is {json.dumps(now[name])}"
        for name in now
        if before["settings"].get(name) != now[name]
    ]
    if before["input"] != record["input"]:
        differences.append(
            f"the input's paths or labels changed ({before['images']} images then, {record['images']} now)"
        )
    if differences:
        raise CallError(
            f"--output {output!r} holds another training: {'; '.join(differences)}. "
            "Choose another folder, or replace it with --overwrite"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _named(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")


def _announce(arguments: argparse.Namespace, source: "Source", data: _Data, base: "Classifier") -> None:
    kind = "any number of them an image (sigmoid)" if data.multilabel else "one an image (softmax)"
    what = {"head": "its head, on frozen features", "all": "its head, then everything"}[arguments.train]
    _say(
        f"{len(data.labels)} images, {len(data.classes)} labels, {kind}; "
        f"{base.spec.name} at {base.spec.size} on {base.spec.device}: {what}"
    )
    if not base.spec.name.startswith("gap:"):
        _say(f"it is trained as its GAP conversion, gap:{base.spec.name}")
    counts = collections.Counter(label for labels in data.labels.values() for label in labels)
    if arguments.validation and (once := sorted(label for label, count in counts.items() if count == 1)):
        _say(f"labels that occur once are trained on, not validated: {_named(once)}")
    if source.repeated:
        _say(f"{source.repeated} repeated rows dropped")
    if source.passed_over:
        _say(f"{source.passed_over} files passed over: no image by name, or in no class folder")
    folder = Path(arguments.input)
    if folder.is_dir() and (
        empty := sorted(
            part.name
            for part in folder.iterdir()
            if part.is_dir() and not part.name.startswith(".") and part.name not in data.classes
        )
    ):
        _say(f"class folders without images are left out: {_named(empty)}")


def _train(arguments: argparse.Namespace, data: _Data, base: "Classifier", record: Mapping[str, Any]) -> None:
    import torch

    from camboxes.models import Classifier
    from camboxes.models.conversions import gap_network
    from camboxes.models.networks import Network
    from camboxes.models.training import Recipe, train
    from camboxes.transforms import storage

    output = Path(arguments.output)
    torch.manual_seed(arguments.seed)  # a conversion has new layers
    converted = gap_network(Network(base.spec.name, base.network.cpu(), base.preprocessing), len(data.classes))
    network: Any = converted.module.to(base.spec.device)
    rejected = _compute_features(data, base, network, output / "features")
    if rejected:
        reasons = collections.Counter(reason.partition(":")[0] for reason in rejected.values())
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        _say(f"images that cannot be used: {len(rejected)} ({counted}); see {output / 'rejected.csv'}")
        storage.write_bytes(str(output / "rejected.csv"), _csv([("path", "reason"), *rejected.items()]))
    found = data.without(rejected)
    if gone := sorted({*data.classes} - {*found.classes}):
        _say(f"labels none of whose images can be used are left out: {_named(gone)}")
    found.check()
    training, validation = _split(found.labels, arguments.validation, arguments.seed)
    if not validation:
        _say("no images to validate on: the last epoch is kept, and how good it is stays unknown")

    network = gap_network(converted, len(found.classes)).module
    reads: dict[str, Any] = {"head": _CachedFeatures(output / "features", [*data.labels])}
    if arguments.train == "all":
        reads["everything"] = _Photographs(data.root, base.preprocessing, arguments.seed)
    for part, read in reads.items():
        with _bar(f"training {part}", arguments.epochs * len(training)) as update:
            outcome = train(
                network,
                base.preprocessing,
                _examples(found, training, read),
                _examples(found, validation, read) if validation else None,
                Recipe(part == "everything", arguments.epochs, arguments.seed, base.spec.device),
                folder=output / part,
                progress=update,
            )
    names = [(label,) for label in found.classes]
    spec = dataclasses.replace(base.spec, name=converted.name)
    trained = Classifier(network.eval(), base.preprocessing, spec, names, multilabel=data.multilabel)
    sides = {"training": training, "validation": validation}
    _write(output, trained, record["settings"], _counted(found, sides, len(rejected)), outcome)
    _conclude(arguments, outcome, rejected)


@contextlib.contextmanager
def _bar(what: str, images: int) -> Iterator[Any]:
    """Shows how many images are done, their rate and the time left, where stderr is a terminal."""
    from tqdm import tqdm

    with tqdm(total=images, desc=what, unit="image", disable=None) as bar:
        yield bar.update


def _photograph(root: str, path: str) -> "np.ndarray":
    """Reads an image below the root. Raises BadImageError."""
    from camboxes.transforms import storage
    from camboxes.transforms.images import BadImageError, decode

    if path.startswith(("/", "../")) or path == ".." or "://" in path:
        raise BadImageError("outside_root", "the path leads outside the input root, where nothing is read")
    try:
        data = storage.read_bytes(storage.join(root, path))
    except FileNotFoundError:
        raise BadImageError("missing", "there is no file at this path") from None
    except Exception as error:  # a folder, no permission, a store's own errors
        raise BadImageError("unreadable", f"{type(error).__name__}: {error}") from error
    return decode(data)


def _compute_features(data: _Data, base: "Classifier", network: "GapNetwork", folder: Path) -> dict[str, str]:
    """Writes the features of all images, _CHUNK of them a file; files that there are already are kept.

    Returns:
      For each image that cannot be used the reason. Its features are zeros.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import torch

    from camboxes.models import passes_side_by_side, use_one_core
    from camboxes.models.training import frozen_features
    from camboxes.transforms import storage
    from camboxes.transforms.images import BadImageError
    from camboxes.transforms.overlap import ahead

    size, batch_size, side_by_side = base.preprocessing.size, base.spec.batch_size or 1, passes_side_by_side(base)
    rejected: dict[str, str] = {}

    def read(path: str) -> "torch.Tensor":
        try:
            return base.preprocessing.resize(_photograph(data.root, path))
        except BadImageError as error:
            rejected[path] = str(error)
            return torch.zeros((3, size, size), dtype=torch.uint8)

    def infer(images: "list[torch.Tensor]") -> "np.ndarray":
        batch = torch.zeros((batch_size, 3, size, size), dtype=torch.uint8)  # of one shape: its bits depend on it
        batch[: len(images)] = torch.stack(images)
        return frozen_features(network, base.normalize(batch))[: len(images)].cpu().numpy()

    with (
        _bar("features", len(data.labels)) as update,
        ThreadPoolExecutor(2) as readers,
        ThreadPoolExecutor(side_by_side, initializer=use_one_core) as passes,
    ):
        for number, paths in enumerate(_batches(data.labels, _CHUNK)):
            file, reasons = (folder / f"{number:06d}{suffix}" for suffix in (".npy", ".json"))
            if not file.exists():
                batches = _batches(ahead("decode", readers, read, paths, 4 * batch_size), batch_size)
                features = np.concatenate([*ahead("forward", passes, infer, batches, side_by_side)])
                for path, finite in zip(paths, np.isfinite(features).all((1, 2, 3)), strict=True):
                    if not finite:
                        rejected.setdefault(path, "not_finite: the network's output holds NaN or infinity")
                storage.write_json(str(reasons), {path: rejected[path] for path in paths if path in rejected})
                array = io.BytesIO()
                np.save(array, features)
                storage.write_bytes(str(file), array.getvalue())  # last: it marks the chunk as done
            rejected |= storage.read_json(str(reasons))
            update(len(paths))
    return dict(sorted(rejected.items()))


def _batches(items: Any, size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch


class _CachedFeatures:
    """Reads an image's features from what `_compute_features` wrote."""

    def __init__(self, folder: Path, paths: Sequence[str]):
        import numpy as np

        self._places = {path: divmod(index, _CHUNK) for index, path in enumerate(paths)}
        self._chunks = [np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))]

    def __call__(self, path: str, epoch: int | None) -> "torch.Tensor":
        import torch

        chunk, row = self._places[path]
        return torch.from_numpy(self._chunks[chunk][row].copy())


@dataclasses.dataclass(frozen=True)
class _Photographs:
    """Reads an image: for an epoch of training another view of it each time, else the whole of it."""

    root: str
    preprocessing: "Preprocessing"
    seed: int

    def __call__(self, path: str, epoch: int | None) -> "torch.Tensor":
        from camboxes.models.training import augment

        photograph = _photograph(self.root, path)
        if epoch is None:
            return self.preprocessing.resize(photograph)
        return augment(photograph, self.preprocessing.size, _hash(f"{self.seed}:{epoch}:{path}"))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _split(labels: Mapping[str, tuple[str, ...]], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Paths to train on, and to validate on: a share of the images of each label, at least one where there are two.

    An image with several labels goes by the rarest of them. The seed and the paths decide.
    """
    counts = collections.Counter(label for of_image in labels.values() for label in of_image)
    strata: dict[str, list[str]] = collections.defaultdict(list)
    for path, of_image in labels.items():
        strata[min(of_image, key=lambda label: (counts[label], label), default="")].append(path)
    validation: set[str] = set()
    for paths in strata.values():
        wanted = min(max(1, round(share * len(paths))), len(paths) - 1) if share else 0
        validation.update(sorted(paths, key=lambda path: _hash(f"{seed}:{path}"))[:wanted])
    trained = {label for path in labels if path not in validation for label in labels[path]}
    validation = {path for path in validation if trained.issuperset(labels[path])}
    if not any(labels[path] for path in validation):  # nothing but images without a label
        validation.clear()
    return [path for path in labels if path not in validation], [path for path in labels if path in validation]


def _examples(data: _Data, paths: Sequence[str], read: Any) -> "Examples":
    import torch

    from camboxes.models.training import Examples

    index = {label: position for position, label in enumerate(data.classes)}
    if data.multilabel:
        targets = torch.zeros(len(paths), len(index))
        for row, path in zip(targets, paths, strict=True):
            row[[index[label] for label in data.labels[path]]] = 1
    else:
        targets = torch.tensor([index[data.labels[path][0]] for path in paths])
    return Examples(paths, read, targets, len(index))


def _counted(data: _Data, sides: Mapping[str, Sequence[str]], rejected: int) -> dict[str, Any]:
    """How many images and, for each label, how many of its images were used for what."""
    counts = {
        side: collections.Counter(x for path in paths for x in data.labels[path]) for side, paths in sides.items()
    }
    return {
        "images": {side: len(paths) for side, paths in sides.items()} | {"rejected": rejected},
        "labels": {label: {side: counts[side][label] for side in sides} for label in data.classes},
    }


def _write(
    output: Path, trained: "Classifier", settings: Mapping[str, Any], counts: Mapping[str, Any], outcome: "Outcome"
) -> None:
    from camboxes.models.checkpoints import DESCRIPTION, WEIGHTS, Description
    from camboxes.pipeline import runs
    from camboxes.transforms import storage

    figures = {
        name: {metric: round(value, 4) for metric, value in getattr(outcome, name).items()}
        for name in ("metrics", "guessing")
    }
    description = Description(
        trained.spec.name,
        tuple(trained.class_names),
        trained.preprocessing,
        trained.multilabel,
        trained.spec.map_stride,
        {"settings": settings, **counts, "epochs": outcome.epochs, **figures},
    )
    storage.write_bytes(str(output / WEIGHTS), trained.safetensors())
    storage.write_bytes(str(output / DESCRIPTION), description.to_json())
    runs.remove(str(output), _WORKING)  # what only a training that was cut short needs


def _conclude(arguments: argparse.Namespace, outcome: "Outcome", rejected: Mapping[str, str]) -> None:
    for name, value in outcome.metrics.items():
        guess = outcome.guessing[name]
        print(f"{name.replace('_', ' ')} {100 * value:.1f}% on validation images (guessing: {100 * guess:.1f}%)")
    files = ["weights.safetensors", "classifier.json", *(["rejected.csv"] if rejected else [])]
    output = arguments.output.rstrip("/")
    print(f"wrote {', '.join(str(Path(output, name)) for name in files)}")
    data = f"--input {arguments.input}" + (f" --root {arguments.root}" if arguments.root else "")
    print(f"draw boxes: camboxes label --model {output} {data} --output {output}-boxes")


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
