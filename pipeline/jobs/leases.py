"""A lease on a folder of a store, so that one job at a time writes there.

A store has no locks, and Beam's filesystems have no conditional writes. So a lease is an object that names its holder,
and that the holder rewrites every few seconds. A job that finds a lease watches it. If it changes, its holder lives. If
it stays the same for long, its holder is dead, and the lease is taken over. No clock is compared with another's. If two
jobs take a lease at the same moment, the last writer has it, and the other job finds that out before it begins. A
holder that was held up so long that it was taken for dead ends as soon as it finds another's name.
"""

import contextlib
import datetime
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.transforms import storage

# Seconds. Six renewals may fail before another job takes over.
_RENEWED_EVERY = 10.0
_VALID_FOR = 60.0
_LOOKED_AT_EVERY = 2.0
_SETTLES_IN = 2.0


@contextlib.contextmanager
def held(folder: str, reporter: Reporter = LOG) -> Iterator[None]:
    """Holds the lease of a folder. A process that finds its lease lost ends at once, with exit code 1.

    Raises:
      CallError: another job holds it.
    """
    lease, ended = _Lease(folder, reporter), threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(ended,), name="lease", daemon=True)
    try:
        lease.take()
        keeper.start()
        yield
    finally:
        ended.set()
        if keeper.is_alive():
            keeper.join()
        with contextlib.suppress(Exception):  # a lease that is not given back runs out
            lease.give_back()


class _Lease:
    def __init__(self, folder: str, reporter: Reporter):
        self._folder, self._path, self._reporter = folder, storage.join(folder, ".lease"), reporter
        self._mine: dict[str, Any] = {
            "owner": uuid.uuid4().hex,
            "host": platform.node(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "renewed": 0,
        }

    def take(self) -> None:
        """Takes the lease; raises a CallError where another job holds it."""
        found = self._read()
        if found is not None:
            self._outlive(found)
        storage.write_json(self._path, self._mine)
        time.sleep(_SETTLES_IN)  # another job that saw no lease has written its own by now
        found = self._read()
        if not self._is_mine(found):
            raise self._refusal(found)

    def _outlive(self, found: dict[str, Any]) -> None:
        """Waits until a lease has run out."""
        self._reporter.say(
            f"{self._folder} belongs to a job {_of(found)}; if that one was killed, this one begins in "
            f"{_VALID_FOR:.0f} s"
        )
        end = time.monotonic() + _VALID_FOR
        while time.monotonic() < end:
            time.sleep(_LOOKED_AT_EVERY)
            now = self._read()
            if now is None:
                return
            if now != found:
                raise self._refusal(now)

    def keep(self, ended: threading.Event) -> None:
        """Renews the lease until the job has ended, and ends the process where it is lost."""
        while not ended.wait(_RENEWED_EVERY):
            # While the store does not answer, no other job can take the lease either.
            with contextlib.suppress(Exception):
                self._renew()

    def _renew(self) -> None:
        found = self._read()
        if not self._is_mine(found):
            print(
                f"\ncamboxes: {self._folder} was taken over by a job {_of(found)}, because this one did not renew "
                f"its lease for {_VALID_FOR:.0f} s; this one ends here, and what it has written stays",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)  # the main thread waits inside Beam
        self._mine["renewed"] += 1
        storage.write_json(self._path, self._mine)

    def give_back(self) -> None:
        """Deletes the lease."""
        if self._is_mine(self._read()):
            storage.delete(self._path)

    def _read(self) -> dict[str, Any] | None:
        try:
            return storage.read_json(self._path)
        except FileNotFoundError:
            return None

    def _is_mine(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found["owner"] == self._mine["owner"]

    def _refusal(self, found: dict[str, Any] | None) -> CallError:
        return CallError(
            f"another job, {_of(found)}, is writing to {self._folder!r}; wait for it, or choose another --output"
        )


def _of(found: dict[str, Any] | None) -> str:
    return "that has ended since" if found is None else f"of {found['host']}, begun {found['since']}"
