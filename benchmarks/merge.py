"""How much memory and time the merge of a large run takes.

    python benchmarks/merge.py [--boxes N]

Writes the shards of a run of N made-up boxes, two an image, 256 images a shard, to a temporary folder; then merges them
into annotations.json and results.json in a process of its own, and prints that process's peak memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time

from camboxes.transforms import Plan, storage
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table

# VmHWM and not getrusage: that one counts what the parent held when it forked.
MERGE = """
import json, pathlib, re, sys, time
from camboxes.transforms.write import merge

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

imported, start = peak(), time.perf_counter()
boxes = merge([], sys.argv[1])["annotations"]
print(json.dumps({"boxes": boxes, "seconds": time.perf_counter() - start, "imported": imported, "peak": peak()}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make_run(folder, arguments.boxes // 2)
        made = time.perf_counter() - start
        done = subprocess.run([sys.executable, "-c", MERGE, folder], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        print(
            f"{found['boxes']} boxes merged in {found['seconds']:.0f} s (made in {made:.0f} s): peak memory "
            f"{found['peak']:.0f} MiB, of which {found['imported']:.0f} MiB before the first shard was read"
        )


def make_run(folder: str, images: int) -> None:
    manifest = storage.join(folder, "m.csv")
    paths = (f"folder/photograph-{number:08d}.jpg" for number in range(images))
    lines = [f"{path},{label}" for path in paths for label in ("cat", "dog")]
    storage.write_bytes(manifest, ("path,label\n" + "\n".join(lines)).encode())
    run = Plan(folder, [("cat",), ("dog",)]).make(manifest)
    for key in run.shards:
        rows = [row | ROW | {"labels": LABELS} for row in run.planned_rows(key).to_pylist()]
        storage.write_table(shard_file(folder, key), table(rows, LABELED, {}))


LABELS = [
    {"label": label, "category_id": number, "class_index": number, "logit": 1.0, "probability": 0.5}
    for number, label in ((1, "cat"), (2, "dog"))
]
BOXES = [
    {"category_id": number, "bbox": [10.25, 20.5, 300.75, 200.0], "score": 0.123456, "rank": 1,
     "box_uid": "0123456789abcdef", "component_area": 0.25, "threshold": 0.25}
    for number in (1, 2)
]  # fmt: skip
MAPS = [
    {"category_id": number, "height": 7, "width": 7, "raw_min": -1.0, "raw_max": 9.0, "cells": bytes(range(49)),
     "rectangle": [0, 0, 640, 480], "method": "cam", "scales": [224]}
    for number in (1, 2)
]  # fmt: skip
ROW = {"digest": "0" * 64, "width": 640, "height": 480, "status": "ok", "top5": [], "maps": MAPS, "boxes": BOXES}

if __name__ == "__main__":
    main()
