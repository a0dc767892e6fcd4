"""Validation metrics of a classifier, and the same metrics of guessing."""

import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAveragePrecision, MulticlassAccuracy, MultilabelAveragePrecision

from camboxes.models.training.examples import Examples


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
