"""A network's passes on a GPU as CUDA graphs: the kernels of a pass, started together by one call.

To start a kernel takes Python longer than many a kernel runs, and a pass has hundreds. Not run yet: no GPU was at hand.
"""

import dataclasses
import threading
from collections.abc import Sequence

import torch
from torch import nn

from camboxes.models.execution.programs import Program, there_and_back
from camboxes.models.introspection.parts import Recording

_CAPTURING = threading.Lock()  # PyTorch captures on one stream


def capture(layers: nn.Module, images: torch.Tensor, active: Recording) -> Program:
    """A program of the kernels that layers start for images on a GPU, there and back.

    The libraries have to have made such a pass before: what they do once alone is not to be captured.

    Raises:
      RuntimeError: the pass waits for the GPU, or copies from the CPU, which no graph can tell, or has no memory.
    """
    with torch.inference_mode(False):  # so that it can be written to in any mode
        images = images.clone()
    there, back, gradients = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph(), [images]

    def way_back(gradient: torch.Tensor) -> torch.cuda.graph:
        gradients.append(gradient)
        return _capturing(back)

    with _CAPTURING:
        passed = there_and_back(layers, images, active, _capturing(there), way_back)
    results = [passed.output.detach(), *(maps.detach() for maps in passed.maps.values())]
    captured = _Captured(there, back, images, results, gradients[-1], passed.gradients)
    return Program(captured.forward, captured.backward, [], list(passed.maps))


def _capturing(graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
    # Other threads decode photographs on the GPU meanwhile, and may allocate memory there.
    return torch.cuda.graph(graph, capture_error_mode="thread_local")


@dataclasses.dataclass
class _Captured:
    """A pass whose kernels find and leave everything at places of their own.

    Attributes:
      there, back: its graphs.
      images: where the way there finds its images.
      results: what it leaves: the output and maps.
      gradient: where the way back, if there is one, finds the gradient to the output.
      gradients: what it leaves: those to maps; empty where there is no way back.
      last: the images that were there last: what the way back needs of them lies in the graphs' memory.
      lock: held by the thread that works at these places; the GPU goes through what threads start one after the other.
    """

    there: torch.cuda.CUDAGraph
    back: torch.cuda.CUDAGraph
    images: torch.Tensor
    results: Sequence[torch.Tensor]
    gradient: torch.Tensor
    gradients: Sequence[torch.Tensor]
    last: torch.Tensor | None = None
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def forward(self, images: torch.Tensor, _: list[torch.Tensor]) -> list[torch.Tensor]:
        """The results, and what the way back asks for."""
        images = images.clone()  # the caller's may change before the way back
        with self.lock:
            self._go(images)
            return [result.clone() for result in self.results] + ([images] if self.gradients else [])

    def backward(self, gradient: torch.Tensor, kept: list[torch.Tensor], _: list[torch.Tensor]) -> list[torch.Tensor]:
        """The gradients to maps, of the pass that kept this."""
        [images] = kept
        with self.lock:
            if images is not self.last:  # another pass came in between
                self._go(images)
            self.gradient.copy_(gradient)
            self.back.replay()
            return [found.clone() for found in self.gradients]

    def _go(self, images: torch.Tensor) -> None:
        self.images.copy_(images)
        self.there.replay()
        self.last = images
