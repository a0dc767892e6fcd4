"""Lightning's module for training a GAP conversion: the head alone, on features computed once, or all layers.

Where the features are one vector per image, the linear layer is trained on centred features, scaled by one number. (A
number per channel would amplify the channels that are silent on the training images.) Both are folded into the layer's
weights at the end: the result is a linear layer behind global average pooling, so CAM is exact.
"""

import dataclasses
import os
from typing import Any

import lightning
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAveragePrecision, MulticlassAccuracy, MultilabelAveragePrecision

from camboxes.models.networks.gap_conversions import GapNetwork
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.training.examples import Examples

WATCHED = "watched"  # the name of the quantity that decides which epoch is kept

_NEW_RATE, _PRETRAINED_RATE = 1e-3, 1e-4
# The weight decay of a linear layer on frozen features is strong. Then a class's weights tend to the difference between
# the mean features of its images and of the others, and its maps cover the object. With a weak decay they tend to what
# separates the hardest images, and the maps cover a detail.
_HEAD_DECAY, _DECAY = 30.0, 1e-2
_BATCH = 32


def frozen_features(network: GapNetwork, images: torch.Tensor) -> torch.Tensor:
    """Computes the features of normalised images that the head is trained on, [n, channels, height, width].

    For a head that is a linear layer alone, they are the mean features as maps of one cell, float32. For a head that
    begins with a convolution, they are the feature maps, float16 to save memory.
    """
    with torch.inference_mode():
        maps = network.features(images)
        return maps.mean((2, 3), keepdim=True) if isinstance(network.convolution, nn.Identity) else maps.half()


class TrainingModule(lightning.LightningModule):
    """The layers to train, with their loss, metrics, optimizer and batches."""

    centre: torch.Tensor
    scale: torch.Tensor
    balance: torch.Tensor

    def __init__(
        self,
        network: GapNetwork,
        preprocessing: Preprocessing,
        training: Examples,
        validation: Examples | None,
        *,
        everything: bool,
        seed: int,
    ):
        """Prepares the layers. Arguments: see `train`."""
        super().__init__()
        self._preprocessing, self._everything, self._seed = preprocessing, everything, seed
        self._training, self._validation = training, validation
        # Frozen layers are left out: they would be written with every epoch.
        self.features = network.features if everything else nn.Identity()
        self.convolution, self.head = network.convolution, network.head
        if not everything:
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)
        centre, scale = self._moments()
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)
        self.register_buffer("balance", _balance(training))
        self.metrics = validation_metrics(training, validation or training)
        self.losses = MeanMetric()
        self.eval()  # norms keep the statistics that they were pretrained with: batches may be small
        if everything:
            _thaw(network, preprocessing.size)
        else:
            for part in (self.convolution, self.head):
                part.requires_grad_()

    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the mean of each channel of the features, and the mean of the channels' standard deviations."""
        if self._everything or not isinstance(self.convolution, nn.Identity):
            return torch.zeros(self.head.in_features), torch.ones(())
        total = torch.zeros(2, self.head.in_features, dtype=torch.float64)
        for key in self._training.keys:
            features = self._training.read(key, None).double().flatten()
            total += torch.stack([features, features.square()])
        mean, square = total / len(self._training)
        scale = (square - mean.square()).clamp(min=0).sqrt().mean()
        return mean.float(), (scale if scale > 0 else torch.ones(())).float()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Computes the logits of a batch of inputs, [n, classes]."""
        if self._everything:
            inputs = self.features(self._preprocessing.normalize(inputs))
        return self.head((self.convolution(inputs.float()).mean((2, 3)) - self.centre) / self.scale)

    def fold(self) -> None:
        """Folds the centring and scaling of the features into the linear layer."""
        with torch.no_grad():
            self.head.weight.div_(self.scale)
            self.head.bias.sub_(self.head.weight @ self.centre)
            self.centre.zero_()
            self.scale.fill_(1)

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self._training.multilabel:
            return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.balance)
        return functional.cross_entropy(logits, targets, weight=self.balance)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Computes the loss of a batch."""
        inputs, targets = batch
        return self._loss(self(inputs), targets)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Adds a batch to the metrics and the loss."""
        inputs, targets = batch
        logits = self(inputs)
        self.metrics.update(logits, targets.long())
        self.losses.update(self._loss(logits, targets), len(targets))

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics, and WATCHED."""
        found = self.metrics.compute()
        # The loss decides between epochs with the same metric, which are common where validation images are few.
        self.log_dict(found | {WATCHED: next(iter(found.values())) - 1e-4 * self.losses.compute()})
        self.metrics.reset()
        self.losses.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds AdamW: new layers learn faster than pretrained ones; the linear layer has a decay of its own."""
        decay = _DECAY if self._everything else _HEAD_DECAY
        groups = [
            {"params": [self.head.weight], "lr": _NEW_RATE, "weight_decay": decay},
            {"params": [self.head.bias], "lr": _NEW_RATE, "weight_decay": 0.0},
            {"params": [*self.convolution.parameters()], "lr": _NEW_RATE},
            {"params": [p for p in self.features.parameters() if p.requires_grad], "lr": _PRETRAINED_RATE},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=_DECAY)

    def train_dataloader(self) -> DataLoader:
        """Builds the loader of one epoch, whose order depends on the seed and the epoch alone."""
        epoch = self.current_epoch
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + epoch)
        order = torch.randperm(len(self._training), generator=generator).tolist()
        return self._loader(dataclasses.replace(self._training, epoch=epoch), order)

    def val_dataloader(self) -> Any:
        """Builds the loader of all validation images, in their order."""
        return self._loader(self._validation) if self._validation else []

    def _loader(self, examples: Examples, order: list[int] | None = None) -> DataLoader:
        workers = min(8, os.cpu_count() or 1) if self._everything else 0
        return DataLoader(examples, _BATCH, sampler=order, num_workers=workers)


class _MeanClassAccuracy(MulticlassAccuracy):
    """The mean accuracy over the classes with validation images; torchmetrics' own counts the others as missed."""

    def __init__(self, classes: int, seen: torch.Tensor):
        super().__init__(classes, average=None)
        self.seen = seen

    def compute(self) -> torch.Tensor:
        return super().compute()[self.seen.to(self.device)].mean()


def validation_metrics(training: Examples, validation: Examples) -> MetricCollection:
    """Builds the metrics, shares from 0 to 1; the first one decides which epoch is kept."""
    classes = training.classes
    if training.multilabel:
        precision = BinaryAveragePrecision() if classes == 1 else MultilabelAveragePrecision(classes)
        return MetricCollection({"mean_average_precision": precision})
    of_classes = _MeanClassAccuracy(classes, validation.counts() > 0)
    return MetricCollection(
        {"mean_class_accuracy": of_classes, "top1_accuracy": MulticlassAccuracy(classes, average="micro")}
    )


def guessing(training: Examples, validation: Examples) -> dict[str, float]:
    """Computes the metrics of guessing the most frequent class for every image."""
    counts, total = validation.counts(), len(validation)
    if training.multilabel:  # the average precision of a constant is the share of images that have the label
        return {"mean_average_precision": float((counts[counts > 0] / total).mean())}
    frequent = training.counts().argmax()
    return {
        "mean_class_accuracy": float((counts[frequent] > 0) / (counts > 0).sum()),
        "top1_accuracy": float(counts[frequent] / total),
    }


def _thaw(network: GapNetwork, size: int) -> None:
    """Unfreezes the parameters that the logits depend on: not, say, the classifier that the conversion replaced."""
    network.requires_grad_()
    network(torch.zeros(1, 3, size, size)).sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def _balance(training: Examples) -> torch.Tensor:
    """Computes weights for the loss: each class counts as much as the others, or as its absence does."""
    counts, total = training.counts().clamp(min=1), len(training)
    return (total - counts).clamp(min=1) / counts if training.multilabel else total / (training.classes * counts)
