"""What does it cost in boxes that large JPEGs are decoded at a part of their size?

    python benchmarks/decoding.py DATA_FOLDER [--size N]

The data folder is one of quality.py's. Those of its photographs whose short side is at least four times the network's
input of N pixels are labelled twice, by plain CAM: as they are, and as PNGs of the same pixels, which are decoded
whole. Prints how many boxes have IoU 0.95 or more to those of whole photographs, and GT-known of both.
"""

import argparse
import csv
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from quality import DELTAS, PLAIN, best_iou, boxes_by_pair, label

from camboxes.transforms import PlannedRun

Pair = tuple[str, str]  # the name of a photograph without what stands behind its point, and a label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=112, metavar="N")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = Path(folder, "scaled"), Path(folder, "whole")
        rows = list(csv.reader((arguments.data / "labels.csv").open()))
        large = {path for path, _ in rows[1:] if is_large(arguments.data / path, 4 * arguments.size)}
        for path in sorted(large):
            for kind in kinds:
                (kind / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(arguments.data / path, kinds[0] / path)
            with Image.open(arguments.data / path) as image:
                ImageOps.exif_transpose(image).convert("RGB").save((kinds[1] / path).with_suffix(".png"))
        found = []
        for kind, suffix in zip(kinds, (".jpg", ".png"), strict=True):
            named = [(str(Path(path).with_suffix(suffix)), name) for path, name in rows[1:] if path in large]
            with (kind / "labels.csv").open("w") as manifest:
                csv.writer(manifest).writerows([rows[0], *named])
            shutil.copy(arguments.data / "label_map.json", kind)
            label(kind, f"{kind}-run", [*PLAIN, "--scales", str(arguments.size)])
            found.append(first_boxes(f"{kind}-run"))
    truth = boxes_by_pair(json.loads((arguments.data / "instances.json").read_text()))
    true = {(Path(name).stem, label_): boxes for (name, label_), boxes in truth.items()}
    scaled, whole = found
    same = [best_iou(box, [whole[pair]]) >= 0.95 for pair, box in scaled.items() if pair in whole]
    print(f"{len(large)} photographs, {len(whole)} boxes: {100 * sum(same) / len(whole):.1f}% have IoU 0.95 or more")
    for name, boxes in (("scaled", scaled), ("whole", whole)):
        ious = np.array([best_iou(boxes.get(pair), of_pair) for pair, of_pair in true.items() if pair in whole])
        print(f"{name}: GT-known", " / ".join(f"{100 * (ious >= delta).mean():.1f}" for delta in DELTAS))


def is_large(path: Path, side: int) -> bool:
    with Image.open(path) as image:
        return min(image.size) >= side


def first_boxes(output: str) -> dict[Pair, list[float]]:
    boxes = {}
    for row in PlannedRun.load(output).rows(["path", "labels", "boxes"]):
        names = {entry["category_id"]: entry["label"] for entry in row["labels"]}
        for box in row["boxes"]:
            boxes.setdefault((Path(row["path"]).stem, names[box["category_id"]]), box["bbox"])
    return boxes


if __name__ == "__main__":
    main()
