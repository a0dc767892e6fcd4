"""Ctrl-C, and SIGTERM, which kill, Slurm, Docker and Kubernetes send: what a command says, and how its process ends."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

CODE = 128 + signal.SIGINT  # as shells have it

# Seconds: for what is said of the work that is done, and for what is half done to be put away. A command may be killed
# at any moment and loses nothing.
_TO_SAY = 0.7
_TO_END = 1.5

_told: list[Callable[[], list[str]]] = []


@contextlib.contextmanager
def telling(done: Callable[[], str], elsewhere: str = "") -> Iterator[None]:
    """Adds what `done` tells as a note to an exception that ends the block, and to what is said of an interrupt.

    `elsewhere` is added to an interrupt alone: what becomes of the work of other machines.
    """

    def told() -> list[str]:
        with contextlib.suppress(Exception):  # what is read for it may be what the job fails of
            return [*filter(None, [done(), elsewhere])]
        return []

    _told.append(told)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        for note in told():
            if note != elsewhere or isinstance(error, KeyboardInterrupt):
                error.add_note(note)
        raise
    finally:
        _told.remove(told)


def interrupted(error: BaseException | None) -> bool:
    """Whether an error is a KeyboardInterrupt, or came of one."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


class Answer:
    """How this process answers SIGINT and SIGTERM.

    The first one is told in one line and raises a KeyboardInterrupt; from then on nothing is said any more. A second
    one ends the process at once, and so does the end of a short time.

    Attributes:
      line: makes that line of what the blocks of `telling` tell.
    """

    def __init__(self, line: Callable[[Sequence[str]], str]):
        """Answers from now on."""
        self.line = line
        self._received = signal.SIGINT
        # A shell has its jobs in the background ignore Ctrl-C.
        self._numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) != signal.SIG_IGN]
        for number in self._numbers:
            signal.signal(number, self._answer)

    def _answer(self, number: int, _frame: FrameType | None) -> NoReturn:
        self._received = signal.Signals(number)
        self.stop()
        _begin(threading.Timer(_TO_END, self.end))
        notes: list[str] = []
        # In a thread, for this one may hold a lock that is needed.
        _begin(threading.Thread(target=lambda: notes.extend(note for tell in _told for note in tell()))).join(_TO_SAY)
        below = "\n" if os.isatty(2) else ""  # a bar of progress
        os.write(2, f"{below}{self.line(notes)}\n".encode())
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        raise KeyboardInterrupt

    def stop(self) -> None:
        """Has the next signal end the process at once: nothing is left to be told."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)

    def end(self) -> NoReturn:
        """Ends the process by the signal that it received, so that a shell ends its loop, too."""
        main = threading.current_thread() is threading.main_thread()
        if main:
            atexit._run_exitfuncs()  # temporary folders are removed
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        with contextlib.suppress(Exception):  # the server of worker processes would finish its imports first
            os.kill(sys.modules["multiprocessing.forkserver"]._forkserver._forkserver_pid, signal.SIGKILL)
        if main:
            signal.signal(self._received, signal.SIG_DFL)
        if os.name == "posix":
            os.kill(os.getpid(), self._received)
        os._exit(128 + self._received)  # the first process of a container does not end by its own signal


def _begin(thread: threading.Thread) -> threading.Thread:
    thread.daemon = True
    thread.start()
    return thread
