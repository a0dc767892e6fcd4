"""Finds the layers of a network by name or stride, and records their maps in a pass."""

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from camboxes.models.introspection.layers import outermost_layers
from camboxes.models.introspection.parts import Parts
from camboxes.models.introspection.probing import evaluating, noise
from camboxes.models.introspection.recording import Recording, Tap, recording, tapped
from camboxes.models.introspection.tokens import layout_of
from camboxes.models.spec import BY_STRIDE


class Recorder(nn.Module):
    """A network taken apart, with a tap behind each layer whose maps were asked for.

    Attributes:
      network: the network, unchanged.
      features: images to the last feature maps or tokens, with the taps. Another module after each new tap.
      tail: those to logits.
      names: the dotted name of each layer that was asked for, under what it was asked for as.
    """

    def __init__(self, network: nn.Module, parts: Parts, size: int):
        """Takes the parts of a network, and the side of the square images that it is probed with, in pixels."""
        super().__init__()
        self.network = network
        self.features = parts.features
        self.tail = parts.tail
        self.names: dict[str, str] = {}
        self._prefix = parts.prefix
        self._size = size
        self._modules_to_evaluate = tuple(self.modules())  # kept: finding them takes as long as a layer
        self._tapping = threading.Lock()

    @functools.cached_property
    def blocks(self) -> dict[int, list[str]]:
        """The dotted names of the network's blocks by their stride: see `outermost_layers`."""
        with evaluating(*self.network.modules()):
            return outermost_layers(self.network, noise(self.network, self._size), self._prefix)

    def layer(self, wanted: str) -> str:
        """The name of a layer whose maps can be recorded from now on.

        Args:
          wanted: its dotted name in the network; or a stride in input pixels per cell for the last block at it:
            "32[-2]" is the last but one.

        Raises:
          ValueError: there is no such layer, or its output is no map.
        """
        with self._tapping:
            if wanted not in self.names:
                self.names[wanted] = self._tap(wanted)
        return self.names[wanted]

    @contextmanager
    def recording(
        self, layers: frozenset[str], size: Sequence[int], gradients: frozenset[str] = frozenset()
    ) -> Iterator[Recording]:
        """Records the passes that the calling thread makes in the block, in evaluation mode: see `recording`."""
        with evaluating(*self._modules_to_evaluate), recording(layers, size, gradients) as found:
            yield found

    def _tap(self, wanted: str) -> str:
        by_stride = BY_STRIDE.fullmatch(wanted)
        name = self._block(int(by_stride["stride"]), int(by_stride["place"] or 1)) if by_stride else wanted
        if name not in dict(self.network.named_modules()) or not name:
            raise ValueError(f"layer {wanted!r}: the network has none of this name; expected one of named_modules()")
        if name in self.names.values():
            return name
        features = tapped(self.features, name)
        probe = noise(self.network, self._size)
        with evaluating(*features.modules()), recording(frozenset([name]), probe.shape[2:]) as found:
            features(probe)
        layout = layout_of(found.maps[name].shape, self._prefix) if name in found.maps else None
        if layout is None:
            raise ValueError(f"layer {name!r} gives no maps of [n, channels, height, width]")
        for part in features.modules():
            if isinstance(part, Tap) and part.layer == name:
                part.layout = layout
        self.features = features
        self._modules_to_evaluate = tuple(self.modules())
        return name

    def _block(self, stride: int, place: int) -> str:
        """The dotted name of a block at a stride, counted from the last one, which is 1."""
        if stride not in self.blocks:
            raise ValueError(
                f"no layer at stride {stride}; this network has layers at {', '.join(map(str, sorted(self.blocks)))}: "
                "methods without @, and refine none, need no such layer"
            )
        blocks = self.blocks[stride]
        if not 1 <= place <= len(blocks):
            raise ValueError(f"layer {stride}[-{place}]: at this stride the network has {', '.join(blocks)} alone")
        return blocks[-place]
