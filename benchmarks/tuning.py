"""What fifty boxed images are worth to calibrated scores, judged on the other images of a data set; fixed thresholds.

    python benchmarks/tuning.py DATA_FOLDER DATA_FOLDER [--runs FOLDER] [--splits N] [--boxed N] [--write]

Data folders are those of quality.py. For each of SETTINGS a run of `camboxes label`, and then

    thresholds     GT-known at IoU 0.5 over all images at the default, at 0.8*otsu (chosen without any box), and at the
                   best fixed threshold, which flatters; tuning_draws.py judges what `camboxes tune` chooses
    calibration    from N images, judged on all others: AUROC, Brier score and ECE (ten bins of equal mass) beside those
                   of the N images' base rate; in how many splits Brier is lower

The directions that calibration starts from are learned from data sets too. Here each half of the other images is judged
with the directions that the other half and the other data sets gave, so no image has a part in its own judgement.
--write learns them from all images of the data folders, into pipeline/tuning/calibration_directions.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from quality import PLAIN
from sklearn.linear_model import LogisticRegression

from camboxes.pipeline.evaluation.judging import judge
from camboxes.pipeline.evaluation.matching import match
from camboxes.pipeline.evaluation.redrawing import Redrawn, redraw
from camboxes.pipeline.evaluation.reliability import trust
from camboxes.pipeline.formats.readers import read_ground_truth
from camboxes.pipeline.tuning import calibrating
from camboxes.pipeline.tuning.thresholds import Candidates
from camboxes.transforms import BoxRule, PlannedRun
from camboxes.transforms.boxes.calibration import Calibration, standardise
from camboxes.transforms.boxes.evidence import Evidence

SETTINGS = {
    "default": [],
    "cam": PLAIN,
    "cam*layercam@16": [*PLAIN, "--method", "cam*layercam@16"],
    "cam, 224 + 448": [*PLAIN, "--scales", "224,448"],
}
RULES = (BoxRule(0.25), BoxRule("0.8*otsu"))
DIRECTIONS = Path(__file__).parent.parent / "pipeline" / "tuning" / "calibration_directions.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--runs", type=Path, help="where runs are kept, to be used again (default: nowhere)")
    parser.add_argument("--splits", type=int, default=24)
    parser.add_argument("--boxed", type=int, default=50)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = {
            (folder.name, name): label(folder, options, (arguments.runs or Path(temporary)) / f"{folder.name}, {name}")
            for folder in arguments.data
            for name, options in SETTINGS.items()
        }
        samples = {
            key: [calibrating.samples(run, matching, rule) for rule in RULES]
            for key, (run, matching, _) in runs.items()
        }
        if arguments.write:
            found = {folder.name: direction(samples, folder.name) for folder in arguments.data}
            rounded = {
                name: {key: round(value, 4) for key, value in weights.items()} for name, weights in found.items()
            }
            DIRECTIONS.write_text(json.dumps({"directions": rounded}, indent=2) + "\n")
        print("| | default | 0.8*otsu | best fixed t | AUROC | Brier / base rate | ECE / base rate | Brier lower |")
        print("|---|---|---|---|---|---|---|---|")
        for (data, name), (run, _, truth_of) in runs.items():
            judged = redraw(run, judge(run, truth_of))
            row = [*thresholds(judged), *calibration(samples, (data, name), arguments)]
            print(f"| {data}: {name} | {' | '.join(row)} |", flush=True)


def label(folder: Path, options: list[str], output: Path):
    call = [sys.executable, "-m", "camboxes.pipeline.cli", "label", "--input", str(folder / "labels.csv"),
            "--label-map", str(folder / "label_map.json"), "--output", str(output),
            "--precision", "fp32", *options]  # fmt: skip
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run, truth = PlannedRun.load(str(output)), read_ground_truth(str(folder / "instances.json"))
    return run, match(run, truth), truth


def thresholds(judged: Redrawn) -> list[str]:
    candidates = Candidates.of(judged)
    known = 100 * (candidates.iou >= 0.5)
    best = known[:, candidates.families[0]].mean(axis=0)
    otsu = known[:, candidates.thresholds.index("0.8*otsu")].mean()
    return [
        f"{100 * (judged.iou >= 0.5).mean():.1f}",
        f"{otsu:.1f}",
        f"{best.max():.1f} (t {judged.thresholds[best.argmax()]:g})",
    ]


def calibration(samples, key, arguments) -> list[str]:
    boxed_all, of_run = samples[key][0]
    others = [direction(samples, data) for data in sorted({data for data, _ in samples} - {key[0]})]
    rows = []
    for seed, (boxed, rest) in enumerate(splits(boxed_all.image, arguments)):
        images = np.random.default_rng(seed).permutation(np.unique(boxed_all.image[rest]))
        base_rate = boxed_all.right[boxed].mean()
        scores, right = [], []
        for judged, learned in ((images[::2], images[1::2]), (images[1::2], images[::2])):
            directions = [direction(samples, key[0], learned), *others]
            fitted: Calibration = calibrating.fit(boxed_all.some(boxed), of_run, directions)
            test = boxed_all.some(np.flatnonzero(np.isin(boxed_all.image, judged)))
            scores.append(calibrating.probabilities(fitted, test.evidence))
            right.append(test.right)
        order = np.random.default_rng(seed).permutation(sum(map(len, right)))
        rows.append(trust(np.concatenate(scores)[order], np.concatenate(right)[order], base_rate))
    mean = {name: np.mean([getattr(row, name) for row in rows]) for name in rows[0]._fields if name != "bins"}
    lower = np.mean([row.brier < row.constant_brier for row in rows])
    return [
        f"{mean['auroc']:.3f}",
        f"{mean['brier']:.4f} / {mean['constant_brier']:.4f}",
        f"{mean['ece']:.3f} / {mean['constant_ece']:.3f}",
        f"{100 * lower:.0f}%",
    ]


def splits(image: np.ndarray, arguments):
    """N images and all others, as pairs."""
    for seed in range(arguments.splits):
        images = np.random.default_rng(seed).permutation(np.unique(image))
        boxed = np.isin(image, images[: arguments.boxed])
        yield np.flatnonzero(boxed), np.flatnonzero(~boxed)


def direction(samples, data: str, images: np.ndarray | None = None) -> dict[str, float]:
    """Weights of the standardised evidence on one data set, such that their sum has a standard deviation of 1."""
    evidence, right = [], []
    for (of_data, _), of_rules in samples.items():
        for boxed, of_run in of_rules if of_data == data else ():
            average = calibrating.fit(boxed.some(np.arange(0)), of_run)  # for its means and deviations alone
            kept = slice(None) if images is None else np.isin(boxed.image, images)
            evidence.append(standardise(boxed.evidence, average.mean, average.deviation)[kept])
            right.append(boxed.right[kept])
    stacked = np.concatenate(evidence)
    # A run's boxes are there once for each setting and rule, so the penalty counts for less: C a third of 0.02.
    weights = LogisticRegression(C=0.02 / len(SETTINGS), max_iter=2000).fit(stacked, np.concatenate(right)).coef_[0]
    return dict(zip(Evidence._fields, (weights / (stacked @ weights).std()).tolist(), strict=True))


if __name__ == "__main__":
    main()
