"""Self-training: a small network learns foreground from a run's own confident boxes, and improves maps with it.

PSOL (Zhang et al., CVPR 2020) trains a class-agnostic box regressor on pseudo-boxes. Here the regressor gives a map
instead of a box, so that thresholds, reviews and calibration work on its maps as on any other. Its inputs are a frozen
classifier's features at stride 16, and the similarity of each cell to the cells where the class's map is highest. The
map itself is no input: a regressor that sees the map whose component it is to predict learns the map's threshold and
nothing else. The class's map is multiplied in at the end.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.models.classifier import Classifier
from camboxes.models.localization.affinity import LAYER

_WIDTH = 32  # channels
_BATCH = 16
_SEEN = 6_500  # examples in a training, repetitions included, which bounds its time
_EPOCHS = (3, 20)  # the fewest, the most
_RATE = 1e-3
_PEAK = 0.9  # share of a map's maximum from which on a cell surely belongs to the class


class MapExamples(NamedTuple):
    """A run's maps of photographs, with the features of the photographs."""

    features: torch.Tensor  # float16 [images, channels, height, width]
    image: torch.Tensor  # int64 [maps], the image that each map belongs to
    maps: torch.Tensor  # float32 [maps, height, width], in [0, 1]


def likeness(features: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Computes the cosine similarity of each cell to the mean of the cells where a map is highest: [height, width].

    The map `before` is float32 [height, width], in [0, 1]. From the features, [channels, height, width], their mean
    over the cells is subtracted first.
    """
    vectors = features.float().flatten(1)
    vectors = functional.normalize(vectors - vectors.mean(1, keepdim=True), dim=0, eps=1e-6)
    peak = (before >= _PEAK * before.max()).flatten().float()
    return (functional.normalize(vectors @ peak, dim=0, eps=1e-6) @ vectors).reshape(before.shape)


class MapRegressor(nn.Module):
    """Predicts the foreground from features: a few convolutions on the grid of the features."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, channels: int):
        """Makes the layers for features of so many channels."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.reduce = nn.Conv2d(channels, _WIDTH, 1)
        self.first = nn.Conv2d(_WIDTH + 1, _WIDTH, 3, padding=1)
        self.second = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.logit = nn.Conv2d(_WIDTH, 1, 1)

    def forward(self, features: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
        """Computes logits [n, height, width] from features [n, channels, height, width] and their `likeness`."""
        reduced = functional.relu(self.reduce((features.float() - self.mean) / self.std))
        joined = functional.relu(self.first(torch.cat([reduced, alike[:, None]], 1)))
        return self.logit(functional.relu(self.second(joined)))[:, 0]

    def foreground(self, features: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Predicts the probability that a cell belongs to the object, the mean over the image and its mirror image.

        Features are [channels, height, width], as `FeatureReader` gives them; the class's map on their grid is float32
        [height, width], min-max scaled. One map at a time: last bits depend on the shape of what is computed.
        """
        alike = likeness(features, before)
        with torch.inference_mode():
            both = self(torch.stack([features, features.flip(2)]), torch.stack([alike, alike.flip(1)])).sigmoid()
        return (both[0] + both[1].flip(1)) / 2

    def predict(self, features: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Multiplies a map by its foreground. Arguments and result: see `foreground`.

        A regressor that has learnt nothing predicts the same foreground everywhere, and leaves the shape of a map as it
        is.
        """
        return self.foreground(features, before) * before

    def safetensors(self) -> bytes:
        """Serialises the weights; equal weights give equal bytes."""
        from safetensors.torch import save

        return save({key: value.contiguous() for key, value in self.state_dict().items()})

    @classmethod
    def load(cls, data: bytes) -> "MapRegressor":
        """Loads what `safetensors` gave."""
        from safetensors.torch import load

        state = load(data)
        regressor = cls(len(state["mean"]))
        regressor.load_state_dict(state)
        return regressor.eval().requires_grad_(False)


class FeatureReader:
    """Computes the features that regressors take, with `classifier`, to whose square photographs are squashed."""

    def __init__(self, classifier: Classifier):
        """Finds the layer to read. Raises a ValueError for a network without a block at stride 16."""
        self.classifier = classifier
        self._layer = classifier.layer(LAYER)

    def features(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Computes the features of photographs: float16 [images, channels, height, width], on the CPU.

        There are at most `classifier.spec.batch_size`, as `classifier.preprocessing.resize` makes them. The pass always
        has one shape: the last bits of a result depend on it.
        """
        size = self.classifier.spec.batch_size
        batch = torch.zeros((size, *images[0].shape), dtype=torch.uint8)
        torch.stack(list(images), out=batch[: len(images)])
        layers = frozenset([self._layer])
        with torch.inference_mode():
            forward = ForwardPass(self.classifier, self.classifier.normalize(batch), layers, gradients=frozenset())
            return forward.maps(self._layer)[: len(images)].half().cpu()


@contextmanager
def on_one_core() -> Iterator[None]:
    """Runs the calling thread's passes on one core: the last bits of a result depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def epochs_for(maps: int) -> int:
    """The number of epochs in which `fit` learns from so many maps."""
    return min(max(round(_SEEN / maps), _EPOCHS[0]), _EPOCHS[1])


def fit(
    examples: MapExamples,
    masks: torch.Tensor,
    seed: int = 0,
    progress: Callable[[int], object] = lambda epochs: None,
) -> MapRegressor:
    """Trains a regressor, on one core: the same arguments give the same bits.

    The masks are the share of foreground in each cell, float32 [maps, height, width]. The seed decides the first
    weights, the order of the examples, and which of them are mirrored. `progress` is called after each epoch with 1.
    """
    count = len(masks)
    epochs = epochs_for(count)
    chance = torch.Generator().manual_seed(seed)
    with on_one_core():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            regressor = MapRegressor(examples.features.shape[1])
        regressor.mean, regressor.std = _standard(examples.features[examples.image.unique()])
        optimizer = torch.optim.AdamW(regressor.parameters(), _RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, epochs * math.ceil(count / _BATCH))
        pairs = zip(examples.image.tolist(), examples.maps, strict=True)
        alike = torch.stack([likeness(examples.features[image], before) for image, before in pairs])
        for _ in range(epochs):
            for some in torch.randperm(count, generator=chance).split(_BATCH):
                features, hints, wanted = examples.features[examples.image[some]], alike[some], masks[some]
                if torch.rand((), generator=chance) < 0.5:
                    features, hints, wanted = features.flip(3), hints.flip(2), wanted.flip(2)
                loss = functional.binary_cross_entropy_with_logits(regressor(features, hints), wanted)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            progress(1)
    return regressor.eval().requires_grad_(False)


def _standard(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes each channel's mean and standard deviation, [channels, 1, 1]; 1 for a constant channel."""
    total = torch.zeros(2, features.shape[1], dtype=torch.float64)
    for some in features.split(_BATCH):  # in double precision they would not all fit
        values = some.double()
        total += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
    mean, square = total / (features.numel() / features.shape[1])
    std = (square - mean.square()).clamp(min=0).sqrt()
    std[std < 1e-6] = 1
    return mean.float()[:, None, None], std.float()[:, None, None]
