"""What a job counts while it runs: Beam counters, all in the namespace `camboxes`."""

import contextlib
import functools
import time
from collections.abc import Iterator

from apache_beam.metrics import Metrics
from apache_beam.metrics.metricbase import Counter


@functools.cache
def _counter(name: str) -> Counter:
    return Metrics.counter("camboxes", name)


def count(name: str, value: int = 1) -> None:
    """Adds to the counter `name`."""
    _counter(name).inc(value)


@contextlib.contextmanager
def milliseconds(stage: str) -> Iterator[None]:
    """Adds the time that the block takes to the counter `milliseconds_STAGE`."""
    start = time.perf_counter()
    yield
    count(f"milliseconds_{stage}", round((time.perf_counter() - start) * 1000))
