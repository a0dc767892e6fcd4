"""Maps the labels of photographs: looks at them, fuses the maps of all looks, and refines them."""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from camboxes.models.classifier import Classifier
from camboxes.models.execution.process import sent
from camboxes.models.localization.affinity import coherence, refine
from camboxes.models.localization.fusion import claims, compete, fuse
from camboxes.models.localization.looks import Maps, looks_for
from camboxes.models.spec import Execution, MapSpec


class Localization(NamedTuple):
    """The classes of one image, and where they are.

    Attributes:
      logits: float32 [classes], at the first scale.
      probabilities: float32 [classes], as `Classifier.probabilities` gives them.
      best: the five classes with the highest probabilities, the first among equals first.
      class_ids: for each label the class that was chosen for it.
      maps: for each label its class's map, float32 [labels, height, width]; of one method at one scale as the method
        gives it (CAM: signed), else fused, in [0, 1].
      plain: the maps before refinement, where `MapSpec.keep_plain` asks for them; else None.
      coherence, agreement: float32 [labels], see `affinity.Coherence`; NaN where a map is constant, or the network has
        no mid-level features.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    best: tuple[int, ...]
    class_ids: tuple[int, ...]
    maps: np.ndarray
    plain: np.ndarray | None
    coherence: np.ndarray
    agreement: np.ndarray


class Localizer:
    """Makes a map for each label of an image, fused from all looks that a `MapSpec` asks for.

    Attributes:
      classifier: the network.
      scales: short sides of its input, in pixels; at least one.
      settings: what decides the maps besides the images: the fields of `MapSpec`, and those of the model under "model".
        second_look is ignored here; the caller crops.
    """

    def __init__(self, classifier: Classifier, maps: MapSpec | None = None):
        """Prepares the network's passes; `maps` None stands for CAM at the network's own size.

        Raises a ValueError where the network cannot do what is asked.
        """
        maps = maps or MapSpec()
        self.classifier = classifier
        self.scales = maps.scales or (classifier.preprocessing.size,)
        self._spec = dataclasses.replace(maps, scales=self.scales)
        self._preprocessing = [dataclasses.replace(classifier.preprocessing, size=size) for size in self.scales]
        for preprocessing in self._preprocessing:
            classifier.check_sizes(preprocessing)
        self._looks = looks_for(classifier, self._spec)
        self.settings = dataclasses.asdict(maps) | {"scales": list(self.scales), "model": classifier.settings}

    @property
    def batch_size(self) -> int:
        """The number of images in a pass at the first scale."""
        return self._looks[0].batch_size

    def resize(self, image: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Resizes a photograph, uint8 [height, width, 3], to each scale: uint8 [3, height, width], on the device."""
        device = self.classifier.spec.device
        return tuple(sent(preprocessing.resize(image), device) for preprocessing in self._preprocessing)

    def companions(self, image: Sequence[torch.Tensor]) -> tuple[tuple[int, ...], ...]:
        """The key by which resized images are batched: their shapes at the scales whose passes hold several images."""
        several = {look.place for look in self._looks if look.batch_size > 1} | {0}
        return tuple(tuple(pixels.shape) for place, pixels in enumerate(image) if place in several)

    def halved(self) -> "Localizer | None":
        """A localizer whose passes hold half as many images; None where they hold a single one."""
        if all(look.batch_size == 1 for look in self._looks):
            return None
        smaller = copy.copy(self)
        smaller._looks = [dataclasses.replace(look, batch_size=max(1, look.batch_size // 2)) for look in self._looks]
        return smaller

    def executed(self, execution: Execution) -> "Localizer":
        """The same maps of the same network in memory, executed otherwise."""
        network = functools.cache(lambda classifier: classifier.executed(execution))
        same = copy.copy(self)
        same.classifier = network(self.classifier)
        same._looks = [
            dataclasses.replace(look, methods=look.methods.of(network(look.methods.classifier))) for look in self._looks
        ]
        same.settings = self.settings | {"model": same.classifier.settings}
        return same

    def largest_pass(self, image: Sequence[torch.Tensor]) -> None:
        """Runs a pass at the largest scale, where a job spends most of its time, and reads the map of the first class.

        Args:
          image: as `resize` makes it.
        """
        look = max(self._looks, key=lambda look: look.scale)
        for maps in look.read(look.forward([image]), [(0,)]).factors:
            maps.cpu()  # a GPU is waited for

    def localize(
        self, images: Sequence[Sequence[torch.Tensor]], candidates: Sequence[Sequence[Sequence[int]]]
    ) -> list[Localization]:
        """Maps each image's labels.

        Args:
          images: at most `batch_size`, as `resize` makes them, of one shape at the first scale.
          candidates: for each image, for each of its labels, the classes that the label stands for; the one with the
            highest logit at the first scale is taken, the first among equals.

        Raises:
          ValueError: more images than the batch holds.
        """
        if len(images) > self.batch_size:
            raise ValueError(f"{len(images)} images were given; a batch holds {self.batch_size}")
        first = self._looks[0]
        forward = first.forward(images)
        logits = forward.logits.cpu().numpy()
        probabilities = self.classifier.probabilities(forward.logits).cpu().numpy()
        chosen = [
            tuple(max(ids, key=row.__getitem__) for ids in labels)
            for labels, row in zip(candidates, logits, strict=False)
        ]
        maps = first.read(forward, chosen)
        found: dict[int, tuple[Any, ...]] = {}
        for rows in _of_one_shape(images):
            # The group comes first in a batch of the same size: last bits depend on both.
            others = [row for row in range(self.batch_size) if row not in rows]
            own, ids = [images[row] for row in rows], [chosen[row] for row in rows]
            looks = [look.maps(own, ids, self.batch_size, max(map(len, chosen))) for look in self._looks[1:]]
            answers = self._localized([maps.ordered(rows + others), *looks], [*map(len, ids)])
            found |= zip(rows, answers, strict=True)
        each = zip(logits, probabilities, _best(probabilities), chosen, strict=False)
        return [Localization(*of_network, *found[row]) for row, of_network in enumerate(each)]

    def _localized(self, looks: Sequence[Maps], labels: Sequence[int]) -> list[tuple[Any, ...]]:
        """Fuses and refines the maps of images with so many labels: maps, plain, coherence and agreement of each."""
        fused = self._fused(looks, labels)
        known = fused.new_full((2, *fused.shape[:2]), torch.nan)
        if looks[0].layers:
            known = torch.stack(coherence(fused, looks[0].layers[0]))
        of_maps = known.cpu().numpy()
        plain = fused.cpu().numpy() if self._spec.keep_plain else None
        if self._spec.refine == "affinity":
            largest = max(range(len(looks)), key=lambda number: self._looks[number].scale)
            # As many images at once as a pass holds: the affinity of all cells takes as much memory as the pass.
            size = self._looks[largest].batch_size
            parts = zip(*(maps.split(size) for maps in (fused, *looks[largest].layers)), strict=True)
            fused = torch.cat([refine(maps, along) for maps, *along in parts])
        found = fused.cpu().numpy()
        return [
            (found[row, :count], None if plain is None else plain[row, :count], *of_maps[:, row, :count])
            for row, count in enumerate(labels)
        ]

    def _fused(self, looks: Sequence[Maps], labels: Sequence[int]) -> torch.Tensor:
        """Fuses the maps of all looks, [batch, labels, height, width].

        Where several labels compete, things are small, and a scale counts by its size:
        benchmarks/records/refinement.md.
        """
        several = looks[0].factors[0].new_zeros((self.batch_size, 1, 1))
        if self._spec.compete:
            several[: len(labels), 0, 0] = torch.tensor([float(count > 1) for count in labels])
        terms = []
        for look, maps in zip(self._looks, looks, strict=True):
            weights, factors = 1 + several * (look.scale / self.scales[0] - 1), iter(maps.factors)
            terms += [(term.weight * weights, [next(factors) for _ in term.factors]) for term in self._spec.terms]
        fused = fuse(terms)
        if self._spec.compete and fused.shape[1] > 1:
            claimed = claims(terms)
            for row, count in enumerate(labels):
                fused[row, :count] = compete(fused[row, :count], claimed[row, :count])
        return fused


def _of_one_shape(images: Sequence[Sequence[torch.Tensor]]) -> list[list[int]]:
    """Groups the rows of images by the images' shapes at all scales."""
    shapes = [tuple(tuple(pixels.shape) for pixels in image) for image in images]
    return [[row for row, other in enumerate(shapes) if other == shape] for shape in dict.fromkeys(shapes)]


def _best(probabilities: np.ndarray) -> list[tuple[int, ...]]:
    """Finds the columns of the five highest values of each row, the first among equals first."""
    left, rows = probabilities.copy(), np.arange(len(probabilities))
    found = []
    for _ in range(min(5, left.shape[1])):  # a fraction of the time that a stable sort takes
        found.append(left.argmax(1))
        left[rows, found[-1]] = -np.inf
    return list(zip(*(columns.tolist() for columns in found), strict=True))
