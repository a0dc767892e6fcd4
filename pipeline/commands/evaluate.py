"""Judges a finished run by true boxes: figures, what a box without any network would reach, and intervals.

The ground truth is COCO JSON, a CSV of boxes (path,label and x,y,width,height or xmin,ymin,xmax,ymax in pixels), or a
folder of Pascal VOC XML. Images are matched by path and categories by name; what does not match is listed, and left
out. Figures at the run's own threshold come first. Boxes at other thresholds are drawn on 1,000 images at the most,
chosen by a hash of their paths. evaluation.json holds everything, by category too; report.html is written again, with
curves and the best and worst boxes.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    from camboxes.pipeline.evaluation.figures import Evaluation, Figure
    from camboxes.pipeline.evaluation.judging import Judged
    from camboxes.pipeline.evaluation.matching import Matching
    from camboxes.pipeline.evaluation.resampling import Estimate

_KNOWN = ("gt_known_30", "gt_known_50", "gt_known_70")  # for each of the IoUs
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
_FLATTERING = "chosen on the very boxes that they are judged on, which flatters"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--run", required=True, metavar="OUT", help="a finished run's folder")
    add_truth_argument(parser)
    parser.add_argument("--output", metavar="FOLDER", help="folder for evaluation.json and report.html (default: OUT)")


def add_truth_argument(parser: argparse._ActionsContainer, required: bool = True) -> None:
    """Declares --ground-truth, for every command that judges boxes."""
    parser.add_argument(
        "--ground-truth", required=required, metavar="FILE", help="COCO .json, a .csv of boxes, or a folder of VOC .xml"
    )


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline.errors import CallError, blaming_the_call
    from camboxes.pipeline.evaluation.figures import evaluate
    from camboxes.pipeline.evaluation.judging import MOST_REDRAWN, judge, redraw, sampled
    from camboxes.pipeline.formats.ground_truth import read_ground_truth
    from camboxes.pipeline.jobs import running
    from camboxes.pipeline.reports import run_report
    from camboxes.pipeline.reports.evaluation_report import section
    from camboxes.pipeline.tuning.tuning_file import Tuning
    from camboxes.transforms import storage

    output = arguments.output or arguments.run
    with blaming_the_call():
        check_call("evaluate", beam_arguments)
        source = running.finished(arguments.run)
        if storage.is_local(output) and Path(output).is_file():
            raise CallError(f"--output {output!r} is a file; expected a folder")
        truth = read_ground_truth(arguments.ground_truth)
        tuning = Tuning.drawn_with(source)
    judged = judge(source, truth)
    redrawn = redraw(source, sampled(judged, MOST_REDRAWN))
    evaluation = evaluate(judged, redrawn)
    fitted = set(tuning.images if tuning else ())
    _print_matching(judged.matching, len(judged.image))
    _print_figures(judged, evaluation)
    _print_classes(evaluation)
    if tuned := fitted.intersection(judged.paths):
        print(f"this run was tuned on {len(tuned)} of these {len(judged.paths)} images: figures on them flatter\n")
    path = storage.join(output, "evaluation.json")
    storage.write_json(path, _record(arguments, judged, evaluation))
    print(f"wrote {path}")
    run_report.write(arguments.run, section(judged, redrawn, evaluation, fitted), output)
    print(f"look at {storage.join(output, 'report.html')}")
    call = ["camboxes", "tune", "--run", arguments.run, "--ground-truth", arguments.ground_truth]
    print(f"choose thresholds: {shlex.join(call)}")


def check_call(command: str, beam_arguments: Sequence[str]) -> None:
    """Refuses what no command that judges boxes can do.

    Raises:
      CallError: there are options that nobody knows, or a library is missing.
    """
    import importlib.util

    from camboxes.pipeline.errors import CallError, refuse_unknown

    refuse_unknown(beam_arguments, f"see camboxes {command} --help")
    for library in ("pycocotools", "sklearn"):
        if importlib.util.find_spec(library) is None:
            raise CallError(f'judging boxes needs {library}, which is not installed: pip install ".[eval]"')


def _record(arguments: argparse.Namespace, judged: "Judged", evaluation: "Evaluation") -> dict[str, Any]:
    """What evaluation.json holds: figures in percent."""
    from camboxes.pipeline.evaluation import figures, resampling

    matching = judged.matching
    best = evaluation.best
    deltas = [f"{delta:g}" for delta in figures.IOUS]
    return {
        "run": arguments.run,
        "ground_truth": arguments.ground_truth,
        "settings": judged.settings,
        "judged": {
            "images": len(judged.paths),
            "categories": matching.categories,
            "pairs": len(judged.image),
        },
        "left_out": {name: getattr(matching, name) for name in (*_LEFT_OUT, *_PAIRS)},
        "intervals": {
            "percent": resampling.LEVEL,
            "of": "percentiles over resamples of the images",
            "resamples": figures.RESAMPLES,
            "resamples_of_detection": figures.RESAMPLES_OF_DETECTION,
            "detection": list(figures.DETECTION),
            "seed": figures.SEED,
        },
        "figures": {name: _figure(figure) for name, figure in evaluation.figures.items()},
        "best_thresholds": {
            "note": _FLATTERING + _sample(judged, evaluation),
            "images": best.images,
            "own_rule": {
                "threshold": dict(zip(deltas, best.threshold, strict=True)),
                **{name: _figure(figure) for name, figure in zip(_KNOWN, best.gt_known, strict=True)},
                "v2": _figure(best.v2),
            },
            "literature": {
                "threshold": dict(zip(deltas, best.literature_threshold, strict=True)),
                "max_box_acc": round(best.max_box_acc, 4),
                "max_box_acc_v2": round(best.max_box_acc_v2, 4),
            },
        },
        "classes": {
            name: {"pairs": of_class.pairs}
            | {figure: _figure(getattr(of_class, figure)) for figure in ("gt_known_50", "mean_iou", "ap50")}
            for name, of_class in evaluation.classes.items()
        },
    }


def _sample(judged: "Judged", evaluation: "Evaluation") -> str:
    """What to say of the images that were drawn again; nothing where they are all of them."""
    images, all_images = evaluation.best.images, len(judged.paths)
    return "" if images == all_images else f"; of {images:,} of {all_images:,} images, chosen by a hash of their paths"


def _figure(figure: "Figure") -> dict[str, dict[str, float | None]]:
    """Rounded to what no change in the order of a sum reaches."""
    return {
        variant: {name: None if value is None else round(value, 4) for name, value in estimate._asdict().items()}
        for variant, estimate in figure._asdict().items()
    }


def _print_matching(matching: "Matching", pairs: int) -> None:
    print(
        f"judged: {len(matching.truths)} images, {len(matching.categories)} categories, {pairs} pairs of an image "
        "and a label that has true boxes there"
    )
    for name, words in _LEFT_OUT.items():
        if left_out := getattr(matching, name):
            more = ", ..." if len(left_out) > 3 else ""
            print(f"left out: {len(left_out)} {words} ({', '.join(map(on_one_line, left_out[:3]))}{more})")
    for name, words in _PAIRS.items():
        if number := getattr(matching, name):
            print(f"not among the pairs: {number} {words}")


def _print_figures(judged: "Judged", evaluation: "Evaluation") -> None:
    from camboxes.pipeline.evaluation import figures, resampling

    best, rule = evaluation.best, judged.settings["rule"]
    threshold = "by label" if rule.get("thresholds") else rule["threshold"]
    print(
        f"\nIn percent; in brackets what {resampling.LEVEL}% of {figures.RESAMPLES} resamples of the images give "
        f"(COCO: {figures.RESAMPLES_OF_DETECTION}).\n"
    )
    print(_line(f"at the run's threshold, {threshold}", "run", "centred box of 80%", "whole image"))
    for name, figure in evaluation.figures.items():
        print(_line(figures.NAMES[name], *map(_shown, figure)))
    print(f"\nBest thresholds, {_FLATTERING}{_sample(judged, evaluation)}:\n")
    print(_line("by the run's rule", "run", "centred box of 80%", "whole image"))
    for name, at, figure in zip(_KNOWN, best.threshold, best.gt_known, strict=True):
        print(_line(f"{figures.NAMES[name]}, t {at:.2f}", *map(_shown, figure)))
    print(_line("V2: mean of the three", *map(_shown, best.v2)))
    print(f"by the literature's rule: MaxBoxAcc {best.max_box_acc:.1f}, MaxBoxAccV2 {best.max_box_acc_v2:.1f}")


def _print_classes(evaluation: "Evaluation") -> None:
    most = sorted(evaluation.classes.items(), key=lambda item: (-item[1].pairs, item[0]))[:_CLASSES_SHOWN]
    print(f"\nThe most frequent of {len(evaluation.classes)} categories, GT-known Loc at IoU 0.5:\n")
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
