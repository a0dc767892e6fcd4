"""The steady rate of a job from the times of its images; rates beside what is possible."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_LOOK = 0.01  # seconds between two looks at how many images are done
_LEFT_OUT = 1 / 8  # of the images, at either end of a job
_UNSURE = 1.05  # how far a rate may be above its limit: two measurements of the same differ
_TRIALS = 3


class Mark(NamedTuple):
    """How many images of a job were done, when, and after how much CPU time of its processes, in seconds."""

    seconds: float
    images: int
    cpu: float = 0.0


class Rates(NamedTuple):
    """Images a second, and images a second of CPU time, with which other programs hardly interfere."""

    by_clock: float
    by_cpu: float


def watch(job: subprocess.Popen, folder: Path) -> list[Mark]:
    """Marks each change of the number of images that a `camboxes label` has done, until it ends.

    Args:
      job: the command, just started: time begins now.
      folder: its TMPDIR, which nothing else uses. There it keeps a file with a byte for each image that is done, by any
        of its processes: `image_progress` in pipeline/jobs/progress.py.
    """
    start, marks, told = time.perf_counter(), [Mark(0, 0)], None
    while job.poll() is None:
        time.sleep(_LOOK)
        told = told or next((file.open("rb") for file in folder.glob("camboxes-images-*")), None)
        done = told.seek(0, os.SEEK_END) if told else 0
        if done > marks[-1].images:
            marks.append(Mark(time.perf_counter() - start, done, cpu_seconds(job.pid)))
    return marks


def cpu_seconds(process: int) -> float:
    """The CPU time that a process and those that descend from it have used; not of those that have ended."""
    used = 0
    for each in tree(process):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            user, system = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:13]
            used += int(user) + int(system)
    return used / os.sysconf("SC_CLK_TCK")


def tree(process: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except FileNotFoundError:  # it has ended
        return []
    return [process, *(below for child in children for below in tree(child))]


def steady_rates(marks: Sequence[Mark]) -> Rates:
    """The rates of the three quarters in the middle of a job.

    Before, layers are made and worker processes start one after the other; after, batches are filled up with zeros, and
    one process may wait for another.

    Raises:
      SystemExit: these three quarters hold too few marks.
    """
    total = marks[-1].images
    middle = [mark for mark in marks if total * _LEFT_OUT <= mark.images <= total * (1 - _LEFT_OUT)]
    if len(middle) < 3:
        raise SystemExit(f"the number of images done changed {len(middle)} times in the middle of {total} images; "
                         "expected 3 times or more: give more images")  # fmt: skip
    seconds, images, cpu = (last - first for first, last in zip(middle[0], middle[-1], strict=True))
    return Rates(images / seconds, images / cpu if cpu else 0.0)


def spread(figures: Sequence[float]) -> dict[str, float]:
    """The median of repeated measurements, the lowest and the highest."""
    return {"median": statistics.median(figures), "lowest": min(figures), "highest": max(figures)}


def paired(name: str, job: Callable[[], Rates], limit: Callable[[], Rates]) -> tuple[Rates, Rates]:
    """A job's rates, and the means of what was possible right before it and right after.

    A job that was faster than either measurement of its limit is measured again, with its limit: what else the machine
    did changed in between, or one of the two is wrong. It is told on stderr.

    Args:
      name: of the job, for the message.
      job: runs it, and gives its rates.
      limit: measures what is possible now.

    Raises:
      SystemExit: the rates were impossible each time.
    """
    for _ in range(_TRIALS):
        before, own, after = limit(), job(), limit()
        highest = Rates(*map(max, before, after))
        if all(rate <= _UNSURE * most for rate, most in zip(own, highest, strict=True)):
            return own, Rates(*(statistics.mean(both) for both in zip(before, after, strict=True)))
        print(f"{name}: {own} where {before} and {after} were possible; measured again", file=sys.stderr, flush=True)
    raise SystemExit(
        f"{name}: {own.by_clock:.1f} images/s and {own.by_cpu:.1f} for a second of CPU time, where no more than "
        f"{highest.by_clock:.1f} and {highest.by_cpu:.1f} were measured right before and right after, the last of "
        f"{_TRIALS} times; expected no more than these. One of the two is wrong, or the machine changed its speed in "
        "between each time: run it again where nothing else runs"
    )
