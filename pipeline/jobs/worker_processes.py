"""Worker processes of Beam's local runner: forked, supervised, with a log of their own.

Beam starts an interpreter for each of them once the job runs, which takes as long to import everything as this process
took before. Here a fork server imports it, beside this process while that prepares the job, and each worker is a fork
of it: ready at once, with what is imported in memory once. It is `multiprocessing`'s own, a process without threads.
"""

import contextlib
import functools
import gc
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
from typing import Any, NamedTuple

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)
from apache_beam.runners.worker.sdk_worker_main import create_harness

from camboxes.pipeline.jobs.beam_options import available_cores, local_processes

_CONTEXT = multiprocessing.get_context("forkserver")
_THREADS = "OMP_NUM_THREADS"
_INTERRUPT = {signal.SIGINT}


def import_ahead(*modules: str) -> None:
    """Begins to import what workers will need in the process that they are forked from, beside this one."""
    _CONTEXT.set_forkserver_preload([f"{__package__}.uncollected", __name__, *modules])
    resource_tracker.ensure_running()  # which the server would start, and that unblocks what is blocked here
    threads, blocked = os.environ.get(_THREADS), signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
    # What that process begins with. Threads that share a pass would wait for each other, in every worker for those of
    # the others; and who interrupts this process need not read where the other one was.
    os.environ[_THREADS] = "1"
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        del os.environ[_THREADS]
        if threads is not None:
            os.environ[_THREADS] = threads


class _Job(NamedTuple):
    """What its workers have in common.

    Attributes:
      environment: the variables of each worker.
      log: the file that their stderr goes to.
      died: called in place of a worker that ended too early, with what is known of that.
      peaks: of each worker that has ended the memory that it held at most, as getrusage counts it.
    """

    environment: Mapping[str, str]
    log: str
    died: Callable[[str], None]
    peaks: list[int]


@contextlib.contextmanager
def supervised(options: PipelineOptions, died: Callable[[str, str], None]) -> Iterator[list[int]]:
    """Runs the worker processes that a job asks for, for the time of the job; where it asks for none, does nothing.

    The cores are shared among them, Beam's options reach them, and their log is kept where the job fails.

    Args:
      options: the job's.
      died: called when a worker process dies, for which Beam would wait forever; with the log's path and what it
        died of.

    Returns:
      The peaks of `_Job`; of all workers once the job has ended.
    """
    peaks: list[int] = []
    if options.view_as(DirectOptions).direct_running_mode != "multi_processing":
        yield peaks
        return
    threads = os.environ.get(_THREADS, str(max(1, available_cores() // local_processes(options))))
    given = json.dumps(options.get_all_options(drop_default=True), default=str)
    with tempfile.NamedTemporaryFile("w", prefix="camboxes-workers-", suffix=".log", delete=False) as log:
        environment = {**os.environ, _THREADS: threads, "PIPELINE_OPTIONS": given}
        job = _Job(environment, log.name, functools.partial(died, log.name), peaks)
        try:
            with _started_by(functools.partial(_ForkedWorker, job)), _noted_in(log):
                yield peaks
        except BaseException:
            print(f"camboxes: the workers' log is {log.name}", file=sys.stderr)
            raise
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
        self._peak, peak = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_work, args=(environment, self._job.log, peak))
        with _no_main_module():
            self._process.start()
        peak.close()
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()

    def stop_worker(self) -> None:
        self._watching.join()

    def _watch(self) -> None:
        self._process.join()
        if self._process.exitcode:
            self._job.died(f"exit code {self._process.exitcode}")
        else:
            self._job.peaks.append(self._peak.recv())


def _work(environment: dict[str, str], log: str, peak: Connection) -> None:
    """What a worker process does: Beam's part of it, which is told by the environment what to do."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
    logging.basicConfig(force=True)
    gc.freeze()  # what was imported stays as it is, and is shared with the other workers
    gc.enable()
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
