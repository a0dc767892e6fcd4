"""Opens a run in FiftyOne's App, with a panel to accept, reject and correct the boxes of each image.

Boxes, labels and heat maps are loaded into a FiftyOne dataset that persists; the same command adds what is new and
keeps your decisions. Decisions are written to OUT/review.jsonl, so FiftyOne's database may be deleted at any time. The
App listens on this machine only. Needs an extra: pip install ".[review]" (in the clone).

In Python, `load_dataset(OUT)` returns the dataset without opening the App.
"""

import shlex

from camboxes.models.counts import counted
from camboxes.pipeline.review.serving import ReviewJob, serve

JOB = ReviewJob


def run(job: ReviewJob) -> None:
    """Runs the command until it is interrupted."""
    from camboxes.pipeline.review.app_server import ADDRESS

    _check_fiftyone()

    def ready(address: str) -> None:
        print(f"the App is at {address}; Ctrl-C ends it", flush=True)
        if job.remote:
            forward = f"ssh -N -L {job.port}:{ADDRESS}:{job.port} USER@HOST"
            print(f"from another machine: {forward}, and then the same address there", flush=True)
        elif not job.no_browser:
            import webbrowser

            webbrowser.open(address)

    reviewed = serve(job, ready)
    said = ", ".join(f"{reviewed.verdicts[verdict]} {verdict}" for verdict in ("accepted", "rejected", "skipped"))
    print(f"\n{said} of {counted(reviewed.images, 'image')}; decisions are in {reviewed.decisions}")
    export = ["camboxes", "export", "--run", job.run, "--output", "DIR", "--include", "accepted"]
    print(f"export them: {shlex.join(export)}")
    print(f"learn from them: {shlex.join(['camboxes', 'tune', '--run', job.run, '--from-review'])}")


def _check_fiftyone() -> None:
    """Refuses where FiftyOne or its database is missing: it would itself wait for a minute."""
    from camboxes.pipeline.commands import doctor
    from camboxes.pipeline.errors import CallError

    for check in doctor.CHECKS:
        if check.name in ("fiftyone", "mongod"):
            mark, text = check.line()
            if mark != doctor.OK:
                raise CallError(f"{check.name}: {text}")
