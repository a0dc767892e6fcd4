"""A run's folder, and running a job into it: progress, dead workers, and what is said at the end."""

import contextlib
import functools
import gc
import logging
import os
import re
import resource
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import filelock
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.jobs import leases, worker_processes
from camboxes.pipeline.jobs.beam_options import local_processes
from camboxes.pipeline.reports import remarks, run_report
from camboxes.pipeline.untrusted_text import on_one_line
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.write import TooManyRejectedError

# What a run leaves in its folder; the plan, which marks it as one, goes last.
CONTENTS = (
    "annotations.json",
    "results.json",
    "summary.json",
    "report.html",
    "evaluation.json",
    "tuning.json",
    "shards",
    "plan",
)
# What the folder of a plan may hold before plan.json.
_PLAN = {"shards", "classifier.json", "weights.safetensors", "regressor.safetensors", "selftraining.json", "retried"}
_PARTS = re.compile(r"(annotations|results)-\d{5,}-of-\d{5,}\.json")  # of a large run
# Folders that a run or a training writes to. Any other folder may be another job's.
_FOLDERS = ("shards", "plan", "features", "head", "everything")


def check_output(output: str, *inputs: str | None, contents: Sequence[str] = CONTENTS) -> None:
    """Refuses a folder where what is read would be replaced or deleted.

    Args:
      output: the folder.
      inputs: what is read; None is passed over.
      contents: the names in the folder that are written to.

    Raises:
      CallError: an input is the output, or lies where the output is written.
    """
    folder = Path(output).resolve()
    for path in inputs:
        if path is None or not (storage.is_local(path) and storage.is_local(output)):
            continue
        place = Path(path).resolve()
        if place == folder:
            raise CallError(f"--output {output!r} is the input itself; choose another")
        if place.is_relative_to(folder) and place.relative_to(folder).parts[0] in contents:
            raise CallError(f"{path!r} lies where --output {output!r} is written; choose another folder")


def check_contents(output: str) -> None:
    """Refuses a folder where a file that no run has left there would be replaced or deleted.

    Raises:
      CallError: it holds no run, and a name that a run would write to.
    """
    plan = storage.join(output, "plan")
    if storage.exists(storage.join(plan, "plan.json")):
        return
    inside = storage.names(plan, "")
    unfinished = not inside or any(name in _PLAN for name in inside)  # as a call leaves it that was killed
    names = [name for name in CONTENTS if not (name == "plan" and unfinished)]
    if others := [name for name in names if storage.exists(storage.join(output, name))]:
        raise CallError(
            f"--output {output!r} holds {', '.join(others)}, which no run has left there (plan/plan.json is missing); "
            "choose another folder"
        )


@contextlib.contextmanager
def locked(output: str) -> Iterator[None]:
    """Keeps other jobs off a folder, and deletes what a killed job left half-written.

    A local folder's lock ends with the process that holds it, however it ends; on a store: see `leases`. Folders that
    this call makes are removed again if nothing is written to them.

    Raises:
      CallError: another job is writing to the folder.
      OSError: the folder cannot be made.
    """
    with leases.held(output) if not storage.is_local(output) else _file_lock(output):
        storage.sweep(output, _FOLDERS)
        yield


@contextlib.contextmanager
def _file_lock(output: str) -> Iterator[None]:
    folder, attempts = Path(output), 100
    lock = filelock.FileLock(folder / ".lock")
    with contextlib.ExitStack() as undo:
        while not lock.is_locked:
            try:
                _make(folder, undo)
                lock.acquire(timeout=0)
            except filelock.Timeout:
                raise CallError(
                    f"another job is writing to {output!r}; wait for it, or choose another --output"
                ) from None
            except OSError as error:
                attempts -= 1
                if isinstance(error, FileNotFoundError | FileExistsError) and attempts:
                    continue  # perhaps another call has just removed the folder that it made
                raise OSError(f"--output {output!r} cannot be written to ({error}); choose another folder") from error
        undo.callback(lock.release)
        undo.callback(_unlink, folder / ".lock")  # while it is held; whoever has it open notices, and makes a new one
        yield


def _make(folder: Path, undo: contextlib.ExitStack) -> None:
    """Makes a folder and its parents, as far as they are missing."""
    for path in [*reversed(folder.parents), folder]:
        try:
            path.mkdir()
        except OSError:
            if not path.is_dir():
                raise
        else:
            undo.callback(_remove_empty, path)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is not empty
        folder.rmdir()


def _unlink(file: Path) -> None:
    with contextlib.suppress(OSError):  # the error that ended the block must come through
        file.unlink()


def finished(path: str) -> PlannedRun:
    """The run that a folder holds.

    Raises:
      CallError: there is none, or it is not finished.
    """
    run = PlannedRun.load(path)
    if run is None:
        raise CallError(f"--run {path!r} holds no run; expected the --output of camboxes label")
    if missing := run.missing():
        raise CallError(
            f"--run {path!r} is not finished: {len(missing)} of {len(run.shards)} shards are missing; "
            "camboxes label with the options that it was begun with finishes it"
        )
    return run


def remove(output: str, contents: Sequence[str] = CONTENTS) -> None:
    """Deletes what a run, or another command, left in a folder, and nothing else that lies there."""
    parts = [name for name in storage.names(output, ".json") if _PARTS.fullmatch(name)] if contents is CONTENTS else []
    for name in [*parts, *contents]:
        storage.delete(storage.join(output, name))


def announce(output: str, network: str) -> None:
    """Says what is about to be done in a run's folder."""
    run = PlannedRun.load(output)
    if run is None:
        print(f"images are listed and planned on the workers; {network}", file=sys.stderr)
        return
    done = len(run.shards) - len(run.missing())
    notes = [
        f"{run.repeated} repeated rows dropped" if run.repeated else "",
        f"{done} shards are done already" if done else "",
    ]
    what = f"{run.images} images, {len(run.categories)} labels, shards: {len(run.shards)}; {network}"
    print("; ".join([what, *filter(None, notes)]), file=sys.stderr)
    _remark(run)


def _remark(run: PlannedRun) -> None:
    labels = [category.name for category in run.categories]
    for remark in remarks.of_input(run.passed_over, labels, run.splits):
        print(remark, file=sys.stderr)


def execute(build: Callable[[beam.Pipeline], Any], options: PipelineOptions, output: str) -> None:
    """Runs the job that `build` assembles, writes the report, and says what came out and what to do next.

    Args:
      build: applies the job's transforms to a pipeline.
      options: Beam's.
      output: the folder that the job writes to; it has a plan, unless the job makes one.

    Raises:
      RuntimeError: more images were rejected than `WriteCoco` was told to allow; all files are written.
      Exception: whatever else made the job fail. A worker process that dies ends this process with exit code 1.
    """
    start = time.monotonic()
    if not gc.isenabled():  # cli.command
        gc.freeze()
        gc.enable()
    planned_before = PlannedRun.load(output) is not None
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    path = storage.join(output, "summary.json")
    supervised = worker_processes.supervised(options, functools.partial(_give_up, output))
    with _progress(output), supervised as peaks, _without_traceback(TooManyRejectedError):
        try:
            result = pipeline.run()
            result.wait_until_finish()
        except Exception:
            if not _failed_when_written(path):
                raise
            result = None
    seconds = time.monotonic() - start
    summary = storage.read_json(path)  # first: a job that wrote nothing has failed, whatever its runner says
    counters = None if result is None else _counters(result)
    summary["run"] = {
        "runner": str(options.view_as(StandardOptions).runner),
        "processes": local_processes(options),
        "seconds": round(seconds, 2),
        "peak_memory_bytes": _bytes(max([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *peaks])),
    }
    if counters is not None:
        images = counters.get("written", 0)
        rate = round(images / seconds, 2)
        summary["run"] |= {"images": images, "images_per_second": rate, "counters": counters}
    storage.write_json(path, summary)
    gone = run_report.write(output)
    if not planned_before and (run := PlannedRun.load(output)):
        _remark(run)  # `announce` could not
    _conclude(output, summary)
    if gone:
        print(
            f"{gone} of the photographs in report.html are gone, or their files were replaced since the run: the boxes "
            "are those of the earlier files. For boxes of the new ones give another --output, with "
            f"--reuse {shlex.quote(output)} to take over what is the same",
            file=sys.stderr,
        )
    if summary["failure"]:
        raise RuntimeError(
            f"{summary['failure']}; each has its reason in {storage.join(output, 'report.html')}, "
            "--retry-rejected tries them again, and --max-reject-rate allows for more"
        )


@contextlib.contextmanager
def _without_traceback(kind: type[Exception]) -> Iterator[None]:
    """Keeps Beam from logging errors of a kind that a step raises: they are told in one line at the end."""
    beam = logging.getLogger("apache_beam.runners.common")

    def other(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], kind))

    beam.addFilter(other)
    try:
        yield
    finally:
        beam.removeFilter(other)


def _counters(result: Any) -> dict[str, int]:
    """What a job has counted. Beam's local runner tells it of those alone that do not fail."""
    return {
        counter.key.metric.name: counter.committed
        for counter in result.metrics().query()["counters"]
        if counter.key.metric.namespace == "camboxes"
    }


def _failed_when_written(path: str) -> bool:
    """Whether a job has written its summary, and failed for what stands in it.

    A summary that an earlier job left holds `run`, which is added to it last.
    """
    summary = storage.read_json(path) if storage.exists(path) else {"run": {}}
    return "run" not in summary and summary.get("failure") is not None


def _bytes(peak: int) -> int:
    return peak if sys.platform == "darwin" else 1024 * peak  # getrusage counts in bytes on macOS, in KiB on Linux


def _conclude(output: str, summary: dict[str, Any]) -> None:
    images = summary["images"]
    reasons = "".join(f" ({code} {number})" for code, number in summary["rejected"].items())
    print(
        f"{images['planned']} images: {images['ok']} with boxes, {images['no_box']} without, "
        f"{images['skipped']} skipped, {images['rejected']} rejected{reasons}; "
        f"{summary['annotations']} boxes in {summary['run']['seconds']:.1f} s"
    )
    for remark in remarks.of_rejected(summary["rejected"], summary["input"].get("root", "")):
        print(remark)
    if found := summary["copies"]["example"]:
        example = [(image["path"], image["labels"]) for image in found]
        remark = remarks.of_other_labels(summary["copies"]["with_other_labels"], example)
        print(f"{remark}. Now each has boxes of its own labels, and labels of different copies do not compete")
    for warning in summary["warnings"]:
        print(f"WARNING: {on_one_line(warning, 1000)}", file=sys.stderr)
    written = [storage.join(output, name) for name in ("annotations.json", "results.json", "summary.json")]
    print(f"wrote {', '.join(written)}")
    print(f"look at {storage.join(output, 'report.html')}")
    if summary["failure"]:
        return
    again = f"{output.rstrip('/')}-t40"
    call = ["camboxes", "rebox", "--run", output, "--output", again, "--threshold", "0.4"]
    print(f"draw again: {shlex.join(call)}")


@contextlib.contextmanager
def _progress(output: str) -> Iterator[None]:
    """Shows the images of finished shards, their rate and the time left, where stderr is a terminal.

    A shard's file is the one sign of progress that every runner and every process gives; before there is a plan, there
    is none.
    """
    from tqdm import tqdm

    ended, seconds = threading.Event(), 0.5 if storage.is_local(output) else 10

    def watch() -> None:
        while (run := PlannedRun.load(output)) is None:
            if ended.wait(seconds):
                return
        missing = run.missing()
        images, before = sum(run.shards[key] for key in missing), set(run.shards) - set(missing)
        with tqdm(total=images, unit="image", disable=None, smoothing=0.1) as bar:
            while not bar.disable:
                last = ended.wait(seconds)
                done = set(run.shards) - set(run.missing()) - before
                bar.update(sum(run.shards[key] for key in done) - bar.n)
                if last:
                    return

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _give_up(output: str, log: str, death: str) -> None:
    """Ends this process, whose main thread waits inside Beam for an answer that will not come."""
    run = PlannedRun.load(output)
    shards = len(run.shards) if run else 0
    written = shards - len(run.missing()) if run else 0
    print(
        f"\ncamboxes: a worker process died ({death}); {written} of {shards} shards are "
        "written, and the same command continues with the rest. If it dies again, was it killed for its memory? "
        f"Then ask for fewer workers or a smaller --batch-size. The workers' log is {log}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
