"""JPEGs to pixels: by the CPU, or by a GPU that has circuits for that.

The GPU's part has not been run yet: none was at hand.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import torch
from torchvision import io

from camboxes.models.execution.devices import beside_passes

# By compute capability: A100 and A30; H100 and H200; B100 and B200. Others decode by their general kernels with the
# CPU's help, no faster than one core does (pytorch/vision, pull requests 2786 and 8496).
_WITH_CIRCUITS = {(8, 0), (9, 0), (10, 0)}

_END = b"\xff\xd9"  # of a JPEG


def decode_jpeg(data: bytes) -> np.ndarray:
    """The pixels of a JPEG, uint8 [height, width, 3], RGB, as they are stored.

    They lie in memory as resizing is fastest.

    Raises:
      RuntimeError: it cannot be decoded.
    """
    return io.decode_jpeg(_tensor(data), mode=io.ImageReadMode.RGB).permute(1, 2, 0).numpy()


def decodes_jpegs(device: str) -> bool:
    """Whether JPEGs are best decoded by the device that runs the network, "cpu" or "cuda"."""
    return device == "cuda" and torch.cuda.get_device_capability() in _WITH_CIRCUITS


def decode_jpegs(device: str, files: Sequence[bytes]) -> list[torch.Tensor]:
    """Decodes JPEGs together, on "cpu" or "cuda": see `decode_jpeg`.

    The CPU's pixels and a GPU's differ by rounding, and in how they fill in colours, stored at half of the resolution.

    Raises:
      RuntimeError: one of them cannot be decoded, or has no end; what is missing a GPU makes up.
    """
    if not all(data.endswith(_END) for data in files):
        raise RuntimeError("a JPEG without its end")
    with beside_passes(device):
        images = io.decode_jpeg([_tensor(data) for data in files], mode=io.ImageReadMode.RGB, device=device)
    return [image.permute(1, 2, 0) for image in images]


class Gathered:
    """Calls of several threads as one: while a thread is at work, others that come wait, and are answered together."""

    def __init__(self, work: Callable[[list[bytes]], Sequence[torch.Tensor]]):
        """Takes what is to be done with a number of items; one that it cannot do may fail them all."""
        self._work = work
        self._working, self._adding = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[bytes, Future[torch.Tensor]]] = []

    def __call__(self, item: bytes) -> torch.Tensor:
        """The result of one item, or the error that it has by itself."""
        answer: Future[torch.Tensor] = Future()
        with self._adding:
            self._waiting.append((item, answer))
        with self._working:
            if not answer.done():
                self._answer_all()
        return answer.result()

    def _answer_all(self) -> None:
        with self._adding:
            waiting, self._waiting = self._waiting, []
        results: Sequence[torch.Tensor] | None = None
        with contextlib.suppress(Exception):
            results = self._work([item for item, _ in waiting])
        if results is not None:
            for (_, answer), result in zip(waiting, results, strict=True):
                answer.set_result(result)
            return
        # Outside the block: inside it the error would hold the pixels of the first attempt.
        for item, answer in waiting:
            try:
                answer.set_result(self._work([item])[0])
            except Exception as error:
                answer.set_exception(error)


def jpeg_decoder(device: str) -> Callable[[bytes], np.ndarray | torch.Tensor]:
    """What decodes JPEGs best for a network on "cpu" or "cuda": see `decode_jpeg`; a GPU's pixels stay there."""
    return Gathered(functools.partial(decode_jpegs, device)) if decodes_jpegs(device) else decode_jpeg


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
