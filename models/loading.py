"""Loads the classifier that a `ModelSpec` names."""

import dataclasses

import torch

from camboxes.models.classifier import Classifier
from camboxes.models.networks.checkpoints import find_network
from camboxes.models.spec import Device, ModelSpec

_BATCH = {"cpu": 4, "cuda": 64}  # images of 224 x 224 pixels


def load_classifier(model: str | ModelSpec) -> Classifier:
    """Loads a classifier, ready to infer on its device, its parameters frozen.

    Raises:
      ValueError: an unknown name, weights of another network or other than those that the spec asks for, a network
        without feature maps, or an execution that this device does not support.
      OSError: weights that cannot be loaded.
      RuntimeError: a GPU was asked for and there is none. There is no silent fall-back to the CPU.
    """
    spec = ModelSpec(model) if isinstance(model, str) else model
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "device cuda was asked for, but PyTorch finds no GPU here; use device cpu, or repair the driver"
        )
    device: Device = ("cuda" if torch.cuda.is_available() else "cpu") if spec.device == "auto" else spec.device
    classifier = _load(dataclasses.replace(spec, device=device)).to(device).to(memory_format=torch.channels_last)
    return classifier.settled()


def load_for_elsewhere(spec: ModelSpec) -> Classifier:
    """Loads a classifier that other machines will run, for its names, settings and files; it makes no maps here.

    Nothing is tried on this machine, which may be of another kind, so the spec must leave nothing open of how the
    network is executed. Where that is not possible, `load_classifier` raises on the machine that runs it.

    Raises:
      ValueError: the device, the precision or the compilation is left open; or see `load_classifier`.
      OSError: weights that cannot be loaded.
    """
    if left_open := [name for name in ("device", "precision", "compile") if getattr(spec, name) == "auto"]:
        raise ValueError(f"{' and '.join(left_open)} auto: what another machine can do is not known here; name it")
    return _load(spec)


def _load(spec: ModelSpec) -> Classifier:
    """Loads a classifier into this machine's memory, for the device of its spec."""
    network, described = find_network(spec)
    preprocessing = dataclasses.replace(
        network.preprocessing,
        mean=spec.mean or network.preprocessing.mean,
        std=spec.std or network.preprocessing.std,
        size=spec.size or network.preprocessing.size,
        aspect=spec.aspect,
    )
    names = described.class_names if described and spec.classes is None else spec.classes
    multilabel = described.multilabel if described and spec.multilabel is None else bool(spec.multilabel)
    spec = dataclasses.replace(
        spec,
        name=network.name,
        weights=None,
        prompts=None,
        classes=None,
        size=preprocessing.size,
        map_stride=spec.map_stride or (described.map_stride if described else None),
        batch_size=spec.batch_size or max(1, round(_BATCH[spec.device] * (224 / preprocessing.size) ** 2)),
    )
    classifier = Classifier(
        network.module.requires_grad_(False),
        preprocessing,
        spec,
        names,
        multilabel=multilabel,
        training_record=described.training if described else None,
    )
    if spec.map_stride is not None:
        classifier = classifier.at_stride(spec.map_stride)
    if spec.weights_sha256 is not None and classifier.weights_sha256 != spec.weights_sha256:
        raise ValueError(
            f"the weights of {spec.name} have the SHA-256 {classifier.weights_sha256}; expected "
            f"{spec.weights_sha256}: the file was changed or cut short since it was staged; stage it again"
        )
    return classifier.eval()
