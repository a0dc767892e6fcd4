"""How time and memory of a job grow with its images: plan, network for some of them, merge of all.

    python benchmarks/scale.py [--images N] [--inferred N]

Does so for N images (2,000,000), and for a tenth of them, each in a process of its own, with a pass on each core. All
are planned from a CSV. Some (100,000, or a tenth) are small photographs and go through a tiny network; the rows of all
others are made up, one box each, and their time is not counted. Then everything is merged. Prints the seconds of each
part, and the peak memory of the process, the imports of PyTorch and Beam included.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import timm
import torch
from merge import BOXES, LABELS, MAPS, ROW
from PIL import Image
from speed_memory import NETWORK, SIDE, peak

from camboxes.models import ModelSpec
from camboxes.pipeline.commands import demo
from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.transforms import BoxesFromMaps, InferClassMaps, Plan, PlannedRun, Shard, storage
from camboxes.transforms.planning.plan import read_shard, shard_file
from camboxes.transforms.read import ReadByKey
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.write import merge

MADE_UP = ROW | {"labels": LABELS[:1], "boxes": BOXES[:1], "maps": MAPS[:1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_000_000, metavar="N")
    parser.add_argument("--inferred", type=int, default=100_000, metavar="N")
    parser.add_argument("--alone", action="store_true", help="this number alone, in this process")
    arguments = parser.parse_args()
    if arguments.alone:
        with tempfile.TemporaryDirectory(prefix="camboxes-scale-") as folder:
            print(json.dumps(job(Path(folder), arguments.images, arguments.inferred)))
        return
    found = []
    for part in (10, 1):
        call = [sys.executable, __file__, "--alone"]
        call += ["--images", str(arguments.images // part), "--inferred", str(arguments.inferred // part)]
        done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(", ".join(f"{name} {value:,.1f}" for name, value in found[-1].items()), flush=True)
    print(", ".join(f"{name} x {found[1][name] / found[0][name]:.2f}" for name in found[0]))


def job(folder: Path, images: int, inferred: int) -> dict[str, float]:
    manifest, output = folder / "m.csv", str(folder / "run")
    with manifest.open("w") as file:
        file.write("path,label\n")
        file.writelines(f"{number // 1000:06d}/photograph-{number:09d}.jpg,cat\n" for number in range(images))
    seconds = {}
    run, seconds["plan"] = timed(lambda: Plan(output, [("cat",)]).make(str(manifest)))
    ends = itertools.accumulate(run.shards.values())
    keys = [key for key, end in zip(run.shards, ends, strict=True) if end <= inferred]
    link_photographs(folder, run, keys)
    _, seconds["inference"] = timed(lambda: infer(run, keys, tiny_network(folder)))
    settings = read_shard(output, keys[0], []).settings
    for key in set(run.shards) - set(keys):
        rows = [row | MADE_UP for row in run.planned_rows(key).select(["image_id", "path"]).to_pylist()]
        storage.write_table(shard_file(output, key), table(rows, LABELED, settings))
    summary, seconds["merge"] = timed(lambda: merge([], output))
    assert summary["images"]["planned"] == images == sum(run.shards.values()), summary["images"]
    return {"images": images, **seconds, "all": sum(seconds.values()), "peak MiB": peak(os.getpid())}


def timed(work: Callable) -> tuple:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def link_photographs(folder: Path, run: PlannedRun, keys: list[str]) -> None:
    """Hard links to the demo's photographs, as small as the network's input."""
    demo.gather(folder / "photographs")
    files = sorted(path for path in (folder / "photographs").rglob("*") if path.is_file())
    for path in files:
        with Image.open(path) as photograph:
            photograph.convert("RGB").resize((SIDE, SIDE)).save(path, "JPEG")
    paths = (path for key in keys for path in run.planned_rows(key).column("path").to_pylist())
    for path, file in zip(paths, itertools.cycle(files), strict=False):
        (folder / path).parent.mkdir(exist_ok=True)
        os.link(file, folder / path)


def tiny_network(folder: Path) -> ModelSpec:
    torch.save(timm.create_model(NETWORK).state_dict(), folder / "tiny.pth")
    return ModelSpec(f"timm:{NETWORK}", str(folder / "tiny.pth"), SIDE, aspect="squash")


def infer(run: PlannedRun, keys: list[str], model: ModelSpec) -> None:
    def write(shard: Shard) -> None:
        storage.write_table(shard_file(run.output, shard.key), shard.rows)

    with beam.Pipeline(options=beam_options([])) as p:
        shards = p | beam.Create(keys, reshuffle=False) | ReadByKey(run.output)
        shards | InferClassMaps(model) | BoxesFromMaps(0.25) | beam.Map(write)


if __name__ == "__main__":
    main()
