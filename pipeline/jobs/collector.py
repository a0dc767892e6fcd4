"""Rests Python's garbage collector while modules are imported.

It would go through all that is imported again and again, and once more when the process ends: two of a job's first six
seconds. So it rests until the work begins, and then passes over what was there before.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def resting() -> Iterator[None]:
    """Stops the collector until `resume` is called inside, for a process that ends afterwards."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # the process ends without a last collection


def resume() -> None:
    """Starts the collector again, where it rests; it passes over all that exists by now."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
