"""A page of a label's images: the job of `camboxes report`."""

import dataclasses
import difflib
import re

from camboxes.models.counts import counted
from camboxes.pipeline.errors import blaming_the_call
from camboxes.pipeline.options.fields import Options, option
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.pipeline.run import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportJob(Options):
    """What to show. Its fields are the options of `camboxes report`, whose help describes them."""

    run: str = option(help="a finished run's folder", metavar="OUT")
    label: str = option(help="one of the run's labels", metavar="LABEL")
    pictures: int = option(200, "images on the page, at most", type=int, metavar="N")
    output: str | None = option(None, "the page", stated="OUT/report-LABEL.html", metavar="FILE")


def report(job: ReportJob, reporter: Reporter = LOG) -> str:
    """Writes a page of a label's images, the worst first: those without a box, then those of the lowest scores.

    Returns:
      The path of the page.

    Raises:
      CallError: the call is wrong; the message says what to change.
    """
    with reporter.step("loading libraries"):
        from camboxes.pipeline.jobs import run_folder
        from camboxes.pipeline.reports import run_report
        from camboxes.transforms import storage

    with blaming_the_call():
        run = run_folder.finished(job.run)
        labels = [category.name for category in run.categories]
        if job.label not in labels:
            near = difflib.get_close_matches(job.label, labels, n=5, cutoff=0.3) or labels[:5]
            raise ValueError(
                f"the run has no label {job.label!r}; of its {counted(len(labels), 'label')} the nearest are "
                f"{', '.join(map(repr, near))}"
            )
        if job.pictures < 1:
            raise ValueError(f"--pictures is {job.pictures}; expected a number of images, at least 1")
        name = re.sub(r"[^\w-]+", "_", job.label)[:80].strip("_") or f"label{labels.index(job.label) + 1}"
        path = job.output or storage.join(job.run, f"report-{name}.html")
        if not path.endswith(".html") or path == Run(job.run).report:
            raise ValueError(f"--output {path!r}: expected a .html file that is not the run's own report")
    with reporter.step(f"drawing images of {job.label}"):
        gone = run_report.write_of_label(run, job.label, job.pictures, path)
    if gone:
        reporter.say(f"{counted(gone, 'photograph')} of the page are gone, or their files were replaced since the run")
    return path
