"""The literature's box metrics as a Beam job: two processes against one, and memory as the number of maps grows.

    python benchmarks/wsol_job.py RUN GROUND_TRUTH [--maps N]

RUN is a finished run of `camboxes label`, GROUND_TRUTH COCO boxes of its images; its maps are judged over and over, at
step 0.001. Prints the time that N maps take beyond what ten take (start-up, imports), in one process and in two, their
ratio, and the peak memory of a worker process at N and at 10,000 maps. Wants a machine with nothing else to do.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apache_beam as beam
import numpy as np

from camboxes.pipeline.evaluation.matching import match
from camboxes.pipeline.formats.readers import read_ground_truth
from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.transforms import PlannedRun
from camboxes.transforms.wsol.combiners import BoxedMap, MaxBoxAcc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("ground_truth")
    parser.add_argument("--maps", type=int, default=2000)
    parser.add_argument("--job", nargs=2, type=int, metavar=("MAPS", "PROCESSES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        job(arguments, *arguments.job)
        return
    seconds, memory = {}, {}
    for processes in (1, 2):
        start, _ = measured(arguments, 10, processes)
        whole, memory[processes] = measured(arguments, arguments.maps, processes)
        seconds[processes] = whole - start
        print(f"{processes} processes: {arguments.maps} maps in {seconds[processes]:.1f} s", flush=True)
    print(f"two processes are {seconds[1] / seconds[2]:.2f} x one")
    _, large = measured(arguments, 10_000, 2)
    print(f"peak of a process: {memory[2]:.0f} MiB at {arguments.maps} maps, {large:.0f} MiB at 10000")


def measured(arguments, maps: int, processes: int) -> tuple[float, float]:
    """Seconds and MiB of a job in processes of its own."""
    start = time.perf_counter()
    call = [sys.executable, __file__, arguments.run, arguments.ground_truth, "--job", str(maps), str(processes)]
    found = subprocess.run(call, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return time.perf_counter() - start, float(found.stdout.split()[-1])


def job(arguments, maps: int, processes: int) -> None:
    boxed = list(boxed_maps(arguments.run, arguments.ground_truth))
    options = ["--direct_num_workers", str(processes)]
    if processes > 1:
        options += ["--direct_running_mode", "multi_processing"]
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(options=beam_options(options)) as p:
            numbers = p | beam.Create(range(maps)) | beam.Reshuffle()
            judged = (
                numbers | beam.Map(lambda number: boxed[number % len(boxed)]) | beam.CombineGlobally(MaxBoxAcc(0.001))
            )
            peaks = numbers | "Peak" >> beam.Map(lambda _: peak()) | "Highest" >> beam.CombineGlobally(max)
            _ = judged | beam.Map(lambda found: Path(folder, "value").write_text(f"{found.max_box_acc.value:.1f}"))
            _ = peaks | "Write" >> beam.Map(lambda found: Path(folder, "peak").write_text(f"{found:.0f}"))
        print(Path(folder, "value").read_text(), Path(folder, "peak").read_text())


def peak() -> float:
    """The most memory that this process ever had, in MiB."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def boxed_maps(run: str, ground_truth: str):
    planned = PlannedRun.load(run)
    truths = match(planned, read_ground_truth(ground_truth)).truths
    for row in planned.rows(["path", "width", "height", "labels", "maps"]):
        names = {label["category_id"]: label["label"] for label in row["labels"]}
        for stored in row["maps"]:
            true = truths[row["path"]].boxes.get(names[stored["category_id"]])
            if true is not None:
                cells = np.frombuffer(stored["cells"], np.uint8).reshape(stored["height"], stored["width"])
                corners = np.concatenate([true[:, :2], true[:, :2] + true[:, 2:]], axis=1).tolist()
                yield BoxedMap(row["path"], cells.astype(np.float32), corners, row["width"], row["height"])


if __name__ == "__main__":
    main()
