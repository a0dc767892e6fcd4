"""How long a run of 10,000 images takes to load into FiftyOne, by stage: python benchmarks/review.py [IMAGES].

The photographs are small drawings, and their rows, with a map and one or two boxes each, are written by hand into
shards: what is timed is the loading. FiftyOne's database is the one that it would start, or FIFTYONE_DATABASE_URI's.
"""

import hashlib
import importlib
import inspect
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from camboxes.transforms import Plan, PlannedRun, storage
from camboxes.transforms.boxes.from_map import BoxRule
from camboxes.transforms.boxes_from_maps import draw
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.write import merge

SIDE = 160


# What `load_dataset` does, by the functions that do it.
STAGES = {
    "comparing the photographs": ("local_photographs", "places"),
    "reading shards": ("fiftyone_dataset", "_rows"),
    "making documents": ("fiftyone_dataset", "_document"),
    "of that, heat maps": ("fiftyone_dataset", "_heat_map"),
    "encoding and inserting": ("fiftyone_dataset", "_write"),
    "asking what is there": ("fiftyone_dataset", "_present"),
    "the dataset, its fields and indexes": ("fiftyone_dataset", "_opened"),
    "saved views": ("fiftyone_dataset", "_save_views"),
    "the Annotate tab": ("fiftyone_dataset", "_let_annotate"),
}


def main(images: int) -> None:
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        planned = timed("made a run of it", lambda: make(Path(folder), images, generator))
        start = time.monotonic()
        import fiftyone as fo

        from camboxes.pipeline.review import fiftyone_dataset, load_dataset

        fo.list_datasets()
        print(f"{time.monotonic() - start:6.1f} s  imported FiftyOne and started its database")
        spent = clocked()
        try:
            for what in ("loaded it", "loaded it again"):
                spent.update(dict.fromkeys(STAGES, 0.0))
                timed(what, lambda: load_dataset(planned.output))
                for stage, seconds in spent.items():
                    print(f"  {seconds:8.2f} s  {stage}")
        finally:
            fo.delete_dataset(fiftyone_dataset.dataset_name(planned.output))
    print(f"load average {os.getloadavg()[0]:.1f}")


def clocked() -> dict[str, float]:
    """Puts a clock around every stage's function; gives the seconds that they add up, by stage."""
    spent = dict.fromkeys(STAGES, 0.0)
    for stage, (module, name) in STAGES.items():
        home = importlib.import_module(f"camboxes.pipeline.review.{module}")
        function = getattr(home, name)
        around = clocked_items if inspect.isgeneratorfunction(function) else clocked_call
        setattr(home, name, around(function, stage, spent))
    return spent


def clocked_call(function, stage, spent):
    def call(*arguments):
        start = time.perf_counter()
        result = function(*arguments)
        spent[stage] += time.perf_counter() - start
        return result

    return call


def clocked_items(function, stage, spent):
    def call(*arguments):
        items, last = function(*arguments), object()
        following = clocked_call(next, stage, spent)
        while (item := following(items, last)) is not last:
            yield item

    return call


def make(folder: Path, images: int, generator: np.random.Generator) -> PlannedRun:
    pixels = generator.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    paths = [f"{'cat' if number % 2 else 'dog'}/{number:06d}.jpg" for number in range(images)]
    for path in paths:
        (folder / path).parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / "one.jpg")
    data = (folder / "one.jpg").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    for path in paths:
        (folder / path).write_bytes(data)
    lines = ["path,label", *(f"{path},{Path(path).parent}" for path in paths)]
    (folder / "labels.csv").write_text("\n".join(lines))
    rule = BoxRule(0.25, boxes="all")
    settings = {"rule": {"threshold": 0.25, "min_area": 0.0, "boxes": "all", "thresholds": {}}}
    planned = Plan(str(folder / "run"), [("cat",), ("dog",)], settings=settings).make(str(folder / "labels.csv"))
    for key in planned.shards:
        rows = []
        for row in planned.planned_rows(key).to_pylist():
            cells = (generator.random((7, 7)) ** 3 * 255).astype(np.uint8)
            [label] = row["labels"]
            stored = {"category_id": label["category_id"], "height": 7, "width": 7, "raw_min": 0.0, "raw_max": 9.0}
            stored |= {"cells": cells.tobytes(), "rectangle": [0, 0, SIDE, SIDE], "method": "cam", "scales": [224]}
            labels = [label | {"class_index": 0, "probability": float(generator.random()), "logit": 1.0}]
            base = {name: row[name] for name in ("image_id", "path")}
            base |= {"status": "ok", "width": SIDE, "height": SIDE, "digest": digest}
            rows.append(draw(base | {"reason": None, "labels": labels, "maps": [stored]}, rule))
        storage.write_table(shard_file(planned.output, key), table(rows, LABELED, {}))
    merge([], planned.output)
    return planned


def timed(what, function):
    start = time.monotonic()
    result = function()
    print(f"{time.monotonic() - start:6.1f} s  {what}", flush=True)
    return result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
