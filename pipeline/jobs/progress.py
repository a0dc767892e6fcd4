"""What is told of a job before it runs and while it does."""

import contextlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from camboxes.models.counts import counted
from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.reports import remarks
from camboxes.pipeline.untrusted_text import on_one_line
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.counters import IMAGES_DONE

_LOOK = 0.5  # seconds between two looks at what this machine has done


def announce(output: str, work: str, reporter: Reporter, exactly: str | None = None) -> None:
    """Tells what is about to be done in a run's folder, and what is remarkable about its input.

    Args:
      output: the folder.
      work: what is done, in words.
      reporter: receives it.
      exactly: the same as options have it, for a line of its own.
    """
    run = PlannedRun.load(output)
    if run is None:
        reporter.say(f"images are listed and planned on the workers; {work}")
        if exactly:
            reporter.say(f"  {exactly}")
        return
    done = len(run.shards) - len(run.missing())
    notes = [
        f"{counted(run.repeated, 'repeated row')} dropped" if run.repeated else "",
        f"{counted(done, 'shard')} done already" if done else "",
    ]
    background = f" (background: {', '.join(map(on_one_line, run.background))})" if run.background else ""
    labels = f"{counted(len(run.categories), 'label')}{background}"
    what = f"{counted(run.images, 'image')}, {labels}, {counted(len(run.shards), 'shard')}; {work}"
    reporter.say("; ".join([what, *filter(None, notes)]))
    if exactly:
        reporter.say(f"  {exactly}")
    remark_on_input(run, reporter)


def remark_on_input(run: PlannedRun, reporter: Reporter) -> None:
    """Tells what is remarkable about a run's input."""
    labels = [category.name for category in run.categories]
    for remark in remarks.of_input(run.passed_over, labels, run.splits, run.assumed):
        reporter.say(remark)


@contextlib.contextmanager
def image_progress(output: str, starting: str, reporter: Reporter) -> Iterator[None]:
    """Shows how many images are done, while a job runs; `starting` is the name of the step before the first one.

    Processes on this machine tell of each image that has had its pass. Shards that are finished are the one sign of
    progress that every runner gives, and also count where the other is missing.
    """
    if not reporter.shows_progress:
        yield
        return
    ended = threading.Event()
    with tempfile.NamedTemporaryFile(prefix="camboxes-images-") as live:
        watched = (output, Path(live.name), starting, ended, reporter)
        thread = threading.Thread(target=_watch, args=watched, name="images", daemon=True)
        os.environ[IMAGES_DONE] = live.name
        thread.start()
        try:
            yield
        finally:
            os.environ.pop(IMAGES_DONE, None)
            ended.set()
            thread.join()


def _watch(output: str, live: Path, starting: str, ended: threading.Event, reporter: Reporter) -> None:
    with reporter.step(starting):
        while (run := PlannedRun.load(output)) is None:
            if ended.wait(_every(output)):
                return
        images = {key: run.shards[key] for key in run.missing()}
        total, counts = sum(images.values()), _counts(run, images, live, ended)
        done = next(filter(None, counts), 0)
    if done:
        with reporter.progress(total, "image", "drawing boxes") as advance:
            advance(done)
            while done < total and (now := next(counts, None)) is not None:
                advance(now - done)
                done = now
    if not ended.is_set():
        with reporter.step("merging the shards"):
            ended.wait()


def _counts(run: PlannedRun, images: Mapping[str, int], live: Path, ended: threading.Event) -> Iterator[int]:
    """The number of images that are done, again and again, for the last time when the job has ended."""
    total, looked, finished = sum(images.values()), -math.inf, 0
    while total:
        over = ended.wait(_LOOK)
        if over or time.monotonic() - looked >= _every(run.output):
            looked, missing = time.monotonic(), {*run.missing()}
            finished = sum(number for key, number in images.items() if key not in missing)
        # What a job did of a shard before it was killed is done again, and counted in a file of its own.
        yield max(finished, min(live.stat().st_size, total))
        if over:
            return


def _every(output: str) -> float:
    """Seconds between two looks at the run's folder."""
    return _LOOK if storage.is_local(output) else 10
