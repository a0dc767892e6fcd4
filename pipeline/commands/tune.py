"""Thresholds and calibrated scores from a few boxed images.

FILE holds true boxes of some of the run's images, as for camboxes evaluate; fifty images are enough to begin with. What
is expected of the other images is told by cross-validation. OUT/tuning.json is for camboxes rebox --thresholds.

--from-review takes what was decided in a review (OUT/review.jsonl) instead. The boxes of accepted images count as true,
and as all that there are of the image's labels; so what was accepted as it was drawn speaks for the threshold that drew
it: the more boxes were corrected, the more there is to learn. Rejected boxes have no part in the choice of thresholds;
to the calibration of scores they, and boxes that reach IoU 0.5 with them, are wrong ones.
"""

import shlex
from typing import TYPE_CHECKING

from camboxes.models.counts import counted
from camboxes.pipeline.reporter import TERMINAL
from camboxes.pipeline.tune_job import TunedRun, TuneJob, tune
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    from camboxes.pipeline.evaluation.redrawing import Redrawn

JOB = TuneJob


def run(job: TuneJob) -> None:
    """Runs the command."""
    found = tune(job, TERMINAL)
    _print_candidates(found.redrawn)
    _print_choice(found)
    if job.from_review:
        print("boxes that were accepted as they were drawn count as true, which flatters the threshold that drew them")
    _print_scores(found)
    print(f"wrote {found.path}")
    tuned = f"{job.run.rstrip('/')}-tuned"
    call = ["camboxes", "rebox", "--run", job.run, "--output", tuned, "--thresholds", found.path]
    print(f"draw with them: {shlex.join(call)}")


def _print_candidates(redrawn: "Redrawn") -> None:
    """Prints the curves over the candidate thresholds."""
    from camboxes.pipeline.tuning.thresholds import Candidates

    matching = redrawn.matching
    boxed = sum(bool(true.boxes) for true in matching.truths.values())
    print(
        f"boxed: {counted(boxed, 'image')}, {counted(len(redrawn.iou), 'pair')} of an image and a label that has true "
        f"boxes there; without: {counted(len(matching.images_only_in_run), 'image')} of the run"
    )
    print("\nGT-known Loc at IoU 0.5 and mean IoU on these images, in percent, by threshold:\n")
    candidates = Candidates.of(redrawn)
    for family in candidates.families:
        for number in range(family.start, family.stop, 2):
            iou = candidates.iou[:, number]
            known = 100 * float((iou >= 0.5).mean())
            bar = "#" * round(known / 2)
            print(f"  {candidates.thresholds[number]!s:>9}  {known:5.1f}  {100 * float(iou.mean()):5.1f}  {bar}")
        print()


def _print_choice(found: TunedRun) -> None:
    """Prints the chosen thresholds, and what they are expected to give."""
    expected, rule = found.choice.expected, found.tuning.rule
    if "overall" not in expected:
        print(
            f"too few pairs to choose a threshold from: {len(found.redrawn.iou)}; expected at least 10. "
            f"The run's own stays: {rule.threshold}"
        )
        return
    print("Expected on images that were not seen (five folds, four times), in percent, with one standard error:\n")
    for name, of in expected.items():
        print(f"  {name:<10}  GT-known Loc, IoU 0.5: {of.known:5.1f} ± {of.error:.1f}   mean IoU: {of.mean_iou:.1f}")
    by_class = f", and another for {len(rule.thresholds)} of the classes" if rule.thresholds else ", for every class"
    print(f"\nchosen: threshold {rule.threshold}{by_class}")
    if rule.thresholds:
        shown = sorted(rule.thresholds.items(), key=lambda item: item[0])[:10]
        print("        " + ", ".join(f"{on_one_line(name)} {threshold}" for name, threshold in shown))


def _print_scores(found: TunedRun) -> None:
    trust = found.trust
    if trust is None:
        print(
            f"scores: {counted(found.boxes, 'box')}, {100 * found.right:.0f}% right: too few to calibrate (10, with "
            "3 right and 3 wrong ones, are needed): every box gets the base rate"
        )
        return
    auroc = "-" if trust.auroc is None else f"{trust.auroc:.2f}"
    print(
        f"scores: calibrated on {counted(trust.boxes, 'box')}. On images that were not seen: Brier "
        f"{trust.brier:.3f} (base rate {trust.constant_brier:.3f}), ECE {trust.ece:.3f} ({trust.constant_ece:.3f}), "
        f"AUROC {auroc} (0.50)"
    )
