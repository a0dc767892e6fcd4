"""One forward pass over a batch of photographs: where is each of the classes that they are labelled with?"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from camboxes.models.cam import class_activation_maps
from camboxes.models.classifier import Classifier


class Localization(NamedTuple):
    """What the network says of one image.

    Attributes:
      logits: float32 [classes].
      probabilities: their softmax, float32 [classes].
      class_ids: for each label the class that was chosen for it.
      maps: for each label its class's map, float32 [labels, height, width]; signed, not scaled.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    class_ids: tuple[int, ...]
    maps: np.ndarray


def use_one_core() -> None:
    """Makes the calling thread run its forward passes on one core: the initializer of a pool of such threads.

    The last bits of a convolution depend on the number of threads that share it (measured: oneDNN, channels_last), so
    passes that take all cores would give other bytes on a machine with more cores, or with two worker processes. One
    pass a core, side by side, gives the same bytes everywhere, and is no slower: benchmarks/passes.py.
    """
    torch.set_num_threads(1)


def passes_side_by_side(classifier: Classifier) -> int:
    """How many threads of `use_one_core` keep the device busy: the cores that this process may use; 1 for a GPU."""
    if classifier.spec.device != "cpu":
        return 1
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.isdecimal():
        return max(1, int(asked))
    # Only Linux says which cores this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def localize(
    classifier: Classifier, images: Sequence[torch.Tensor], candidates: Sequence[Sequence[Sequence[int]]]
) -> list[Localization]:
    """Maps each image's labels.

    Args:
      classifier: the network.
      images: at most `spec.batch_size`, of one shape, as `preprocessing.resize` makes them. The batch is filled up
        with zeros, so that every pass has the same shape: the last bits of a result depend on it.
      candidates: for each image, for each of its labels, the classes that the label stands for; the one with the
        highest logit is taken, the first among equals.

    Raises:
      ValueError: more images than the batch holds.
    """
    size = classifier.spec.batch_size
    assert size is not None, "a loaded classifier's spec is resolved"
    if len(images) > size:
        raise ValueError(f"{len(images)} images were given; a batch of this classifier holds {size}")
    batch = torch.zeros((size, *images[0].shape), dtype=torch.uint8)
    torch.stack(list(images), out=batch[: len(images)])
    features, raw = classifier.infer(batch)
    logits, probabilities = raw.cpu().numpy(), raw.softmax(1).cpu().numpy()
    chosen = [
        tuple(max(ids, key=row.__getitem__) for ids in labels) for labels, row in zip(candidates, logits, strict=False)
    ]
    slots = torch.zeros((size, max(map(len, chosen))), dtype=torch.int64)
    for slot, ids in enumerate(chosen):
        slots[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    maps = class_activation_maps(features, classifier.weight, slots.to(features.device)).cpu().numpy()
    return [
        Localization(logits[slot], probabilities[slot], ids, maps[slot, : len(ids)]) for slot, ids in enumerate(chosen)
    ]
