"""Thresholds and calibrated scores from a few boxed images.

FILE holds true boxes of some of the run's images, as for camboxes evaluate; fifty images are enough to begin with. What
is expected of the other images is told by cross-validation. OUT/tuning.json is for camboxes rebox --thresholds.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camboxes.pipeline.calibrating import Trust
    from camboxes.pipeline.judging import Judged
    from camboxes.pipeline.thresholds import Choice
    from camboxes.transforms import BoxRule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--run", required=True, metavar="OUT", help="a finished run's folder")
    parser.add_argument(
        "--ground-truth", required=True, metavar="FILE", help="true boxes of some of its images (see evaluate --help)"
    )
    parser.add_argument("--output", metavar="FILE", help="default: tuning.json in the run's folder")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline import calibrating, runs, thresholds
    from camboxes.pipeline.errors import blaming_the_call
    from camboxes.pipeline.evaluate import check_call
    from camboxes.pipeline.ground_truth import read_ground_truth
    from camboxes.pipeline.judging import judge
    from camboxes.pipeline.tuning import FILE, Tuning, maps_settings
    from camboxes.transforms import BoxRule, storage

    check_call("tune", beam_arguments)
    output = arguments.output or storage.join(arguments.run, FILE)
    with blaming_the_call():
        planned = runs.finished(arguments.run)
        judged = judge(planned, read_ground_truth(arguments.ground_truth))
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
    _describe_scores(len(boxed.right), float(boxed.right.mean()) if len(boxed.right) else 0.0, trust)
    print(f"wrote {output}")
    print(
        f"draw with them: camboxes rebox --run {arguments.run} --output {arguments.run.rstrip('/')}-tuned "
        f"--thresholds {output}"
    )


def _describe(judged: "Judged", choice: "Choice", rule: "BoxRule") -> None:
    """Prints the curve, what was chosen, and what is expected of it."""
    from camboxes.pipeline.thresholds import Candidates

    candidates = Candidates.of(judged)
    matching = judged.matching
    print(
        f"boxed: {len(matching.truths)} images, {len(judged.iou)} pairs of an image and a label that has true boxes "
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
        print("        " + ", ".join(f"{name} {threshold}" for name, threshold in shown))


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
