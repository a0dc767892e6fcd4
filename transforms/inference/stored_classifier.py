"""Loads a worker's classifier; also from a run's folder on a store."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from camboxes.models.spec import ModelSpec
from camboxes.transforms import storage

if TYPE_CHECKING:
    from camboxes.models import Classifier


def load(model: ModelSpec) -> "Classifier":
    """Loads a classifier as `load_classifier` does; a checkpoint on a store is copied to this machine first.

    Raises:
      ValueError, OSError, RuntimeError: see `load_classifier`.
    """
    from camboxes.models import load_classifier
    from camboxes.models.networks.checkpoints import DESCRIPTION, WEIGHTS

    if storage.is_local(model.name):
        return load_classifier(model)
    with tempfile.TemporaryDirectory(prefix="camboxes-") as folder:
        for name in (DESCRIPTION, WEIGHTS):
            Path(folder, name).write_bytes(storage.read_bytes(storage.join(model.name, name)))
        return load_classifier(dataclasses.replace(model, name=folder))
