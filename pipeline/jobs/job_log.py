"""The log of a job: what Beam and the worker processes say while it runs. It stays where the job fails."""

import contextlib
import logging
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LOGGERS = "apache_beam", "PrismJobServer"  # Beam names that of a job server by its class


@contextlib.contextmanager
def job_log() -> Iterator[str]:
    """Writes what Beam says in this process to a file, not to the terminal, while the block runs.

    An error that ends the block gets a note of where the file is; otherwise the file is removed.

    Returns:
      The file's path.
    """
    with tempfile.NamedTemporaryFile("w", prefix="camboxes-", suffix=".log", delete=False) as log:
        try:
            with _noted_in(log):
                yield log.name
        except Exception as error:
            error.add_note(f"tracebacks are in {log.name}")
            raise
        except KeyboardInterrupt:
            Path(log.name).unlink()
            raise
    Path(log.name).unlink()


@contextlib.contextmanager
def _noted_in(log: Any) -> Iterator[None]:
    """Writes what Beam logs, and what its threads raise: where one step fails, much of Beam does."""
    root, handler, excepthook = logging.getLogger(), logging.StreamHandler(log), threading.excepthook
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    verbose = loggers[0].isEnabledFor(logging.INFO)

    def noted(record: logging.LogRecord) -> bool:
        if record.module != "portable_runner":  # it tells the runner's messages by the root logger
            return True
        handler.handle(record)
        return verbose

    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = verbose
    root.addFilter(noted)
    threading.excepthook = lambda failure: traceback.print_exception(failure.exc_value, file=log)
    try:
        yield
    finally:
        threading.excepthook = excepthook
        root.removeFilter(noted)
        for logger in loggers:
            logger.propagate = True
            logger.removeHandler(handler)
