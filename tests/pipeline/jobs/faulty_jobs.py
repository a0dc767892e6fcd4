"""Runs commands of camboxes that something happens to, each in a process of its own, forked from this one.

Reads a call a line from stdin, as JSON: "arguments" of the command, and what happens to it:

    kill_at     SIGKILL before the n-th time that it opens, renames or removes a file below "watched"
    kill_after  SIGKILL after so many seconds
    most_bytes  no file can grow beyond so many bytes, as on a disk that is full
    clock       seconds by which time.time() goes back at every call

Answers each with a line of JSON: "code", its exit status as `os.waitstatus_to_exitcode` has it; "operations", how many
files below "watched" it opened, renamed or removed; "seconds" that it took; "stderr".
This process imports what the command needs and computes nothing, so that a fork is whole, and begins within a second.
"""

import contextlib
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

import camboxes.models.localization.localizer
import camboxes.transforms.infer  # noqa: F401
from camboxes.pipeline import cli

_OPERATIONS = {"open", "os.rename", "os.remove"}


def main() -> None:
    for line in sys.stdin:
        call = json.loads(line)
        with tempfile.NamedTemporaryFile("rb") as count, tempfile.NamedTemporaryFile("rb") as stderr:
            start = time.monotonic()
            process = os.fork()
            if process == 0:
                _run(call, Path(count.name), stderr.name)
            _, status = os.waitpid(process, 0)
            answer = {
                "code": os.waitstatus_to_exitcode(status),
                "operations": len(count.read()),
                "seconds": time.monotonic() - start,
                "stderr": stderr.read().decode(),
            }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(call: dict, count: Path, stderr: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    _count_and_kill(call.get("watched", "\0"), call.get("kill_at"), count)
    if "kill_after" in call:
        timer = threading.Timer(call["kill_after"], _die)
        timer.daemon = True
        timer.start()
    if "most_bytes" in call:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (call["most_bytes"], call["most_bytes"]))
    if "clock" in call:
        times = itertools.count(time.time(), -call["clock"])
        time.time = lambda: next(times)
    code = 1
    with contextlib.suppress(SystemExit):
        code = cli.main(call["arguments"])
    sys.stderr.flush()
    os._exit(code)


def _count_and_kill(watched: str, kill_at: int | None, count: Path) -> None:
    file = os.open(count, os.O_WRONLY | os.O_APPEND)
    numbers = itertools.count(1)

    def look(event: str, arguments: tuple) -> None:
        if event in _OPERATIONS and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(watched):
            if next(numbers) == kill_at:
                _die()
            os.write(file, b".")

    sys.addaudithook(look)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
