"""Schedules the images of shards through a network, and returns its answers image by image."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from camboxes.transforms.counters import count
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.inference.image_loading import LoadedImage, PlannedImage, Row
from camboxes.transforms.inference.salvage import Question, localize
from camboxes.transforms.ordered_threads import BatchesByKind, NetworkThreads

if TYPE_CHECKING:
    from camboxes.models import Localization, Localizer


class Answered(NamedTuple):
    """An image, and what the network says of each of its rectangles; no answers where it does not look at the image."""

    image: LoadedImage
    answers: "Sequence[Localization | BadImageError]" = ()


class _Look(NamedTuple):
    """A rectangle of an image, by its number; `found` holds the answers to all looks at the image so far."""

    image: LoadedImage
    number: int
    found: "dict[int, Localization | BadImageError]"


_Passed = tuple[list[_Look], "list[Localization | BadImageError]", int]


class Scheduler:
    """Decodes images ahead of the network, and runs it on batches of rectangles of one shape.

    Shards share batches: the last images of a shape wait for those of the next shard. They wait no longer, because a
    killed job keeps finished shards alone. Counter: halved_batches.
    """

    def __init__(self, localizer: "Localizer", load: Callable[[PlannedImage], LoadedImage]):
        """Starts the threads; `close` ends them."""
        self._localizer = localizer
        self._batches: BatchesByKind[_Look] = BatchesByKind(
            localizer.batch_size, lambda look: localizer.companions(look.image.pixels[look.number])
        )
        self._threads = NetworkThreads(localizer.classifier, load, self._pass)

    def put(self, planned: PlannedImage) -> Iterator[Answered]:
        """Takes an image, and yields the images that are answered by now."""
        for image in self._threads.decoding.put(planned):
            yield from self._put(image)

    def rest(self) -> Iterator[Answered]:
        """Yields the images that are not answered yet."""
        for image in self._threads.decoding.rest():
            yield from self._put(image)
        for batch in self._batches.rest():
            yield from self._answered(self._threads.passing.put(batch))
        yield from self._answered(self._threads.passing.rest())

    def close(self) -> None:
        """Ends the threads; see `NetworkThreads.close`."""
        self._threads.close()

    def _put(self, image: LoadedImage) -> Iterator[Answered]:
        """Images that the network need not look at finish here; the others wait for a full batch."""
        if not image.rectangles:
            yield Answered(image)
        found: dict[int, Localization | BadImageError] = {}
        looks = [_Look(image, number, found) for number in range(len(image.rectangles))]
        # When a shard ends, batches that hold images of earlier shards are due.
        ends, shard = image.planned.is_last, image.planned.shard
        due = self._batches.rest(lambda look: ends and look.image.planned.shard is not shard)
        for batch in itertools.chain(self._batches.put(looks), due):
            yield from self._answered(self._threads.passing.put(batch))

    def _pass(self, batch: list[_Look]) -> _Passed:
        """Runs the network on a batch; returns its answers, and how often the batch was halved."""
        questions = [Question(look.image.pixels[look.number], candidates(look.image.planned.row)) for look in batch]
        return batch, *localize(self._localizer, questions)

    def _answered(self, passed: Iterable[_Passed]) -> Iterator[Answered]:
        for batch, answers, halved in passed:
            count("halved_batches", halved)
            for (image, number, found), answer in zip(batch, answers, strict=True):
                found[number] = answer
                if len(found) == len(image.rectangles):
                    yield Answered(image, [found[number] for number in range(len(found))])


def candidates(row: Row) -> list[Sequence[int]]:
    """For each label that stands for classes of the network, these classes."""
    return [label["class_indices"] for label in row["labels"] if label["class_indices"]]
