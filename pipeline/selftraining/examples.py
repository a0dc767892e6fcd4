"""The training examples of a self-training: a sample of a run's images, with its network's features, and maps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from camboxes.models import ModelSpec, load_classifier
from camboxes.models.networks.checkpoints import DESCRIPTION
from camboxes.models.training.selftraining import FeatureReader, MapExamples
from camboxes.pipeline import sampling
from camboxes.pipeline.errors import CallError
from camboxes.pipeline.reporter import Reporter
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.inference.selftrained_maps import can_be_regressed, on_grid, read_unchanged
from camboxes.transforms.ordered_threads import through_network

_Read = tuple[Mapping[str, Any], torch.Tensor]  # a row of the run, and its image as the network's input

_REMEDY = "run camboxes label once more and start from its --output, which keeps the network"
_SIZE = 448  # pixels: smaller photographs give features that are too coarse to learn outlines from
IMAGES = 2000  # at most; the features of one take 176 kB at 448 pixels and 112 channels


def network_of(run: PlannedRun) -> ModelSpec:
    """The run's network, with images squashed to a size at which its features show outlines."""
    model = run.settings["model"]
    folder = storage.join(run.output, "plan")
    kept = storage.exists(storage.join(folder, DESCRIPTION))
    return ModelSpec(
        folder if kept else model["name"],
        size=max(_SIZE, *run.settings["scales"]),
        map_stride=model["map_stride"],
        device="cpu" if model["device"] == "cpu" else "auto",
        # As in the run, where they are settled for all workers; a run without them is older than these options.
        precision=model.get("precision", "fp32"),
        compile=model.get("compile", "off"),
    )


def load_reader(run: PlannedRun, spec: ModelSpec) -> FeatureReader:
    """Loads the run's network, and checks that its weights are those of the run.

    Raises:
      ValueError: it cannot be loaded, has other weights, or has no block at stride 16.
    """
    try:
        classifier = load_classifier(spec)
    except (ValueError, OSError) as error:
        raise ValueError(f"the network of --run {run.output!r} cannot be loaded: {error}; {_REMEDY}") from error
    now, then = classifier.settings["weights_sha256"], run.settings["model"]["weights_sha256"]
    if now != then:
        raise ValueError(
            f"the network of --run {run.output!r} had weights {then[:16]}, {spec.name!r} has {now[:16]}; {_REMEDY}"
        )
    return FeatureReader(classifier)


class Sampled(NamedTuple):
    """The sampled maps.

    Attributes:
      rows: the run's row of each image that could be read.
      entries: the entry of each map in its row's maps.
      labels: the entry of each map's label in its row's labels.
      examples: the maps with their features.
      unread: the reason for each image that could not be read again.
    """

    rows: list[Mapping[str, Any]]
    entries: list[Mapping[str, Any]]
    labels: list[Mapping[str, Any]]
    examples: MapExamples
    unread: dict[str, str]


def sample(run: PlannedRun, reader: FeatureReader, reporter: Reporter) -> Sampled:
    """Reads a sample by path of a run's images again, at most IMAGES of them.

    Raises:
      CallError: none of the run's maps is one that a box can come from, or more than half of the images changed.
    """
    candidates = (row for row in run.rows() if any(can_be_regressed(row, entry) for entry in row["maps"]))
    rows = sampling.first(candidates, IMAGES, lambda row: row["path"])
    if not rows:
        raise CallError(
            f"--run {run.output!r} holds no map that a box can come from; expected a run of camboxes label with boxes"
        )
    unread: dict[str, str] = {}
    read_rows: list[Mapping[str, Any]] = []

    def read(row: Mapping[str, Any]) -> _Read | None:
        try:
            return row, reader.classifier.preprocessing.resize(read_unchanged(run.root, row))
        except BadImageError as error:
            unread[row["path"]] = str(error)
            return None

    def forward(batch: list[_Read]) -> tuple[list[Mapping[str, Any]], torch.Tensor]:
        return [row for row, _ in batch], reader.features([pixels for _, pixels in batch])

    features = []
    with reporter.progress(len(rows), "image", "features") as advance:
        for its_rows, its_features in through_network(reader.classifier, read, forward, rows):
            read_rows += its_rows
            features.append(its_features)
            advance(len(its_rows))
    if 2 * len(unread) > len(rows):
        path, reason = next(iter(sorted(unread.items())))
        raise CallError(
            f"images of --run {run.output!r} that are not what the run saw: {len(unread):,} of {len(rows):,}, the "
            f"first one {path!r} ({reason}); expected them below {run.root!r}, unchanged: label them again"
        )
    found = torch.cat(features)
    height, width = found.shape[2:]
    image, entries, labels, maps = [], [], [], []
    for number, row in enumerate(read_rows):
        by_category = {label["category_id"]: label for label in row["labels"]}
        for entry in row["maps"]:
            if can_be_regressed(row, entry):
                image.append(number)
                entries.append(entry)
                labels.append(by_category[entry["category_id"]])
                maps.append(on_grid(entry, height, width))
    examples = MapExamples(found, torch.tensor(image), torch.from_numpy(np.stack(maps)))
    return Sampled(read_rows, entries, labels, examples, dict(sorted(unread.items())))
