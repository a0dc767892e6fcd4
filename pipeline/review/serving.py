"""Loads a run into FiftyOne, and serves it in the App for as long as somebody reviews it."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from camboxes.models.counts import counted
from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.options.fields import Options, option
from camboxes.pipeline.reporter import TERMINAL, Reporter

if TYPE_CHECKING:
    import fiftyone as fo

    from camboxes.transforms import PlannedRun
    from camboxes.transforms.review.decisions import Verdict

_CACHE_LIMIT_GB = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReviewJob(Options):
    """Which run to review, and where. Its fields are the options of `camboxes review`, whose help describes them."""

    run: str = option(help="a finished run's folder", metavar="OUT")
    port: int = option(5151, "the App's port", type=int, metavar="N")  # FiftyOne's own
    no_browser: bool = option(False, "do not open a browser; print the App's address")
    remote: bool = option(False, "do not open a browser; print how to reach the App from another machine by ssh")
    cache_limit: float = option(
        _CACHE_LIMIT_GB,
        "largest size of the local copies of photographs on a store; images most worth reviewing are fetched first",
        stated=f"{_CACHE_LIMIT_GB:g}",
        type=float,
        metavar="GB",
    )


@dataclasses.dataclass(frozen=True)
class ReviewedRun:
    """The number of a run's images, how many of each verdict, and the path of the file that keeps the decisions."""

    images: int
    verdicts: "collections.Counter[Verdict]"
    decisions: str


def serve(job: ReviewJob, ready: Callable[[str], None] = print, reporter: Reporter = TERMINAL) -> ReviewedRun:
    """Loads a run into FiftyOne and serves it in the App, on this machine alone, until the process is interrupted.

    `ready` is called with the App's address as soon as it answers.

    Raises:
      CallError: the call is wrong; the message says what to change.
    """
    with reporter.step("loading libraries"):
        from camboxes.pipeline.review import app_server, fiftyone_dataset
        from camboxes.transforms import storage
        from camboxes.transforms.review.decisions import FILE, read_decisions

    if not app_server.is_free(job.port):
        raise CallError(f"port {job.port} is in use; stop the program that uses it, or give another --port")
    with blaming_the_call():
        planned = _finished_run(job.run)
    app_server.quiet()
    try:
        dataset = load_dataset(job.run, cache_limit=job.cache_limit, reporter=reporter)
    except ValueError as error:  # of the run, as documented; all else is a failed job
        raise CallError(str(error)) from error
    app_server.install_plugin()
    address = f"http://{app_server.ADDRESS}:{job.port}/datasets/{dataset.name}{fiftyone_dataset.first_view(dataset)}"
    with app_server.delegated_worker(), contextlib.ExitStack() as starting:
        starting.enter_context(reporter.step("starting the App"))

        def answers() -> None:
            starting.close()
            ready(address)

        app_server.serve_app(job.port, answers)
    verdicts = collections.Counter(decision.verdict for decision in read_decisions(job.run).values())
    return ReviewedRun(planned.images, verdicts, storage.join(job.run, FILE))


def load_dataset(
    run: str, name: str | None = None, *, cache_limit: float = _CACHE_LIMIT_GB, reporter: Reporter = TERMINAL
) -> "fo.Dataset":
    """Loads a finished run into a persistent FiftyOne dataset, or updates that dataset.

    People's work in the dataset is never deleted. If the folder held another run before, that run's dataset is renamed,
    and the new name is printed.

    `camboxes.pipeline.review.fiftyone_samples` describes the fields. `dataset.info["categories"]` holds the run's
    categories for FiftyOne's COCO exporter: export with these categories and `coco_id="coco_id"`, and every id stays.

    Args:
      run: the run's folder, on this machine.
      name: the dataset's name; None for the folder's name and a few digits of a hash.
      cache_limit: the most that copies of photographs on a store may take, in GB.
      reporter: receives progress.

    Raises:
      ValueError: the folder holds no finished run, photographs are gone or replaced, or a dataset of this name holds
        another run or none.
    """
    from camboxes.pipeline.review import fiftyone_dataset, local_photographs
    from camboxes.transforms import storage
    from camboxes.transforms.containers.members import split
    from camboxes.transforms.review.decisions import read_decisions

    planned = _finished_run(run)
    if not storage.is_local(run):
        raise ValueError(f"run {run!r} is on a store, where decisions cannot be kept; review a local copy of it")
    rows = list(planned.rows(["path", "digest", "status", "review"]))
    in_containers = any(split(row["path"]) for row in rows)
    if storage.is_local(planned.root) and not in_containers:
        with reporter.progress(planned.images, "photograph", "comparing") as advance:
            photographs = local_photographs.places(planned, rows, advance)
    else:
        import platformdirs

        cache = platformdirs.user_cache_path("camboxes") / "photographs"
        with reporter.progress(planned.images, "photograph", "fetching") as advance:
            photographs, left = local_photographs.fetched(planned, rows, cache, int(cache_limit * 1e9), advance)
        if left:
            reporter.say(
                f"left out: {left:,} of {counted(planned.images, 'image')}, for --cache-limit {cache_limit:g} was "
                "reached"
            )
    read_decisions(run)  # a file that cannot be read is told now
    with reporter.step("starting FiftyOne and its database"):
        import fiftyone  # noqa: F401 (importing it starts the database)
    with reporter.progress(planned.images, "image", "loading") as advance:
        dataset = fiftyone_dataset.load(planned, name or fiftyone_dataset.dataset_name(run), photographs, advance)
    reporter.say(f"{counted(len(dataset), 'image')} in FiftyOne's dataset {dataset.name!r}")
    return dataset


def _finished_run(run: str) -> "PlannedRun":
    """The plan of a finished run; raises a ValueError if there is none in the folder."""
    from camboxes.pipeline.errors import CallError
    from camboxes.pipeline.jobs import run_folder

    try:
        return run_folder.finished(run)
    except CallError as error:  # whoever calls load_dataset gave no --run
        raise ValueError(str(error)) from error
