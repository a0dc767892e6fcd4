"""What `camboxes evaluate` takes, on runs whose rows are those of a finished run over and over.

    python benchmarks/speed_evaluation.py RUN [--rounds N]

Boxes are drawn again at other thresholds on MOST_REDRAWN images at the most; of all others the boxes that they have are
judged. So two figures are printed, as JSON, each the median of the rounds: milliseconds for an image beyond those that
are drawn again, from calls on 2 and on 22 times as many; and the seconds that are left of the smaller call, which are
those of start-up and of drawing again, and do not grow with the run. The run's own boxes stand for the true ones, so
that there is one for each that it has, and photographs are not found again for the report.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from camboxes.pipeline.evaluation.redrawing import MOST_REDRAWN
from camboxes.transforms import Plan, PlannedRun, storage
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.write import merge

FEW, MANY = 2 * MOST_REDRAWN, 22 * MOST_REDRAWN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run's folder")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    beyond, before = [], []
    with tempfile.TemporaryDirectory(prefix="camboxes-evaluation-") as folder:
        runs = {images: Path(folder) / str(images) for images in (FEW, MANY)}
        for images, run in runs.items():
            repeat(arguments.run, run, images)
            merge([], str(run))
        for _ in range(arguments.rounds):
            few, many = (evaluate(run) for run in runs.values())
            beyond.append((many - few) / (MANY - FEW))
            before.append(few - (FEW - MOST_REDRAWN) * beyond[-1])
    print(
        json.dumps(
            {
                "milliseconds_an_image": 1000 * statistics.median(beyond),
                "seconds_of_what_is_drawn_again": statistics.median(before),
            }
        )
    )


def repeat(source: Path, run: Path, images: int) -> None:
    """Writes a finished run of so many images, whose rows are those of another one over and over."""
    planned = PlannedRun.load(str(source))
    assert planned is not None, f"{source} was labelled before"
    rows = list(planned.rows())
    run.mkdir()
    labels = [[label["label"] for label in row["labels"]] for row in rows]
    lines = [json.dumps({"path": f"{n}.jpg", "labels": labels[n % len(rows)]}) for n in range(images)]
    (run / "m.jsonl").write_text("\n".join(lines))
    classes = {category.name: list(category.class_indices) for category in planned.categories}
    names = [(str(index),) for index in range(1000)]
    repeated = Plan(str(run), names, label_map=classes, settings=planned.settings).make(str(run / "m.jsonl"))
    for key in repeated.shards:
        made = []
        for row in repeated.planned_rows(key).select(["image_id", "path"]).to_pylist():
            made.append(rows[int(row["path"].removesuffix(".jpg")) % len(rows)] | row)
        storage.write_table(shard_file(str(run), key), table(made, LABELED, planned.recorded_settings()))


def evaluate(run: Path) -> float:
    """Seconds of a call."""
    call = [sys.executable, "-m", "camboxes.pipeline.cli", "evaluate", "--run", run]
    start = time.perf_counter()
    done = subprocess.run([*call, "--ground-truth", run / "annotations.json"], check=False, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
