"""Thresholds and calibrated scores from a few boxed images: the job of `camboxes tune`."""

import dataclasses
from typing import TYPE_CHECKING

from camboxes.pipeline.errors import blaming_the_call
from camboxes.pipeline.options.data import truth_option
from camboxes.pipeline.options.fields import Options, option
from camboxes.pipeline.reporter import LOG, Reporter

if TYPE_CHECKING:
    from camboxes.pipeline.evaluation.redrawing import Redrawn
    from camboxes.pipeline.tuning.calibration_quality import Quality
    from camboxes.pipeline.tuning.thresholds import Choice
    from camboxes.pipeline.tuning.tuning_file import Tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneJob(Options):
    """What to tune, and by which boxes. Its fields are the options of `camboxes tune`, described there."""

    run: str = option(help="a finished run's folder", metavar="OUT")
    ground_truth: str | None = truth_option(None, one_of="truth", needed=True)
    from_review: bool = option(False, "what was decided in the run's review", one_of="truth", needed=True)
    output: str | None = option(None, "file for the result", stated="tuning.json in the run's folder", metavar="FILE")


@dataclasses.dataclass(frozen=True)
class TunedRun:
    """The result of a tuning, and the boxes that it was learnt from.

    Attributes:
      tuning: the rule and the calibration, as they are written.
      path: the file that holds them, for camboxes rebox --thresholds.
      redrawn: the boxed images, with the IoU at every candidate threshold.
      choice: the chosen thresholds, and what they are expected to give on other images.
      boxes: number of drawn boxes that the scores are calibrated on.
      right: share of them that reach IoU 0.5, in [0, 1].
      quality: how good a calibration of the scores is on held-out images; None if the boxes are too few to tell. Where
        it is no better than one probability for all boxes, `tuning` has no calibration.
    """

    tuning: "Tuning"
    path: str
    redrawn: "Redrawn"
    choice: "Choice"
    boxes: int
    right: float
    quality: "Quality | None"

    @property
    def changes_nothing(self) -> bool:
        """Whether `camboxes rebox` would draw the boxes and scores that the run has."""
        settings = self.redrawn.settings
        return self.tuning.drawing_settings.items() <= {"calibration": None, **settings}.items()


def tune(job: TuneJob, reporter: Reporter = LOG) -> TunedRun:
    """Tunes a run, and writes tuning.json.

    Raises:
      CallError: the call is wrong; the message says what to change.
    """
    with reporter.step("loading libraries"):
        from camboxes.pipeline.evaluation.judging import check_libraries, judge
        from camboxes.pipeline.evaluation.redrawing import redraw
        from camboxes.pipeline.formats.readers import read_ground_truth, reviewed
        from camboxes.pipeline.jobs import run_folder
        from camboxes.pipeline.tuning import calibrating, thresholds
        from camboxes.pipeline.tuning.calibration_quality import cross_validated
        from camboxes.pipeline.tuning.tuning_file import FILE, Tuning, maps_settings
        from camboxes.transforms import BoxRule, storage

    check_libraries()
    output = job.output or storage.join(job.run, FILE)
    with blaming_the_call():
        run_folder.check_output(output, job.ground_truth)
        run = run_folder.finished(job.run)
        with reporter.step(f"reading {job.ground_truth or 'what was decided'}"):
            truth = reviewed(run) if job.ground_truth is None else read_ground_truth(job.ground_truth)
    redrawn = redraw(run, judge(run, truth, reporter), reporter)
    with reporter.step("choosing thresholds"):
        choice = thresholds.choose(redrawn)
    before = BoxRule(**redrawn.settings["rule"])
    rule = dataclasses.replace(before, threshold=choice.threshold, thresholds=choice.thresholds)
    with reporter.step("calibrating scores"):
        boxed, of_run = calibrating.samples(run, redrawn.matching, rule)
        quality = cross_validated(boxed, of_run) if boxed.shows_quality else None
        calibration = calibrating.fit(boxed, of_run) if quality and quality.is_useful else None
    right = float(boxed.right.mean()) if len(boxed.right) else 0.0
    figures = {
        "pairs": len(redrawn.iou),
        "rule": choice.rule,
        "thresholds": {name: expected._asdict() for name, expected in choice.expected.items()},
        "shrinkage": choice.shrinkage,
        "calibration": None if quality is None else quality._asdict(),
    }
    learnt = rule != before or calibration is not None
    images = sorted(redrawn.matching.truths) if learnt else []
    tuning = Tuning(rule, calibration, maps_settings(run), images, figures)
    tuning.write(output)
    return TunedRun(tuning, output, redrawn, choice, len(boxed.right), right, quality)
