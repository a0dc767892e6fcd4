"""Trains a GAP conversion from image-level labels, with lightning; a training that was interrupted can be resumed."""

import contextlib
import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback, ModelCheckpoint

from camboxes.models.networks.gap_conversions import GapNetwork
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.training.examples import Examples
from camboxes.models.training.lightning_module import WATCHED, TrainingModule, guessing

LAST, BEST = "last.ckpt", "best.ckpt"  # files in a training's folder: to resume from; the epoch that is kept

_PATIENCE = 5  # epochs without a better validation metric


class Outcome(NamedTuple):
    """The metrics of the epoch that was kept, and of guessing; shares from 0 to 1, empty without validation images."""

    metrics: dict[str, float]
    guessing: dict[str, float]  # the same metrics of guessing the most frequent class for every image
    epochs: int  # the number of epochs that were trained


def train(
    network: GapNetwork,
    preprocessing: Preprocessing,
    training: Examples,
    validation: Examples | None,
    *,
    everything: bool,
    epochs: int,
    seed: int,
    device: str,
    folder: Path,
    progress: Callable[[int], object],
) -> Outcome:
    """Trains a network in place. On a CPU the same arguments give the same bits.

    Args:
      network: a conversion with as many classes as the examples.
      preprocessing: how images are normalised.
      training: the examples to learn.
      validation: the examples that decide which epoch is kept and when to stop; None to train all epochs and keep the
        last.
      everything: train all layers; otherwise those behind `GapNetwork.features`.
      epochs: the most epochs; training stops earlier where the validation metric stops growing.
      seed: decides the order of images, their augmentation, and the first weights of new layers.
      device: "cpu" or "cuda"; all GPUs are used.
      folder: where LAST and BEST are kept; an interrupted training is resumed from LAST.
      progress: called after each batch with the number of its images.

    Raises:
      KeyboardInterrupt: the user interrupted the training; LAST holds the last whole epoch.
    """
    with _quiet():
        torch.manual_seed(seed)
        module = TrainingModule(network, preprocessing, training, validation, everything=everything, seed=seed)
        trainer = _trainer(epochs, device, folder, progress, judged=validation is not None)
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
    guess = guessing(training, validation) if validation else {}
    return Outcome({name: metrics[name] for name in guess}, guess, trainer.current_epoch)


def _trainer(
    epochs: int, device: str, folder: Path, progress: Callable[[int], object], *, judged: bool
) -> lightning.Trainer:
    every_epoch: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    callbacks: list[Callback] = []
    if gpus <= 1:  # with several, batches are trained in other processes, which cannot call `progress`
        callbacks.append(LambdaCallback(on_train_batch_end=lambda *found: progress(len(found[3][1]))))
    if judged:
        watched: dict[str, Any] = {"monitor": WATCHED, "mode": "max"}
        callbacks.append(_EarlyStopping(**watched, patience=_PATIENCE, check_on_train_epoch_end=True))
        callbacks.append(ModelCheckpoint(folder, BEST.removesuffix(".ckpt"), **watched, **every_epoch))
    callbacks.append(ModelCheckpoint(folder, LAST.removesuffix(".ckpt"), **every_epoch))
    return lightning.Trainer(
        accelerator="gpu" if gpus else "cpu",
        devices=gpus or 1,
        strategy="ddp_spawn" if gpus > 1 else "auto",  # other strategies call the whole command once more per GPU
        precision=("bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed") if gpus else "32-true",
        max_epochs=epochs,
        callbacks=callbacks,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class _EarlyStopping(EarlyStopping):
    """Early stopping that also holds for a resumed training that had stopped; lightning's own would train on."""

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        trainer.should_stop = self.stopped_epoch > 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences lightning's tips and warnings; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
