"""One forward pass, from which methods read: logits, maps of layers, and gradients of logits with respect to these."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from camboxes.models.classifier import Classifier
from camboxes.models.introspection.recording import LAST


class ForwardPass:
    """The forward pass of a batch. The network is left as it was found: no hooks, no gradients, the same mode.

    Gradients are computed with respect to the requested layers, and never to parameters, frozen or not.

    Attributes:
      classifier: the network.
      images: normalised, [n, 3, height, width].
      features: the last feature maps, float32 [n, channels, height, width], detached.
      logits: float32 [n, classes], detached.
    """

    def __init__(
        self, classifier: Classifier, images: torch.Tensor, layers: frozenset[str], *, gradients: frozenset[str]
    ):
        """Runs the network and records `layers`: names that `Classifier.layer` gave, LAST, or ATTENTION for attention.

        Gradients can be asked for with respect to those in `gradients`; one backward pass finds them all.
        """
        self.classifier = classifier
        self.images = images
        self._known = classifier.inexact_because is None
        # Behind the last maps the gradients of such a network are known in closed form: no graph is needed for them.
        self._asked = gradients - frozenset([LAST] if self._known else [])
        self._found: dict[tuple[int, ...], dict[str, torch.Tensor]] = {}
        activations, recorded = classifier.record(images, layers | gradients, self._asked)
        self.features = activations.features.detach().float()
        self._maps, self._attention = recorded.maps, recorded.attention
        self._graph = activations.features if self._known else activations.logits
        self.logits = activations.logits.detach()

    def maps(self, layer: str) -> torch.Tensor:
        """Gives a layer's maps, float32 [n, channels, height, width]."""
        return self._maps[layer].detach().float()

    def gradients(self, layer: str, class_ids: torch.Tensor) -> torch.Tensor:
        """Computes the gradient of one logit of each image, by `class_ids` int64 [n], with respect to a layer's maps.

        It is float32, of the shape of the maps.
        """
        if layer == LAST and self._known:
            return self._behind(class_ids)
        asked = tuple(class_ids.tolist())
        if asked not in self._found:
            layers = [name for name in self._maps if name in self._asked]
            found = self._gradients_of(class_ids, [self._maps[name] for name in layers])
            self._found[asked] = dict(zip(layers, found, strict=True))
        return self._found[asked][layer]

    def attention(self) -> list[torch.Tensor]:
        """Gives the attention of each layer, in the order of execution, float32 [n, heads, queries, keys]."""
        return [weights.detach().float() for weights in self._attention]

    def attention_gradients(self, class_ids: torch.Tensor) -> list[torch.Tensor]:
        """Computes the gradients of one logit of each image with respect to `attention`; see `gradients`."""
        return self._gradients_of(class_ids, self._attention)

    def _gradients_of(self, class_ids: torch.Tensor, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with torch.inference_mode(False):
            # Of a sum, rather than with grad_outputs: for those PyTorch imports sympy, which takes half a second.
            behind = (self._graph * self._behind(class_ids)).sum()
            return [found.float() for found in torch.autograd.grad(behind, values, retain_graph=True)]

    def _behind(self, class_ids: torch.Tensor) -> torch.Tensor:
        """Computes the gradient of one logit of each image with respect to the last maps, or to all logits.

        With respect to the last maps where it is known in closed form:

        logit = sum_k w_k mean_xy f_k(x, y) + b
        """
        if not self._known:
            return functional.one_hot(class_ids, self.logits.shape[1]).to(self.logits.dtype)
        weight, cells = self.classifier.weight, self.features.shape[2] * self.features.shape[3]
        rows = functional.one_hot(class_ids, self.features.shape[1]) if weight is None else weight[class_ids]
        return (rows.float() / cells)[:, :, None, None].expand_as(self.features)
