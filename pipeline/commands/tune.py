"""Chooses thresholds and calibrates scores from a few boxed images.

FILE holds true boxes of some of the run's images, as for camboxes evaluate; fifty images are enough to begin with.
Cross-validation estimates what to expect on other images. The run's own rule stays unless another is better by a
standard error, and scores are calibrated only if that separates right boxes from wrong ones.
OUT/tuning.json is for camboxes rebox --thresholds.

--from-review uses the decisions of a review (OUT/review.jsonl) instead. The boxes of accepted images count as the true
boxes of the image's labels. A box that was accepted without a correction confirms the threshold that drew it, so
correct boxes that are only roughly right. Rejected boxes, and boxes with an IoU of 0.5 or more with them, are used for
the calibration only, as wrong boxes.
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

_RULES = {"as it was": "the run's own", "overall": "one for every class", "per class": "another for some classes"}


def run(job: TuneJob) -> None:
    """Runs the command."""
    found = tune(job, TERMINAL)
    _print_candidates(found.redrawn)
    _print_choice(found)
    if job.from_review:
        print("boxes that were accepted without a correction count as true, which favours the threshold that drew them")
    _print_scores(found)
    print(f"wrote {found.path}")
    if found.changes_nothing:
        print("nothing to draw again: the run's boxes and scores stay as they are")
        return
    tuned = f"{job.run.rstrip('/')}-tuned"
    call = ["camboxes", "rebox", "--run", job.run, "--output", tuned, "--thresholds", found.path]
    print(f"draw with them: {shlex.join(call)}")


def _print_candidates(redrawn: "Redrawn") -> None:
    """Prints the curves over the candidate thresholds."""
    from camboxes.pipeline.tuning.thresholds import Candidates

    matching = redrawn.matching
    boxed = sum(bool(true.boxes) for true in matching.truths.values())
    print(
        f"boxed: {counted(boxed, 'image')}, {counted(len(redrawn.iou), 'pair')} of an image and a label with true "
        f"boxes; not boxed: {counted(len(matching.images_only_in_run), 'image')} of the run"
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
    from camboxes.pipeline.tuning import thresholds

    choice, images = found.choice, len(set(found.redrawn.image.tolist()))
    own = "by label" if choice.rule == thresholds.OWN and choice.thresholds else choice.threshold
    if not choice.expected:
        print(
            f"too few boxed images to choose a threshold from: {images}; expected at least {thresholds.FEWEST}. "
            f"The run's own stays: {own}"
        )
        return
    print(
        "Expected on other images, by cross-validation (five folds, four times), in percent, with a 95% interval;\n"
        "the gain over the run's own rule has its standard error, and counts a box near IoU 0.5 in part:\n"
    )
    for name, of in choice.expected.items():
        known = f"{of.known:5.1f} ({of.low:.1f} to {of.high:.1f})"
        gain = "" if name == thresholds.OWN else f"   gain: {of.gain:+.1f} ± {of.error:.1f}"
        print(f"  {_RULES[name]:<26}  GT-known Loc, IoU 0.5: {known:<22} mean IoU: {of.mean_iou:.1f}{gain}")
    if choice.rule == thresholds.OWN:
        print(
            f"\nchosen: the run's own threshold, {own}: no other gains more than its standard error and reaches IoU "
            "0.5 as often"
        )
        return
    by_class = f"and another for {len(choice.thresholds)} of the classes" if choice.thresholds else "for every class"
    print(f"\nchosen: threshold {choice.threshold}, {by_class}")
    if choice.thresholds:
        shown = sorted(choice.thresholds.items(), key=lambda item: item[0])[:10]
        print("        " + ", ".join(f"{on_one_line(name)} {threshold}" for name, threshold in shown))


def _print_scores(found: TunedRun) -> None:
    quality, stay = found.quality, "scores stay uncalibrated"
    if quality is None:
        print(
            f"calibration: {counted(found.boxes, 'box')}, {100 * found.right:.0f}% right: too few (10 right and "
            f"10 wrong ones are needed): {stay}"
        )
        return
    images = counted(quality.images, "image")
    if quality.is_useful:
        print(f"calibration: {images} tell right boxes from wrong ones: scores become probabilities")
    else:
        print(
            f"calibration: {images} do not tell right boxes from wrong ones clearly better than chance "
            f"({100 * found.right:.0f}% are right): {stay}"
        )
    auroc = "" if quality.auroc is None else f", AUROC {quality.auroc:.2f} ± {quality.auroc_error:.2f} (by chance 0.50)"
    print(
        f"             on other images: Brier score {quality.brier:.3f} (of one probability for all boxes "
        f"{quality.constant_brier:.3f}){auroc}"
    )
