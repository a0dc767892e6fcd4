"""How long a command leaves its user in silence: runs it on a terminal, and times everything that it says there.

    python benchmarks/silences.py camboxes label --input photos/ --output boxes/
    python benchmarks/silences.py --until "the App is at" camboxes review --run boxes/ --no-browser

Prints each silence of more than a second with the line before it, the longest one, the time that the command took, and
the seconds and CPU seconds, of all its processes, until its first image was done. Linux only: it reads /proc.
"""

import argparse
import collections
import contextlib
import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FIRST_IMAGE = re.compile(r"\b[1-9]\d*/\d+ \[.*image")  # a bar of images that is above zero


class Silence(NamedTuple):
    """Seconds without output, when they began, and the line that was shown."""

    seconds: float
    at: float
    after: str


class Watched(NamedTuple):
    """How a command went.

    Attributes:
      code: its exit code; of a signal the negative number.
      seconds: how long it took.
      silences: in their order.
      first_image: seconds, and CPU seconds of all its processes, until the first image was done; None without any.
      ends: seconds from Ctrl-C to its end; None where there was no Ctrl-C.
      lines: what it said, each with the second in which it came.
    """

    code: int
    seconds: float
    silences: list[Silence]
    first_image: tuple[float, float] | None
    ends: float | None
    lines: list[tuple[float, str]]


def watch(command: Sequence[str], until: str | None = None, **options: Any) -> Watched:
    """Runs a command on a terminal of its own, with Ctrl-C when it has said what `until` matches.

    `options` are of subprocess.Popen.
    """
    start, last, shown, first, interrupted = time.monotonic(), 0.0, "", None, None
    silences, lines = [], []
    process, terminal = _started(command, options)
    for chunk in _chunks(process, terminal):
        now = time.monotonic() - start
        silences.append(Silence(now - last, last, shown))
        last = now
        for line in filter(str.strip, _ESCAPES.sub("", chunk).replace("\r", "\n").split("\n")):
            shown = " ".join(line.split())
            lines.append((now, shown))
            if first is None and _FIRST_IMAGE.search(shown):
                first = now, _cpu_seconds(process.pid)
            if until and interrupted is None and re.search(until, shown):
                os.write(terminal, b"\x03")
                interrupted = now
    code, total = process.wait(), time.monotonic() - start
    os.close(terminal)
    silences.append(Silence(total - last, last, shown))
    return Watched(code, total, silences, first, None if interrupted is None else total - interrupted, lines)


def main() -> None:
    """Runs the command and prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--over", type=float, default=1.2, help="seconds from which on a silence is printed")
    parser.add_argument("--until", help="interrupt the command when a line matches this regular expression")
    parser.add_argument("--show", action="store_true", help="print all lines, with the second in which each began")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    watched = watch(asked.command, asked.until)
    for second, line in watched.lines if asked.show else ():
        print(f"{second:7.1f}  {line}")
    for silence in watched.silences:
        if silence.seconds > asked.over:
            print(f"{silence.seconds:6.1f} s of silence at {silence.at:6.1f} s, after: {silence.after[:100]}")
    longest = max(watched.silences)
    print(f"longest silence {longest.seconds:.1f} s; {watched.seconds:.1f} s in all, exit code {watched.code}")
    if watched.first_image:
        print("first image after {:.1f} s and {:.1f} CPU seconds".format(*watched.first_image))


def _started(command: Sequence[str], options: Mapping[str, Any]) -> tuple[subprocess.Popen[bytes], int]:
    """A command on a terminal of its own, and this end of the terminal."""
    here, there = pty.openpty()
    termios.tcsetwinsize(there, (40, 120))
    process = subprocess.Popen(
        command,
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  Ctrl-C reaches all its processes
        **options,
    )
    os.close(there)
    return process, here


def _chunks(process: subprocess.Popen[bytes], terminal: int) -> Iterator[str]:
    """What is written to a terminal, as it comes, until the command has ended; processes of its may take longer."""
    ended = False
    with contextlib.suppress(OSError):  # what reading says when the other end is closed
        while not ended:
            ended = process.poll() is not None
            while select.select([terminal], [], [], 0.05)[0]:
                yield os.read(terminal, 65536).decode(errors="replace")


def _cpu_seconds(pid: int) -> float:
    """What a process and all that descend from it have used."""
    used, children = {}, collections.defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            fields = status.read_text().rpartition(")")[2].split()
            process = int(status.parent.name)
            used[process] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # with its ended children
            children[int(fields[1])].append(process)
    seconds, tree = 0.0, [pid]
    while tree:
        process = tree.pop()
        seconds += used.get(process, 0.0)
        tree += children[process]
    return seconds


if __name__ == "__main__":
    main()
