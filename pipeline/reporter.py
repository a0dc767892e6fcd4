"""What a job tells people while it works, and where that goes: a log, or a terminal."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

_WARNING = "WARNING: "

_TICK = 1.0  # seconds between two moves of what is shown on a terminal; a shorter step leaves no line there
_PLAIN_FIRST, _PLAIN_TICK = 5.0, 30.0  # in a file: seconds before a step's line, and between lines about one work


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
    def step(self, what: str) -> Iterator[None]:
        """Tells what the block does, as "loading efficientnet_lite0": work whose amount is not known."""
        self.say(what)
        yield

    @contextlib.contextmanager
    def progress(self, total: int, unit: str, what: str) -> Iterator[Callable[[int], object]]:
        """Shows how much of `total` units of work is done: call what it gives with the number of units done since.

        `unit` is the unit's name in the singular, `what` the name of the work.
        """
        yield lambda more: None


class Terminal(Reporter):
    """Writes to stderr: for the command. What is shown on a terminal moves every second; a file gets lines."""

    @property
    def shows_progress(self) -> bool:
        """Whether anybody sees the progress."""
        return True

    def say(self, text: str) -> None:
        """Writes a line, above a bar that is shown."""
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Shows what the block does and for how long; a file gets a line of what takes long."""
        if not sys.stderr.isatty():
            with _every(_PLAIN_TICK, lambda: self.say(f"{what} …"), first=_PLAIN_FIRST):
                yield
            return
        from tqdm import tqdm

        with tqdm(desc=what, bar_format="{desc} … {elapsed}{bar}", leave=False) as line, _every(_TICK, line.refresh):
            yield
            line.leave = line.format_dict["elapsed"] >= _TICK

    @contextlib.contextmanager
    def progress(self, total: int, unit: str, what: str) -> Iterator[Callable[[int], object]]:
        """Shows a bar with the rate and the time left, which begin with the first units that are done."""
        if not sys.stderr.isatty():
            with _lines(total, unit, what, self.say) as advance:
                yield advance
            return
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit=f" {unit}", smoothing=0.05) as bar, _every(_TICK, bar.refresh):

            def advance(more: int) -> None:
                if bar.n:
                    bar.update(more)
                else:  # the time until here is that of loading, and says nothing about the rest
                    bar.n = bar.initial = bar.last_print_n = more
                    bar.last_print_t = time.time()
                    bar.refresh()

            yield advance


@contextlib.contextmanager
def _lines(total: int, unit: str, what: str, say: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """Says now and then how much of the work is done."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more

    with _every(_PLAIN_TICK, lambda: say(f"{what}: {done} of {total} {unit}s")):
        yield advance


@contextlib.contextmanager
def _every(seconds: float, tick: Callable[[], object], first: float | None = None) -> Iterator[None]:
    """Calls `tick` again and again while the block runs, for the first time after `first` seconds."""
    ended = threading.Event()

    def run() -> None:
        wait = seconds if first is None else first
        while not ended.wait(wait):
            tick()
            wait = seconds

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


LOG, TERMINAL = Reporter(), Terminal()
