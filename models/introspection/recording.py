"""Records what the layers of a network give in one pass of the calling thread: maps, attention, gradients."""

import contextvars
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch

from camboxes.models.introspection.attention import OpenAttention
from camboxes.models.introspection.tokens import Layout

LAST = ""  # the name of the last feature maps, in a `Recording`
ATTENTION = "@attention"  # asks a `Recording` for the attention of all layers


class Recording:
    """The maps and the attention of one forward pass, and the autograd graph behind them where gradients are wanted.

    Attributes:
      maps: the feature maps of each layer that was asked for, [n, channels, height, width].
      attention: the attention weights of each layer in the order of execution, [n, heads, queries, keys], where
        ATTENTION was asked for.
      layers: the layers that were asked for.
      gradients: those of them with respect to which gradients are wanted.
    """

    def __init__(self, layers: frozenset[str], size: Sequence[int], gradients: frozenset[str]):
        self.maps: dict[str, torch.Tensor] = {}
        self.attention: list[torch.Tensor] = []
        self.layers = layers
        self.gradients = gradients
        self._size = size

    def take(self, layer: str, output: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Keeps the maps in a layer's output, and returns a copy that the network may change."""
        if layer not in self.layers:
            return output
        return layout.output(self.keep(layer, layout.maps(output, self._size)).clone(), output)

    def keep(self, layer: str, maps: torch.Tensor) -> torch.Tensor:
        """Keeps a layer's maps, and returns them as part of the autograd graph.

        The graph begins at the first layer with gradients: nothing before it is kept, whatever its parameters ask for.
        """
        self.maps[layer] = self._in_graph(layer, maps)
        return self.maps[layer]

    def take_attention(self, weights: torch.Tensor) -> torch.Tensor:
        """Keeps a layer's attention weights, and returns them as part of the autograd graph."""
        self.attention.append(self._in_graph(ATTENTION, weights))
        return self.attention[-1]

    def _in_graph(self, layer: str, value: torch.Tensor) -> torch.Tensor:
        if layer in self.gradients and not value.requires_grad:
            value = value.detach().requires_grad_()
            torch.set_grad_enabled(True)  # until the end of `recording`
        return value


_recording: contextvars.ContextVar[Recording | None] = contextvars.ContextVar("recording", default=None)


@contextmanager
def recording(
    layers: frozenset[str], size: Sequence[int], gradients: frozenset[str] = frozenset()
) -> Iterator[Recording]:
    """Records the forward passes that the calling thread makes in the block, through the taps of the network.

    Args:
      layers: the layers to record; with ATTENTION among them also attention.
      size: height and width of the images, in pixels.
      gradients: the layers among them with respect to which gradients are wanted.
    """
    found = Recording(layers, size, gradients)
    # No inference mode where gradients are wanted: a tensor made in it can never be part of a graph.
    modes = (torch.inference_mode(not gradients), torch.no_grad())
    attention = OpenAttention(found.take_attention) if ATTENTION in layers else nullcontext()
    token = _recording.set(found)
    try:
        with modes[0], modes[1], attention:
            yield found
    finally:
        _recording.reset(token)


def active_recording() -> Recording | None:
    """The recording that the calling thread is in; None outside of any."""
    return _recording.get()
