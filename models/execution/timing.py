"""Times several ways to run the same passes, and tells which one is worth its rounding."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from camboxes.models.execution.process import use_one_core

Way = TypeVar("Way")

_TURNS = 4
_TIE = 1.1  # a way that gains less is not worth other last bits, nor a choice that noise can turn
_HOPELESS = 1.5


def time_passes(
    passes: Mapping[Way, Callable[[], object]], threads: int, clock: Callable[[], float]
) -> dict[Way, float]:
    """Times passes in turns, so that what else the machine does is shared by all.

    A first pass, which makes layers ready, does not count. A way that is clearly slower than the fastest one gets no
    further turn; where a single one is left, nothing more is timed.

    Args:
      passes: runs one, for each way.
      threads: how many run at once, each on one core, as in a job.
      clock: gives seconds, in the thread of the pass: `time.thread_time` does not count those of other programs.

    Returns:
      The least milliseconds of each way that did not fail, in the order of `passes`.
    """

    def seconds(run: Callable[[], object]) -> float:
        start = clock()
        run()
        return clock() - start

    with ThreadPoolExecutor(threads, initializer=use_one_core) as pool:

        def once(run: Callable[[], object]) -> float:
            try:
                return 1000 * max(pool.map(seconds, [run] * threads))
            except (RuntimeError, AttributeError, TypeError):  # no such kernel, or no memory for it
                return math.inf

        for run in passes.values():
            once(run)
        least = {way: once(run) for way, run in passes.items()}
        for _ in range(_TURNS - 1):
            left = [way for way in passes if least[way] <= _HOPELESS * min(least.values())]
            for way in left if len(left) > 1 else ():
                least[way] = min(least[way], once(passes[way]))
    return {way: milliseconds for way, milliseconds in least.items() if milliseconds < math.inf}


def fastest(milliseconds: Mapping[Way, float]) -> Way:
    """The fastest of ways to run the same passes, given the simplest and most exact first, which wins a tie."""
    limit = _TIE * min(milliseconds.values())
    return next(way for way, time in milliseconds.items() if time <= limit)
