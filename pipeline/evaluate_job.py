"""A finished run judged by true boxes: the job of `camboxes evaluate`."""

import dataclasses
from typing import TYPE_CHECKING

from camboxes.pipeline.errors import blaming_the_call
from camboxes.pipeline.options.data import truth_option
from camboxes.pipeline.options.fields import Options, option
from camboxes.pipeline.reporter import LOG, Reporter

if TYPE_CHECKING:
    from camboxes.pipeline.evaluation.figures import Evaluation, Figure
    from camboxes.pipeline.evaluation.judging import Judged


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateJob(Options):
    """What to judge, and by which boxes. Its fields are the options of `camboxes evaluate`, described there."""

    run: str = option(help="a finished run's folder", metavar="OUT")
    ground_truth: str = truth_option()
    output: str | None = option(None, "folder for evaluation.json and report.html", stated="OUT", metavar="FOLDER")


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """The result of an evaluation, and the files that it wrote.

    Attributes:
      judged: the judged pairs, and what was left out.
      evaluation: every figure with its interval.
      tuned: number of judged images that the run was tuned on; figures on them flatter.
      json: the path of evaluation.json.
      report: the path of report.html.
    """

    judged: "Judged"
    evaluation: "Evaluation"
    tuned: int
    json: str
    report: str

    @property
    def figures(self) -> "dict[str, Figure]":
        """Figures at the run's own threshold, by name: `figures["gt_known_50"].run.value`, `.low` and `.high`."""
        return self.evaluation.figures


def evaluate(job: EvaluateJob, reporter: Reporter = LOG) -> EvaluatedRun:
    """Judges a run, and writes evaluation.json and report.html.

    Raises:
      CallError: the call is wrong; the message says what to change.
    """
    with reporter.step("loading libraries"):
        from camboxes.pipeline.evaluation.figures import compute_figures
        from camboxes.pipeline.evaluation.json_files import evaluation_json
        from camboxes.pipeline.evaluation.judging import check_libraries, judge
        from camboxes.pipeline.evaluation.redrawing import MOST_REDRAWN, redraw
        from camboxes.pipeline.formats.readers import read_ground_truth
        from camboxes.pipeline.jobs import run_folder
        from camboxes.pipeline.reports import run_report
        from camboxes.pipeline.reports.evaluation_report import section
        from camboxes.pipeline.tuning.tuning_file import Tuning
        from camboxes.transforms import storage

    output = job.output or job.run
    with blaming_the_call():
        check_libraries()
        run = run_folder.finished(job.run)
        run_folder.check_folder(output)
        with reporter.step(f"reading {job.ground_truth}"):
            truth = read_ground_truth(job.ground_truth)
        tuning = Tuning.drawn_with(run)
    judged = judge(run, truth, reporter)
    redrawn = redraw(run, judged.sampled(MOST_REDRAWN), reporter)
    evaluation = compute_figures(judged, redrawn, reporter)
    fitted = set(tuning.images if tuning else ())
    json, report = storage.join(output, "evaluation.json"), storage.join(output, "report.html")
    storage.write_json(json, evaluation_json(job.run, job.ground_truth, judged, evaluation))
    with reporter.step("writing report.html"):
        run_report.write(job.run, section(judged, redrawn, evaluation, fitted), output)
    return EvaluatedRun(judged, evaluation, len(fitted.intersection(judged.paths)), json, report)
