"""A classifier trained on image-level labels: the job of `camboxes train`."""

import contextlib
import dataclasses
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from camboxes.models.counts import counted
from camboxes.pipeline import interrupts
from camboxes.pipeline.errors import blaming_the_call
from camboxes.pipeline.options.data import SourceOptions, background_option
from camboxes.pipeline.options.fields import option
from camboxes.pipeline.options.network import NetworkOptions, assumed
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    from camboxes.models import Classifier
    from camboxes.models.networks.by_name import Network
    from camboxes.models.training.loop import Outcome
    from camboxes.pipeline.training.data import TrainingData
    from camboxes.transforms.planning.listing import Listing

_SHARE = 0.2  # of the pictures: to validate on


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Folders(SourceOptions):
    output: str = option(help="local folder for the classifier", metavar="CKPT")
    background: tuple[str, ...] = background_option()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainJob(NetworkOptions, _Folders):
    """What to train, and how. Its fields are the options of `camboxes train`, whose help describes them."""

    train: str = option("head", "train the new layers only, or then all layers", choices=["head", "all"])
    epochs: int = option(
        30, "largest number of epochs; training stops earlier if it no longer helps", type=int, metavar="N"
    )
    validation: float | None = option(
        None,
        "share of each label's images that is held out for validation",
        stated=f"{_SHARE}; none if the input has splits",
        type=float,
        metavar="SHARE",
    )
    seed: int = option(0, "decides which images are held out", type=int, metavar="N")
    overwrite: bool = option(False, "replace the training that CKPT holds")


@dataclasses.dataclass(frozen=True)
class TrainedClassifier:
    """A finished training.

    Attributes:
      path: the folder; `LabelJob(model=path)` and `ModelSpec(path)` take it.
      metrics: figures on the validation images, each in [0, 1]; empty without such images.
      guessing: what guessing would give for each of them.
      written: the files that this call wrote in the folder; none where the training was finished before.
    """

    path: str
    metrics: Mapping[str, float]
    guessing: Mapping[str, float]
    written: tuple[str, ...]


def train(job: TrainJob, reporter: Reporter = LOG) -> TrainedClassifier:
    """Trains a classifier on image-level labels.

    Called again for the same job, it continues where it was cut short. Other arguments, and errors: see `label`.
    """
    with reporter.step("loading libraries"):
        from camboxes.pipeline.jobs import run_folder
        from camboxes.pipeline.training.checkpoint_folder import CONTENTS, FINISHED, RECORD, check_same
        from camboxes.transforms import storage

    with contextlib.ExitStack() as held:
        with blaming_the_call():
            ready = _prepare(job, reporter)
            held.enter_context(run_folder.locked(job.output, reporter))
            if job.overwrite and Path(job.output, RECORD).exists():
                run_folder.remove(job.output, CONTENTS)
            check_same(job.output, ready.record)
        finished = Path(job.output, FINISHED)
        if finished.exists():
            figures = storage.read_json(str(finished))["training"]
            return TrainedClassifier(job.output, figures["metrics"], figures["guessing"], ())
        storage.write_json(storage.join(job.output, RECORD), ready.record)
        held.enter_context(interrupts.telling(lambda: "finished epochs are kept"))
        with reporter.step("looking the images up"):
            remarks = [*_remarks(job, ready)]
        for remark in remarks:
            reporter.say(remark)
        return _train(job, ready, reporter)


class _Prepared(NamedTuple):
    """A job that has been checked, and of which nothing is written yet.

    `data` is the part of `source` that may be trained on; `converted` is the GAP conversion of the network `base`, with
    an output for each label. The record holds the settings and the input, which decide the result.
    """

    source: "Listing"
    data: "TrainingData"
    base: "Classifier"
    converted: "Network"
    record: dict[str, Any]


def _prepare(job: TrainJob, reporter: Reporter) -> _Prepared:
    """Checks a job, lists its images and loads its network. What can be told without the network is told before.

    Raises:
      ValueError, OSError, RuntimeError: the call cannot be carried out as it was made.
    """
    _check(job)

    from camboxes.pipeline.jobs import run_folder
    from camboxes.pipeline.training.checkpoint_folder import CONTENTS, check_same
    from camboxes.pipeline.training.data import TrainingData
    from camboxes.transforms.planning.listing import check_labels, read_source
    from camboxes.transforms.sources.background import check_background

    run_folder.check_output(job.output, job.input, job.model, contents=CONTENTS)
    run_folder.check_folder(job.output)
    spec = job.model_spec()
    with reporter.step(f"listing {job.input}"):
        source = read_source(job.input, job.root, job.columns())
    check_labels(source.labels(), source.containers)
    check_background(job.background, source.labels())
    data = TrainingData.of(source, job.background)
    data.check()
    record = _record(job, data, _share(job, data))
    if not job.overwrite:
        check_same(job.output, record)

    with reporter.step("loading PyTorch"):  # a wrong path was told before
        import torch

        from camboxes.models import load_classifier
        from camboxes.models.networks.by_name import Network
        from camboxes.models.networks.gap_conversions import gap_network

    # Without weights of its own a conversion begins with those of the network that it converts.
    with reporter.step(f"loading {job.model}"):
        base = load_classifier(spec if spec.weights else dataclasses.replace(spec, name=spec.name.removeprefix("gap:")))
    torch.manual_seed(job.seed)  # it decides the weights of new layers
    network = Network(base.spec.name, base.network.cpu(), base.preprocessing)
    record["settings"] = _network_settings(base) | record["settings"]
    return _Prepared(source, data, base, gap_network(network, len(data.classes)), record)


def _check(job: TrainJob) -> None:
    """Raises a ValueError where an option is out of its range, or a library is missing."""
    from camboxes.transforms import storage

    if missing := [name for name in ("lightning", "torchmetrics", "imagehash") if not importlib.util.find_spec(name)]:
        raise ValueError(f'training needs {missing[0]}, which is not installed: pip install ".[train]" (in the clone)')
    if "open_clip:" in job.model:
        raise ValueError(
            f"{job.model} is not trained: train another network, such as efficientnet_lite0, or put the labels "
            f"into words with camboxes label --model {job.model.removeprefix('gap:')} --prompts FILE"
        )
    if job.epochs < 1:
        raise ValueError(f"--epochs is {job.epochs}; expected at least 1")
    if job.validation is not None and not 0 <= job.validation < 1:
        raise ValueError(f"--validation is {job.validation}; expected a share from 0 to less than 1")
    if not storage.is_local(job.output):
        raise ValueError(f"--output {job.output!r} is no local folder; train to one, and copy it from there")


def _share(job: TrainJob, data: "TrainingData") -> float | None:
    """The share of the pictures to validate on; None where the data set comes split."""
    if "val" not in data.splits.values():
        return _SHARE if job.validation is None else job.validation
    if job.validation is not None:
        raise ValueError(
            f"--validation is {job.validation}, and the input comes split, in folders "
            f"{', '.join(sorted(data.splits))}; leave --validation out, or name a table of all images to split them "
            "anew"
        )
    return None


def _network_settings(base: "Classifier") -> dict[str, Any]:
    """The settings of the network that a training begins with."""
    return {
        "network": base.spec.name,
        "weights_sha256": base.settings["weights_sha256"],
        "mean": list(base.preprocessing.mean),
        "std": list(base.preprocessing.std),
        "size": base.spec.size,
        "map_stride": base.spec.map_stride,
        "device": base.spec.device,
    }


def _record(job: TrainJob, data: "TrainingData", share: float | None) -> dict[str, Any]:
    """The settings besides the network's, and the input."""
    from camboxes.pipeline.training.copies import RULE
    from camboxes.transforms import storage

    settings = {
        "train": job.train,
        "epochs": job.epochs,
        "validation": share,
        "splits": dict(data.splits),
        "copies": RULE,
        "seed": job.seed,
        "background": list(data.background) or None,
    }
    root = str(Path(data.root).resolve()) if storage.is_local(data.root) else data.root
    images = {"images": len(data.labels), "root": root, "input": data.fingerprint()}
    return {"schema_version": 1, "settings": settings, **images}


def _remarks(job: TrainJob, ready: _Prepared) -> Iterator[str]:
    """Lines that a person should read before the training."""
    from camboxes.pipeline.reports import remarks

    source, data, base = ready.source, ready.data, ready.base
    kind = "any number of them an image (sigmoid)" if data.multilabel else "one an image (softmax)"
    classes = {*data.classes} - {*data.background}
    none = sum(not {*of_image} - {*data.background} for of_image in data.labels.values())
    background = f"{counted(none, 'image')} of none of them ({', '.join(map(on_one_line, data.background))}); "
    what = {"head": "its head, on frozen features", "all": "its head, then everything"}[job.train]
    yield (
        f"{counted(len(data.labels), 'image')}, {counted(len(classes), 'label')}, {kind}; "
        f"{background if data.background else ''}"
        f"{base.spec.name} at {base.spec.size} on {base.spec.device}: {what}"
    )
    yield from assumed(job, base)
    if not base.spec.name.startswith("gap:"):
        yield f"it is trained as its GAP conversion, gap:{base.spec.name}"
    if data.splits:
        left_out = f"left out ({counted(source.images - len(data.labels) - len(data.rejected), 'image')})"
        used = {"train": "trained on", "val": "validated on", "test": left_out}
        uses = ", ".join(f"{folder} is {used[split]}" for folder, split in sorted(data.splits.items()))
        yield f"the split of the folders is taken: {uses}"
    if source.repeated:
        yield f"{counted(source.repeated, 'repeated row')} dropped"
    labels = {*source.labels()} - {*data.background}
    yield from remarks.of_input(source.passed_over, labels, source.splits, source.assumed)
    yield from filter(None, [remarks.look_up(source).remark()])


def _train(job: TrainJob, ready: _Prepared, reporter: Reporter) -> TrainedClassifier:
    """Trains the head, and after it everything where that is asked for; writes the classifier."""
    with reporter.step("loading Lightning"):
        from camboxes.models import Classifier
        from camboxes.models.networks.gap_conversions import gap_network
        from camboxes.models.training.loop import train
        from camboxes.pipeline.training.checkpoint_folder import EVERYTHING, FEATURES, HEAD
        from camboxes.pipeline.training.inputs import CachedFeatures, compute_features, examples, read_view
        from camboxes.pipeline.training.selection import select

    output, settings = Path(job.output), ready.record["settings"]
    data, base, converted = ready.data, ready.base, ready.converted
    network: Any = converted.module.to(base.spec.device)
    read = compute_features(data, base, network, output / FEATURES, reporter)
    found = select(data, read, settings, output, reporter)

    network = gap_network(converted, len(found.data.classes)).module
    readers: dict[str, Any] = {HEAD: CachedFeatures(output / FEATURES, data.labels)}
    if job.train == "all":
        readers[EVERYTHING] = functools.partial(
            read_view, root=data.root, preprocessing=base.preprocessing, seed=job.seed
        )
    for part, reader in readers.items():
        with reporter.progress(job.epochs * len(found.training), "image", f"training {part}") as advance:
            outcome = train(
                network,
                base.preprocessing,
                examples(found.data, found.training, reader),
                examples(found.data, found.validation, reader) if found.validation else None,
                everything=part == EVERYTHING,
                epochs=job.epochs,
                seed=job.seed,
                device=base.spec.device,
                folder=output / part,
                progress=advance,
            )
    spec = dataclasses.replace(base.spec, name=converted.name)
    names = found.data.class_names
    trained = Classifier(network.eval(), base.preprocessing, spec, names, multilabel=data.multilabel)
    return _write(output, trained, {"settings": settings, **found.counts}, outcome)


def _write(output: Path, trained: "Classifier", record: Mapping[str, Any], outcome: "Outcome") -> TrainedClassifier:
    """Writes the classifier, and removes what only an unfinished training needs."""
    from camboxes.pipeline.jobs import run_folder
    from camboxes.pipeline.training.checkpoint_folder import FINISHED, LISTS, WORKING
    from camboxes.transforms import storage

    figures = {
        name: {metric: round(value, 4) for metric, value in getattr(outcome, name).items()}
        for name in ("metrics", "guessing")
    }
    epochs = {"epochs": outcome.epochs, "epoch_chosen_on": "validation" if outcome.metrics else None}
    for name, content in trained.files({**record, **epochs, **figures}).items():
        storage.write_bytes(str(output / name), content)
    run_folder.remove(str(output), WORKING)
    lists = [name for name in LISTS if (output / name).exists()]
    return TrainedClassifier(str(output), outcome.metrics, outcome.guessing, ("weights.safetensors", FINISHED, *lists))
