"""Judges a finished run by true boxes: `evaluate(EvaluateJob(run, ground_truth))`."""

import dataclasses
from pathlib import Path

from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.evaluation.figures import Evaluation, Figure, compute_figures
from camboxes.pipeline.evaluation.json_files import evaluation_json
from camboxes.pipeline.evaluation.judging import Judged, check_libraries, judge
from camboxes.pipeline.evaluation.redrawing import MOST_REDRAWN, redraw
from camboxes.pipeline.evaluation.subset import sampled
from camboxes.pipeline.formats.readers import read_ground_truth
from camboxes.pipeline.jobs import run_folder
from camboxes.pipeline.reports import run_report
from camboxes.pipeline.reports.evaluation_report import section
from camboxes.pipeline.tuning.tuning_file import Tuning
from camboxes.transforms import storage


@dataclasses.dataclass(frozen=True)
class EvaluateJob:
    """An evaluation of a run.

    Attributes:
      run: a finished run's folder.
      ground_truth: true boxes: COCO .json, a .csv of boxes, or a folder of Pascal VOC .xml files.
      output: the folder for evaluation.json and report.html; None for the run's folder.
    """

    run: str
    ground_truth: str
    output: str | None = None


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """What an evaluation found, and the files that it wrote.

    Attributes:
      judged: the judged pairs, and what was left out.
      evaluation: every figure with its interval.
      tuned: number of judged images that the run was tuned on; figures on them flatter.
      json: the path of evaluation.json.
      report: the path of report.html.
    """

    judged: Judged
    evaluation: Evaluation
    tuned: int
    json: str
    report: str

    @property
    def figures(self) -> dict[str, Figure]:
        """Figures at the run's own threshold, by name: `figures["gt_known_50"].run.value`, `.low` and `.high`."""
        return self.evaluation.figures


def evaluate(job: EvaluateJob) -> EvaluatedRun:
    """Judges a run, and writes evaluation.json and report.html.

    Raises:
      CallError: the job cannot be done as it was asked for.
      Exception: the job failed.
    """
    output = job.output or job.run
    with blaming_the_call():
        check_libraries()
        run = run_folder.finished(job.run)
        if storage.is_local(output) and Path(output).is_file():
            raise CallError(f"--output {output!r} is a file; expected a folder")
        truth = read_ground_truth(job.ground_truth)
        tuning = Tuning.drawn_with(run)
    judged = judge(run, truth)
    redrawn = redraw(run, sampled(judged, MOST_REDRAWN))
    evaluation = compute_figures(judged, redrawn)
    fitted = set(tuning.images if tuning else ())
    record, report = storage.join(output, "evaluation.json"), storage.join(output, "report.html")
    storage.write_json(record, evaluation_json(job.run, job.ground_truth, judged, evaluation))
    run_report.write(job.run, section(judged, redrawn, evaluation, fitted), output)
    return EvaluatedRun(judged, evaluation, len(fitted.intersection(judged.paths)), record, report)
