"""Runs a batch through the network; if the pass fails, each image alone, or smaller batches."""

import gc
import logging
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.ordered_threads import batched

if TYPE_CHECKING:
    import torch

    from camboxes.models import Localization, Localizer

_log = logging.getLogger(__name__)
_logged: set[tuple[type, str, int]] = set()  # kinds of errors, of this process

_NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


class Question(NamedTuple):
    """The arguments of `Localizer.localize` for one image.

    Attributes:
      pixels: of the image, at each scale.
      candidates: for each of its labels, the classes that the label stands for.
    """

    pixels: "Sequence[torch.Tensor]"
    candidates: Sequence[Sequence[int]]


class BrokenNetworkError(RuntimeError):
    """The network fails on any image. No image is at fault, so the job fails."""


def localize(localizer: "Localizer", questions: Sequence[Question]) -> tuple[list["Localization | BadImageError"], int]:
    """Localizes a batch of images. An image that the network fails on costs itself alone.

    If a pass does not fit into memory, it is repeated with half as many images, and so on; the last bits of such maps
    may differ from those of a whole batch. If it fails for another reason, each image gets a pass of the usual shape of
    its own. Errors are logged with their traceback, once for each kind.

    Returns:
      For each question its localization or an error; and how often a batch was halved.

    Raises:
      BrokenNetworkError: the pass fails for every image of the batch, and for noise.
    """
    answers, halved = _localize(localizer, questions)
    if all(isinstance(answer, BadImageError) and answer.code == "network_failed" for answer in answers):
        _check_with_noise(localizer, questions[0])
    return answers, halved


def _localize(
    localizer: "Localizer", questions: Sequence[Question]
) -> tuple[list["Localization | BadImageError"], int]:
    from camboxes.models.execution.process import out_of_memory

    try:
        return list(localizer.localize(*zip(*questions, strict=True))), 0
    except Exception as error:
        full = out_of_memory(error)
        bad = BadImageError("out_of_memory" if full else "network_failed", f"{type(error).__name__}: {error}")
        if not full:
            _log_once(error)
    # Outside the handler: the error's traceback held the tensors of the failed pass, whose memory is needed now.
    if full:
        _free_memory()
        smaller = localizer.halved()
        if smaller is None:
            return [bad] * len(questions), 0
        parts = [_localize(smaller, part) for part in batched(questions, smaller.batch_size)]
        return [answer for answers, _ in parts for answer in answers], 1 + sum(halved for _, halved in parts)
    if len(questions) == 1:
        return [bad], 0
    alone = [_localize(localizer, [question]) for question in questions]
    return [answer for answers, _ in alone for answer in answers], sum(halved for _, halved in alone)


def _check_with_noise(localizer: "Localizer", question: Question) -> None:
    """Runs the network on random pixels with the candidates of a question that failed.

    Raises:
      BrokenNetworkError: that fails, too.
    """
    from camboxes.models.execution.process import out_of_memory

    try:
        localizer.localize([localizer.resize(_NOISE)], [question.candidates])
    except Exception as error:
        if not out_of_memory(error):
            raise BrokenNetworkError(
                "the network failed on every image of a batch, and then on random pixels, so the images are not at "
                f"fault: {type(error).__name__}: {error}"
            ) from error


def _log_once(error: Exception) -> None:
    """Logs an error with its traceback, once for each type and line of code that raised it."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    kind = type(error), frame.f_code.co_filename, line
    if kind not in _logged:
        _logged.add(kind)
        # As text: a handler that keeps records would keep the error's frames, and their tensors.
        text = "".join(traceback.format_exception(error))
        _log.error("the network failed on a batch; further errors of this kind are not logged\n%s", text)


def _free_memory() -> None:
    """Frees what a failed pass left in reference cycles, and returns unused blocks of memory to the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
