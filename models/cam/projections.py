"""Projects a class's logit back to the pixels: the gradient, with another rule at rectifiers.

Everywhere else a projection is the gradient of the logit: convolutions are transposed, max pooling passes the signal to
the place of its maximum (its switch), and other activations and gates pass their gradient. At a rectifier

    deconvnet        (Zeiler and Fergus, ECCV 2014, arXiv 1311.2901, section 2.1) rectifies the signal, whatever the
                     activations were. So the picture enters by the switches of max pooling and by gates alone; with
                     a network that has neither, the projection is the same for every picture;
    guidedbackprop   (Springenberg et al., ICLR Workshop 2015, arXiv 1412.6806, section 4) rectifies the signal, and
                     sets it to 0 where the rectifier's own gradient is 0: where it gave 0, and where a ReLU6 gave 6.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from camboxes.models.classifier import Classifier

# Functions that are rectifiers, alone or in a module (nn.ReLU6 is a hardtanh), where they keep positive values.
_RECTIFIERS = {
    *(torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, functional.relu, functional.relu6),
    *(functional.hardtanh, functional.hardtanh_, functional.threshold, torch.threshold_),
}

# The signal behind a rectifier, from the rectifier's own gradient and the signal that arrives.
PROJECTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "deconvnet": lambda gradient, signal: signal.relu(),
    "guidedbackprop": lambda gradient, signal: gradient.relu(),
}


def project(
    classifier: Classifier, images: torch.Tensor, class_ids: torch.Tensor, method: str
) -> Iterator[torch.Tensor]:
    """Projects one logit of each image, for each column of class ids in turn, all from one forward pass.

    The network's own layers are run, not fused ones; the network is left as it was found. The images are normalised,
    [n, 3, height, width], and class ids int64 [n, labels]; the method is one of PROJECTIONS.

    Yields:
      float32 [n, 3, height, width], signed.
    """
    with torch.inference_mode(False), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        with _Rectifying(PROJECTIONS[method]):
            logits = classifier.plain_logits(pixels.clone())  # the network may change its input in place
    for ids in class_ids.unbind(1):
        with torch.inference_mode(False), torch.enable_grad():
            chosen = functional.one_hot(ids, logits.shape[1]).to(logits.dtype)
            (found,) = torch.autograd.grad(logits, pixels, chosen, retain_graph=True)
        yield found.float()


def saliency(projection: torch.Tensor, cell: int) -> torch.Tensor:
    """Averages the largest absolute value of the channels over each cell (Simonyan et al., ICLR Workshop 2014, 3.1).

    Of a projection [n, 3, height, width] it gives [n, ceil(height / cell), ceil(width / cell)], not negative. `cell` is
    in pixels; where it does not divide a side of the image, the last cells are smaller.
    """
    return functional.avg_pool2d(projection.abs().amax(1), cell, ceil_mode=True)


def check_rectified(classifier: Classifier) -> None:
    """Raises a ValueError for a network without rectifiers: its projection would be the plain gradient."""
    side = classifier.preprocessing.size
    rectifying = _Rectifying(PROJECTIONS["deconvnet"])
    with torch.inference_mode(), rectifying:
        classifier.plain_logits(classifier.normalize(torch.zeros((1, 3, side, side), dtype=torch.uint8)))
    if not rectifying.found:
        raise ValueError(
            f"{classifier.spec.name} has no rectifiers; {' and '.join(PROJECTIONS)} project through ReLU or ReLU6, and "
            'other activations have no such rule: use method "occlusion" or "layercam"'
        )


def check_sees_the_picture(classifier: Classifier, method: str) -> None:
    """Raises a ValueError for a network whose projection by a method is the same for two very different pictures."""
    noise, *_ = classifier.probe()
    images = torch.stack([noise, torch.zeros_like(noise)])  # the second one is plain, of the mean colour
    # Five classes are tried: the signal of a single one may be blocked.
    ids = torch.arange(min(5, len(classifier.class_names)), device=images.device).expand(2, -1)
    for both in project(classifier, images, ids, method):
        if (both[0] - both[1]).abs().max() > 1e-4 * both.abs().max():
            return
    raise ValueError(
        f"{method} gives the same map for every picture with {classifier.spec.name}: noise and a plain colour were "
        "tried, and nothing of a picture decides what passes back (no max pooling, no gates); use method "
        '"guidedbackprop" or "layercam"'
    )


class _Rectifying(TorchFunctionMode):
    """Changes the backward rule of rectifiers, modules or functions, in the passes of the calling thread.

    Attributes:
      found: whether a rectifier was run.
    """

    def __init__(self, rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]):
        super().__init__()
        self._rule = rule
        self.found = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if function not in _RECTIFIERS:
            return function(*args, **options)
        maps, *bounds = args or (options.pop("input"),)
        if function(torch.tensor([-1.0, 0.1]), *bounds, **options).tolist() != torch.tensor([0.0, 0.1]).tolist():
            return function(maps, *bounds, **options)  # a hardtanh from -1, say
        self.found = True
        copy = maps.clone()  # a view that is changed in place would get another autograd node
        rectified = function(copy, *bounds, **options)
        if rectified.grad_fn is not None:
            rectified.grad_fn.register_hook(lambda gradients, signals: (self._rule(gradients[0], signals[0]),))
        return maps.copy_(rectified) if rectified is copy else rectified
