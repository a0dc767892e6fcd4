"""The registry of CAM methods, all with one signature: classifier, images and class ids in, maps out."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from camboxes.models.cam.activations import COMBINATIONS, eigen_cam
from camboxes.models.cam.class_activation import check_class_ids, class_activation_maps
from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.models.cam.masking import occlusion, score_cam
from camboxes.models.cam.projections import PROJECTIONS, check_rectified, check_sees_the_picture, project, saliency
from camboxes.models.cam.relevance import check_attention, relevance
from camboxes.models.classifier import Classifier
from camboxes.models.introspection.recording import ATTENTION, LAST
from camboxes.models.networks.by_name import OPEN_CLIP
from camboxes.models.spec import BY_STRIDE, CELLS, OF_ATTENTION, Factor, MapSpec


def class_maps(
    classifier: Classifier, images: torch.Tensor, class_ids: torch.Tensor, method: str = "cam"
) -> torch.Tensor:
    """Computes class maps, in one forward pass and, for a gradient method, one backward pass per column of `class_ids`.

    Args:
      classifier: the network; it is left as it was found, also on an error.
      images: normalised, [n, 3, height, width], in the dtype and on the device of the network, as `Classifier.prepare`
        makes them of photographs.
      class_ids: int64 [n, labels]; each image may ask for several classes, and images for different ones.
      method: `METHOD[@LAYER]`; see `MapSpec.method`.

    Returns:
      float32 [n, labels, height, width] at the layer's own resolution, not scaled.

    Raises:
      ValueError: an unknown method, layer or class id, several methods, a method that does not fit the network, or
        images that are not prepared.
    """
    factors = [factor for term in MapSpec(method).terms for factor in term.factors]
    if len(factors) > 1:
        raise ValueError(f"method {method!r} has {len(factors)} parts, of different resolutions; ask for one at a time")
    classifier.check_images(images)
    found = Methods(classifier, factors)
    check_class_ids(class_ids, len(classifier.class_names))
    if len(class_ids) != len(images):
        raise ValueError(f"{len(images)} images and class ids of {len(class_ids)} were given; expected as many")
    return found.maps(found.forward(images), class_ids, len(images))[0]


class _Reading(NamedTuple):
    """The input of a method: a layer's maps, rectified or not; or the pixels, for cells of `cell` pixels."""

    method: str
    layer: str
    rectified: bool = False
    cell: int = 0

    @classmethod
    def of(cls, classifier: Classifier, factor: Factor) -> "_Reading":
        method, layer = factor
        if method in CELLS:
            return cls(method, LAST, cell=int(layer or CELLS[method]))
        if method in OF_ATTENTION:
            return cls(method, ATTENTION)
        # CAM and its family expect the output of a ReLU. Where blocks end without one (MobileNet, EfficientNet),
        # negative values are no evidence of an object: measured in benchmarks/records/methods.md.
        rectified = BY_STRIDE.fullmatch(layer or "") is not None
        return cls(method, classifier.layer(layer) if layer else classifier.last, rectified)

    def maps(self, forward: ForwardPass) -> torch.Tensor:
        maps = forward.maps(self.layer)
        return maps.clamp(min=0) if self.rectified else maps


class Methods:
    """Methods that are read from one forward pass of `classifier`."""

    def __init__(self, classifier: Classifier, factors: Sequence[Factor]):
        """Finds the layers to read. Raises a ValueError where the network lacks one, or does not fit the methods."""
        self.classifier = classifier
        self._readings = [_Reading.of(classifier, factor) for factor in factors]
        methods = {factor.method for factor in factors}
        if classifier.inexact_because is not None and methods & {"cam", "tscam"}:
            name = classifier.spec.name
            convert = (
                f", or train its GAP conversion on your labels: model gap:{name.split(':')[-1]}, by camboxes train"
            )
            raise ValueError(
                f"CAM is not exact for {name}: linear(GAP(features)) is not its logits ({classifier.inexact_because}); "
                'use method "gradcam" or "layercam" (of a transformer "chefer", "rollout"), which need no such layer'
                f"{'' if name.startswith(OPEN_CLIP) else convert}"
            )
        for method in sorted(methods & set(PROJECTIONS)):
            check_rectified(classifier)
            check_sees_the_picture(classifier, method)
        self._layers = frozenset(reading.layer for reading in self._readings)
        of_gradients = (*COMBINATIONS, "chefer")
        self._gradients = frozenset(reading.layer for reading in self._readings if reading.method in of_gradients)
        if ATTENTION in self._layers:
            check_attention(classifier, class_token="tscam" in methods)

    def of(self, classifier: Classifier) -> "Methods":
        """The same methods, of the same network executed otherwise."""
        same = copy.copy(self)
        same.classifier = classifier
        return same

    def forward(self, images: torch.Tensor, also: frozenset[str] = frozenset()) -> ForwardPass:
        """Runs the pass that the maps are read from; `images` as for `class_maps`, `also` further layers to record."""
        return ForwardPass(self.classifier, images, self._layers | also, gradients=self._gradients)

    def maps(self, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> list[torch.Tensor]:
        """Computes for each factor the maps of classes, int64 [n, labels]: float32 [n, labels, height, width].

        They are read from a pass that `forward` ran. Images behind the first `count` only fill the batch.
        """
        return [_READERS[reading.method](reading, forward, class_ids, count) for reading in self._readings]


def _cam(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    return class_activation_maps(reading.maps(forward), forward.classifier.weight, class_ids)


def _combined(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    maps, combine = reading.maps(forward), COMBINATIONS[reading.method]
    combined = [combine(maps, forward.gradients(reading.layer, ids)) for ids in class_ids.unbind(1)]
    return torch.stack(combined, 1) if combined else maps[:, :0]


def _eigen_cam(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    return eigen_cam(reading.maps(forward))[:, None].expand(-1, class_ids.shape[1], -1, -1)


def _score_cam(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    maps = reading.maps(forward)
    scored = maps.new_zeros((*class_ids.shape, *maps.shape[2:]))
    for image in range(count):
        scored[image] = score_cam(forward.classifier, forward.images[image], maps[image], class_ids[image])
    return scored


def _occlusion(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    found = _by_cells(reading, forward, class_ids)
    for image in range(count):
        found[image] = occlusion(forward.classifier, forward.images[image], class_ids[image], reading.cell)
    return found


def _projected(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    found = _by_cells(reading, forward, class_ids)
    for label, projection in enumerate(project(forward.classifier, forward.images, class_ids, reading.method)):
        found[:, label] = saliency(projection, reading.cell)
    return found


def _by_cells(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor) -> torch.Tensor:
    """Makes maps of zeros for the cells of the pixels."""
    cells = (math.ceil(side / reading.cell) for side in forward.images.shape[2:])
    return forward.logits.new_zeros((*class_ids.shape, *cells))


def _rollout(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    weights = [of_layer.mean(1) for of_layer in forward.attention()]
    return (relevance(forward, weights) / 2 ** len(weights))[:, None].expand(-1, class_ids.shape[1], -1, -1)


def _chefer(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    found = [_rollout(reading, forward, class_ids[:, :0], count)]  # no labels at all: no maps
    for ids in class_ids.unbind(1):
        pairs = zip(forward.attention(), forward.attention_gradients(ids), strict=True)
        found.append(relevance(forward, [(weights * g).clamp(min=0).mean(1) for weights, g in pairs])[:, None])
    return torch.cat(found, 1)


def _ts_cam(reading: _Reading, forward: ForwardPass, class_ids: torch.Tensor, count: int) -> torch.Tensor:
    layers = torch.stack([weights.mean(1) for weights in forward.attention()])
    size = forward.features.shape[2:]
    taken = layers.mean(0)[:, 0, -size.numel() :].unflatten(1, size)
    return taken[:, None] * class_activation_maps(forward.features, forward.classifier.weight, class_ids)


# How each method is computed, from its reading, a pass, class ids [n, labels] and the number of images: `Methods.maps`.
_READERS: dict[str, Callable[[_Reading, ForwardPass, torch.Tensor, int], torch.Tensor]] = {
    "cam": _cam,
    **dict.fromkeys(COMBINATIONS, _combined),
    "eigencam": _eigen_cam,
    "scorecam": _score_cam,
    "occlusion": _occlusion,
    **dict.fromkeys(PROJECTIONS, _projected),
    "rollout": _rollout,
    "chefer": _chefer,
    "tscam": _ts_cam,
}
