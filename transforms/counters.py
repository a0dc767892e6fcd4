"""What a job counts while it runs: Beam counters, all in the namespace `camboxes`, and images that are done.

A local runner gives its counters at the end, so images that are done are also told through a file.
"""

import contextlib
import functools
import os
import time
from collections.abc import Iterator

from apache_beam.metrics import Metrics
from apache_beam.metrics.metricbase import Counter

# The variable that names a file to which every process of a job appends a byte for each image that is done.
IMAGES_DONE = "CAMBOXES_IMAGES_DONE"


@functools.cache
def _counter(name: str) -> Counter:
    return Metrics.counter("camboxes", name)


def count(name: str, value: int = 1) -> None:
    """Adds to the counter `name`."""
    _counter(name).inc(value)


def images_done(number: int) -> None:
    """Tells, while the job runs, that so many more images have had their pass; where nobody asks, does nothing."""
    if path := os.environ.get(IMAGES_DONE):
        with contextlib.suppress(OSError):  # the job is over for whoever asked, or the disk is full
            file = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(file, bytes(number))
            finally:
                os.close(file)


@contextlib.contextmanager
def milliseconds(stage: str) -> Iterator[None]:
    """Adds the time that the block takes to the counter `milliseconds_STAGE`."""
    start = time.perf_counter()
    yield
    count(f"milliseconds_{stage}", round((time.perf_counter() - start) * 1000))
