"""Where, on a photograph, is each of the classes that it is labelled with?"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from camboxes.models.cam.methods import Methods
from camboxes.models.classifier import Classifier
from camboxes.models.execution.devices import sent
from camboxes.models.introspection.parts import one_cell
from camboxes.models.localization.affinity import FINER, LAYER, affinity, coherence, refine
from camboxes.models.localization.fusion import claims, compete, fuse
from camboxes.models.spec import MapSpec

_BEST = 5  # classes


class Localization(NamedTuple):
    """What the network says of one image.

    Attributes:
      logits: float32 [classes], of the first scale.
      probabilities: float32 [classes], as `Classifier.probabilities` has them.
      best: the five classes with the highest probabilities, the first among equals first.
      class_ids: for each label the class that was chosen for it.
      maps: for each label its class's map, float32 [labels, height, width]; of one method at one scale as the method
        gives it (CAM: signed), else fused, in [0, 1].
      plain: those before refinement, likewise, where they are to be kept; else None.
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
    """Maps the labels of photographs: one forward pass for each scale and mirror image, all methods read from it.

    Attributes:
      classifier: the network.
      scales: short sides of its input, in pixels; at least one.
      settings: what decides the maps besides the images: method, scales, flip, compete, refine, keep_plain, second_look
        (which is for who hands the images over to heed), model.
    """

    def __init__(self, classifier: Classifier, maps: MapSpec | None = None):
        """Takes the network, and which maps to make of it; None for CAM at the network's own size.

        Raises:
          ValueError: the network cannot do what is asked.
        """
        maps = maps or MapSpec()
        self.classifier = classifier
        self._device = classifier.spec.device
        self.scales = maps.scales or (classifier.preprocessing.size,)
        self._largest = max(range(len(self.scales)), key=self.scales.__getitem__)
        self.settings: dict[str, Any] = {
            "method": maps.method,
            "scales": list(self.scales),
            "fine_scales": maps.fine_scales,
            "flip": maps.flip,
            "compete": maps.compete,
            "refine": maps.refine,
            "keep_plain": maps.keep_plain,
            "second_look": maps.second_look,
            "model": classifier.settings,
        }
        self._preprocessing = [dataclasses.replace(classifier.preprocessing, size=size) for size in self.scales]
        for preprocessing in self._preprocessing:
            classifier.check_sizes(preprocessing)
        size = classifier.spec.batch_size
        assert size is not None, "a loaded classifier's spec is resolved"
        self._batch_sizes = [max(1, round(size * min(1, (self.scales[0] / scale) ** 2))) for scale in self.scales]
        flips = (False, True) if maps.flip else (False,)
        self._looks = [(number, flip) for number in range(len(self.scales)) for flip in flips]
        self._terms = maps.terms
        factors = [factor for term in maps.terms for factor in term.factors]
        networks = self._networks()
        for scale, network in zip(self.scales, networks, strict=True):
            stride = network.preprocessing.stride
            if scale <= stride:
                raise ValueError(one_cell(classifier.spec.name, scale, 2 * stride))
        self._methods = [Methods(network, factors) for network in networks]
        # The layers that the maps are spread along, and the one that their coherence is measured with.
        # A vision transformer, whose layers all have one stride, has none that is finer.
        refined = maps.refine == "affinity"
        largest = networks[self._largest]
        self._stages = [largest.layer(LAYER), *_layers(largest, FINER)] if refined else []
        self._alike = _layers(networks[0], LAYER)

    @property
    def batch_size(self) -> int:
        """How many images a pass at the first scale holds."""
        return self._batch_sizes[0]

    def resize(self, image: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Resizes a photograph, uint8 [height, width, 3], to each scale: uint8 [3, height, width], on the device."""
        return tuple(sent(preprocessing.resize(image), self._device) for preprocessing in self._preprocessing)

    def companions(self, image: Sequence[torch.Tensor]) -> tuple[tuple[int, ...], ...]:
        """What images, as `resize` makes them, must have in common to fill passes: shapes where those hold several."""
        looks = zip(image, self._batch_sizes, strict=True)
        return tuple(tuple(pixels.shape) for place, (pixels, size) in enumerate(looks) if size > 1 or not place)

    def localize(
        self, images: Sequence[Sequence[torch.Tensor]], candidates: Sequence[Sequence[Sequence[int]]]
    ) -> list[Localization]:
        """Maps each image's labels.

        Args:
          images: at most `batch_size`, as `resize` makes them, of one shape at the first scale. Batches are filled up
            with zeros, so that every pass has the same shape: the last bits of a result depend on it. At a scale larger
            than the first a batch holds fewer images, of as many pixels together.
          candidates: for each image, for each of its labels, the classes that the label stands for; the one with the
            highest logit at the first scale is taken, the first among equals.

        Raises:
          ValueError: more images than the batch holds.
        """
        size = self.batch_size
        if len(images) > size:
            raise ValueError(f"{len(images)} images were given; a batch holds {size}")
        reads = frozenset([*self._alike, *(self._stages if self._largest == 0 else [])])
        forward = self._methods[0].forward(self._batch(images, 0, flip=False), reads)
        logits = forward.logits.cpu().numpy()
        probabilities = self.classifier.probabilities(forward.logits).cpu().numpy()
        best = _best(probabilities)
        chosen = [
            tuple(max(ids, key=row.__getitem__) for ids in labels)
            for labels, row in zip(candidates, logits, strict=False)
        ]
        slots = torch.zeros((size, max(map(len, chosen))), dtype=torch.int64)
        for slot, ids in enumerate(chosen):
            slots[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        slots = slots.to(forward.logits.device)
        first = _First(
            slots,
            self._methods[0].maps(forward, slots, len(images)),
            [forward.maps(layer) for layer in self._alike],
            [forward.maps(layer) for layer in self._stages] if self._largest == 0 else [],
        )
        found: dict[int, tuple[np.ndarray, np.ndarray | None, np.ndarray]] = {}
        for group in _of_one_shape(images):
            maps = self._maps([images[slot] for slot in group], [chosen[slot] for slot in group], first.of(group))
            found |= zip(group, maps, strict=True)
        return [
            Localization(logits[slot], probabilities[slot], best[slot], ids, maps, plain, *known)
            for slot, ids in enumerate(chosen)
            for maps, plain, known in [found[slot]]
        ]

    def _maps(
        self, images: Sequence[Sequence[torch.Tensor]], chosen: Sequence[tuple[int, ...]], first: "_First"
    ) -> list[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
        """Of images of one shape at each scale the maps, those before refinement, and coherence and agreement."""
        slots, parts, alike, stages = first
        for number, flip in self._looks[1:]:
            also = self._stages if number == self._largest and not flip else []
            maps, read = self._look(images, slots, chosen, number, flip=flip, also=also)
            parts = [*parts, *maps]
            stages = [*stages, *read]
        each = iter(parts)
        terms = [
            (term.weight * counts, [next(each) for _ in term.factors])
            for counts in self._counts(chosen, slots)
            for term in self._terms
        ]
        fused = fuse(terms)
        if self.settings["compete"] and slots.shape[1] > 1:
            claimed = claims(terms)
            for slot, ids in enumerate(chosen):
                fused[slot, : len(ids)] = compete(fused[slot, : len(ids)], claimed[slot, : len(ids)])
        known = _coherence(alike, fused).cpu().numpy()
        plain = fused.cpu().numpy() if self.settings["keep_plain"] else None
        if stages:
            # As many images at once as a pass at that scale holds: the likeness of all cells is as large as its maps.
            pairs = zip(*(some.split(self._batch_sizes[self._largest]) for some in (fused, *stages)), strict=True)
            fused = torch.cat([refine(some, along) for some, *along in pairs])
        found = fused.cpu().numpy()
        return [
            (found[slot, :labels], None if plain is None else plain[slot, :labels], known[:, slot, :labels])
            for slot, labels in enumerate(map(len, chosen))
        ]

    def halved(self) -> "Localizer | None":
        """One whose passes hold half as many images; None where they hold a single one."""
        if max(self._batch_sizes) == 1:
            return None
        smaller = copy.copy(self)
        smaller._batch_sizes = [max(1, size // 2) for size in self._batch_sizes]
        return smaller

    def _networks(self) -> list[Classifier]:
        """The network for each scale, with the same weights.

        Raises:
          ValueError: fine maps of smaller scales are asked for, and its last strides cannot be taken out.
        """
        # Of 240 pixels 8 cells come, each of 30 where the strides are those of 32.
        own, largest = 2 ** round(math.log2(self.classifier.preprocessing.stride)), self.scales[self._largest]
        halvings = [round(math.log2(largest / scale)) if self.settings["fine_scales"] else 0 for scale in self.scales]
        try:
            finer = {times: self.classifier.at_stride(own >> times) for times in set(halvings) - {0}}
        except ValueError as error:
            raise ValueError(f"fine_scales: {error}; leave it out for this network") from None
        return [finer.get(times, self.classifier) for times in halvings]

    def _counts(self, chosen: Sequence[Sequence[int]], like: torch.Tensor) -> list[torch.Tensor]:
        """What each look counts for in the maps of each image, [batch size, 1, 1].

        Where several labels compete, things are small, and a scale counts by its size: docs/refinement.md.
        """
        several = like.new_zeros((self.batch_size, 1, 1), dtype=torch.float32)
        if self.settings["compete"]:
            several[: len(chosen), 0, 0] = torch.tensor([float(len(ids) > 1) for ids in chosen])
        return [1 + several * (self.scales[number] / self.scales[0] - 1) for number, _ in self._looks]

    def _look(
        self,
        images: Sequence[Sequence[torch.Tensor]],
        slots: torch.Tensor,
        chosen: Sequence[Sequence[int]],
        number: int,
        *,
        flip: bool,
        also: Sequence[str],
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """One scale, mirrored or not.

        Returns:
          Each factor's maps, float32 [batch size, labels, height, width], and the maps of each further layer that is
          asked for, float32 [batch size, channels, height, width].
        """
        size = self._batch_sizes[number]
        filled: list[torch.Tensor] = []
        for start in range(0, len(images), size):
            some = images[start : start + size]
            forward = self._methods[number].forward(self._batch(some, number, flip=flip), frozenset(also))
            most = max(map(len, chosen[start : start + size]))  # a slot can cost a backward pass: no more than it takes
            ids = slots[start : start + size, :most]
            ids = functional.pad(ids, (0, 0, 0, size - len(ids)))
            found = [*self._methods[number].maps(forward, ids, len(some)), *(forward.maps(layer) for layer in also)]
            for place, maps in enumerate(found):
                if not start:
                    channels = maps.shape[1] if place >= len(found) - len(also) else slots.shape[1]
                    filled.append(maps.new_zeros((len(slots), channels, *maps.shape[2:])))
                filled[place][start : start + len(some), : maps.shape[1]] = maps[: len(some)]
        factors = len(filled) - len(also)
        return [part.flip(3) if flip else part for part in filled[:factors]], filled[factors:]

    def _batch(self, images: Sequence[Sequence[torch.Tensor]], number: int, *, flip: bool) -> torch.Tensor:
        pixels = [of_image[number].permute(1, 2, 0) for of_image in images]  # as they lie in memory
        batch = pixels[0].new_zeros((self._batch_sizes[number], *pixels[0].shape))
        torch.stack(pixels, out=batch[: len(pixels)])
        return self.classifier.normalize((batch.flip(2) if flip else batch).permute(0, 3, 1, 2))


class _First(NamedTuple):
    """What the pass at the first scale gives, for each slot of its batch.

    Attributes:
      class_ids: int64 [slots, labels].
      parts: each factor's maps, float32 [slots, labels, height, width].
      alike: of the layer that coherence is measured with, where there is one, float32 [slots, channels, height, width].
      stages: likewise of those that maps are spread along.
    """

    class_ids: torch.Tensor
    parts: list[torch.Tensor]
    alike: list[torch.Tensor]
    stages: list[torch.Tensor]

    def of(self, slots: Sequence[int]) -> "_First":
        """The same with some slots first, and no fewer: last bits depend on how many are worked on together."""
        order = [*slots, *(slot for slot in range(len(self.class_ids)) if slot not in slots)]
        if order == sorted(order):
            return self
        return _First(self.class_ids[order], *([maps[order] for maps in part] for part in self[1:]))


def _of_one_shape(images: Sequence[Sequence[torch.Tensor]]) -> list[list[int]]:
    """The places of images, together where they have one shape at each scale."""
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, of_image in enumerate(images):
        groups.setdefault(tuple(tuple(pixels.shape) for pixels in of_image), []).append(place)
    return list(groups.values())


def _coherence(alike: Sequence[torch.Tensor], maps: torch.Tensor) -> torch.Tensor:
    """Coherence and agreement of each map along a layer's, where there is one, float32 [2, n, labels]."""
    found = maps.new_full((2, *maps.shape[:2]), torch.nan)
    for features in alike:
        (height, width), affinities = features.shape[2:], affinity([features])
        for label in range(maps.shape[1]):  # each by itself: last bits depend on the shape of what is computed
            found[:, :, label] = torch.stack(coherence(maps[:, label], affinities, (height, width)))
    return found


def _best(probabilities: np.ndarray) -> list[tuple[int, ...]]:
    """Of each row the columns of the `_BEST` highest values, the first among equals first."""
    left, rows = probabilities.copy(), np.arange(len(probabilities))
    found = []
    for _ in range(min(_BEST, left.shape[1])):
        found.append(left.argmax(1))
        left[rows, found[-1]] = -np.inf
    return list(zip(*(columns.tolist() for columns in found), strict=True))


def _layers(classifier: Classifier, stride: str) -> list[str]:
    """The layer at a stride, where there is one: see `Classifier.layer`."""
    try:
        return [classifier.layer(stride)]
    except ValueError:
        return []
