"""Chooses thresholds and calibrates scores on a few boxed images: `tune(TuneJob(run, ground_truth))`."""

import dataclasses

from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.evaluation.judging import check_libraries, judge
from camboxes.pipeline.evaluation.redrawing import Redrawn, redraw
from camboxes.pipeline.evaluation.reliability import Trust, trust
from camboxes.pipeline.formats.readers import read_ground_truth, reviewed
from camboxes.pipeline.jobs import run_folder
from camboxes.pipeline.tuning import calibrating, thresholds
from camboxes.pipeline.tuning.thresholds import Choice
from camboxes.pipeline.tuning.tuning_file import FILE, Tuning, maps_settings
from camboxes.transforms import BoxRule, storage


@dataclasses.dataclass(frozen=True)
class TuneJob:
    """A tuning of a run's thresholds and scores. Takes either `ground_truth` or `from_review`.

    Attributes:
      run: a finished run's folder.
      ground_truth: true boxes of some of its images: COCO .json, a .csv of boxes, or a folder of Pascal VOC .xml files.
      from_review: take the boxes that were accepted in the run's review.
      output: the file to write; None for tuning.json in the run's folder.
    """

    run: str
    ground_truth: str | None = None
    from_review: bool = False
    output: str | None = None

    def __post_init__(self) -> None:
        if (self.ground_truth is None) != self.from_review:
            raise CallError(
                f"ground_truth {self.ground_truth!r} and from_review {self.from_review} were given; expected one of "
                "them: a file of true boxes, or the run's review"
            )


@dataclasses.dataclass(frozen=True)
class TunedRun:
    """What a tuning learnt, and on what.

    Attributes:
      tuning: the rule and the calibration, as they are written.
      path: the file that holds them, for camboxes rebox --thresholds.
      redrawn: the boxed images, with the IoU at every candidate threshold.
      choice: the chosen thresholds, and what they are expected to give on other images.
      boxes: number of drawn boxes that the scores are calibrated on.
      right: share of them that reach IoU 0.5, in [0, 1].
      trust: how good the calibrated scores are on held-out images; None if every box gets the base rate.
    """

    tuning: Tuning
    path: str
    redrawn: Redrawn
    choice: Choice
    boxes: int
    right: float
    trust: Trust | None


def tune(job: TuneJob) -> TunedRun:
    """Tunes a run, and writes tuning.json.

    Raises:
      CallError: the job cannot be done as it was asked for.
      Exception: the job failed.
    """
    check_libraries()
    output = job.output or storage.join(job.run, FILE)
    with blaming_the_call():
        run_folder.check_output(output, job.ground_truth)
        run = run_folder.finished(job.run)
        truth = reviewed(run) if job.ground_truth is None else read_ground_truth(job.ground_truth)
    redrawn = redraw(run, judge(run, truth))
    choice = thresholds.choose(redrawn)
    before = BoxRule(**redrawn.settings["rule"])
    rule = BoxRule(choice.threshold, before.min_area, before.boxes, choice.thresholds)
    boxed, of_run = calibrating.samples(run, redrawn.matching, rule)
    calibration = calibrating.fit(boxed, of_run)
    right = float(boxed.right.mean()) if len(boxed.right) else 0.0
    trusted = None
    if any(calibration.weights.values()):
        trusted = trust(calibrating.held_out(boxed, of_run).mean(axis=0), boxed.right, right)
    figures = {
        "pairs": len(redrawn.iou),
        "thresholds": {name: expected._asdict() for name, expected in choice.expected.items()},
        "shrinkage": choice.shrinkage,
        "calibration": None if trusted is None else trusted._asdict(),
    }
    tuning = Tuning(rule, calibration, maps_settings(run), sorted(redrawn.matching.truths), figures)
    tuning.write(output)
    return TunedRun(tuning, output, redrawn, choice, len(boxed.right), right, trusted)
