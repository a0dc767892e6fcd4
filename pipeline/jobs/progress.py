"""What is told of a job before it runs and while it does."""

import contextlib
import threading
from collections.abc import Iterator

from camboxes.models.counts import counted
from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.reports import remarks
from camboxes.transforms import PlannedRun, storage


def announce(output: str, work: str, reporter: Reporter) -> None:
    """Tells what is about to be done in a run's folder, and what is remarkable about its input."""
    run = PlannedRun.load(output)
    if run is None:
        reporter.say(f"images are listed and planned on the workers; {work}")
        return
    done = len(run.shards) - len(run.missing())
    notes = [
        f"{counted(run.repeated, 'repeated row')} dropped" if run.repeated else "",
        f"{counted(done, 'shard')} done already" if done else "",
    ]
    sizes = {"image": run.images, "label": len(run.categories), "shard": len(run.shards)}
    what = f"{', '.join(counted(size, noun) for noun, size in sizes.items())}; {work}"
    reporter.say("; ".join([what, *filter(None, notes)]))
    remark_on_input(run, reporter)


def remark_on_input(run: PlannedRun, reporter: Reporter) -> None:
    """Tells what is remarkable about a run's input."""
    labels = [category.name for category in run.categories]
    for remark in remarks.of_input(run.passed_over, labels, run.splits):
        reporter.say(remark)


@contextlib.contextmanager
def shard_progress(output: str, reporter: Reporter) -> Iterator[None]:
    """Shows the images of finished shards, while a job runs; nothing before there is a plan.

    A shard's file is the one sign of progress that every runner and every process gives.
    """
    if not reporter.shows_progress:
        yield
        return
    ended, seconds = threading.Event(), 0.5 if storage.is_local(output) else 10

    def watch() -> None:
        while (run := PlannedRun.load(output)) is None:
            if ended.wait(seconds):
                return
        missing = run.missing()
        with reporter.progress(sum(run.shards[key] for key in missing), "image", "images") as advance:
            last = False
            while not last:
                last = ended.wait(seconds)
                still = run.missing()
                advance(sum(run.shards[key] for key in {*missing} - {*still}))
                missing = still

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
