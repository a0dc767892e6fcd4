"""Boxes of images in memory."""

import dataclasses
import functools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camboxes.models import Localizer, MapSpec, load_classifier
from camboxes.models.counts import counted
from camboxes.models.localization.measured import measured
from camboxes.models.networks.preprocessing import rgb
from camboxes.models.spec import Execution
from camboxes.pipeline.options.boxes import NewBoxOptions
from camboxes.pipeline.options.maps import MapOptions
from camboxes.pipeline.options.network import ClassOptions
from camboxes.pipeline.run import Box
from camboxes.transforms import BoxRule
from camboxes.transforms.boxes_from_maps import draw
from camboxes.transforms.images.decoding import BadImageError, check_not_blank
from camboxes.transforms.inference.image_loading import LoadedImage, PlannedImage
from camboxes.transforms.inference.rows import RowBuilder
from camboxes.transforms.inference.scheduling import candidates
from camboxes.transforms.ordered_threads import BatchesByKind
from camboxes.transforms.planning.label_matching import LabelMatcher
from camboxes.transforms.records import MAPPED, check_labels, skipped, table


def find_boxes(
    images: Sequence[Any],
    labels: Sequence[Sequence[str]],
    label_map: Mapping[str, Any] | None,
    **options: Any,
) -> list[list[Box]]:
    """Finds the boxes of images. Arguments, and what is raised: see `camboxes.find_boxes`."""
    for of_image in (labels, *labels):
        check_labels(of_image)
    if len(images) != len(labels):
        raise ValueError(
            f"{counted(len(images), 'image')} and labels of {len(labels)} were given; expected a list of labels for "
            "each image"
        )
    finder = _Finder(_FindOptions(**options), label_map, {label for of_image in labels for label in of_image})
    batches: BatchesByKind[LoadedImage] = BatchesByKind(finder.localizer.batch_size, finder.companions)
    found: dict[int, list[Box]] = {}
    for number, (image, of_image) in enumerate(zip(images, labels, strict=True)):
        loaded = finder.load(number, image, of_image)
        if loaded.finished:  # it has no label with a class, or all its pixels are equal
            found[number] = []
            continue
        for batch in batches.put([loaded]):
            found |= finder.boxes(batch)
    for batch in batches.rest():
        found |= finder.boxes(batch)
    return [found[number] for number in range(len(images))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FindOptions(NewBoxOptions, MapOptions, ClassOptions):
    """How boxes are made; the same as in a `LabelJob`."""


class _Finder:
    """Finds the boxes of images in memory, by the steps of a job.

    Attributes:
      localizer: makes the maps.
    """

    def __init__(self, options: _FindOptions, label_map: Mapping[str, Any] | None, labels: Iterable[str]):
        """Loads the network, and matches the labels of all images with its classes."""
        of_files = options.weights or options.classes or options.prompts or Path(options.model).exists()
        maps, self.localizer = (_load if of_files else _kept)(options)
        classifier = self.localizer.classifier
        self._rule = options.box_rule(BoxRule.default_for(classifier, maps))
        self._builder = RowBuilder(self.localizer.settings, classifier.class_names)
        self._categories = LabelMatcher(classifier.class_names, label_map).categories(labels)

    def companions(self, image: LoadedImage) -> Hashable:
        """The key by which images are batched."""
        return self.localizer.companions(image.pixels[0])

    def load(self, number: int, image: Any, labels: Iterable[str]) -> LoadedImage:
        """Brings an image to the network's input, with the row that a plan would hold of it."""
        wanted = set(labels)
        row = {
            "image_id": None,
            "path": str(number),
            "labels": [
                {"label": of.name, "category_id": of.id, "class_indices": of.class_indices}
                for of in self._categories
                if of.name in wanted
            ],
            "background": [],
        }
        planned = PlannedImage(None, number, row, None, False)
        if not candidates(row):
            return LoadedImage(planned, finished=skipped(row))
        pixels = np.array(rgb(image))  # a copy: PyTorch warns of arrays that cannot be written to
        try:
            check_not_blank(pixels)
        except BadImageError as error:
            return LoadedImage(planned, finished=error)
        height, width, _ = pixels.shape
        resized = self.localizer.resize(pixels)
        return LoadedImage(planned, None, width, height, ((0, 0, width, height),), (resized,))

    def boxes(self, batch: Sequence[LoadedImage]) -> dict[int, list[Box]]:
        """The boxes of at most a batch of images, by the images' numbers."""
        questions = [image.pixels[0] for image in batch]
        answers = self.localizer.localize(questions, [candidates(image.planned.row) for image in batch])
        names = {of.id: of.name for of in self._categories}
        rows = [self._builder.row(image, [answer]) for image, answer in zip(batch, answers, strict=True)]
        drawn = [draw(row, self._rule) for row in table(rows, MAPPED, {}).to_pylist()]
        return {
            image.planned.number: [Box.of(box, names) for box in row["boxes"]]
            for image, row in zip(batch, drawn, strict=True)
        }


def _load(options: _FindOptions) -> tuple[MapSpec, Localizer]:
    classifier = load_classifier(options.model_spec(options.scales))
    maps = options.map_spec(MapSpec.default_for(classifier))
    localizer, _ = measured(Localizer(classifier, maps), Execution("auto", "auto"), 0)  # as a job on this machine
    return maps, localizer


_kept = functools.lru_cache(maxsize=1)(_load)  # of networks by name: the contents of files may change
