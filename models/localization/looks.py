"""Looks at images: forward passes at one scale, of the images as they are or mirrored, and the maps read from them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.models.cam.methods import Methods
from camboxes.models.classifier import Classifier
from camboxes.models.introspection.parts import one_cell
from camboxes.models.localization.affinity import FINER, LAYER
from camboxes.models.spec import MapSpec


class Maps(NamedTuple):
    """The maps of a batch of images from one look, float32."""

    factors: list[torch.Tensor]  # of each factor of the method, [batch, labels, height, width]
    layers: list[torch.Tensor]  # of each of `Look.layers`, [batch, channels, height, width]

    def ordered(self, rows: list[int]) -> "Maps":
        """Reorders the images."""
        return self if rows == sorted(rows) else Maps(*([maps[rows] for maps in kind] for kind in self))


@dataclasses.dataclass(frozen=True)
class Look:
    """Forward passes at one scale, all of one shape: the last bits of a result depend on the shape of its batch."""

    methods: Methods  # what is read from a pass
    place: int  # of the scale, among the scales
    scale: int  # the short side of the network's input, in pixels
    batch_size: int  # images in a pass; a smaller batch is filled up with zeros
    mirrored: bool  # the images; the maps are mirrored back
    layers: tuple[str, ...] = ()  # further layers to read, named by `Classifier.layer`

    def forward(self, images: Sequence[Sequence[torch.Tensor]]) -> ForwardPass:
        """Runs one pass over at most `batch_size` images, as `Localizer.resize` makes them, of one shape."""
        pixels = [image[self.place].permute(1, 2, 0) for image in images]  # as they lie in memory
        batch = pixels[0].new_zeros((self.batch_size, *pixels[0].shape))
        torch.stack(pixels, out=batch[: len(pixels)])
        batch = (batch.flip(2) if self.mirrored else batch).permute(0, 3, 1, 2)
        return self.methods.forward(self.methods.classifier.normalize(batch), frozenset(self.layers))

    def read(self, forward: ForwardPass, chosen: Sequence[Sequence[int]]) -> Maps:
        """Reads the maps of each image's classes from a pass."""
        most = max(map(len, chosen))  # a column of class ids can cost a backward pass
        class_ids = torch.zeros((self.batch_size, most), dtype=torch.int64)
        for row, ids in enumerate(chosen):
            class_ids[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        factors = self.methods.maps(forward, class_ids.to(forward.logits.device), len(chosen))
        factors = [maps.flip(3) for maps in factors] if self.mirrored else factors
        return Maps(factors, [forward.maps(layer) for layer in self.layers])

    def maps(
        self, images: Sequence[Sequence[torch.Tensor]], chosen: Sequence[Sequence[int]], batch: int, labels: int
    ) -> Maps:
        """Maps images in as many passes as it takes; zeros fill the result up to `batch` images of `labels` labels."""
        for start in range(0, len(images), self.batch_size):
            some = slice(start, min(start + self.batch_size, len(images)))
            read = self.read(self.forward(images[some]), chosen[some])
            if not start:
                factors = [maps.new_zeros((batch, labels, *maps.shape[2:])) for maps in read.factors]
                found = Maps(factors, [maps.new_zeros((batch, *maps.shape[1:])) for maps in read.layers])
            for whole, maps in zip(found.factors + found.layers, read.factors + read.layers, strict=True):
                whole[some, : maps.shape[1]] = maps[: some.stop - start]
        return found


def looks_for(classifier: Classifier, maps: MapSpec) -> list[Look]:
    """Prepares the looks that maps are fused from: one for each scale, followed by its mirrored one.

    The first look reads the layer that coherence is measured with; the largest reads those that maps are refined along.
    Raises a ValueError where the network cannot do what is asked.
    """
    networks = _finer(classifier, maps.scales) if maps.fine_scales else [classifier] * len(maps.scales)
    for scale, network in zip(maps.scales, networks, strict=True):
        if scale <= network.preprocessing.stride:
            raise ValueError(one_cell(classifier.spec.name, scale, 2 * network.preprocessing.stride))
    factors = [factor for term in maps.terms for factor in term.factors]
    looks = []
    for place, (scale, network) in enumerate(zip(maps.scales, networks, strict=True)):
        methods = Methods(network, factors)
        batch_size = max(1, round(classifier.spec.batch_size * min(1, (maps.scales[0] / scale) ** 2)))
        layers: tuple[str, ...] = ()
        if maps.refine == "affinity" and scale == max(maps.scales):
            # A vision transformer, whose layers all have one stride, has none that is finer.
            layers = (network.layer(LAYER), *_layer(network, FINER))
        elif not place:
            layers = _layer(network, LAYER)
        looks.append(Look(methods, place, scale, batch_size, mirrored=False, layers=layers))
        if maps.flip:
            looks.append(Look(methods, place, scale, batch_size, mirrored=True))
    return looks


def _finer(classifier: Classifier, scales: Sequence[int]) -> list[Classifier]:
    """Gives the network for each scale, with the same weights, so that all have about as many cells as the largest."""
    # The stride is rounded to a power of 2: a network of stride 32 makes 8 cells, each of 30 pixels, of 240.
    own = 2 ** round(math.log2(classifier.preprocessing.stride))
    halvings = [round(math.log2(max(scales) / scale)) for scale in scales]
    try:
        finer = {times: classifier.at_stride(own >> times) for times in set(halvings) - {0}}
    except ValueError as error:
        raise ValueError(f"fine_scales: {error}; leave it out for this network") from None
    return [finer.get(times, classifier) for times in halvings]


def _layer(classifier: Classifier, stride: str) -> tuple[str, ...]:
    """Gives the layer at a stride, where there is one: see `Classifier.layer`."""
    try:
        return (classifier.layer(stride),)
    except ValueError:
        return ()
