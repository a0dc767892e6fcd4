"""Serves a run in FiftyOne's App, for as long as somebody reviews it: `serve(ReviewJob(run=...))`."""

import collections
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.options.fields import Options, option
from camboxes.pipeline.review import loading

if TYPE_CHECKING:
    from camboxes.transforms.review.decisions import Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReviewJob(Options):
    """Which run to review, and where. Its fields are the options of `camboxes review`, whose help describes them."""

    run: str = option(help="a finished run's folder", metavar="OUT")
    port: int = option(5151, "the App's port", type=int, metavar="N")  # FiftyOne's own
    no_browser: bool = option(False, "open no browser; say where the App is")
    remote: bool = option(False, "open no browser, and say how to reach the App from another machine by ssh")
    cache_limit: float = option(
        loading.CACHE_LIMIT_GB,
        "the most that copies of photographs on a store may take; the images most worth reviewing are fetched first",
        stated=f"{loading.CACHE_LIMIT_GB:g}",
        type=float,
        metavar="GB",
    )


@dataclasses.dataclass(frozen=True)
class ReviewedRun:
    """The state of a review.

    Attributes:
      images: of the run.
      verdicts: how many images were accepted, rejected and skipped.
      decisions: the path of the file that keeps the decisions.
    """

    images: int
    verdicts: "collections.Counter[Verdict]"
    decisions: str


def serve(job: ReviewJob, ready: Callable[[str], None] = print) -> ReviewedRun:
    """Loads a run into FiftyOne and serves it in the App, on this machine alone, until the process is interrupted.

    Args:
      job: which run, and where.
      ready: called with the App's address as soon as it answers.

    Raises:
      CallError: the call cannot be carried out as it was made.
    """
    from camboxes.pipeline.review import app_server
    from camboxes.transforms import storage
    from camboxes.transforms.review.decisions import FILE, read_decisions

    if not app_server.is_free(job.port):
        raise CallError(f"something listens on port {job.port} already; stop it, or name another --port")
    with blaming_the_call():
        planned = loading.finished_run(job.run)
    app_server.quiet()
    try:
        dataset = loading.load_dataset(job.run, cache_limit=job.cache_limit)
    except ValueError as error:  # of the run, as documented; all else is a failed job
        raise CallError(str(error)) from error
    app_server.install_plugin()
    address = f"http://{app_server.ADDRESS}:{job.port}/datasets/{dataset.name}"
    with app_server.delegated_worker():
        app_server.serve_app(job.port, lambda: ready(address))
    verdicts = collections.Counter(decision.verdict for decision in read_decisions(job.run).values())
    return ReviewedRun(planned.images, verdicts, storage.join(job.run, FILE))
