"""Work in threads, a bounded number of items ahead of where its results are used."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from camboxes.transforms.metering import count

Item = TypeVar("Item")
Result = TypeVar("Result")


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
