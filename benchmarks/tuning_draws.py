"""What `camboxes tune` chooses from a few boxed images, applied to all other images of a finished run.

    python benchmarks/tuning_draws.py RUN GROUND_TRUTH [--boxed N ...] [--draws N] [--own THRESHOLD]

For each number of boxed images a row, over random draws of so many images:

    changed      share of the draws in which the run's own rule does not stay
    gain         GT-known at IoU 0.5 of the chosen rule less that of the run's own, on the other images, in points: the
                 mean, the worst and the best draw, and the share of draws that lose
    always       likewise without a margin: of the best threshold for all classes, whatever the run's own rule gives
    in interval  share of the draws whose 95% interval for the chosen rule holds its GT-known on the other images
    calibrated   share of the draws in which scores are calibrated
    Brier        by how much calibration lowers the Brier score of the share of right boxes, on the other images: the
                 mean over the draws, the worst draw, and the share of draws that raise it
    AUROC        on the other images, if scores were always calibrated; and as cross-validation tells it, within folds:
                 both with the standard deviation over the draws

--own judges as if the run had been drawn at another threshold, one of the candidates of `camboxes tune`.
"""

import argparse
import dataclasses
import json
import warnings

import numpy as np
from sklearn.metrics import roc_auc_score

from camboxes.pipeline.evaluation.judging import judge
from camboxes.pipeline.evaluation.redrawing import Redrawn, redraw
from camboxes.pipeline.formats.readers import read_ground_truth
from camboxes.pipeline.tuning import thresholds
from camboxes.pipeline.tuning.calibrating import Sample, fit, probabilities, samples
from camboxes.pipeline.tuning.calibration_quality import cross_validated
from camboxes.transforms import BoxRule, PlannedRun

COLUMNS = ("boxed", "own", "changed", "gain: mean, worst, best", "loses", "always: mean, worst", "loses", "in interval",
           "calibrated", "Brier: mean, worst", "raised", "AUROC: others, told")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("ground_truth")
    parser.add_argument("--boxed", type=int, nargs="+", default=[50])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--own", help="as JSON: 0.5 or '\"0.8*otsu\"'")
    arguments = parser.parse_args()
    run = PlannedRun.load(arguments.run)
    judged = judge(run, read_ground_truth(arguments.ground_truth))
    images = len(np.unique(judged.image))
    if max(arguments.boxed) >= images:
        parser.error(f"--boxed {max(arguments.boxed)} leaves no image to judge on: {images} have true boxes")
    redrawn = redraw(run, judged)
    if arguments.own is not None:
        redrawn = drawn_at(redrawn, json.loads(arguments.own))
    boxes, of_run = samples(run, redrawn.matching, BoxRule(**redrawn.settings["rule"]))
    print(f"| {' | '.join(COLUMNS)} |\n{len(COLUMNS) * '|---'}|")
    for boxed in arguments.boxed:
        cells = [*of_thresholds(redrawn, boxed, arguments.draws), *of_scores(boxes, of_run, boxed, arguments.draws)]
        print(f"| {boxed} | {100 * (redrawn.iou >= 0.5).mean():.1f} | {' | '.join(cells)} |", flush=True)


def drawn_at(redrawn: Redrawn, threshold) -> Redrawn:
    candidates = thresholds.Candidates.of(redrawn)
    rule = {**redrawn.settings["rule"], "threshold": threshold}
    iou = candidates.iou[:, candidates.thresholds.index(threshold)]
    return dataclasses.replace(redrawn, iou=iou, settings={**redrawn.settings, "rule": rule})


def of_thresholds(redrawn: Redrawn, boxed: int, draws: int) -> list[str]:
    candidates = thresholds.Candidates.of(redrawn)
    known, own = 100 * (candidates.iou >= 0.5), 100 * (redrawn.iou >= 0.5)
    soft = thresholds._soft_hits(candidates.iou)
    gains, always, changed, inside = [], [], [], []
    for some, others in drawn(redrawn.image, boxed, draws):
        columns = {name: getattr(redrawn, name)[some] for name in ("image", "category", "iou", "iou_at", "iou_at_otsu")}
        choice = thresholds.choose(dataclasses.replace(redrawn, **columns))
        reached = own[others]
        if choice.rule != thresholds.OWN:
            of = [choice.thresholds.get(redrawn.categories[number], choice.threshold) for number in
                  redrawn.category[others]]  # fmt: skip
            reached = known[others, [candidates.thresholds.index(threshold) for threshold in of]]
        changed.append(choice.rule != thresholds.OWN)
        gains.append(reached.mean() - own[others].mean())
        best, _ = thresholds._fit(candidates, soft, redrawn.category, some, None)
        always.append(known[others, best].mean() - own[others].mean())
        if choice.expected:
            expected = choice.expected[choice.rule]
            inside.append(expected.low <= reached.mean() <= expected.high)
    return [
        f"{100 * np.mean(changed):.0f}%",
        f"{np.mean(gains):+.2f}, {min(gains):+.1f}, {max(gains):+.1f}",
        f"{100 * np.mean(np.array(gains) < 0):.0f}%",
        f"{np.mean(always):+.2f}, {min(always):+.1f}",
        f"{100 * np.mean(np.array(always) < 0):.0f}%",
        f"{100 * np.mean(inside):.0f}%" if inside else "-",
    ]


def of_scores(boxes: Sample, of_run: np.ndarray, boxed: int, draws: int) -> list[str]:
    lower, others_auroc, told = [], [], []
    for some, others in drawn(boxes.image, boxed, draws):
        sample, rest = boxes.some(some), boxes.some(others)
        quality = cross_validated(sample, of_run) if sample.shows_quality else None
        lower.append(np.nan)
        if quality is None:
            continue
        scores = probabilities(fit(sample, of_run), rest.evidence)
        if quality.is_useful:
            lower[-1] = np.square(sample.right.mean() - rest.right).mean() - np.square(scores - rest.right).mean()
        others_auroc.append(roc_auc_score(rest.right, scores))
        told.append(quality.auroc)
    calibrated = np.mean(~np.isnan(lower))
    lower = np.nan_to_num(lower)
    aurocs = [f"{np.nanmean(np.array(each, float)):.2f} ± {np.nanstd(np.array(each, float)):.2f}" for each in
              (others_auroc, told) if each]  # fmt: skip
    return [
        f"{100 * calibrated:.0f}%",
        f"{lower.mean():.4f}, {lower.min():.4f}",
        f"{100 * np.mean(lower < 0):.0f}%",
        ", ".join(aurocs) or "-",
    ]


def drawn(image: np.ndarray, boxed: int, draws: int):
    """The pairs of some images and those of all others, for each draw."""
    for seed in range(draws):
        images = np.random.default_rng(seed).permutation(np.unique(image))
        some = np.isin(image, images[:boxed])
        yield np.flatnonzero(some), np.flatnonzero(~some)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
