"""Boxes of a class that no network knows, from labels alone: train on raccoons, then label them.

    python benchmarks/raccoon.py RACCOON_FOLDER BACKGROUND_FOLDER [BACKGROUND_FOLDER ...] [--output DIR] [--train all]

Data folders are as in quality.py. `camboxes train` is given every raccoon image, and every image of the background
folders as the class "background": no boxes. `camboxes label --model CKPT` then draws one box on each raccoon image, and
each row is a run of it, judged at several fixed thresholds as quality.py judges.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from quality import BOTH, DELTAS, OTSU, PLAIN, best_iou, boxes_by_pair, draw, maps_of

SETTINGS = {
    "default": [],
    "default, but --aspect squash": ["--aspect", "squash"],
    "cam, 224": PLAIN,
    "cam, 224 + 448": [*PLAIN, "--scales", "224,448"],
    "cam*layercam@16, 224": [*PLAIN, "--method", "cam*layercam@16"],
    "cam*layercam@16, 224 + 448": BOTH,
}
THRESHOLDS = (0.15, 0.2, 0.22, 0.25, 0.3, 0.35, *OTSU)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raccoon", type=Path)
    parser.add_argument("background", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, help="keep manifest, classifier and runs there")
    arguments, training = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        output = arguments.output or Path(temporary)
        output.mkdir(parents=True, exist_ok=True)
        manifest, root = write_manifest(output, arguments.raccoon, arguments.background)
        classifier = str(output / "classifier")
        camboxes("train", "--input", manifest, "--root", root, "--output", classifier, "--overwrite", *training)
        print("| raccoon | GT-known .3 / .5 / .7 at each threshold | centre .5 |")
        print("|---|---|---|")
        for number, (name, options) in enumerate(SETTINGS.items()):
            run = str(output / f"boxes-{number}")
            source = ["--input", str(arguments.raccoon / "labels.csv"), "--output", run, "--overwrite"]
            camboxes("label", *source, "--model", classifier, *options, stdout=subprocess.DEVNULL)
            print(f"| {name} {row(arguments.raccoon, run)}", flush=True)


def write_manifest(output: Path, raccoon: Path, background: list[Path]) -> tuple[str, str]:
    """A manifest of all images, and the folder that its paths are relative to."""
    folders = {folder.resolve(): "raccoon" if folder == raccoon else "background" for folder in (raccoon, *background)}
    root = os.path.commonpath([folder.parent for folder in folders])
    with (output / "images.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for folder, label in folders.items():
            rows.writerows((path.relative_to(root), label) for path in sorted((folder / "images").iterdir()))
    return str(output / "images.csv"), root


def camboxes(*call: str, stdout: int | None = None) -> None:
    subprocess.run([sys.executable, "-m", "camboxes.pipeline.cli", *call], check=True, stdout=stdout)


def row(folder: Path, output: str) -> str:
    truth = boxes_by_pair(json.loads((folder / "instances.json").read_text()))
    maps = list(maps_of(output))
    assert len(maps) == len(list((folder / "images").iterdir())), "every image has a map"
    cells = []
    for threshold in THRESHOLDS:
        ious = np.array([best_iou(draw(*map_[2:], threshold), truth[map_[:2]]) for map_ in maps])
        cells.append(f"{threshold}: " + " / ".join(f"{100 * (ious >= delta).mean():.1f}" for delta in DELTAS))
    centre = [best_iou((0.1 * w, 0.1 * h, 0.8 * w, 0.8 * h), truth[name, label]) for name, label, _, w, h in maps]
    return f"| {'; '.join(cells)} | {100 * (np.array(centre) >= 0.5).mean():.1f} |"


if __name__ == "__main__":
    main()
