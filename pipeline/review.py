"""Opens a run in FiftyOne's App, with a panel beside each image: see, slide, accept, correct.

Boxes, labels and heat maps go into a FiftyOne dataset that stays; the same call again adds what is new and keeps what
was decided. Decisions are written to OUT/review.jsonl, so that the database may be deleted at any time. The App listens
on this machine alone. Needs the extra: pip install "camboxes[review]".

In Python, `load_dataset(OUT)` gives the dataset without opening the App.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import fiftyone as fo

    from camboxes.transforms import PlannedRun

_PORT = 5151  # FiftyOne's own
_LIMIT_GB = 20.0


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
        default=_LIMIT_GB,
        metavar="GB",
        help="the most that copies of photographs on a store may take; the images most worth reviewing are fetched "
        "first (default: %(default)g)",
    )


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command until it is interrupted.

    Raises:
      CallError: the call cannot be carried out as it was made, or FiftyOne does not work here.
    """
    from camboxes.pipeline import review_server
    from camboxes.pipeline.errors import CallError, blaming_the_call, refuse_unknown

    refuse_unknown(beam_arguments, "camboxes review --help lists them")
    if not review_server.is_free(arguments.port):
        raise CallError(f"something listens on port {arguments.port} already; stop it, or name another --port")
    with blaming_the_call():
        planned = _finished(arguments.run)
        _check_fiftyone()
    review_server.quiet()
    try:
        dataset = load_dataset(arguments.run, cache_limit=arguments.cache_limit)
    except ValueError as error:  # of the run, as documented; all else is a failed job
        raise CallError(str(error)) from error
    review_server.install_plugin()
    url = f"http://{review_server.ADDRESS}:{arguments.port}/datasets/{dataset.name}"

    def ready() -> None:
        print(f"the App is at {url}; Ctrl-C ends it", flush=True)
        if arguments.remote:
            forward = f"ssh -N -L {arguments.port}:{review_server.ADDRESS}:{arguments.port} USER@HOST"
            print(f"from another machine: {forward}, and then the same address there", flush=True)
        elif not arguments.no_browser:
            import webbrowser

            webbrowser.open(url)

    with review_server.delegated_worker():
        review_server.serve(arguments.port, ready)
    _conclude(planned)


def load_dataset(run: str, name: str | None = None, *, cache_limit: float = _LIMIT_GB) -> "fo.Dataset":
    """Loads a finished run into a FiftyOne dataset that stays, or brings that dataset up to date.

    Nothing that people did there is deleted. Where the folder held another run before, the dataset of that one is kept
    under another name, which is printed.

    Its fields are described in `camboxes.pipeline.review_samples`. The run's categories, ids included, stand in
    `dataset.info["categories"]`, where FiftyOne's COCO exporter wants them: export with these, `coco_id="coco_id"`, and
    every id stays.

    Args:
      run: the run's folder, on this machine.
      name: the dataset's; None for the folder's name and a few digits that tell it from others.
      cache_limit: the most that copies of photographs on a store may take, in GB.

    Raises:
      ValueError: no finished run, photographs that are gone or replaced, or a name that a dataset of another run, or of
        none, has.
    """
    from tqdm import tqdm

    from camboxes.pipeline import review_dataset, review_photographs
    from camboxes.transforms import member_names, storage

    planned = _finished(run)
    if not storage.is_local(run):
        raise ValueError(f"run {run!r} is on a store, where decisions cannot be kept; review a local copy of it")
    rows = list(_rows(planned))
    in_containers = any(member_names.split(row["path"]) for row in rows)
    if storage.is_local(planned.root) and not in_containers:
        with tqdm(total=planned.images, unit="photograph", desc="comparing", disable=None) as bar:
            photographs = review_photographs.places(planned, rows, bar)
    else:
        with tqdm(total=planned.images, unit="photograph", desc="fetching", disable=None) as bar:
            photographs, left = review_photographs.fetched(planned, rows, _cache(), int(cache_limit * 1e9), bar)
        if left:
            print(
                f"{left} of {planned.images} images are left out: --cache-limit {cache_limit:g} was reached",
                file=sys.stderr,
            )
    with tqdm(total=planned.images, unit="image", desc="loading", disable=None) as bar:
        dataset = review_dataset.load(planned, name or review_dataset.dataset_name(run), photographs, bar)
    print(f"{len(dataset)} images in FiftyOne's dataset {dataset.name!r}", file=sys.stderr)
    return dataset


def _finished(run: str) -> "PlannedRun":
    from camboxes.pipeline import runs
    from camboxes.pipeline.errors import CallError

    try:
        return runs.finished(run)
    except CallError as error:  # whoever calls load_dataset gave no --run
        raise ValueError(str(error)) from error


def _check_fiftyone() -> None:
    """Refuses where FiftyOne or its database is missing: it would itself wait for a minute.

    Raises:
      CallError: with the remedy.
    """
    from camboxes.pipeline import doctor
    from camboxes.pipeline.errors import CallError

    for check in doctor.CHECKS:
        if check.name not in ("fiftyone", "mongod"):
            continue
        mark, text = check.line()
        if mark != doctor.OK:
            raise CallError(f"{check.name}: {text}")


def _rows(planned: "PlannedRun") -> Iterator[dict[str, Any]]:
    from camboxes.transforms import storage
    from camboxes.transforms.plan import shard_file

    for key in planned.shards:
        yield from storage.read_table(
            shard_file(planned.output, key), ["path", "digest", "status", "review"]
        ).to_pylist()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "camboxes", "photographs")


def _conclude(planned: "PlannedRun") -> None:
    import collections

    from camboxes.transforms import storage
    from camboxes.transforms.decisions import FILE, read_decisions

    verdicts = collections.Counter(decision.verdict for decision in read_decisions(planned.output).values())
    said = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("accepted", "rejected", "skipped"))
    print(f"\n{said} of {planned.images} images; decisions stand in {storage.join(planned.output, FILE)}")
    export = ["camboxes", "export", "--run", planned.output, "--output", "DIR", "--include", "accepted"]
    print(f"export them: {shlex.join(export)}")
    print(f"learn from them: {shlex.join(['camboxes', 'tune', '--run', planned.output, '--from-review'])}")
