"""Runs a job into a run's folder: the pipeline, the record of how it ran, the report."""

import contextlib
import functools
import resource
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.portable_runner import PipelineResult as PortableResult
from apache_beam.runners.runner import PipelineResult

from camboxes.models.counts import counted
from camboxes.pipeline import interrupts
from camboxes.pipeline.jobs import worker_processes
from camboxes.pipeline.jobs.beam_options import local_processes, runner_name, workers_elsewhere
from camboxes.pipeline.jobs.job_log import job_log
from camboxes.pipeline.jobs.progress import image_progress, remark_on_input
from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.reports import run_report
from camboxes.transforms import PlannedRun, quote_python, storage
from camboxes.transforms.write import TooManyRejectedError

if TYPE_CHECKING:
    from camboxes.models.localization.measured import Measured


def execute(
    build: Callable[[beam.Pipeline], Any],
    options: PipelineOptions,
    output: str,
    reporter: Reporter,
    measured: "Measured | None" = None,
) -> None:
    """Runs the job that `build` assembles, and writes the report.

    Args:
      build: applies the job's transforms to a pipeline.
      options: Beam's.
      output: the folder that the job writes to; it has a plan, unless the job makes one.
      reporter: receives progress, and remarks on an input that the workers list.
      measured: by which the network is executed as it is, for summary.json.

    Raises:
      TooManyRejectedError: more images were rejected than `WriteCoco` was told to allow; all files are written.
      DeadWorkerError: a worker process died.
      KeyboardInterrupt: the job was interrupted; the worker processes have ended.
      Exception: whatever else made the job fail. A note says how many shards are done.
    """
    with interrupts.telling(functools.partial(_shards_done, output), _elsewhere(options)):
        failure = _execute(build, options, output, reporter, measured)
    if failure:
        raise TooManyRejectedError(
            f"{failure}; each has its reason in {storage.join(output, 'report.html')}, "
            "--retry-rejected tries them again, and --max-reject-rate allows for more"
        )


def _execute(
    build: Callable[[beam.Pipeline], Any],
    options: PipelineOptions,
    output: str,
    reporter: Reporter,
    measured: "Measured | None",
) -> str | None:
    """Does what `execute` does; returns why so many images were rejected that the job has failed."""
    start = time.monotonic()
    quote_python()
    planned_before = PlannedRun.load(output) is not None
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    path = storage.join(output, "summary.json")
    processes = local_processes(options)
    starting = "starting the job" if processes == 1 else f"starting {processes} worker processes"
    with (
        image_progress(output, starting, reporter),
        job_log() as log,
        worker_processes.supervised(options, log) as peaks,
    ):
        result = _finished(pipeline, path)
    seconds = time.monotonic() - start
    summary = storage.read_json(path)  # first: a job that wrote nothing has failed, whatever its runner says
    peak = max([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *peaks])
    summary["run"] = {
        "runner": str(options.view_as(StandardOptions).runner),
        "processes": processes,
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak if sys.platform == "darwin" else 1024 * peak,  # in bytes on macOS, in KiB on Linux
    }
    if measured:
        milliseconds = {str(way): round(time, 2) for way, time in measured.milliseconds.items()}
        summary["run"]["measured"] = {"now": measured.now, "milliseconds": milliseconds}
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
    return summary["failure"]


def _finished(pipeline: beam.Pipeline, path: str) -> PipelineResult | None:
    """Runs a pipeline to its end; returns None where it failed for what stands in its summary."""
    result = None
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except (Exception, KeyboardInterrupt) as error:
        if interrupts.interrupted(error):
            if isinstance(result, PortableResult):  # Dataflow goes on: docs/how-to/dataflow.md
                with contextlib.suppress(Exception):
                    result.cancel()
            raise KeyboardInterrupt from None
        if not _failed_when_written(path):
            raise
        return None
    return result


def _failed_when_written(path: str) -> bool:
    """Whether a job has written its summary, and failed for what stands in it.

    A summary that an earlier job left holds `run`, which is added to it last.
    """
    summary = storage.read_json(path) if storage.exists(path) else {"run": {}}
    return "run" not in summary and summary.get("failure") is not None


def _shards_done(output: str) -> str:
    run = PlannedRun.load(output)
    return f"{len(run.written())} of {counted(len(run.shards), 'shard')} done" if run else ""


def _elsewhere(options: PipelineOptions) -> str:
    """What an interrupt does to a job on other machines."""
    if not workers_elsewhere(options):
        return ""
    if runner_name(options) == "DataflowRunner":
        return "Dataflow goes on with the job, so cancel it there first"
    return "the runner was asked to cancel the job"
