"""What can be had of a batch whose pass fails: every image that the network takes by itself, or in a smaller batch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from camboxes.transforms.images import BadImageError
from camboxes.transforms.overlap import batched

if TYPE_CHECKING:
    import torch

    from camboxes.models import Localization, Localizer


class Question(NamedTuple):
    """What `Localizer.localize` is asked of one image.

    Attributes:
      pixels: of the image at each scale.
      candidates: for each of its labels, the classes that the label stands for.
    """

    pixels: "Sequence[torch.Tensor]"
    candidates: Sequence[Sequence[int]]


def localize(localizer: "Localizer", questions: Sequence[Question]) -> tuple[list["Localization | BadImageError"], int]:
    """What `Localizer.localize` says of each image of a batch, or why it says nothing.

    Where the pass does not fit into memory, it is made again with half as many images, and so on: the last bits of such
    maps may differ from those of a whole batch. Where it fails for another reason, each image has a pass of the usual
    shape to itself, so that an image costs itself alone.

    Returns:
      An answer for each question, and how often a batch was halved.
    """
    from camboxes.models import out_of_memory

    try:
        return list(localizer.localize(*zip(*questions, strict=True))), 0
    except Exception as error:
        failure = error
    if out_of_memory(failure):
        smaller = localizer.halved()
        if smaller is None:
            return [_bad("out_of_memory", failure)] * len(questions), 0
        parts = [localize(smaller, part) for part in batched(questions, smaller.batch_size)]
        return [answer for answers, _ in parts for answer in answers], 1 + sum(halved for _, halved in parts)
    if len(questions) == 1:
        return [_bad("network_failed", failure)], 0
    alone = [localize(localizer, [question]) for question in questions]
    return [answer for answers, _ in alone for answer in answers], sum(halved for _, halved in alone)


def _bad(code: str, error: Exception) -> BadImageError:
    return BadImageError(code, f"{type(error).__name__}: {error}")
