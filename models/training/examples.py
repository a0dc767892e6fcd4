"""Training examples: inputs with their targets, and random views of a photograph."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2


@dataclasses.dataclass(frozen=True)
class Examples(Dataset):
    """A set of training or validation examples: pairs of an input and its target.

    `read` reads an input, given its key and the epoch. Where the head alone is trained, an input is what
    `frozen_features` gave; else it is a uint8 image [3, height, width].
    """

    keys: Sequence[str]
    read: Callable[[str, int | None], torch.Tensor]
    targets: torch.Tensor  # int64 [n], the class of each image; or float32 [n, classes], 1 where it has the label
    classes: int
    epoch: int | None = None  # to read inputs for; None in validation

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.read(self.keys[index], self.epoch), self.targets[index]

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.targets.dim() == 2

    def counts(self) -> torch.Tensor:
        """Counts the images of each class, int64 [classes]."""
        return self.targets.sum(0).long() if self.multilabel else self.targets.bincount(minlength=self.classes)


def augment(image: np.ndarray, size: int, seed: int) -> torch.Tensor:
    """Makes a random view of a photograph that mostly keeps its object.

    The image is uint8 [height, width, 3], RGB; the view is uint8 [3, size, size]. The whole image is squashed to a
    square, as in inference; the view's aspect ratio differs from that by up to a third. The seed alone decides the
    view, whatever the number of workers.
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
