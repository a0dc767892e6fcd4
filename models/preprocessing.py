"""From a decoded photograph to what a network takes: the whole image, never a centre crop."""

import dataclasses

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from camboxes.models.spec import Aspect

_WIDEST = 2.0  # aspect ratios beyond [1/2, 2] are squashed to it, or a panorama would cost hundreds of times a square


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resizing and normalisation, as a network's weights ask for them.

    Attributes:
      mean: per channel (red, green, blue), of values in [0, 1].
      std: likewise.
      size: short side of the input, in pixels.
      interpolation: "bilinear" or "bicubic"; always with antialiasing.
      aspect: see `ModelSpec.aspect`.
      stride: input pixels per cell of the network's last feature map.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    interpolation: str
    aspect: Aspect = "squash"
    stride: int = 32

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the network's input, in pixels, for an image of `height` x `width` pixels."""
        if self.aspect == "squash":
            return self.size, self.size
        ratio = min(max(width / height, 1 / _WIDEST), _WIDEST)
        long_side = round(self.size * max(ratio, 1 / ratio) / self.stride) * self.stride
        long_side = max(long_side, self.size)
        return (self.size, long_side) if ratio >= 1 else (long_side, self.size)

    def resize(self, image: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Brings a photograph to the input's shape, on the device that it is on.

        Args:
          image: uint8 [height, width, 3], RGB.

        Returns:
          uint8 [3, input height, input width]; in memory as the photograph.
        """
        channels_first = torch.as_tensor(image).permute(2, 0, 1)
        mode = transforms.InterpolationMode(self.interpolation)
        return transforms.resize(channels_first, list(self.shape(*image.shape[:2])), interpolation=mode, antialias=True)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Scales a uint8 batch [n, 3, height, width] to [0, 1], subtracts the mean, divides by std: float32.

        In memory it lies pixel by pixel (channels_last), and goes fastest where the batch does so.
        """
        mean, std = (torch.tensor(values, device=images.device) for values in (self.mean, self.std))
        scale, shift = 1 / (255 * std), mean / std
        # Row by row, with the factors of a whole row: seven times as fast as pixel by pixel.
        pixels = images.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)
        pixels.flatten(2).mul_(scale.repeat(pixels.shape[2])).sub_(shift.repeat(pixels.shape[2]))
        return pixels.permute(0, 3, 1, 2)
