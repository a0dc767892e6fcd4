"""How good are the boxes of networks that `camboxes train` made, and which cut suits them?

    python benchmarks/trained.py DATA_FOLDER [DATA_FOLDER ...] [--output DIR] [--settings TEXT] [--model NAME]

Data folders are those of quality.py. Each gives one task: `camboxes train` learns its labels (no boxes), and
`camboxes label` with that network draws one box for each pair of an image and a label. Three kinds of folder are
treated apart:

    one label alone     the images of all other folders are its background, which is not judged
    several labels      its images of exactly one label are a second task, of the labels that ten or more of these have
    ImageNet's classes  merged into GROUPS, as one or two images of a class are too few to learn from

For each of SETTINGS, GT-known at IoU 0.5 and CorLoc (its mean over labels) stand at each of THRESHOLDS, in percent.
Last, each task is left out in turn: the threshold with the best mean CorLoc over the other folders is judged on it.
"""

import argparse
import collections
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from quality import PLAIN, best_iou, boxes_by_pair, maps_of

from camboxes.transforms import BoxRule
from camboxes.transforms.boxes.from_map import WorkingMap

SETTINGS = {"default": [], "cam, 224 squash": PLAIN}
THRESHOLDS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, *(f"{share:g}*otsu" for share in (0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2)))
BACKGROUND = "background"  # the label of images that show none of a task's labels
GROUPS = {  # of ImageNet's classes, by their index
    "fish": [*range(0, 7), *range(389, 398)],
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "reptile": range(33, 69),
    "dog": range(151, 269),
    "cat": range(281, 294),
    "insect": range(300, 327),
    "monkey": range(365, 385),
    "vehicle": [407, 436, 468, 511, 555, 569, 609, 627, 654, 656, 661, 670, 675, 717, 734, 751, 779, 817, 864, 867],
    "food": range(924, 970),
}


class Task(NamedTuple):
    """What a network is trained on, and which pairs of an image and a label are judged.

    Attributes:
      name: of the row.
      folder: the data set's name; of two tasks of one folder the other one does not choose the threshold.
      rows: (path, label), every path relative to the root of all folders; also those that are not judged.
      truth: boxes [x, y, width, height] by (file name, label).
    """

    name: str
    folder: str
    rows: list[tuple[str, str]]
    truth: dict[tuple[str, str], list[list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("build/trained"), help="keeps networks and runs")
    parser.add_argument("--settings", default="")
    parser.add_argument("--model", default="efficientnet_lite0")
    arguments = parser.parse_args()
    root = os.path.commonpath([folder.resolve() for folder in arguments.data] + [arguments.data[0].resolve().parent])
    for name in SETTINGS:
        if arguments.settings not in name:
            continue
        print(f"\n{arguments.model}, {name}: GT-known .5 / CorLoc\n")
        print(f"| task | pairs | {' | '.join(map(str, THRESHOLDS))} | centre |")
        print((4 + len(THRESHOLDS)) * "|---" + "|")
        judged = []
        for task in tasks([folder.resolve() for folder in arguments.data], root):
            run = boxes(task, root, arguments.output / arguments.model, arguments.model, name)
            figures = judge(task, run)
            judged.append((task, figures))
            cells = [f"{known:.1f} / {corloc:.1f}" for known, corloc in figures]
            print(f"| {task.name} | {len(task.truth)} | {' | '.join(cells)} |", flush=True)
        leave_out(judged)


def tasks(folders: list[Path], root: str) -> Iterable[Task]:
    rows, truths = {}, {}
    for folder in folders:
        lines = csv.reader((folder / "labels.csv").read_text().splitlines()[1:])
        rows[folder] = [(str((folder / path).relative_to(root)), label) for path, label in lines]
        truths[folder] = boxes_by_pair(json.loads((folder / "instances.json").read_text()))
    for folder in folders:
        of_image = collections.defaultdict(list)
        for path, label in rows[folder]:
            of_image[path].append(label)
        labels = {label for _, label in rows[folder]}
        if len(labels) == 1:
            others = [path for other in folders if other != folder for path in dict(rows[other])]
            background = [(path, BACKGROUND) for path in others[:: max(1, len(others) // 650)]]
            yield Task(folder.name, folder.name, rows[folder] + background, truths[folder])
        elif "ilsvrc" in folder.name:
            yield grouped(folder, rows[folder], truths[folder])
        else:
            yield Task(folder.name, folder.name, rows[folder], truths[folder])
            single = [(path, found[0]) for path, found in of_image.items() if len(found) == 1]
            common = {label for label, count in collections.Counter(label for _, label in single).items() if count > 9}
            if len(common) < 2:
                continue
            single = [(path, label) for path, label in single if label in common]
            pairs = {(Path(path).name, label) for path, label in single}
            truth = {pair: found for pair, found in truths[folder].items() if pair in pairs}
            yield Task(f"{folder.name}, single", folder.name, single, truth)


def grouped(folder: Path, rows: list[tuple[str, str]], truth: dict) -> Task:
    categories = json.loads((folder / "instances.json").read_text())["categories"]
    group_of = {index: group for group, indices in GROUPS.items() for index in indices}
    group = {category["name"]: group_of.get(category["imagenet_ids"][0]) for category in categories}
    merged = collections.defaultdict(list)
    for (name, label), found in truth.items():
        if group[label]:
            merged[name, group[label]] += found
    return Task(f"{folder.name}, groups", folder.name, [(p, group[c]) for p, c in rows if group[c]], dict(merged))


def boxes(task: Task, root: str, output: Path, model: str, setting: str) -> Path:
    """A finished run over a task; what is there already is used again."""
    folder = output / task.name.replace(", ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    judged = [row for row in task.rows if (Path(row[0]).name, row[1]) in task.truth]
    for name, rows in (("train", task.rows), ("label", judged)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *rows])
    network, run = folder / "network", folder / setting.replace(", ", "-").replace(" ", "-")
    source = ["--root", root, "--input"]
    background = ["--background", BACKGROUND] if any(label == BACKGROUND for _, label in task.rows) else []
    camboxes("train", *source, str(folder / "train.csv"), "--output", str(network), "--model", model, *background)
    label = [*source, str(folder / "label.csv"), "--output", str(run), "--model", str(network), *SETTINGS[setting]]
    camboxes("label", *label)
    return run


def camboxes(*call: str) -> None:
    subprocess.run([sys.executable, "-m", "camboxes.pipeline.cli", *call], check=True, stdout=subprocess.DEVNULL)


def judge(task: Task, run: Path) -> list[tuple[float, float]]:
    """GT-known at IoU 0.5 and CorLoc at each threshold, and of a centred box, in percent."""
    rules = [BoxRule(threshold, boxes="peak") for threshold in THRESHOLDS]
    hits = collections.defaultdict(list)
    for name, label, stored, width, height in maps_of(str(run)):
        drawn = WorkingMap(stored, width, height).outlines(rules)
        drawn.append((0.1 * width, 0.1 * height, 0.8 * width, 0.8 * height))
        hits[label].append([best_iou(box, task.truth[name, label]) >= 0.5 for box in drawn])
    every = np.concatenate([*map(np.array, hits.values())])
    assert len(every) == len(task.truth), "every pair is judged"
    by_label = np.mean([np.mean(found, axis=0) for found in hits.values()], axis=0)
    return list(zip(100 * every.mean(axis=0), 100 * by_label, strict=True))


def leave_out(judged: list[tuple[Task, list[tuple[float, float]]]]) -> None:
    print("\n| left out | chosen on the other folders | CorLoc | best on itself, which flatters |\n|---|---|---|---|")
    for task, figures in judged:
        by_folder = collections.defaultdict(list)
        for other, of_other in judged:
            if other.folder != task.folder:
                by_folder[other.folder].append([corloc for _, corloc in of_other[:-1]])
        if not by_folder:
            continue
        chosen = int(np.mean([np.mean(found, axis=0) for found in by_folder.values()], axis=0).argmax())
        corloc = [corloc for _, corloc in figures[:-1]]
        best = int(np.argmax(corloc))
        print(f"| {task.name} | {THRESHOLDS[chosen]} | {corloc[chosen]:.1f} | {THRESHOLDS[best]}: {corloc[best]:.1f} |")


if __name__ == "__main__":
    main()
