"""Lays out evaluation.json and a comparison's JSON file. Figures are in percent."""

from collections.abc import Mapping
from typing import Any

from camboxes.pipeline.evaluation import figures, resampling
from camboxes.pipeline.evaluation.comparison import Comparison, Difference
from camboxes.pipeline.evaluation.figures import Evaluation, Figure
from camboxes.pipeline.evaluation.judging import Judged

Json = dict[str, Any]


def evaluation_json(run: str, ground_truth: str, judged: Judged, evaluation: Evaluation) -> Json:
    """The contents of evaluation.json."""
    best, ious = evaluation.best, [f"{delta:g}" for delta in figures.IOUS]
    return {
        "run": run,
        "ground_truth": ground_truth,
        "settings": judged.settings,
        "judged": {
            "images": len(judged.paths),
            "categories": judged.matching.categories,
            "pairs": len(judged.image),
        },
        "left_out": judged.matching.left_out,
        "intervals": _intervals("percentiles over resamples of the images"),
        "figures": _figures(evaluation.figures),
        "best_thresholds": {
            "note": best.caveat,
            "images": best.images,
            "own_rule": {
                "threshold": dict(zip(ious, best.threshold, strict=True)),
                **_figures(dict(zip(figures.GT_KNOWN, best.gt_known, strict=True)) | {"v2": best.v2}),
            },
            "literature": {
                "threshold": dict(zip(ious, best.literature_threshold, strict=True)),
                "max_box_acc": round(best.max_box_acc, 4),
                "max_box_acc_v2": round(best.max_box_acc_v2, 4),
            },
        },
        "classes": {
            name: {"pairs": pairs, **_figures({"gt_known_50": known, "mean_iou": iou, "ap50": ap50})}
            for name, (pairs, known, iou, ap50) in evaluation.classes.items()
        },
    }


def comparison_json(runs: list[str], ground_truth: str, comparison: Comparison) -> Json:
    """The contents of a comparison's file."""
    both = comparison.shared
    return {
        "runs": runs,
        "ground_truth": ground_truth,
        "settings": [both.first.settings, both.second.settings],
        "judged": {
            "images": len(both.images),
            "categories": both.first.categories,
            "pairs": len(both.first.image),
        },
        "left_out_of_each_run": both.left_out,
        "intervals": _intervals("percentiles over resamples of the images, drawn together for both runs"),
        "figures": {name: _difference(of) for name, of in comparison.figures.items()},
        "pairs_at_iou_50": {
            "both_right": comparison.both_right,
            "only_first_right": comparison.first_right,
            "only_second_right": comparison.second_right,
            "neither_right": comparison.neither_right,
        },
        "classes": {
            name: {"pairs": pairs, "gt_known_50": _difference(of)} for name, (pairs, of) in comparison.classes.items()
        },
    }


def _intervals(what: str) -> Json:
    return {
        "percent": resampling.LEVEL,
        "of": what,
        "resamples": figures.RESAMPLES,
        "resamples_of_detection": figures.RESAMPLES_OF_DETECTION,
        "detection": list(figures.DETECTION),
        "seed": resampling.SEED,
    }


def _figures(figures: Mapping[str, Figure]) -> Json:
    return {
        name: {variant: _rounded(estimate._asdict()) for variant, estimate in figure._asdict().items()}
        for name, figure in figures.items()
    }


def _difference(of: Difference) -> Json:
    value, low, high = of.difference
    return _rounded({"first": of.first, "second": of.second, "low": low, "high": high, "p": of.p, "difference": value})


def _rounded(values: dict[str, float | None]) -> Json:
    """Rounds values so coarsely that the order of a sum does not change them."""
    return {name: None if value is None else round(value, 4) for name, value in values.items()}
