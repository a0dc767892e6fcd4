"""Worker processes of Beam's local runner: forked, supervised, with a log of their own.

Beam itself starts an interpreter for each worker once the job runs, and each imports everything again. Here a fork
server imports it, while this process still prepares the job, and each worker is a fork of that server: ready at once,
with the imported modules in memory once. The server is `multiprocessing`'s own, a process without threads. A job of 160
images takes 26.9 s with two forked workers, and 37.8 s with two of Beam's own (docs/development.md).

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
import tempfile
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)
from apache_beam.runners.worker.sdk_worker_main import create_harness

from camboxes.pipeline.jobs.beam_options import available_cores, local_processes
from camboxes.pipeline.reporter import LOG, Reporter

_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_THREADS = "OMP_NUM_THREADS"
_INTERRUPT = {signal.SIGINT}


class DeadWorkerError(RuntimeError):
    """A worker process ended too early.

    Attributes:
      death: what it died of.
      log: the path of the workers' log.
    """

    def __init__(self, death: str, log: str):
        super().__init__(f"a worker process died ({death}); the workers' log is {log}")
        self.death, self.log = death, log


def import_ahead(*modules: str) -> None:
    """Begins to import what workers will need in the process that they are forked from, beside this one."""
    if not _FORKS:
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, *modules])
    resource_tracker.ensure_running()  # the server would start it, and that unblocks the signals that are blocked here
    threads, blocked = os.environ.get(_THREADS), signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
    # The server begins with one thread: with several, the threads of all workers would wait for each other. And an
    # interrupt is for this process to answer.
    os.environ[_THREADS] = "1"
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        del os.environ[_THREADS]
        if threads is not None:
            os.environ[_THREADS] = threads


@dataclasses.dataclass
class _Job:
    """What the workers of a job have in common.

    Attributes:
      environment: the variables of each worker.
      log: the file that their stderr goes to.
      peaks: the most memory that each worker held which has ended, as getrusage counts it.
      workers: those that were started.
      ending: set once Beam asks them nothing more.
      death: what the first one died of that ended too early; None while all live.
    """

    environment: Mapping[str, str]
    log: str
    peaks: list[int] = dataclasses.field(default_factory=list)
    workers: "list[_ForkedWorker]" = dataclasses.field(default_factory=list)
    ending: threading.Event = dataclasses.field(default_factory=threading.Event)
    death: str | None = None


@contextlib.contextmanager
def supervised(options: PipelineOptions, reporter: Reporter = LOG) -> Iterator[list[int]]:
    """Runs the worker processes that a job asks for, while the job runs; where it asks for none, does nothing.

    The cores are shared among them, Beam's options reach them, and their log is kept where the job fails.

    Args:
      options: the job's.
      reporter: is told where the log of a failed job is.

    Returns:
      The peaks of `_Job`; of all workers once the job has ended.

    Raises:
      DeadWorkerError: a worker process died, and the job with it.
    """
    if options.view_as(DirectOptions).direct_running_mode != "multi_processing" or not _FORKS:
        yield []
        return
    threads = os.environ.get(_THREADS, str(max(1, available_cores() // local_processes(options))))
    given = json.dumps(options.get_all_options(drop_default=True), default=str)
    with tempfile.NamedTemporaryFile("w", prefix="camboxes-workers-", suffix=".log", delete=False) as log:
        job = _Job({**os.environ, _THREADS: threads, "PIPELINE_OPTIONS": given}, log.name)
        try:
            with _started_by(functools.partial(_ForkedWorker, job)), _noted_in(log):
                yield job.peaks
        except BaseException as error:
            if job.death and isinstance(error, Exception):
                raise DeadWorkerError(job.death, log.name) from error
            reporter.say(f"camboxes: the workers' log is {log.name}")
            raise
        finally:
            job.ending.set()
    Path(log.name).unlink()


@contextlib.contextmanager
def _started_by(handler: Callable[..., WorkerHandler]) -> Iterator[None]:
    """Has Beam start worker processes by another handler than before."""
    before, _ = WorkerHandler._registered_environments[python_urns.SUBPROCESS_SDK]
    _start_by(handler)
    try:
        yield
    finally:
        _start_by(before)


def _start_by(handler: Callable[..., WorkerHandler]) -> None:
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(handler)


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
        with _no_main_module():
            self._process.start()
        peak.close()
        self._job.workers.append(self)
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()

    def stop_worker(self) -> None:
        self._job.ending.set()
        self._watching.join()

    def _watch(self) -> None:
        self._process.join()
        if not self._process.exitcode:
            self._job.peaks.append(self._peak.recv())
            return
        if self._job.death is None:
            self._job.death = f"exit code {self._process.exitcode}"
            for worker in self._job.workers:
                worker._process.kill()
        error = RuntimeError("a worker process died")
        while not self._job.ending.wait(0.5):  # again and again: Beam may be about to ask it something, or for its data
            self.control_conn.abort(error)
            self.data_conn._exception = error


def _work(environment: dict[str, str], log: str, peak: Connection) -> None:
    """What a worker process does: Beam's part of it, which is told by the environment what to do."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
    logging.basicConfig(force=True)
    _, harness, _ = create_harness(environment)
    harness.run()
    peak.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hides the script that runs this process, which `multiprocessing` would run again in every worker."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _noted_in(log: Any) -> Iterator[None]:
    """Where a worker fails, much of Beam fails in this process; what the job fails of says it once."""
    beam, handler, excepthook = logging.getLogger("apache_beam"), logging.StreamHandler(log), threading.excepthook
    beam.addHandler(handler)
    beam.propagate = beam.isEnabledFor(logging.INFO)  # --verbose
    threading.excepthook = lambda failure: traceback.print_exception(failure.exc_value, file=log)
    try:
        yield
    finally:
        threading.excepthook = excepthook
        beam.propagate = True
        beam.removeHandler(handler)
