"""Work in threads, a bounded number of items ahead of where its results are used."""

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from camboxes.transforms.counters import count

if TYPE_CHECKING:
    from camboxes.models import Classifier

# Batches that are decoded, or in the network for each core, ahead of where a result is used. Where that takes its time,
# as drawing and writing a shard's boxes does, every core still has a pass to begin with.
_BATCHES_AHEAD = 2

_TOGETHER = 4  # items that a thread decodes in one go: to hand one over takes a tenth of decoding it

Item = TypeVar("Item")
Result = TypeVar("Result")
Decoded = TypeVar("Decoded")
Batch = TypeVar("Batch")


class Line(Generic[Item, Result]):
    """Items in, and in the same order what `work` makes of them out, once `most` further ones are in.

    Counts milliseconds_STAGE: the time spent in `work`, summed over the threads.
    """

    def __init__(self, stage: str, threads: Executor, work: Callable[[Item], Result], most: int):
        self._stage = stage
        self._threads = threads
        self._work = work
        self._most = most
        self._waiting: deque[Future[tuple[float, Result]]] = deque()

    def put(self, item: Item) -> Iterator[Result]:
        """Takes an item, and gives what comes out."""
        self._waiting.append(self._threads.submit(self._timed, item))
        while len(self._waiting) > self._most:
            yield self._next()

    def rest(self) -> Iterator[Result]:
        """Gives what is still to come out."""
        while self._waiting:
            yield self._next()

    def _timed(self, item: Item) -> tuple[float, Result]:
        start = time.perf_counter()
        result = self._work(item)
        return time.perf_counter() - start, result

    def _next(self) -> Result:
        # Beam's counters belong to the thread that runs the DoFn, so the time travels with the result.
        seconds, result = self._waiting.popleft().result()
        count(f"milliseconds_{self._stage}", round(1000 * seconds))
        return result


def ahead(
    stage: str, threads: Executor, work: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Iterator[Result]:
    """The results of `work` in the order of the items, while the next `most` items are worked on: see `Line`."""
    line = Line(stage, threads, work, most)
    for item in items:
        yield from line.put(item)
    yield from line.rest()


class Batches(Generic[Item]):
    """Sorts what items hold into batches of one kind."""

    def __init__(self, size: int, kind: Callable[[Item], Hashable] = lambda _: None):
        self._size = size
        self._kind = kind
        self._waiting: dict[Hashable, list[Item]] = {}

    def put(self, parts: Iterable[Item]) -> Iterator[list[Item]]:
        """Takes the parts of one item, any number of them, and gives the batches that are full now."""
        for part in parts:
            kind = self._kind(part)
            self._waiting.setdefault(kind, []).append(part)
            if len(self._waiting[kind]) == self._size:
                yield self._waiting.pop(kind)

    def rest(self, held: Callable[[Item], bool] = lambda _: True) -> Iterator[list[Item]]:
        """Gives the batches that are not full, of all that hold such a part."""
        for kind in [kind for kind, parts in self._waiting.items() if any(map(held, parts))]:
            yield self._waiting.pop(kind)


class ThroughNetwork(Generic[Item, Decoded, Batch, Result]):
    """Items in, and what a network makes of them in batches out, while the next ones are decoded."""

    def __init__(
        self,
        classifier: "Classifier",
        decode: Callable[[Item], Decoded],
        batches: Callable[[Decoded], Iterable[Batch]],
        forward: Callable[[Batch], Result],
    ):
        """Starts its threads.

        Args:
          classifier: tells how many images a batch holds, and how many batches are on their way at once.
          decode: run in threads of its own.
          batches: the batches that are complete with what was decoded last, in the caller's thread: see `Batches`.
          forward: run in threads that each have one core.
        """
        from camboxes.models.execution.process import passes_side_by_side, use_one_core

        size, side_by_side = classifier.spec.batch_size, passes_side_by_side(classifier.spec.device)
        assert size is not None, "a loaded classifier's spec is resolved"
        most = math.ceil(_BATCHES_AHEAD * size / _TOGETHER)
        decoders = ThreadPoolExecutor(_decoders(classifier.spec.device, side_by_side), initializer=use_one_core)
        passes = ThreadPoolExecutor(side_by_side, initializer=use_one_core)
        self._pools = decoders, passes
        self._together: list[Item] = []
        self._decode = decode
        self._decoding = Line("decode", decoders, self._decoded, most)
        self._batches = batches
        self._passing = Line("forward", passes, forward, _BATCHES_AHEAD * side_by_side)

    def put(self, item: Item) -> Iterator[Result]:
        """Takes an item, and gives what comes out, batch by batch in the order in which they were complete."""
        self._together.append(item)
        if len(self._together) == _TOGETHER:
            yield from self._decoded_together()

    def rest(self, last: Iterable[Batch]) -> Iterator[Result]:
        """Gives what is still to come out; the last batches are asked for when everything is decoded."""
        yield from self._decoded_together()
        yield from self._passed(self._decoding.rest())
        for batch in last:
            yield from self._passing.put(batch)
        yield from self._passing.rest()

    def all(self, items: Iterable[Item], last: Iterable[Batch]) -> Iterator[Result]:
        """Everything that comes out for these items, see `rest`; then the threads end."""
        try:
            for item in items:
                yield from self.put(item)
            yield from self.rest(last)
        finally:
            self.close()

    def close(self) -> None:
        """Ends the threads, after what they are at; what waits for them is dropped. Closing twice does nothing."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def _decoded_together(self) -> Iterator[Result]:
        items, self._together = self._together, []
        yield from self._passed(self._decoding.put(items))

    def _decoded(self, items: list[Item]) -> list[Decoded]:
        return [self._decode(item) for item in items]

    def _passed(self, decoded: Iterable[list[Decoded]]) -> Iterator[Result]:
        for one in itertools.chain.from_iterable(decoded):
            for batch in self._batches(one):
                yield from self._passing.put(batch)


def _decoders(device: str, side_by_side: int) -> int:
    """Threads that read and decode ahead: one keeps the passes of two cores supplied; for a GPU all cores work."""
    return max(1, side_by_side // 2) if device == "cpu" else os.cpu_count() or 1


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of so many, the last one of what is left."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
