"""Which cut should be the default? Chosen by cross-validation, for several data sets at once.

    python benchmarks/cutting.py DATA_FOLDER RUN [DATA_FOLDER RUN ...] [--rounds N]

Data folders are those of quality.py; each RUN is a run of `camboxes label` over its images. A cut is a threshold (a
fixed one, or a share of each map's Otsu level) with the largest component or that at the peak. In each round the images
of every data set fall into five parts; the cut with the highest mean over the data sets of V2 (the mean of GT-known at
IoU 0.3, 0.5 and 0.7, at one cut for all three) on four parts is judged on the fifth.
"""

import argparse
import collections
import json
from pathlib import Path

import numpy as np
from quality import DELTAS, best_iou, boxes_by_pair, maps_of

from camboxes.transforms.boxes.from_map import BoxRule, WorkingMap

THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, *(f"{share:g}*otsu" for share in (0.7, 0.8, 0.9, 1.0, 1.1)))
RULES = [BoxRule(threshold, boxes=which) for which in ("largest", "peak") for threshold in THRESHOLDS]
PARTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="a data folder, its run, another data folder, ...")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    pairs = list(zip(arguments.data[::2], arguments.data[1::2], strict=True))
    sets = [hits(Path(folder), run) for folder, run in pairs]
    random = np.random.default_rng(0)
    chosen: collections.Counter[int] = collections.Counter()
    held_out: list[list[np.ndarray]] = [[] for _ in sets]
    for _ in range(arguments.rounds):
        parts = [random.permutation(images.max() + 1)[images] % PARTS for images, _ in sets]
        for part in range(PARTS):
            seen = [found[of != part].mean(axis=(0, 2)) for of, (_, found) in zip(parts, sets, strict=True)]
            best = int(np.mean(seen, axis=0).argmax())
            chosen[best] += 1
            for judged, of, (_, found) in zip(held_out, parts, sets, strict=True):
                judged.append(found[of == part, best])
    for rule, times in chosen.most_common():
        print(f"{RULES[rule].threshold}, {RULES[rule].boxes}: chosen {times} of {arguments.rounds * PARTS} times")
    print("| | held out, .3 / .5 / .7 | V2 |\n|---|---|---|")
    for (folder, _), judged in zip(pairs, held_out, strict=True):
        shares = 100 * np.concatenate(judged).mean(axis=0)
        print(f"| {Path(folder).name} | {' / '.join(f'{share:.1f}' for share in shares)} | {shares.mean():.1f} |")


def hits(folder: Path, run: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair the number of its image, and by rule and IoU whether its box reaches it: bool [pairs, rules, 3]."""
    truth = boxes_by_pair(json.loads((folder / "instances.json").read_text()))
    names, found = [], []
    for name, label, stored, width, height in maps_of(run):
        if (name, label) in truth:
            working = WorkingMap(stored, width, height)
            drawn = [working.draw(rule).boxes for rule in RULES]
            names.append(name)
            found.append([best_iou(boxes[0].bbox if boxes else None, truth[name, label]) for boxes in drawn])
    return np.unique(names, return_inverse=True)[1], np.array(found)[:, :, None] >= np.array(DELTAS)


if __name__ == "__main__":
    main()
