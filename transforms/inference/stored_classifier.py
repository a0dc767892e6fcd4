"""A classifier for a worker: from the folder of a run that lies on a store, too."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from camboxes.models.spec import ModelSpec
from camboxes.transforms import storage

if TYPE_CHECKING:
    from camboxes.models import Classifier


def load(model: ModelSpec) -> "Classifier":
    """Does what `load_classifier` does, of a checkpoint on a store by way of a copy on this machine.

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
