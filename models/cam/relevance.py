"""Maps from attention: the share of each patch in the tokens that the logits are read from.

In each layer a token keeps itself (the residual connection), and takes from the others by its attention A. The patches'
shares are a row of a product of one matrix per layer. It is computed as a row vector times one matrix after another,
from the last layer to the first, at a cost of tokens^2 per layer instead of tokens^3. With
R = (I + A_L) ... (I + A_1) and s the share of each token in the logits (`Tokens.share`):

    rollout (Abnar and Zuidema, ACL 2020): s R / 2^L, A the mean over the heads
    chefer (Chefer, Gur and Wolf, ICCV 2021, equations 5 and 6): s R, A the mean of (A * dY/dA)+, Y a class's logit
    tscam (Gao et al., ICCV 2021): CAM, times what the class token takes from each patch in the mean layer
"""

import itertools
from collections.abc import Sequence

import torch
from torch.nn import functional

from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.models.classifier import Classifier
from camboxes.models.introspection.recording import ATTENTION
from camboxes.models.introspection.tokens import Tokens
from camboxes.models.introspection.windows import Windows, windows_of


def relevance(forward: ForwardPass, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Computes s R, the share of each patch: float32 [n, height, width], at the resolution of the first layer.

    `forward` is a pass with attention, `weights` are A of each layer, float32 [n x windows, cells, cells].
    """
    size = forward.features.shape[2:]
    classifier = forward.classifier
    windows = _windows(classifier, weights, forward.images.shape, size)
    tokens = classifier.tokens or Tokens((), patches=True)
    share = tokens.share(size.numel()).to(forward.images.device).expand(len(forward.images), -1)
    row = flow(share, [weight.unflatten(0, (len(share), -1)) for weight in weights], windows)
    patches = row[:, len(tokens.prefix) :]
    return patches.unflatten(1, size if classifier.tokens else windows[0].size)


def flow(row: torch.Tensor, weights: Sequence[torch.Tensor], windows: Sequence[Windows]) -> torch.Tensor:
    """Multiplies a row vector by (I + A_L) ... (I + A_1): [n, cells of the first layer].

    Where patches are merged between two layers, the merged cells get equal parts. The row is [n, cells of the last
    layer], A of each layer [n, windows, cells, cells].
    """
    size = windows[-1].size
    for weight, (finer, cells) in zip(reversed(weights), reversed(windows), strict=True):
        if finer != size:
            columns, rows = torch.arange(finer[1]) // 2, torch.arange(finer[0]) // 2
            merged = (rows[:, None] * size[1] + columns).flatten().to(row.device)
            row, size = (row / merged.bincount())[:, merged], finer
        padded = functional.pad(row, (1, 0))
        taken = padded[:, cells.to(row.device)][:, :, None] @ weight
        padded[:, cells.flatten()] = taken.flatten(1)
        row = row + padded[:, 1:]
    return row


def _windows(
    classifier: Classifier, attention: Sequence[torch.Tensor], images: Sequence[int], size: torch.Size
) -> list[Windows]:
    """Finds the windows of each layer, and checks that they fit its attention."""
    windows = windows_of(classifier.network, classifier.tokens, images, size, len(attention))
    expected = [(images[0] * len(of_layer.cells), *2 * of_layer.cells.shape[1:]) for of_layer in windows]
    if not expected or expected != [tuple(weights.shape) for weights in attention]:
        raise ValueError(
            f"the attention of {classifier.spec.name} cannot be followed from its patches to its logits: expected a "
            "vision transformer all of whose tokens attend to one another in each layer (ViT, DeiT), or a Swin "
            'transformer; use method "gradcam" or "layercam"'
        )
    return windows


def check_attention(classifier: Classifier, *, class_token: bool) -> None:
    """Raises a ValueError where attention cannot be followed from the patches to the logits.

    Also where there is no class token, if there must be one.
    """
    images, name = classifier.probe(), classifier.spec.name
    attention = frozenset([ATTENTION])
    activations, recorded = classifier.record(images, attention, attention)
    weights = [of_layer.detach().mean(1) for of_layer in recorded.attention]
    _windows(classifier, weights, images.shape, activations.features.shape[2:])
    with torch.inference_mode(False), torch.enable_grad():
        for before, after in itertools.pairwise(recorded.attention):
            if torch.autograd.grad(after.square().sum(), before, retain_graph=True, allow_unused=True) == (None,):
                raise ValueError(
                    f'{name} has several attentions side by side in a layer; use method "gradcam" or "layercam"'
                )
    tokens = {key.rpartition(".")[2] for key, _ in classifier.network.named_parameters()}
    if class_token and not tokens & {"cls_token", "class_token", "class_embedding"}:
        raise ValueError(
            f'{name} has no class token, whose attention tscam reads; use method "cam", "rollout" or "chefer"'
        )
