"""Work in threads, a bounded number of items ahead of where its results are used."""

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from camboxes.transforms.metering import count

if TYPE_CHECKING:
    from camboxes.models import Classifier

_BATCHES_AHEAD = 2

Item = TypeVar("Item")
Result = TypeVar("Result")
Decoded = TypeVar("Decoded")
Batch = TypeVar("Batch")


def ahead(
    stage: str, threads: Executor, work: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Iterator[Result]:
    """The results of `work` in the order of the items, while the next `most` items are worked on.

    Counts milliseconds_STAGE: the time spent in `work`, summed over the threads.
    """
    waiting: deque[Future[tuple[float, Result]]] = deque()

    def timed(item: Item) -> tuple[float, Result]:
        start = time.perf_counter()
        result = work(item)
        return time.perf_counter() - start, result

    def next_result() -> Result:
        # Beam's counters belong to the thread that runs the DoFn, so the time travels with the result.
        seconds, result = waiting.popleft().result()
        count(f"milliseconds_{stage}", round(seconds * 1000))
        return result

    for item in items:
        waiting.append(threads.submit(timed, item))
        if len(waiting) > most:
            yield next_result()
    while waiting:
        yield next_result()


def through_network(
    classifier: "Classifier",
    decode: Callable[[Item], Decoded],
    items: Iterable[Item],
    batches: Callable[[Iterator[Decoded], int], Iterable[Batch]],
    forward: Callable[[Batch], Result],
) -> Iterator[Result]:
    """What `forward` makes of batches, in their order, while the next ones are decoded.

    Args:
      classifier: tells how many images a batch holds, and how many batches are on their way at once.
      decode: run in threads of its own.
      items: what is decoded.
      batches: sorts what was decoded into batches of at most so many, in the caller's thread; it may leave some out.
      forward: run in threads that each have one core.
    """
    from camboxes.models import passes_side_by_side, use_one_core

    size, device, side_by_side = classifier.spec.batch_size, classifier.spec.device, passes_side_by_side(classifier)
    assert size is not None, "a loaded classifier's spec is resolved"
    with (
        ThreadPoolExecutor(_decoders(device, side_by_side), initializer=use_one_core) as decoders,
        ThreadPoolExecutor(side_by_side, initializer=use_one_core) as passes,
    ):
        decoded = ahead("decode", decoders, decode, items, _BATCHES_AHEAD * size)
        yield from ahead("forward", passes, forward, batches(decoded, size), side_by_side)


def _decoders(device: str, side_by_side: int) -> int:
    """Threads that read and decode ahead: one keeps the passes of two cores supplied; for a GPU all cores work."""
    return max(1, side_by_side // 2) if device == "cpu" else os.cpu_count() or 1


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of so many, the last one of what is left."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
