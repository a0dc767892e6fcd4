"""Measures a finished run against true boxes, beside what boxes without any network would reach.

The ground truth is COCO JSON, a CSV of boxes (path,label and x,y,width,height or xmin,ymin,xmax,ymax in pixels), YOLO's
data.yaml, or a folder of Pascal VOC XML. Images are matched by path and categories by name; what does not match is
listed and left out. Figures at the run's own threshold come first, with 95% intervals. Boxes at other thresholds are
drawn on at most 1,000 images, chosen by a hash of their paths. evaluation.json holds all figures, for each category
too; report.html is written again, with curves and the best and worst boxes.
"""

import shlex
from typing import TYPE_CHECKING

from camboxes.models.counts import counted
from camboxes.pipeline.evaluate_job import EvaluateJob, evaluate
from camboxes.pipeline.reporter import TERMINAL
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    from camboxes.pipeline.evaluation.figures import Evaluation
    from camboxes.pipeline.evaluation.judging import Judged
    from camboxes.pipeline.evaluation.resampling import Estimate

JOB = EvaluateJob

_LEFT_OUT = {
    "images_only_in_run": "images only in the run",
    "images_only_in_truth": "images only in the ground truth",
    "ambiguous_images": "images whose paths are ambiguous",
    "images_of_other_size": "images of another size",
    "rejected_images": "images that the run rejected",
    "categories_only_in_run": "categories only in the run",
    "categories_only_in_truth": "categories only in the ground truth",
    "categories_without_class": "categories that stand for no class of the network",
}
_PAIRS = {
    "labelled_without_class": "labels that stand for no class of the network",
    "labelled_without_true_box": "labels without a true box (wrong in AP)",
    "true_without_label": "true categories that the images are not labelled with (missed in AR)",
}
_CLASSES_SHOWN = 10


def run(job: EvaluateJob) -> None:
    """Runs the command."""
    found = evaluate(job, TERMINAL)
    _print_matching(found.judged)
    _print_figures(found.judged, found.evaluation)
    _print_classes(found.evaluation)
    if found.tuned:
        images = len(found.judged.paths)
        print(
            f"this run was tuned on {found.tuned} of the {counted(images, 'image')} judged here: figures on "
            "them are too optimistic\n"
        )
    print(f"wrote {found.json}")
    print(f"look at {found.report}")
    call = ["camboxes", "tune", "--run", job.run, "--ground-truth", job.ground_truth]
    print(f"choose thresholds: {shlex.join(call)}")


def _print_matching(judged: "Judged") -> None:
    matching = judged.matching
    print(
        f"judged: {counted(len(judged.paths), 'image')}, {counted(len(matching.categories), 'category')}, "
        f"{counted(len(judged.image), 'pair')} of an image and a label with true boxes"
    )
    for name, words in _LEFT_OUT.items():
        if left_out := getattr(matching, name):
            more = ", ..." if len(left_out) > 3 else ""
            print(f"left out: {words}: {len(left_out):,} ({', '.join(map(on_one_line, left_out[:3]))}{more})")
    for name, words in _PAIRS.items():
        if number := getattr(matching, name):
            print(f"not among the pairs: {words}: {number:,}")


def _print_figures(judged: "Judged", evaluation: "Evaluation") -> None:
    from camboxes.pipeline.evaluation import figures, resampling

    best, rule = evaluation.best, judged.settings["rule"]
    threshold = "by label" if rule.get("thresholds") else rule["threshold"]
    print(
        f"\nIn percent, with {resampling.LEVEL}% intervals from {figures.RESAMPLES} resamples of the images "
        f"(COCO: {figures.RESAMPLES_OF_DETECTION}).\n"
    )
    print(_line(f"at the run's threshold, {threshold}", "run", "centred box of 80%", "whole image"))
    for name, figure in evaluation.figures.items():
        print(_line(figures.NAMES[name], *map(_shown, figure)))
    print(f"\nBest thresholds, {best.caveat}:\n")
    print(_line("by the run's rule", "run", "centred box of 80%", "whole image"))
    for name, at, figure in zip(figures.GT_KNOWN, best.threshold, best.gt_known, strict=True):
        print(_line(f"{figures.NAMES[name]}, t {at:.2f}", *map(_shown, figure)))
    print(_line("V2: mean of the three", *map(_shown, best.v2)))
    print(f"by the protocol of Choe et al.: MaxBoxAcc {best.max_box_acc:.1f}, MaxBoxAccV2 {best.max_box_acc_v2:.1f}")


def _print_classes(evaluation: "Evaluation") -> None:
    most = sorted(evaluation.classes.items(), key=lambda item: (-item[1].pairs, item[0]))[:_CLASSES_SHOWN]
    print(f"\nThe most frequent of {counted(len(evaluation.classes), 'category')}, GT-known Loc at IoU 0.5:\n")
    print(_line("", "run", "centred box of 80%", "whole image") + "  mean IoU  AP50  pairs")
    for name, of_class in most:
        values = [
            "-" if value is None else f"{value:.1f}" for value in (of_class.mean_iou.run.value, of_class.ap50.run.value)
        ]
        line = _line(on_one_line(name, 31), *map(_shown, of_class.gt_known_50))
        print(f"{line}  {values[0]:>8}  {values[1]:>4}  {of_class.pairs:>5}")
    print()


def _line(name: str, *cells: str) -> str:
    return f"{name:<31}" + "".join(f"  {cell:<22}" for cell in cells)


def _shown(estimate: "Estimate") -> str:
    if estimate.value is None:
        return "-"
    if estimate.low is None:
        return f"{estimate.value:.1f}"
    return f"{estimate.value:.1f} ({estimate.low:.1f} to {estimate.high:.1f})"
