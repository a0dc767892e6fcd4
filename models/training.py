"""Training a network's GAP conversion from image-level labels, by lightning's loop.

Either the head alone, on features that were computed once, or everything, from the pretrained weights on. Where the
features are a vector per image, the linear layer is trained on them centred, and scaled by one number (a number per
channel would blow up those that are silent on the training images). Both are folded into its weights at the end, so
that what comes out is still a linear layer behind global average pooling, and CAM is exact.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAveragePrecision, MulticlassAccuracy, MultilabelAveragePrecision
from torchvision.transforms import v2

from camboxes.models.conversions import GapNetwork
from camboxes.models.preprocessing import Preprocessing

LAST, BEST = "last.ckpt", "best.ckpt"  # what a training keeps in its folder: to resume from, and to end with

_NEW_RATE, _PRETRAINED_RATE = 1e-3, 1e-4
# Of the linear layer on frozen features, strong: it draws a class's weights towards the difference between the mean
# features of its images and of the others, whose maps cover an object; weak, towards what tells the hardest images
# apart, which is a detail of it.
_HEAD_DECAY, _DECAY = 30.0, 1e-2
_PATIENCE = 5  # epochs without a better validation metric
_BATCH = 32
_WATCHED = "watched"  # the name of what decides which epoch is kept


class Examples(NamedTuple):
    """What to learn, or to be judged by.

    Attributes:
      keys: names of the inputs, for `read`.
      read: an input by its key and the epoch that it is for, None in validation: what `frozen_features` gave for it
        where the head is trained, a uint8 image (3, height, width) where everything is.
      targets: int64 [n], each image's class; or float32 [n, classes], 1 where it has the label.
      classes: how many.
    """

    keys: Sequence[str]
    read: Callable[[str, int | None], torch.Tensor]
    targets: torch.Tensor
    classes: int

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.targets.dim() == 2

    def counts(self) -> torch.Tensor:
        """How many images each class has, int64 [classes]."""
        return self.targets.sum(0).long() if self.multilabel else self.targets.bincount(minlength=self.classes)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
      everything: train all layers; otherwise those behind `GapNetwork.features`.
      epochs: at most; fewer where the validation metric stops growing.
      seed: decides the order of images, their augmentation, and new layers.
      device: "cpu" or "cuda"; of several GPUs all are used.
    """

    everything: bool
    epochs: int
    seed: int = 0
    device: str = "cpu"


class Outcome(NamedTuple):
    """What a training came to.

    Attributes:
      metrics: shares from 0 to 1 on the validation images, of the epoch that was kept; empty without such images.
      guessing: the same metrics of guessing the most frequent class for every image.
      epochs: how many were trained.
    """

    metrics: dict[str, float]
    guessing: dict[str, float]
    epochs: int


def train(
    network: GapNetwork,
    preprocessing: Preprocessing,
    training: Examples,
    validation: Examples | None,
    recipe: Recipe,
    *,
    folder: Path,
    progress: Callable[[int], None],
) -> Outcome:
    """Trains a network in place, on a CPU with the same bits whenever it is called with the same arguments.

    Args:
      network: a conversion with as many classes as the examples.
      preprocessing: what it asks of images.
      training: what to learn.
      validation: what decides which epoch is kept and when to stop; None to train all epochs and keep the last.
      recipe: how.
      folder: LAST and BEST are kept there; a training that was cut short goes on from LAST.
      progress: told, after each batch, how many images it held.

    Raises:
      KeyboardInterrupt: the user had enough; LAST holds the last whole epoch.
    """
    with _quiet():
        torch.manual_seed(recipe.seed)
        module = _Training(network, preprocessing, training, validation, recipe)
        trainer = _trainer(recipe, folder, progress, judged=validation is not None)
        last, on_interrupt = folder / LAST, signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
        except SystemExit as stop:  # lightning's answer to an interrupt, after which it ignores any other
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from stop
        state = torch.load(folder / (BEST if validation else LAST), map_location="cpu", weights_only=True)
        module.load_state_dict(state["state_dict"])
        metrics = trainer.validate(module, verbose=False)[0] if validation else {}
        module.fold()
    network.cpu().requires_grad_(False)
    guessing = _guessing(training, validation) if validation else {}
    return Outcome({name: metrics[name] for name in guessing}, guessing, trainer.current_epoch)


def frozen_features(network: GapNetwork, images: torch.Tensor) -> torch.Tensor:
    """What the head is trained on, [n, channels, height, width].

    Args:
      network: a conversion.
      images: normalised, [n, 3, height, width].

    Returns:
      Where the linear layer alone is behind them, the features' mean, float32, as maps of one cell; where a convolution
      comes first, the maps themselves, float16 for their size.
    """
    with torch.inference_mode():
        maps = network.features(images)
        return maps.half() if _is_convolved(network) else maps.mean((2, 3), keepdim=True)


def _is_convolved(network: GapNetwork) -> bool:
    return not isinstance(network.convolution, nn.Identity)


def augment(image: np.ndarray, size: int, seed: int) -> torch.Tensor:
    """A view of a photograph that keeps its object.

    Args:
      image: uint8 [height, width, 3], RGB.
      size: of the view, in pixels.
      seed: decides the view, and nothing else does, such as the number of workers.

    Returns:
      uint8 [3, size, size]. As in inference the aspect ratio of the whole image is squashed to a square, up to a third.
    """
    aspect = image.shape[1] / image.shape[0]
    views = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.5, 1), ratio=(3 / 4 * aspect, 4 / 3 * aspect), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        ]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return views(torch.from_numpy(image).permute(2, 0, 1))


class _Training(lightning.LightningModule):
    centre: torch.Tensor
    scale: torch.Tensor
    balance: torch.Tensor

    def __init__(
        self,
        network: GapNetwork,
        preprocessing: Preprocessing,
        training: Examples,
        validation: Examples | None,
        recipe: Recipe,
    ):
        super().__init__()
        self._preprocessing, self._recipe = preprocessing, recipe
        self._training, self._validation = training, validation
        # Frozen features are left out: they would be written with every epoch.
        self.features = network.features if recipe.everything else nn.Identity()
        self.convolution, self.head = network.convolution, network.head
        if not recipe.everything:
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)
        centre, scale = self._moments(network)
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)
        self.register_buffer("balance", _balance(training))
        self.metrics = _metrics(training, validation or training)
        self.losses = MeanMetric()
        self.eval()  # norms keep the statistics that they were pretrained with: batches may be small
        if recipe.everything:
            _thaw(network, preprocessing.size)
        else:
            for part in (self.convolution, self.head):
                part.requires_grad_()

    def _moments(self, network: GapNetwork) -> tuple[torch.Tensor, torch.Tensor]:
        """Of vectors of features, their mean per channel and the mean of their standard deviations."""
        if self._recipe.everything or _is_convolved(network):
            return torch.zeros(self.head.in_features), torch.ones(())
        total = torch.zeros(2, self.head.in_features, dtype=torch.float64)
        for key in self._training.keys:
            features = self._training.read(key, None).double().flatten()
            total += torch.stack([features, features.square()])
        mean, square = total / len(self._training.keys)
        scale = (square - mean.square()).clamp(min=0).sqrt().mean()
        return mean.float(), (scale if scale > 0 else torch.ones(())).float()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._recipe.everything:
            inputs = self.features(self._preprocessing.normalize(inputs))
        return self.head((self.convolution(inputs.float()).mean((2, 3)) - self.centre) / self.scale)

    def fold(self) -> None:
        """Puts the centring and scaling of features into the linear layer, which then takes them as they are."""
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
        inputs, targets = batch
        return self._loss(self(inputs), targets)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        inputs, targets = batch
        logits = self(inputs)
        self.metrics.update(logits, targets.long())
        self.losses.update(self._loss(logits, targets), len(targets))

    def on_validation_epoch_end(self) -> None:
        found = self.metrics.compute()
        # Of epochs that are equal in the metric, which a small set soon is, the loss decides.
        self.log_dict(found | {_WATCHED: next(iter(found.values())) - 1e-4 * self.losses.compute()})
        self.metrics.reset()
        self.losses.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        decay = _DECAY if self._recipe.everything else _HEAD_DECAY
        groups = [
            {"params": [self.head.weight], "lr": _NEW_RATE, "weight_decay": decay},
            {"params": [self.head.bias], "lr": _NEW_RATE, "weight_decay": 0.0},
            {"params": [*self.convolution.parameters()], "lr": _NEW_RATE},
            {"params": [p for p in self.features.parameters() if p.requires_grad], "lr": _PRETRAINED_RATE},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=_DECAY)

    def train_dataloader(self) -> DataLoader:
        """Made anew for every epoch, so that its order depends on the seed and the epoch, not on what was before."""
        epoch = self.current_epoch
        generator = torch.Generator().manual_seed(1_000_003 * self._recipe.seed + epoch)
        order = torch.randperm(len(self._training.keys), generator=generator).tolist()
        return self._loader(self._training, epoch, sampler=order)

    def val_dataloader(self) -> Any:
        return self._loader(self._validation, None) if self._validation else []

    def _loader(self, examples: Examples, epoch: int | None, **order: Any) -> DataLoader:
        workers = min(8, os.cpu_count() or 1) if self._recipe.everything else 0
        return DataLoader(_Epoch(examples, epoch), _BATCH, num_workers=workers, **order)


class _Epoch(Dataset):
    def __init__(self, examples: Examples, epoch: int | None):
        self._examples, self._epoch = examples, epoch

    def __len__(self) -> int:
        return len(self._examples.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._examples.read(self._examples.keys[index], self._epoch), self._examples.targets[index]


def _thaw(network: GapNetwork, size: int) -> None:
    """Lets all parameters be trained but those that the logits do not depend on, such as the classifier before."""
    network.requires_grad_()
    network(torch.zeros(1, 3, size, size)).sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def _balance(training: Examples) -> torch.Tensor:
    """For each class the weight that lets it count as much as the others, or as much as its absence."""
    counts, total = training.counts().clamp(min=1), len(training.targets)
    return (total - counts).clamp(min=1) / counts if training.multilabel else total / (training.classes * counts)


class _MeanClassAccuracy(MulticlassAccuracy):
    """The mean over the classes that there are validation images of: torchmetrics' own counts others as missed."""

    def __init__(self, classes: int, seen: torch.Tensor):
        super().__init__(classes, average=None)
        self.seen = seen

    def compute(self) -> torch.Tensor:
        return super().compute()[self.seen.to(self.device)].mean()


def _metrics(training: Examples, validation: Examples) -> MetricCollection:
    """The first one decides which epoch is kept."""
    classes = training.classes
    if training.multilabel:
        precision = BinaryAveragePrecision() if classes == 1 else MultilabelAveragePrecision(classes)
        return MetricCollection({"mean_average_precision": precision})
    of_classes = _MeanClassAccuracy(classes, validation.counts() > 0)
    return MetricCollection(
        {"mean_class_accuracy": of_classes, "top1_accuracy": MulticlassAccuracy(classes, average="micro")}
    )


def _guessing(training: Examples, validation: Examples) -> dict[str, float]:
    counts, total = validation.counts(), len(validation.targets)
    if training.multilabel:  # the average precision of a constant is the share of images that have the label
        return {"mean_average_precision": float((counts[counts > 0] / total).mean())}
    frequent = training.counts().argmax()
    return {
        "mean_class_accuracy": float((counts[frequent] > 0) / (counts > 0).sum()),
        "top1_accuracy": float(counts[frequent] / total),
    }


def _trainer(recipe: Recipe, folder: Path, progress: Callable[[int], None], *, judged: bool) -> lightning.Trainer:
    every_epoch: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    gpus = torch.cuda.device_count() if recipe.device == "cuda" else 0
    callbacks: list[Callback] = [] if gpus > 1 else [_Progress(progress)]  # no other process can tell this one
    if judged:
        watched: dict[str, Any] = {"monitor": _WATCHED, "mode": "max"}
        callbacks.append(EarlyStopping(**watched, patience=_PATIENCE, check_on_train_epoch_end=True))
        callbacks.append(ModelCheckpoint(folder, BEST.removesuffix(".ckpt"), **watched, **every_epoch))
    callbacks.append(ModelCheckpoint(folder, LAST.removesuffix(".ckpt"), **every_epoch))
    return lightning.Trainer(
        accelerator="gpu" if gpus else "cpu",
        devices=gpus or 1,
        strategy="ddp_spawn" if gpus > 1 else "auto",  # other strategies call the whole command once more per GPU
        precision=("bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed") if gpus else "32-true",
        max_epochs=recipe.epochs,
        callbacks=callbacks,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class _Progress(Callback):
    def __init__(self, tell: Callable[[int], None]):
        self._tell = tell

    def on_train_batch_end(self, *args: Any) -> None:
        self._tell(len(args[3][1]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back lightning's tips and warnings; errors are raised in any case."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
