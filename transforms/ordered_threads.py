"""Ordered thread-pool maps: work in threads, a bounded number of items ahead of where its results are used."""

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

# Batches that are decoded, or in the network for each core, ahead of where a result is used. While a shard's boxes are
# drawn and written, every core still has a pass to begin with.
_BATCHES_AHEAD = 2

_TOGETHER = 4  # items that a thread decodes in one go: handing one over takes a tenth of decoding it

Item = TypeVar("Item")
Result = TypeVar("Result")
Decoded = TypeVar("Decoded")
Batch = TypeVar("Batch")


class OrderedMap(Generic[Item, Result]):
    """Ordered thread-pool map, at most `most` items ahead.

    Counts milliseconds_STAGE: the time spent in `work`, summed over the threads.
    """

    def __init__(self, stage: str, threads: Executor, work: Callable[[Item], Result], most: int, *, together: int = 1):
        """Takes the work and its threads.

        Args:
          stage: names the counter.
          threads: where the work is done.
          work: makes a result of an item.
          most: how many items may be in work when `put` returns, rounded up to a multiple of `together`.
          together: how many items a thread works on in one go.
        """
        self._stage = stage
        self._threads = threads
        self._work = work
        self._most = math.ceil(most / together)
        self._together = together
        self._next: list[Item] = []
        self._waiting: deque[Future[tuple[float, list[Result]]]] = deque()

    def put(self, item: Item) -> Iterator[Result]:
        """Takes an item, and yields the results of earlier ones until at most `most` items are in work."""
        self._next.append(item)
        if len(self._next) == self._together:
            self._submit()
        while len(self._waiting) > self._most:
            yield from self._first()

    def rest(self) -> Iterator[Result]:
        """Yields the results of all items that are in work."""
        if self._next:
            self._submit()
        while self._waiting:
            yield from self._first()

    def all(self, items: Iterable[Item]) -> Iterator[Result]:
        """The results of all items, in their order."""
        for item in items:
            yield from self.put(item)
        yield from self.rest()

    def _submit(self) -> None:
        self._waiting.append(self._threads.submit(self._timed, self._next))
        self._next = []

    def _timed(self, items: list[Item]) -> tuple[float, list[Result]]:
        start = time.perf_counter()
        results = [self._work(item) for item in items]
        return time.perf_counter() - start, results

    def _first(self) -> list[Result]:
        # Beam's counters belong to the thread that runs the DoFn, so the time travels with the results.
        seconds, results = self._waiting.popleft().result()
        count(f"milliseconds_{self._stage}", round(1000 * seconds))
        return results


class BatchesByKind(Generic[Item]):
    """Groups items into batches of one kind."""

    def __init__(self, size: int, kind: Callable[[Item], Hashable]):
        self._size = size
        self._kind = kind
        self._waiting: dict[Hashable, list[Item]] = {}

    def put(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Takes items, and yields the batches that they fill."""
        for item in items:
            kind = self._kind(item)
            self._waiting.setdefault(kind, []).append(item)
            if len(self._waiting[kind]) == self._size:
                yield self._waiting.pop(kind)

    def rest(self, wanted: Callable[[Item], bool] = lambda _: True) -> Iterator[list[Item]]:
        """Yields the batches that are not full; of these, those that hold an item for which `wanted` is true."""
        for kind in [kind for kind, items in self._waiting.items() if any(map(wanted, items))]:
            yield self._waiting.pop(kind)


class NetworkThreads(Generic[Item, Decoded, Batch, Result]):
    """Threads that decode items ahead of the network, and threads that run the network on batches.

    Attributes:
      decoding: the ordered map of items.
      passing: the ordered map of batches; each of its threads has one core.
    """

    def __init__(
        self,
        classifier: "Classifier",
        decode: Callable[[Item], Decoded],
        forward: Callable[[Batch], Result],
    ):
        """Starts the threads. The classifier tells how many images a batch holds, and how many passes run at once."""
        from camboxes.models.execution.process import passes_side_by_side, use_one_core

        device, size = classifier.spec.device, classifier.spec.batch_size
        side_by_side = passes_side_by_side(device)
        # One thread decodes for the passes of two cores; for a GPU all cores decode.
        readers = max(1, side_by_side // 2) if device == "cpu" else os.cpu_count() or 1
        self._pools = [ThreadPoolExecutor(n, initializer=use_one_core) for n in (readers, side_by_side)]
        decoders, passes = self._pools
        self.decoding = OrderedMap("decode", decoders, decode, _BATCHES_AHEAD * size, together=_TOGETHER)
        self.passing = OrderedMap("forward", passes, forward, _BATCHES_AHEAD * side_by_side)

    def close(self) -> None:
        """Ends the threads after their current work, and drops what waits for them. May be called twice."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


def through_network(
    classifier: "Classifier",
    decode: Callable[[Item], Decoded | None],
    forward: Callable[[list[Decoded]], Result],
    items: Iterable[Item],
) -> Iterator[Result]:
    """Decodes items and runs the network on batches of them; yields what `forward` gives for each batch, in order.

    Args:
      classifier: see `NetworkThreads`.
      decode: run in threads, ahead; None leaves an item out.
      forward: run in threads, on at most as many decoded items as a batch holds.
      items: what to decode.
    """
    threads = NetworkThreads(classifier, decode, forward)
    decoded = (item for item in threads.decoding.all(items) if item is not None)
    try:
        yield from threads.passing.all(batched(decoded, classifier.spec.batch_size))
    finally:
        threads.close()


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cuts items into lists of `size`; the last one may be shorter."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
