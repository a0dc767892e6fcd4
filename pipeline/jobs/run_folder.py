"""A run's folder: checks before a job writes there, a lock while it does, and what is removed."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import filelock

from camboxes.models.counts import counted
from camboxes.pipeline.errors import CallError
from camboxes.pipeline.jobs import leases
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.transforms import PlannedRun, storage

# What a run leaves in its folder. The plan marks the folder as a run's, so it is removed last.
_FILES = ("annotations.json", "results.json", "summary.json", "report.html", "evaluation.json", "tuning.json")
CONTENTS = (*_FILES, "shards", "plan")
# What the folder of a plan may hold before plan.json.
_PLAN = {"shards", "classifier.json", "weights.safetensors", "regressor.safetensors", "selftraining.json", "retried"}
_PARTS = re.compile(r"(annotations|results)-\d{5,}-of-\d{5,}\.json")  # of a large run
# Folders that a run or a training writes to; any other folder may be another job's.
_FOLDERS = ("shards", "plan", "features", "head", "everything")


def check_output(output: str, *inputs: str | None, contents: Sequence[str] = CONTENTS) -> None:
    """Refuses an output where the job would replace or delete its own input.

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


def check_folder(output: str) -> None:
    """Refuses a local output that is a file, or where nothing can be written.

    Raises:
      CallError: it is so.
    """
    if not storage.is_local(output):
        return
    folder = Path(output).absolute()
    place = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not place.is_dir():
        what = "is a file" if place == folder else f"cannot be made: {str(place)!r} is a file"
        raise CallError(f"--output {output!r} {what}; expected a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise CallError(f"--output {output!r}: {str(place)!r} may not be written to; choose another folder")


def check_contents(output: str) -> None:
    """Refuses an output where a file would be replaced or deleted that no run has left there.

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
            f"--output {output!r} holds {', '.join(others)}, which are not from a run (plan/plan.json is missing); "
            "choose another folder"
        )


@contextlib.contextmanager
def locked(output: str, reporter: Reporter = LOG) -> Iterator[None]:
    """Locks a folder for one job, and deletes what a killed job left half-written there.

    A local folder's lock ends with the process that holds it, however it ends. On a store: see `leases`. Folders that
    this call makes are removed again if nothing is written to them.

    Raises:
      CallError: another job is writing to the folder.
      OSError: the folder cannot be made.
    """
    with leases.held(output, reporter) if not storage.is_local(output) else _file_lock(output):
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
                raise OSError(
                    f"--output {output!r} cannot be written to ({error.strerror}); choose another folder"
                ) from error
        undo.callback(lock.release)
        # Before the release: a job that has the file open notices, and makes a new one.
        undo.callback(_try, (folder / ".lock").unlink)
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
            undo.callback(_try, path.rmdir)  # removes empty folders alone


def _try(remove: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):  # must not hide the error that ended the block
        remove()


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
            f"--run {path!r} is not finished: it lacks {len(missing)} of {counted(len(run.shards), 'shard')}; "
            "camboxes label with the options that it was begun with finishes it"
        )
    return run


def remove(output: str, contents: Sequence[str] = CONTENTS) -> None:
    """Deletes from a folder what a run, or another command, left there, and nothing else."""
    parts = [name for name in storage.names(output, ".json") if _PARTS.fullmatch(name)] if contents is CONTENTS else []
    for name in [*parts, *contents]:
        storage.delete(storage.join(output, name))
