"""What the pipeline costs beside a bare loop over the same images, with the same network and settings.

    python benchmarks/throughput.py DATA_FOLDER [--rounds N]

A data folder holds images/, labels.csv and label_map.json. The bare loop reads, decodes and resizes the images one
after the other, runs them in batches, and computes a class activation map for each; nothing else. The command is
`camboxes label` with the same maps, from the list of files to COCO on disk. Start-up is left out of both: the loop's
clock starts when the network is loaded and warm, and from the command's time that of the same command on a single image
is taken off. The two take turns; the ratio is that of each round.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from quality import PLAIN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare-loop", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare_loop:
        bare_loop(arguments.data)
        return
    ratios = []
    for _ in range(arguments.rounds):
        loop = json.loads(
            subprocess.run(
                [sys.executable, __file__, str(arguments.data), "--bare-loop"], check=True, capture_output=True
            ).stdout
        )
        single, _ = label(arguments.data, rows=1)
        whole, summary = label(arguments.data)
        images = summary["images"]["planned"]
        command = (whole - single) * images / (images - 1)
        ratios.append(command / loop["seconds"])
        print(
            f"{images} images: bare loop {images / loop['seconds']:.1f} images/s, "
            f"{loop['peak_memory_bytes'] / 2**20:.0f} MiB; "
            f"command {images / command:.1f} images/s, {summary['run']['peak_memory_bytes'] / 2**20:.0f} MiB "
            f"(start-up {single:.1f} s left out); time of the command / time of the loop: {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.3f}")


def label(folder: Path, rows: int | None = None) -> tuple[float, dict]:
    with tempfile.TemporaryDirectory() as output:
        listed = (folder / "labels.csv").read_text().splitlines()
        manifest = Path(output, "some.csv")
        manifest.write_text("\n".join(listed[: None if rows is None else rows + 1]))
        call = [sys.executable, "-m", "camboxes.pipeline.cli", "label", "--input", str(manifest), "--root", str(folder),
                "--label-map", str(folder / "label_map.json"), "--output", f"{output}/run", *PLAIN]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(call, check=True, capture_output=True)
        return time.perf_counter() - start, json.loads(Path(output, "run", "summary.json").read_text())


def bare_loop(folder: Path) -> None:
    import resource

    import numpy as np
    import torch
    from PIL import Image

    from camboxes.models import load_classifier

    classifier = load_classifier("efficientnet_lite0")
    label_map = json.loads((folder / "label_map.json").read_text())
    with (folder / "labels.csv").open() as file:
        images = [(folder / row["path"], label_map[row["label"]]) for row in csv.DictReader(file)]
    images = [(path, classes[0]) for path, classes in images if classes]
    size = classifier.spec.batch_size
    classifier.infer(torch.zeros(size, 3, classifier.spec.size, classifier.spec.size, dtype=torch.uint8))
    start = time.perf_counter()
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        photographs = [np.array(Image.open(path).convert("RGB")) for path, _ in batch]
        features, _ = classifier.infer(torch.stack([classifier.preprocessing.resize(p) for p in photographs]))
        torch.einsum("nchw,nc->nhw", features, classifier.weight[[index for _, index in batch]])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main()
