"""Worker processes of Beam's local runner: forked, supervised, with a log of their own.

Beam itself starts an interpreter for each worker once the job runs, and each imports everything again. Here a fork
server imports it, while this process still prepares the job, and each worker is a fork of that server: ready at once,
with the imported modules in memory once. The server is `multiprocessing`'s own, a process without threads. A job of 160
images takes 26.9 s with two forked workers, and 37.8 s with two of Beam's own (benchmarks/records/development.md).

Beam waits for ever for a worker that has died. Here the job fails, with what the worker died of.

Where processes cannot be forked so, as on Windows, Beam's own workers do the job.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import types
from collections.abc import Iterator, Mapping, MutableMapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.worker.sdk_worker_main import create_harness

from camboxes.pipeline.interrupts import interrupted
from camboxes.pipeline.jobs.beam_options import available_cores, local_processes

_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_THREADS = "OMP_NUM_THREADS"
_INTERRUPT = {signal.SIGINT}


class DeadWorkerError(RuntimeError):
    """A worker process ended too early; the text is what it died of."""


def import_ahead(*modules: str) -> None:
    """Begins to import what workers will need in the process that they are forked from, beside this one."""
    if not _FORKS:
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, *modules])
    resource_tracker.ensure_running()  # the server would start it, and that unblocks the signals that are blocked here
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)  # an interrupt is for this process to answer
    try:
        # The server begins with one thread: with several, the threads of all workers would wait for each other.
        with _replaced(os.environ, _THREADS, "1"):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@dataclasses.dataclass
class _Job:
    """What the workers of a job have in common."""

    environment: Mapping[str, str]
    log: str  # the file that their stderr goes to
    peaks: list[int] = dataclasses.field(default_factory=list)  # of those that have ended
    workers: "list[_ForkedWorker]" = dataclasses.field(default_factory=list)
    ending: threading.Event = dataclasses.field(default_factory=threading.Event)  # Beam asks them nothing more
    death: str | None = None  # how the first one ended that ended too early


@contextlib.contextmanager
def supervised(options: PipelineOptions, log: str) -> Iterator[list[int]]:
    """Runs the worker processes that a job asks for, while the job runs; where it asks for none, does nothing.

    The cores are shared among them, Beam's options reach them, and what they say goes to the file `log`. They end with
    the block, and with this process.

    Returns:
      The most memory that each worker held, as getrusage counts it; complete once the job has ended.

    Raises:
      DeadWorkerError: a worker process died, and the job with it.
    """
    if options.view_as(DirectOptions).direct_running_mode != "multi_processing" or not _FORKS:
        yield []
        return
    threads = os.environ.get(_THREADS, str(max(1, available_cores() // local_processes(options))))
    given = json.dumps(options.get_all_options(drop_default=True), default=str)
    job = _Job({**os.environ, _THREADS: threads, "PIPELINE_OPTIONS": given}, log)
    forked = functools.partial(_ForkedWorker, job), bytes
    try:
        with _replaced(WorkerHandler._registered_environments, python_urns.SUBPROCESS_SDK, forked):
            yield job.peaks
    except Exception as error:
        if job.death:
            raise DeadWorkerError(job.death) from error
        raise
    finally:
        job.ending.set()


@contextlib.contextmanager
def _replaced(values: MutableMapping[str, Any], key: str, value: Any) -> Iterator[None]:
    """Puts another value in a mapping for a while."""
    before, values[key] = values.get(key), value
    try:
        yield
    finally:
        del values[key]
        if before is not None:
            values[key] = before


class _ForkedWorker(GrpcWorkerHandler):
    """A worker process, as Beam's local runner sees it."""

    def __init__(self, job: _Job, _command: bytes, *beam: Any):
        super().__init__(*beam)
        self._job = job

    def start_worker(self) -> None:
        environment = {
            **self._job.environment,
            "WORKER_ID": self.worker_id,
            "CONTROL_API_SERVICE_DESCRIPTOR": str(self.control_api_service_descriptor()),
        }
        import_ahead()  # where that has not begun
        context = multiprocessing.get_context("forkserver")
        self._peak, peak = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(environment, self._job.log, peak))
        # `multiprocessing` would run the script that runs this process again in every worker.
        with _replaced(sys.modules, "__main__", types.ModuleType("__main__")):
            self._process.start()
        peak.close()
        self._job.workers.append(self)
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()

    def stop_worker(self) -> None:
        self._job.ending.set()
        if interrupted(sys.exception()):  # which Beam passes on as soon as it has stopped its workers
            self._process.kill()
        self._watching.join()

    def _watch(self) -> None:
        self._process.join()
        if not self._process.exitcode:
            self._job.peaks.append(self._peak.recv())
            return
        if self._job.death is None:
            self._job.death = _death(self._process.exitcode)
            for worker in self._job.workers:
                worker._process.kill()
        error = RuntimeError("a worker process died")
        while not self._job.ending.wait(0.5):  # again and again: Beam may be about to ask it something, or for its data
            self.control_conn.abort(error)
            self.data_conn._exception = error


def _death(code: int) -> str:
    if code != -signal.SIGKILL:
        return f"a worker process died (exit code {code})"
    return (
        f"a worker process was killed (exit code {code}), perhaps because of its memory: if it happens again, ask "
        "for fewer workers or a smaller --batch-size"
    )


def _work(environment: dict[str, str], log: str, peak: Connection) -> None:
    """Runs Beam's worker, which reads what to do from the environment."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all processes, and the first one answers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(force=True)
    _, harness, _ = create_harness(environment)
    harness.run()
    peak.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
