"""The line between a wrong call and a failed job."""

import contextlib
from collections.abc import Iterator


class CallError(Exception):
    """What the user asked for cannot be done as asked: one line with the remedy, exit code 2."""


@contextlib.contextmanager
def blaming_the_call() -> Iterator[None]:
    """Turns what fails before a job starts (an input, a name, a device, a setting) into a CallError."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise CallError(str(error)) from error
