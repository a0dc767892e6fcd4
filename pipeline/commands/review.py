"""Opens a run in FiftyOne's App, with a panel beside each image: see, slide, accept, correct.

Boxes, labels and heat maps go into a FiftyOne dataset that stays; the same call again adds what is new and keeps what
was decided. Decisions are written to OUT/review.jsonl, so that the database may be deleted at any time. The App listens
on this machine alone. Needs the extra: pip install "camboxes[review]".

In Python, `load_dataset(OUT)` gives the dataset without opening the App.
"""

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from camboxes.pipeline.review.loading import CACHE_LIMIT_GB

if TYPE_CHECKING:
    from camboxes.transforms import PlannedRun

_PORT = 5151  # FiftyOne's own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--run", required=True, metavar="OUT", help="a finished run's folder")
    parser.add_argument("--port", type=int, default=_PORT, metavar="N", help="the App's port (default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="open no browser; say where the App is")
    parser.add_argument(
        "--remote",
        action="store_true",
        help="open no browser, and say how to reach the App from another machine by ssh",
    )
    parser.add_argument(
        "--cache-limit",
        type=float,
        default=CACHE_LIMIT_GB,
        metavar="GB",
        help="the most that copies of photographs on a store may take; the images most worth reviewing are fetched "
        "first (default: %(default)g)",
    )


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command until it is interrupted.

    Raises:
      CallError: the call cannot be carried out as it was made, or FiftyOne does not work here.
    """
    from camboxes.pipeline.errors import CallError, blaming_the_call, refuse_unknown
    from camboxes.pipeline.review import app_server, loading

    refuse_unknown(beam_arguments, "camboxes review --help lists them")
    if not app_server.is_free(arguments.port):
        raise CallError(f"something listens on port {arguments.port} already; stop it, or name another --port")
    with blaming_the_call():
        planned = loading.finished_run(arguments.run)
        _check_fiftyone()
    app_server.quiet()
    try:
        dataset = loading.load_dataset(arguments.run, cache_limit=arguments.cache_limit)
    except ValueError as error:  # of the run, as documented; all else is a failed job
        raise CallError(str(error)) from error
    app_server.install_plugin()
    url = f"http://{app_server.ADDRESS}:{arguments.port}/datasets/{dataset.name}"

    def ready() -> None:
        print(f"the App is at {url}; Ctrl-C ends it", flush=True)
        if arguments.remote:
            forward = f"ssh -N -L {arguments.port}:{app_server.ADDRESS}:{arguments.port} USER@HOST"
            print(f"from another machine: {forward}, and then the same address there", flush=True)
        elif not arguments.no_browser:
            import webbrowser

            webbrowser.open(url)

    with app_server.delegated_worker():
        app_server.serve(arguments.port, ready)
    _conclude(planned)


def _check_fiftyone() -> None:
    """Refuses where FiftyOne or its database is missing: it would itself wait for a minute.

    Raises:
      CallError: with the remedy.
    """
    from camboxes.pipeline.commands import doctor
    from camboxes.pipeline.errors import CallError

    for check in doctor.CHECKS:
        if check.name not in ("fiftyone", "mongod"):
            continue
        mark, text = check.line()
        if mark != doctor.OK:
            raise CallError(f"{check.name}: {text}")


def _conclude(planned: "PlannedRun") -> None:
    import collections

    from camboxes.transforms import storage
    from camboxes.transforms.review.decisions import FILE, read_decisions

    verdicts = collections.Counter(decision.verdict for decision in read_decisions(planned.output).values())
    said = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("accepted", "rejected", "skipped"))
    print(f"\n{said} of {planned.images} images; decisions stand in {storage.join(planned.output, FILE)}")
    export = ["camboxes", "export", "--run", planned.output, "--output", "DIR", "--include", "accepted"]
    print(f"export them: {shlex.join(export)}")
    print(f"learn from them: {shlex.join(['camboxes', 'tune', '--run', planned.output, '--from-review'])}")
