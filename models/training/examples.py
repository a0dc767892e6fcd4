"""What a training learns from: inputs with their targets, and views of a photograph."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2


@dataclasses.dataclass(frozen=True)
class Examples(Dataset):
    """What to learn, or to be judged by: pairs of an input and its target.

    Attributes:
      keys: names of the inputs, for `read`.
      read: an input by its key and the epoch that it is for, None in validation: what `frozen_features` gave for it
        where the head is trained, a uint8 image (3, height, width) where everything is.
      targets: int64 [n], each image's class; or float32 [n, classes], 1 where it has the label.
      classes: how many.
      epoch: the one that inputs are read for.
    """

    keys: Sequence[str]
    read: Callable[[str, int | None], torch.Tensor]
    targets: torch.Tensor
    classes: int
    epoch: int | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.read(self.keys[index], self.epoch), self.targets[index]

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.targets.dim() == 2

    def counts(self) -> torch.Tensor:
        """How many images each class has, int64 [classes]."""
        return self.targets.sum(0).long() if self.multilabel else self.targets.bincount(minlength=self.classes)


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
