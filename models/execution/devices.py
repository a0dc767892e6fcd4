"""What goes to a GPU, and what it does, while it is busy with a pass."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def sent(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """A tensor on its way to a device; what is done with it there waits for it, and Python does not."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@contextmanager
def beside_passes(device: str) -> Iterator[None]:
    """What the block starts on a GPU runs beside the passes there, and is done when the block ends.

    What it makes may be used anywhere then. What it is given and is on the GPU must have been made by such a block, and
    be kept until its end.
    """
    if device != "cuda":
        yield
        return
    with torch.cuda.stream(_stream()):
        yield
    _stream().synchronize()


@functools.cache
def _stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()
