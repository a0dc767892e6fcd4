"""How good are the boxes? One row per setting and data set.

    python benchmarks/quality.py DATA_FOLDER [DATA_FOLDER ...] [--settings TEXT] [--every N] [--model NAME]

A data folder holds images/, labels.csv (path,label), label_map.json (label -> class indices) and instances.json (COCO
boxes; images are matched by file name, categories by name). Each row is a run of `camboxes label`, judged over every
labelled pair of an image and a category that the network knows and that has a box (crowds left out):

    GT-known   share of pairs whose box reaches IoU 0.3, 0.5, 0.7 with any ground-truth box of the category, percent
    otsu       the same at 0.8, 0.9 and 1 of each map's Otsu level, chosen without any box
    CorLoc     at 0.5 and 1*otsu, as a mean over categories
    V2         mean over 0.3, 0.5, 0.7 of GT-known at the threshold that is best for it on this very data: flattering
    centre     GT-known of a centred box of 80% of each side: what a box without any network reaches
    AP50       pycocotools', of all boxes that the run has, by its own threshold, second look included
    ms         milliseconds of forward passes and maps for an image, on one core, as the job counted them

All in fp32, as any processor can. --settings keeps the rows whose name contains TEXT; without it those of SETTINGS but
occlusion and Score-CAM, which take up to hours for 650 images. --every takes each Nth image alone.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from camboxes.pipeline.evaluation.average_precision import match_boxes, precision
from camboxes.pipeline.evaluation.figures import true_boxes
from camboxes.pipeline.evaluation.judging import judge
from camboxes.pipeline.formats.readers import read_ground_truth
from camboxes.transforms import BoxRule, PlannedRun, boxes_from_map
from camboxes.transforms.boxes.second_look import is_whole
from camboxes.transforms.boxes.stored_maps import StoredMap

# What `camboxes label` did before its defaults were the best that is known: Zhou et al.'s maps, on squashed images.
PLAIN = ["--method", "cam", "--scales", "224", "--no-fine-scales", "--aspect", "squash", "--no-compete",
         "--refine", "none", "--boxes", "largest"]  # fmt: skip
BOTH = [*PLAIN, "--method", "cam*layercam@16", "--scales", "224,448"]
SETTINGS = {
    "default": [],
    "default, but --scales 224": ["--scales", "224"],
    "default, but --method cam": ["--method", "cam"],
    "default, but --method cam*layercam@16": ["--method", "cam*layercam@16"],
    "default, but --no-fine-scales": ["--no-fine-scales"],
    "default, but --refine none": ["--refine", "none", "--threshold", "0.9*otsu"],
    "default, but --aspect squash": ["--aspect", "squash"],
    "default, but --no-compete": ["--no-compete"],
    "default, but --boxes largest": ["--boxes", "largest"],
    "default, but --boxes instances": ["--boxes", "instances"],
    "default, and --second-look": ["--second-look"],
    "default, and --flip": ["--flip"],
    "default, and a third scale": ["--scales", "224,448,672"],
    "cam, 224 squash": PLAIN,
    "cam, 448 keep": [*PLAIN, "--scales", "448", "--aspect", "keep"],
    "cam, 448": [*PLAIN, "--scales", "448"],
    "cam, 224, flip": [*PLAIN, "--flip"],
    "cam, 224 + 448": [*PLAIN, "--scales", "224,448"],
    "cam, 224, map stride 16": [*PLAIN, "--map-stride", "16"],
    "gradcam, 224": [*PLAIN, "--method", "gradcam"],
    "gradcam++, 224": [*PLAIN, "--method", "gradcam++"],
    "xgradcam, 224": [*PLAIN, "--method", "xgradcam"],
    "hirescam, 224": [*PLAIN, "--method", "hirescam"],
    "layercam (positive weights), 224": [*PLAIN, "--method", "layercam"],
    "eigencam, 224": [*PLAIN, "--method", "eigencam"],
    "layercam@32, 448": [*PLAIN, "--method", "layercam@32", "--scales", "448"],
    "layercam@16, 224": [*PLAIN, "--method", "layercam@16"],
    # Of Lite0: the block at stride 16, not rectified.
    "layercam@blocks.4, 224": [*PLAIN, "--method", "layercam@blocks.4"],
    "gradcam++@16, 224": [*PLAIN, "--method", "gradcam++@16"],
    "cam+layercam@16, 224": [*PLAIN, "--method", "cam+layercam@16"],
    "cam*layercam@16, 224": [*PLAIN, "--method", "cam*layercam@16"],
    "cam*layercam@16, 224 + 448": BOTH,
    "cam, 224, affinity": [*PLAIN, "--refine", "affinity"],
    "cam*layercam@16, 224, affinity": [*PLAIN, "--method", "cam*layercam@16", "--refine", "affinity"],
    "cam, 224 + 448, affinity": [*PLAIN, "--scales", "224,448", "--refine", "affinity"],
    "cam*layercam@16, 224 + 448, affinity": [*BOTH, "--refine", "affinity"],
    "guidedbackprop, 224": [*PLAIN, "--method", "guidedbackprop"],
    "occlusion, 224": [*PLAIN, "--method", "occlusion"],
    "scorecam, 224": [*PLAIN, "--method", "scorecam"],
}
SLOW = {"occlusion, 224", "scorecam, 224"}
DELTAS = (0.3, 0.5, 0.7)
THRESHOLDS = tuple(round(0.05 * number, 2) for number in range(1, 15))
OTSU = ("0.8*otsu", "0.9*otsu", "1*otsu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--settings")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    wanted = [
        name for name in SETTINGS if (arguments.settings or "") in name and (arguments.settings or name not in SLOW)
    ]
    print(
        f"| {arguments.model} | pairs | GT-known .3 / .5 / .7 at t 0.25 | at 0.8*otsu | at 0.9*otsu | at 1*otsu "
        "| CorLoc | GT-known at best t | best-t V2 | centre .5 | AP50 of the run's boxes | ms |"
    )
    print(12 * "|---" + "|")
    for folder in arguments.data:
        for name in wanted:
            with tempfile.TemporaryDirectory() as output:
                label(folder, output, ["--model", arguments.model, *SETTINGS[name]], arguments.every)
                print(f"| {folder.name}: {name} {row(folder, output)}", flush=True)


def label(folder: Path, output: str, options: list[str], every: int = 1) -> None:
    header, *lines = (folder / "labels.csv").read_text().splitlines()
    paths = set(sorted({line.split(",")[0] for line in lines})[::every])
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as manifest:
        manifest.write("\n".join([header, *(line for line in lines if line.split(",")[0] in paths)]))
        manifest.flush()
        call = [sys.executable, "-m", "camboxes.pipeline.cli", "label", "--input", manifest.name, "--root", str(folder),
                "--output", output, "--overwrite", "--precision", "fp32", *options]  # fmt: skip
        if (folder / "label_map.json").exists():
            call += ["--label-map", str(folder / "label_map.json")]
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)


def row(folder: Path, output: str) -> str:
    truth = boxes_by_pair(json.loads((folder / "instances.json").read_text()))
    summary = json.loads(Path(output, "summary.json").read_text())
    which = summary["settings"]["rule"]["boxes"]
    maps = list(maps_of(output))
    pairs = [(map_, truth[map_[:2]]) for map_ in maps if map_[:2] in truth]
    at = {
        t: np.array([best_iou(draw(*map_[2:], t, which), boxes) for map_, boxes in pairs]) for t in (*OTSU, *THRESHOLDS)
    }
    otsu = [at.pop(t) for t in OTSU]
    centre = np.array([best_iou((0.1 * w, 0.1 * h, 0.8 * w, 0.8 * h), boxes) for (_, _, _, w, h), boxes in pairs])
    known = [[100 * (ious >= delta).mean() for delta in DELTAS] for ious in (at[0.25], *otsu)]
    best = [max(100 * (ious >= delta).mean() for ious in at.values()) for delta in DELTAS]
    # One threshold for all three, the best for their sum, as well as one for each.
    one = max(([100 * (ious >= delta).mean() for delta in DELTAS] for ious in at.values()), key=sum)
    run = summary["run"]
    milliseconds = run["counters"]["milliseconds_forward"] / run["counters"]["decoded"]
    by_category = collections.defaultdict(list)
    for ((_, category, *_), _), iou in zip(pairs, otsu[-1], strict=True):
        by_category[category].append(iou >= 0.5)
    corloc = 100 * np.mean([np.mean(hits) for hits in by_category.values()])
    return (
        f"| {len(pairs)} | {' | '.join(map(_shown, known))} | {corloc:.1f} | {_shown(one)} | {np.mean(best):.1f} "
        f"| {100 * (centre >= 0.5).mean():.1f} | {ap50(folder, output):.1f} | {milliseconds:.0f} |"
    )


def ap50(folder: Path, output: str) -> float:
    judged = judge(PlannedRun.load(output), read_ground_truth(str(folder / "instances.json")))
    matches = match_boxes(true_boxes(judged), judged.detections)
    return precision(matches, np.ones((1, len(judged.paths)))).ap50[0]


def _shown(values) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def boxes_by_pair(truth: dict) -> dict[tuple[str, str], list[list[float]]]:
    files = {image["id"]: image["file_name"] for image in truth["images"]}
    names = {category["id"]: category["name"] for category in truth["categories"]}
    boxes = collections.defaultdict(list)
    for annotation in truth["annotations"]:
        if not annotation["iscrowd"]:
            boxes[files[annotation["image_id"]], names[annotation["category_id"]]].append(annotation["bbox"])
    return boxes


def maps_of(output: str):
    """File name, category name, map, width and height of every map of a run."""
    for image in PlannedRun.load(output).rows():
        names = {label["category_id"]: label["label"] for label in image["labels"]}
        for stored in (stored for stored in image["maps"] if is_whole(stored, image)):
            name = Path(image["path"]).name, names[stored["category_id"]]
            yield *name, StoredMap.of(stored), image["width"], image["height"]


def draw(stored: StoredMap, width: int, height: int, threshold: float | str, which: str = "largest"):
    boxes = boxes_from_map(stored, width, height, BoxRule(threshold, boxes=which)).boxes
    return boxes[0].bbox if boxes else None


def best_iou(box, others) -> float:
    if box is None:
        return 0.0
    x, y, w, h = box
    best = 0.0
    for ox, oy, ow, oh in others:
        common = max(0.0, min(x + w, ox + ow) - max(x, ox)) * max(0.0, min(y + h, oy + oh) - max(y, oy))
        best = max(best, common / (w * h + ow * oh - common))
    return best


if __name__ == "__main__":
    main()
