"""What a job tells people while it works, and where that goes: a log, or a terminal."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator

_WARNING = "WARNING: "


class Reporter:
    """Writes to the logger `camboxes` and shows no progress: for callers in Python."""

    @property
    def shows_progress(self) -> bool:
        """Whether anybody sees the progress."""
        return False

    def say(self, text: str) -> None:
        """Tells a person something; a text that begins with WARNING is logged as a warning."""
        level = logging.WARNING if text.startswith(_WARNING) else logging.INFO
        logging.getLogger("camboxes").log(level, "%s", text.removeprefix(_WARNING))

    @contextlib.contextmanager
    def progress(self, total: int, unit: str, what: str | None = None) -> Iterator[Callable[[int], object]]:
        """Shows how much of `total` units of work is done: call what it gives with the number of units done since.

        `unit` is the unit's name in the singular, `what` the name of the work.
        """
        yield lambda more: None


class Terminal(Reporter):
    """Writes to stderr, and shows bars of progress where that is a terminal: for the command."""

    @property
    def shows_progress(self) -> bool:
        """Whether stderr is a terminal."""
        return sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Writes a line."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def progress(self, total: int, unit: str, what: str | None = None) -> Iterator[Callable[[int], object]]:
        """Shows a bar with the rate and the time left."""
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit=unit, disable=None, smoothing=0.1) as bar:
            yield bar.update


LOG, TERMINAL = Reporter(), Terminal()
