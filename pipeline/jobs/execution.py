"""Runs a job into a run's folder: the pipeline, the record of how it ran, the report."""

import contextlib
import logging
import resource
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from camboxes.models.counts import counted
from camboxes.pipeline.jobs import worker_processes
from camboxes.pipeline.jobs.beam_options import local_processes
from camboxes.pipeline.jobs.progress import image_progress, remark_on_input
from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.reports import run_report
from camboxes.transforms import PlannedRun, quote_python, storage
from camboxes.transforms.write import TooManyRejectedError


def execute(build: Callable[[beam.Pipeline], Any], options: PipelineOptions, output: str, reporter: Reporter) -> None:
    """Runs the job that `build` assembles, and writes the report.

    Args:
      build: applies the job's transforms to a pipeline.
      options: Beam's.
      output: the folder that the job writes to; it has a plan, unless the job makes one.
      reporter: is told of progress, and of remarks on an input that the workers list.

    Raises:
      TooManyRejectedError: more images were rejected than `WriteCoco` was told to allow; all files are written.
      RuntimeError: a worker process died.
      Exception: whatever else made the job fail.
    """
    start = time.monotonic()
    quote_python()
    planned_before = PlannedRun.load(output) is not None
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    path = storage.join(output, "summary.json")
    processes = local_processes(options)
    starting = "starting the job" if processes == 1 else f"starting {processes} worker processes"
    try:
        with (
            image_progress(output, starting, reporter),
            worker_processes.supervised(options, reporter) as peaks,
            _rejections_not_logged(),
        ):
            try:
                result = pipeline.run()
                result.wait_until_finish()
            except Exception:
                if not _failed_when_written(path):
                    raise
                result = None
    except worker_processes.DeadWorkerError as error:
        raise RuntimeError(_of_dead_worker(output, error)) from None
    seconds = time.monotonic() - start
    summary = storage.read_json(path)  # first: a job that wrote nothing has failed, whatever its runner says
    peak = max([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *peaks])
    summary["run"] = {
        "runner": str(options.view_as(StandardOptions).runner),
        "processes": processes,
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak if sys.platform == "darwin" else 1024 * peak,  # in bytes on macOS, in KiB on Linux
    }
    if result is not None:  # Beam's local runner has no counters of a job that fails
        counters = {
            counter.key.metric.name: counter.committed
            for counter in result.metrics().query()["counters"]
            if counter.key.metric.namespace == "camboxes"
        }
        images = counters.get("written", 0)
        rate = round(images / seconds, 2)
        summary["run"] |= {"images": images, "images_per_second": rate, "counters": counters}
    storage.write_json(path, summary)
    with reporter.step("writing report.html"):
        gone = run_report.write(output)
    if not planned_before and (run := PlannedRun.load(output)):
        remark_on_input(run, reporter)  # `announce` could not
    if gone:
        reporter.say(
            f"{gone} of the photographs in report.html are gone, or their files were replaced since the run: the boxes "
            "are those of the earlier files. For boxes of the new ones give another --output, with "
            f"--reuse {shlex.quote(output)} to take over what is the same"
        )
    if summary["failure"]:
        raise TooManyRejectedError(
            f"{summary['failure']}; each has its reason in {storage.join(output, 'report.html')}, "
            "--retry-rejected tries them again, and --max-reject-rate allows for more"
        )


@contextlib.contextmanager
def _rejections_not_logged() -> Iterator[None]:
    """Keeps Beam from logging the traceback of a TooManyRejectedError, which is told in one line at the end."""
    beam = logging.getLogger("apache_beam.runners.common")

    def other(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], TooManyRejectedError))

    beam.addFilter(other)
    try:
        yield
    finally:
        beam.removeFilter(other)


def _failed_when_written(path: str) -> bool:
    """Whether a job has written its summary, and failed for what stands in it.

    A summary that an earlier job left holds `run`, which is added to it last.
    """
    summary = storage.read_json(path) if storage.exists(path) else {"run": {}}
    return "run" not in summary and summary.get("failure") is not None


def _of_dead_worker(output: str, error: worker_processes.DeadWorkerError) -> str:
    run = PlannedRun.load(output)
    shards = len(run.shards) if run else 0
    written = shards - len(run.missing()) if run else 0
    return (
        f"a worker process died ({error.death}); {written} of {counted(shards, 'shard')} written, and the same command "
        "continues with the rest. If it dies again, was it killed for its memory? Then ask for fewer workers or a "
        f"smaller --batch-size. The workers' log is {error.log}"
    )
