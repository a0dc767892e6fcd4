"""Thresholds and calibrated scores from a few boxed images.

FILE holds true boxes of some of the run's images, as for camboxes evaluate; fifty images are enough to begin with. What
is expected of the other images is told by cross-validation. OUT/tuning.json is for camboxes rebox --thresholds.

--from-review takes what was decided in a review (OUT/review.jsonl) instead. The boxes of accepted images count as true,
and as all that there are of the image's labels; so what was accepted as it was drawn speaks for the threshold that drew
it: the more boxes were corrected, the more there is to learn. Rejected boxes have no part in the choice of thresholds;
to the calibration of scores they, and boxes that reach IoU 0.5 with them, are wrong ones.
"""

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from camboxes.pipeline.commands.evaluate import add_truth_argument, check_call
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    from camboxes.pipeline.evaluation.judging import Redrawn
    from camboxes.pipeline.tuning.calibrating import Trust
    from camboxes.pipeline.tuning.thresholds import Choice
    from camboxes.transforms import BoxRule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--run", required=True, metavar="OUT", help="a finished run's folder")
    truth = parser.add_mutually_exclusive_group(required=True)
    add_truth_argument(truth, required=False)
    truth.add_argument("--from-review", action="store_true", help="what was decided in the run's review")
    parser.add_argument("--output", metavar="FILE", help="default: tuning.json in the run's folder")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline.errors import blaming_the_call
    from camboxes.pipeline.evaluation.judging import judge, redraw
    from camboxes.pipeline.formats.ground_truth import read_ground_truth, reviewed
    from camboxes.pipeline.jobs import running
    from camboxes.pipeline.tuning import calibrating, thresholds
    from camboxes.pipeline.tuning.tuning_file import FILE, Tuning, maps_settings
    from camboxes.transforms import BoxRule, storage

    check_call("tune", beam_arguments)
    output = arguments.output or storage.join(arguments.run, FILE)
    with blaming_the_call():
        running.check_output(output, arguments.ground_truth)
        planned = running.finished(arguments.run)
        truth = reviewed(planned) if arguments.from_review else read_ground_truth(arguments.ground_truth)
    judged = redraw(planned, judge(planned, truth))
    choice = thresholds.choose(judged)
    before = BoxRule(**judged.settings["rule"])
    rule = BoxRule(choice.threshold, before.min_area, before.boxes, choice.thresholds)
    boxed, of_run = calibrating.samples(planned, judged.matching, rule)
    calibration = calibrating.fit(boxed, of_run)
    trust = None
    if any(calibration.weights.values()):
        scores = calibrating.held_out(boxed, of_run)
        trust = calibrating.trust(scores.mean(axis=0), boxed.right, float(boxed.right.mean()))
    figures = {
        "pairs": len(judged.iou),
        "thresholds": {name: expected._asdict() for name, expected in choice.expected.items()},
        "shrinkage": choice.shrinkage,
        "calibration": None if trust is None else trust._asdict(),
    }
    Tuning(rule, calibration, maps_settings(planned), sorted(judged.matching.truths), figures).write(output)
    _describe(judged, choice, rule)
    if arguments.from_review:
        print("boxes that were accepted as they were drawn count as true, which flatters the threshold that drew them")
    _describe_scores(len(boxed.right), float(boxed.right.mean()) if len(boxed.right) else 0.0, trust)
    print(f"wrote {output}")
    tuned = f"{arguments.run.rstrip('/')}-tuned"
    call = ["camboxes", "rebox", "--run", arguments.run, "--output", tuned, "--thresholds", output]
    print(f"draw with them: {shlex.join(call)}")


def _describe(judged: "Redrawn", choice: "Choice", rule: "BoxRule") -> None:
    """Prints the curve, what was chosen, and what is expected of it."""
    from camboxes.pipeline.tuning.thresholds import Candidates

    candidates = Candidates.of(judged)
    matching = judged.matching
    boxed = sum(bool(true.boxes) for true in matching.truths.values())
    print(
        f"boxed: {boxed} images, {len(judged.iou)} pairs of an image and a label that has true boxes "
        f"there; {len(matching.images_only_in_run)} images of the run are without"
    )
    print("\nGT-known Loc at IoU 0.5 and mean IoU on these images, in percent, by threshold:\n")
    for family in candidates.families:
        for number in range(family.start, family.stop, 2):
            iou = candidates.iou[:, number]
            known = 100 * float((iou >= 0.5).mean())
            bar = "#" * round(known / 2)
            print(f"  {candidates.thresholds[number]!s:>9}  {known:5.1f}  {100 * float(iou.mean()):5.1f}  {bar}")
        print()
    if "overall" not in choice.expected:
        print(
            f"{len(judged.iou)} pairs are too few to choose a threshold from; expected at least 10. "
            f"The run's own stays: {rule.threshold}"
        )
        return
    print("Expected on images that were not seen (five folds, four times), in percent, with one standard error:\n")
    for name, expected in choice.expected.items():
        print(
            f"  {name:<10}  GT-known Loc, IoU 0.5: {expected.known:5.1f} ± {expected.error:.1f}   "
            f"mean IoU: {expected.mean_iou:.1f}"
        )
    by_class = f", and another for {len(rule.thresholds)} of the classes" if rule.thresholds else ", for every class"
    print(f"\nchosen: threshold {rule.threshold}{by_class}")
    if rule.thresholds:
        shown: Any = sorted(rule.thresholds.items())[:10]
        print("        " + ", ".join(f"{on_one_line(name)} {threshold}" for name, threshold in shown))


def _describe_scores(boxes: int, rate: float, trust: "Trust | None") -> None:
    if trust is None:
        print(
            f"scores: {boxes} boxes, {100 * rate:.0f}% of them right, are too few to calibrate (10, with 3 right and 3 "
            "wrong ones, are needed): every box gets the base rate"
        )
        return
    auroc = "-" if trust.auroc is None else f"{trust.auroc:.2f}"
    print(
        f"scores: calibrated on {trust.boxes} boxes. On images that were not seen: Brier {trust.brier:.3f} (base rate "
        f"{trust.constant_brier:.3f}), ECE {trust.ece:.3f} ({trust.constant_ece:.3f}), AUROC {auroc} (0.50)"
    )
