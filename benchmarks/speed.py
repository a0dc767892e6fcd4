"""How close a labelling job comes to what the hardware gives, and to what a user would write with other libraries.

    python benchmarks/speed.py [--parts PART ...] [--networks NAME ...] [--json FILE] [--images FOLDER] [--count N]
                               [--rounds N] [--price DOLLARS_PER_HOUR] [--curves FILE.png] [--memory-images N]

Two networks, EfficientNet-Lite0 and ResNet-50, on the same JPEGs of about 500 x 375 pixels: crops of the demo's
photographs or of those in a folder (speed_images.py, which also says why ResNet-50 may have random weights).

    plain      `camboxes label` as a user calls it, plain CAM at 224, from a manifest to COCO on disk and the report
    peers      loops as the documentation of torchcam and grad-cam has them, CAM and GradCAM: speed_peers.py
    processes  the same as plain, with one process on one core, and with two on two, one thread each
    defaults   `camboxes label` with its own defaults, on fewer images
    rebox      `camboxes rebox` in two processes, on a run of that network's real maps, repeated
    once       what merging and `camboxes evaluate` take (speed_evaluation.py), and where an image's time goes, on one
               core (speed_stages.py); measured once
    memory     peak of N (100,000) small images over that of a twentieth, a tiny network: speed_memory.py

A job's rate is the steady one, from the times at which its images are done (steady.py). Start-up and the report are not
in it; the time until the first image is done has a row of its own. Its limit is what bare passes and bare decoding give
on the same cores, measured right before the job and right after (speed_ceiling.py); a ratio is to the mean of the two.
A job that is faster than both is measured again, and ends the benchmark the third time. All this is also done by CPU
time, with which other programs on the machine hardly interfere; it does not tell whether cores are idle.

Those of a round take turns, and one runs at a time. Medians over the rounds stand beside the lowest and the highest.
ResNet-50 gets half of the images. Wants Linux, and a machine with nothing else to do.
"""

import argparse
import contextlib
import functools
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from quality import PLAIN
from speed_curves import draw
from speed_evaluation import repeat
from speed_images import NETWORKS, make_images, make_network
from speed_memory import peaks
from steady import Mark, Rates, paired, spread, steady_rates, watch

from camboxes.transforms import PlannedRun
from camboxes.transforms.planning.plan import shard_file

HERE = Path(__file__).parent
CAMBOXES = [sys.executable, "-m", "camboxes.pipeline.cli"]
PARTS = ("plain", "peers", "processes", "defaults", "rebox", "once", "memory")
TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
SHARED_ROWS = 32  # of a shard where two processes share the work: no process waits long for the other's last one
SHARES = {"efficientnet_lite0": 1, "resnet50": 2}  # of how many images a network gets one
DEFAULTS_SHARE = 5  # likewise, a job with the defaults
PEER_IMAGES = {"torchcam": 15, "gradcam": 30}  # likewise, the peers

MERGE = """
import sys, time
from camboxes.transforms.write import merge
start = time.perf_counter()
merge([], sys.argv[1])
print(time.perf_counter() - start)
"""


class Network(NamedTuple):
    """A network on a device: what it is called, how each of the programs takes it, and how many images it gets."""

    name: str
    device: str
    options: list[str]
    described: Path
    images: int


Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="default: all")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photographs to crop (default: the demo's)")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="images (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--price", type=float, default=0.10, metavar="DOLLARS_PER_HOUR", help="of the machine (default: %(default)s)"
    )
    parser.add_argument("--curves", type=Path, metavar="FILE.png", help="draw rates over images and processes")
    parser.add_argument("--memory-images", type=int, default=100_000, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="camboxes-speed-") as folder:
        found = measure(Path(folder), arguments)
    print_table(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(folder: Path, arguments: argparse.Namespace) -> dict:
    data = folder / "data"
    say(f"making {arguments.count} images")
    make_images(data, arguments.count, arguments.images)
    options = {name: make_network(name, data) for name in arguments.networks}
    networks = [
        Network(name, device, options[name], data / f"{name}.json", arguments.count // SHARES[name])
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
        for name in arguments.networks
    ]
    memory = memory_figures(folder, data, arguments.memory_images) if "memory" in arguments.parts else None
    columns: dict[str, dict[str, dict]] = {"cpu": {}, "cuda": {}}
    for network in networks:
        columns[network.device][network.name] = column(folder, data, network, arguments)
    if arguments.curves:
        on_cpu = [network for network in networks if network.device == "cpu"]
        draw_curves(arguments.curves, folder, data, on_cpu, columns["cpu"])
    return {
        "networks": columns["cpu"],
        **({"gpu": columns["cuda"]} if columns["cuda"] else {}),
        "rounds": arguments.rounds,
        "price_per_hour": arguments.price,
        **({"memory": memory} if memory else {}),
        "machine": machine(),
    }


class Limit:
    """A running speed_ceiling.py, which measures when it is asked to.

    Attributes:
      grid: images/s of each of its settings.
    """

    def __init__(self, data: Path, network: Network, passes: str, cores: tuple[int, ...]):
        """Starts it on these cores, or on all where none are given, and waits until it has gone through its grid."""
        say(f"the limit: {passes} passes of {network.name} on {network.device}, {len(cores) or 'all'} cores")
        call = [sys.executable, HERE / "speed_ceiling.py", data, network.described, "--maps", passes]
        self._process = subprocess.Popen(
            [*map(str, call), "--device", network.device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **pinned(cores),
        )
        self.grid = self._line()

    def measured(self) -> Rates:
        """The limit now."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Rates(**self._line())

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()

    def _line(self) -> Figures:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("speed_ceiling.py ended: its message stands above")
        return json.loads(line)


class Job(NamedTuple):
    """A call of `camboxes label`: whose passes limit it, how many images it gets, its options, its cores if not all."""

    passes: str
    images: int
    options: list[str]
    cores: tuple[int, ...] = ()


def jobs_of(network: Network, parts: Sequence[str]) -> dict[str, Job]:
    device, images = ["--device", network.device], network.images
    jobs = {}
    if "plain" in parts:
        jobs["end_to_end"] = Job("plain", images, [*PLAIN, *device])
    if "processes" in parts and network.device == "cpu":
        cores = tuple(sorted(os.sched_getaffinity(0)))
        if len(cores) < 2:
            raise SystemExit("two processes need two cores, and this process may use one; give it a second one")
        shards = ["--shards", str(2 * max(2, math.ceil(images / SHARED_ROWS / 2)))]  # as many for either process
        jobs["one_process"] = Job("plain", images, [*PLAIN, *device, *shards], cores[:1])
        jobs["two_processes"] = Job(
            "plain", images, [*PLAIN, *device, *shards, *TWO_PROCESSES], cores[2:] and cores[:2]
        )
    if "defaults" in parts:
        jobs["defaults"] = Job("default", images // DEFAULTS_SHARE, device)
    return jobs


def column(folder: Path, data: Path, network: Network, arguments: argparse.Namespace) -> dict:
    """All figures of a network on a device."""
    parts, jobs, rounds = arguments.parts, jobs_of(network, arguments.parts), []
    with contextlib.ExitStack() as running:
        limits = {
            kind: running.enter_context(contextlib.closing(Limit(data, network, *kind)))
            for kind in dict.fromkeys((job.passes, job.cores) for job in jobs.values())
        }
        for number in range(arguments.rounds):
            say(f"round {number + 1} of {arguments.rounds}: {network.name} on {network.device}")
            rounds.append(one_round(folder, data, network, parts, jobs, limits))
            say(", ".join(f"{name} {shown(value)}" for name, value in rounds[-1].items()))
        grids = {f"{passes}, {len(cores) or 'all'} cores": limit.grid for (passes, cores), limit in limits.items()}
    found = summary(rounds, arguments.price) | {"images": network.images, "grids": grids}
    if "once" in parts and network.device == "cpu":
        say(f"{network.name}: merge, evaluation, stages")
        found |= measured_once(folder, data, network, found["rates"])
    return found


def one_round(
    folder: Path,
    data: Path,
    network: Network,
    parts: Sequence[str],
    jobs: dict[str, Job],
    limits: dict[tuple[str, tuple[int, ...]], Limit],
) -> Figures:
    """Images/s of everything, in turn, each job between two measurements of its limit; and the ratios."""
    found: Figures = {}
    for name, job in jobs.items():
        limit = limits[job.passes, job.cores]

        def rates(name=name, job=job, found=found) -> Rates:
            marks, _ = label(data, network, job.images, folder / f"{network.name}-{name}", job.options, job.cores)
            found[f"{name}_start_up_seconds"] = marks[1].seconds
            return steady_rates(marks)

        for by, own, mean in zip(("", "_by_cpu"), *paired(name, rates, limit.measured), strict=True):
            found |= {f"{name}{by}": own, f"{name}{by}_limit": mean, f"{name}{by}_over_limit": own / mean}
    if "processes" in parts and network.device == "cpu":
        found["two_processes_over_one"] = found["two_processes"] / found["one_process"]
    if "peers" in parts:
        for library, share in PEER_IMAGES.items():
            call = ["speed_peers.py", library, data, network.described, "--device", network.device]
            found[library] = printed([*call, "--images", max(16, network.images // share)])["images_per_second"]
            if "plain" in parts:
                found[f"end_to_end_over_{library}"] = found["end_to_end"] / found[library]
    if "rebox" in parts and network.device == "cpu":
        found["rebox_images_per_second"] = rebox(folder, data, network)
    return found


def plain_run(folder: Path, data: Path, network: Network) -> Path:
    """A finished run of plain CAM."""
    run = folder / f"{network.name}-end_to_end"
    if not run.exists():
        label(data, network, network.images, run, PLAIN)
    return run


def rebox(folder: Path, data: Path, network: Network) -> float:
    """Images/s of `camboxes rebox` in two processes, on a run of this network's maps, repeated."""
    run, output = folder / f"{network.name}-repeated", folder / f"{network.name}-rebox"
    if not run.exists():  # what a run costs does not depend on the network
        repeat(plain_run(folder, data, network), run, 5 * network.images * SHARES[network.name])
    call = [*CAMBOXES, "rebox", "--run", run, "--output", output, "--overwrite", "--threshold", "0.4"]
    output_of([*call, *TWO_PROCESSES])
    return steady_rates(shard_marks(output)).by_clock


def shard_marks(output: Path) -> list[Mark]:
    """How many images of a finished run were done, and when, from its shards' files."""
    shards = PlannedRun.load(str(output)).shards
    ended = sorted((Path(shard_file(str(output), key)).stat().st_mtime, images) for key, images in shards.items())
    seconds, images = zip(*ended, strict=True)
    return list(map(Mark, seconds, itertools.accumulate(images)))


def measured_once(folder: Path, data: Path, network: Network, rates: dict[str, Figures]) -> dict:
    """What needs no rounds: the shares of merge and evaluation, where an image's time goes."""
    run = plain_run(folder, data, network)
    merged = subprocess.run([sys.executable, "-c", MERGE, run], check=True, capture_output=True, text=True)
    evaluation = printed(["speed_evaluation.py", run])
    stages = ["speed_stages.py", run, *network.options[1:], "--images", min(200, network.images)]
    found = {
        "merge_milliseconds": 1000 * float(merged.stdout.split()[-1]) / network.images,
        "evaluation_milliseconds": evaluation["milliseconds_an_image"],
        "evaluation_before_seconds": evaluation["seconds_of_what_is_drawn_again"],
        "stages_milliseconds": printed(stages, cores=sorted(os.sched_getaffinity(0))[:1]),
    }
    shares = {"merge_share": ("merge", "end_to_end"), "evaluation_share": ("evaluation", "end_to_end")}
    shares["evaluation_share_of_defaults"] = ("evaluation", "defaults")
    for share, (what, job) in shares.items():
        if job in rates:
            found[share] = found[f"{what}_milliseconds"] / 1000 * rates[job]["median"]
    return found


def memory_figures(folder: Path, data: Path, images: int) -> dict:
    call = [*CAMBOXES, "label", "--label-map", str(data / "label_map.json"), *PLAIN]
    small, large = (peaks(folder / f"memory-{some}", some, data, call) for some in (images // 20, images))
    ratio = max(large[who] / small[who] for who in large)
    return {"images": [images // 20, images], "peak_mebibytes": [small, large], "ratio": ratio}


def draw_curves(file: Path, folder: Path, data: Path, networks: list[Network], columns: dict[str, dict]) -> None:
    by_images: dict[str, dict[int, float]] = {}
    processes: dict[str, dict[int, float]] = {}
    for network in networks:
        say(f"curve over the number of images: {network.name}")
        points = sorted({max(1, network.images // part) for part in (48, 16, 8, 4, 2, 1)})
        by_images[network.name] = {
            images: images / label(data, network, images, folder / f"{network.name}-curve", PLAIN).seconds
            for images in points
        }
        rates = columns[network.name]["rates"]
        processes[network.name] = {1: rates["one_process"]["median"], 2: rates["two_processes"]["median"]}
    draw(file, by_images, processes)


class Labelled(NamedTuple):
    """When how many images were done, and the seconds that the whole call took."""

    marks: list[Mark]
    seconds: float


def label(
    data: Path, network: Network, images: int, output: Path, options: list[str], cores: tuple[int, ...] = ()
) -> Labelled:
    """Labels the first images of the data folder."""
    manifest, temporary = output.with_suffix(".csv"), output.with_suffix(".tmp")
    lines = (data / "labels.csv").read_text().splitlines()
    manifest.write_text("\n".join(lines[: images + 1]))
    temporary.mkdir(exist_ok=True)
    call = [*CAMBOXES, "label", "--input", manifest, "--root", data, "--label-map", data / "label_map.json",
            "--output", output, "--overwrite", *network.options, *options]  # fmt: skip
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        job = subprocess.Popen(list(map(str, call)), stdout=said, stderr=said, **pinned(cores, TMPDIR=str(temporary)))
        marks = watch(job, temporary)
        seconds = time.perf_counter() - start
        if job.returncode:
            said.seek(0)
            failed(job, said.read())
    return Labelled(marks, seconds)


def printed(call: list, cores: Sequence[int] = ()) -> dict:
    """The JSON that a script beside this one prints."""
    return json.loads(output_of([sys.executable, HERE / call[0], *call[1:]], cores).splitlines()[-1])


def output_of(call: list, cores: Sequence[int] = ()) -> str:
    """What a process prints."""
    done = subprocess.run([str(part) for part in call], check=False, capture_output=True, text=True, **pinned(cores))
    if done.returncode:
        failed(done, done.stderr)
    return done.stdout


def failed(process: subprocess.Popen | subprocess.CompletedProcess, said: str) -> NoReturn:
    call = subprocess.list2cmdline(process.args)
    raise SystemExit(f"{said}\n{call} ended with exit code {process.returncode}")


def pinned(cores: Sequence[int], **environment: str) -> dict[str, Any]:
    """Arguments of subprocess.Popen: where cores are given, the process has these, and one thread for each pass."""
    if not cores:
        return {"env": os.environ | environment}
    threads = {"OMP_NUM_THREADS": "1"}
    return {"env": os.environ | environment | threads, "preexec_fn": functools.partial(os.sched_setaffinity, 0, cores)}


def summary(rounds: list[Figures], price: float) -> dict:
    """Medians and their spread; the ratios also by themselves, under the names that are held to."""
    rates = {name: spread([figures[name] for figures in rounds]) for name in rounds[0]}
    held = [name for name in rates if "_over_" in name or name == "rebox_images_per_second"]
    found: dict[str, Any] = {name: rates[name]["median"] for name in held} | {"rates": rates}
    if "end_to_end" in rates:
        found["dollars_per_million_images"] = price / (rates["end_to_end"]["median"] * 3600) * 1e6
    return found


def machine() -> dict:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[0].partition(":")[2].strip() if model else platform.processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


ROWS = {
    "end_to_end": "end to end, images/s",
    "end_to_end_limit": "  its limit, images/s",
    "end_to_end_over_limit": "  end to end / limit",
    "end_to_end_by_cpu": "  images/s of CPU time",
    "end_to_end_by_cpu_over_limit": "  the same / limit",
    "end_to_end_start_up_seconds": "  the first image is done, s",
    "torchcam": "torchcam loop, images/s",
    "gradcam": "grad-cam loop, images/s",
    "end_to_end_over_torchcam": "end to end / torchcam loop",
    "end_to_end_over_gradcam": "end to end / grad-cam loop",
    "one_process": "one process, one core, images/s",
    "one_process_limit": "  its limit, images/s",
    "one_process_over_limit": "  one process / limit",
    "one_process_by_cpu": "  images/s of CPU time",
    "one_process_by_cpu_over_limit": "  the same / limit",
    "two_processes": "two processes, two cores, images/s",
    "two_processes_limit": "  its limit, images/s",
    "two_processes_over_limit": "  two processes / limit",
    "two_processes_by_cpu": "  images/s of CPU time",
    "two_processes_by_cpu_over_limit": "  the same / limit",
    "two_processes_over_one": "two processes / one",
    "defaults": "label's own defaults, images/s",
    "defaults_limit": "  their limit, images/s",
    "defaults_over_limit": "  defaults / limit",
    "defaults_by_cpu": "  images/s of CPU time",
    "defaults_by_cpu_over_limit": "  the same / limit",
    "defaults_start_up_seconds": "  the first image is done, s",
    "rebox_images_per_second": "rebox, two processes, images/s",
}
SINGLE_ROWS = {
    "merge_share": "merge / labelling job's time",
    "evaluation_share": "evaluation / labelling job's time, for each image more",
    "evaluation_share_of_defaults": "  the same with label's own defaults",
    "evaluation_before_seconds": "  evaluation's start-up and what it draws again, s",
    "dollars_per_million_images": "dollars per million images",
}


def print_table(found: dict) -> None:
    columns = {**found["networks"], **{f"{name} on the GPU": column for name, column in found.get("gpu", {}).items()}}
    print(f"median (lowest to highest) of {found['rounds']} rounds on {found['machine']}")
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    lines = [(name, [in_words(column["rates"].get(key)) for column in columns.values()]) for key, name in ROWS.items()]
    lines += [(name, [shown(column.get(key)) for column in columns.values()]) for key, name in SINGLE_ROWS.items()]
    stages = [column.get("stages_milliseconds", {}) for column in columns.values()]
    lines += [(f"{stage}, ms per image on one core", [shown(of.get(stage)) for of in stages]) for stage in stages[0]]
    for name, values in lines:
        if any(values):
            print(f"| {name} | {' | '.join(values)} |")
    for name, column in columns.items():
        print(f"{name}: {column['images']} images")
        for passes, grid in column["grids"].items():
            print(f"  {passes}: {', '.join(f'{setting} {shown(rate)}' for setting, rate in grid.items())}")
    if "memory" in found:
        print(f"peak memory, large run / small run: {shown(found['memory']['ratio'])}; in MiB, ", end="")
        print(*found["memory"]["images"], sep=" and ", end=" images: ")
        print(*found["memory"]["peak_mebibytes"], sep=" and ")


def in_words(figure: Figures | None) -> str:
    if figure is None:
        return ""
    return f"{shown(figure['median'])} ({shown(figure['lowest'])} to {shown(figure['highest'])})"


def shown(value: float | None) -> str:
    """Three or four digits; what is below one thousandth is told as such."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
