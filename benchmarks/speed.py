"""How close a labelling job comes to what the hardware gives, and to what a user would write with other libraries.

    python benchmarks/speed.py [--json FILE] [--images FOLDER] [--count N] [--rounds N] [--price DOLLARS_PER_HOUR]
                               [--curves FILE.png] [--memory-images N]

Two networks, EfficientNet-Lite0 and ResNet-50, on the same JPEGs of about 500 x 375 pixels at 224: crops of the demo's
photographs or of those in a folder (speed_images.py, which also says why ResNet-50 may have random weights).

    end to end     `camboxes label` as a user calls it, plain CAM, from a manifest to COCO on disk and the report
    limit          1 / (1/decode + 1/forward): on a CPU both share the same cores; on a GPU the slower of both. The best
                   of a fixed grid of bare passes and of bare decoders, from memory to memory: speed_ceiling.py
    torchcam, grad-cam   loops as their documentation has them, CAM and GradCAM, boxes and JSON: speed_peers.py
    one process    on one core, with one thread; two processes likewise on two cores
    rebox          `camboxes rebox` in two processes, on a run of that network's real maps, repeated
    defaults       `camboxes label` with its own defaults, on fewer images, measured once
    evaluation     what `camboxes evaluate` takes for each image beyond those whose boxes it draws again, as a share of
                   what a job takes for one, measured once: speed_evaluation.py. Start-up and drawing again, which take
                   as long whatever the run's size, have a row of their own
    stages         where an image's time goes, on one core: speed_stages.py, measured once
    memory         peak of N (100,000) small images over that of a twentieth, a tiny network: speed_memory.py

Every measurement is a process of its own, and one runs at a time. Those of a round take turns; a ratio is that of a
round, and medians over the rounds stand beside the lowest and the highest. Images/s of a command are those of the
images that a call on all has beyond a call on few, so that start-up (imports, loading, compilation) is left out; it has
a row of its own. The forward settings that a round measures are the three best of the grid, which is gone through
first. ResNet-50 gets half of the images. Wants Linux, and a machine with nothing else to do.
"""

import argparse
import functools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from quality import PLAIN
from speed_curves import draw
from speed_evaluation import repeat
from speed_images import NETWORKS, make_images, make_network
from speed_memory import peaks

HERE = Path(__file__).parent
CAMBOXES = [sys.executable, "-m", "camboxes.pipeline.cli"]
TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
FEW = 64  # images, in one shard
FEW_SHARED = 256  # images, in several shards: both workers load the network in both calls
SHARED_ROWS = 32  # of a shard where two processes share the work: no process waits long for the other's last one
SHARES = {"efficientnet_lite0": 1, "resnet50": 2}  # of how many images a network gets one
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
    options = {name: make_network(name, data) for name in NETWORKS}
    networks = [
        Network(name, device, options[name], data / f"{name}.json", arguments.count // SHARES[name])
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
        for name in NETWORKS
    ]
    finalists = {network[:2]: best_settings(network) for network in networks}
    rounds: dict[tuple[str, str], list[Figures]] = {network[:2]: [] for network in networks}
    settings: dict[tuple[str, str], set[str]] = {network[:2]: set() for network in networks}
    for number in range(arguments.rounds):
        for network in networks:
            say(f"round {number + 1} of {arguments.rounds}: {network.name} on {network.device}")
            figures, best = one_round(folder, data, network, finalists[network[:2]])
            rounds[network[:2]].append(figures)
            settings[network[:2]].update(best)
            say(", ".join(f"{name} {shown(value)}" for name, value in figures.items()))
    say("memory")
    memory = memory_figures(folder, data, arguments.memory_images)
    columns: dict[str, dict[str, dict]] = {"cpu": {}, "cuda": {}}
    for network in networks:
        column = summary(rounds[network[:2]], arguments.price) | {
            "images": network.images,
            "limit_settings": sorted(settings[network[:2]]),
            "memory_100k_over_5k": memory["ratio"],
        }
        if network.device == "cpu":
            say(f"{network.name}: defaults, merge, evaluation, stages")
            column |= measured_once(folder, data, network, column["rates"]["end_to_end"]["median"])
        columns[network.device][network.name] = column
    if arguments.curves:
        on_cpu = [network for network in networks if network.device == "cpu"]
        draw_curves(arguments.curves, folder, data, on_cpu, columns["cpu"])
    return {
        "networks": columns["cpu"],
        **({"gpu": columns["cuda"]} if columns["cuda"] else {}),
        "rounds": arguments.rounds,
        "price_per_hour": arguments.price,
        "memory": memory,
        "machine": machine(),
    }


def best_settings(network: Network) -> list[str]:
    """The three forward settings of the grid that are best for a network."""
    say(f"the grid of forward passes: {network.name} on {network.device}")
    call = ["speed_ceiling.py", "forward", network.described, "--device", network.device]
    rates = printed(call)
    return sorted(rates, key=rates.__getitem__)[-3:]


def one_round(folder: Path, data: Path, network: Network, finalists: list[str]) -> tuple[Figures, list[str]]:
    """Images/s of everything, in turn; and which settings were the limit's."""
    plain = [*PLAIN, "--device", network.device]
    peers = {library: min(network.images, peer_images(network, library)) for library in PEER_IMAGES}
    device = ["--device", network.device]
    found: Figures = {}
    few, many = min(FEW, network.images // 4), network.images
    seconds = [label(data, network, images, folder / f"{network.name}-{images}", plain) for images in (few, many)]
    found["end_to_end"] = rate_between((few, seconds[0]), (many, seconds[1]))
    found["start_up_seconds"] = seconds[0] - few / found["end_to_end"]
    forward = printed(["speed_ceiling.py", "forward", network.described, *device, "--only", *finalists])
    decode = printed(["speed_ceiling.py", "decode", data, *device])
    best = [max(rates, key=rates.__getitem__) for rates in (forward, decode)]
    found["forward"], found["decode"] = forward[best[0]], decode[best[1]]
    rates = (found["decode"], found["forward"])
    found["limit"] = min(rates) if network.device == "cuda" else 1 / sum(1 / rate for rate in rates)
    for library, images in peers.items():
        call = ["speed_peers.py", library, data, network.described, "--images", images, *device]
        found[library] = printed(call)["images_per_second"]
    if network.device == "cpu":
        found |= by_processes(folder, data, network)
        found["rebox_images_per_second"] = rebox(folder, network)
    for other in ("limit", "torchcam", "gradcam"):
        found[f"end_to_end_over_{other}"] = found["end_to_end"] / found[other]
    return found, best


def peer_images(network: Network, library: str) -> int:
    return max(16, network.images // PEER_IMAGES[library])


def by_processes(folder: Path, data: Path, network: Network) -> Figures:
    """Images/s of one process pinned to one core and of two on two, one thread each."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise SystemExit("two processes need two cores, and this process may use one; give it a second one")
    few, many = min(FEW_SHARED, network.images // 4), network.images
    found = {}
    for name, cores, options in (
        ("one_process", available[:1], []),
        ("two_processes", available[:2], TWO_PROCESSES),
    ):
        times = []
        for images in (few, many):
            shards = ["--shards", str(2 * max(2, math.ceil(images / SHARED_ROWS / 2)))]  # as many for either process
            output = folder / f"{network.name}-{name}"
            times.append((images, label(data, network, images, output, [*PLAIN, *shards, *options], cores)))
        found[name] = rate_between(*times)
    return found | {"two_processes_over_one": found["two_processes"] / found["one_process"]}


def rebox(folder: Path, network: Network) -> float:
    """Images/s of `camboxes rebox` in two processes, on runs of this network's maps, repeated."""
    source, times = folder / f"{network.name}-{network.images}", []
    count = network.images * SHARES[network.name]  # what a run costs does not depend on the network
    for images in (count // 3, 5 * count):
        run = folder / f"{network.name}-repeated-{images}"
        if not run.exists():
            repeat(source, run, images)
        output = folder / f"{network.name}-rebox"
        call = [*CAMBOXES, "rebox", "--run", run, "--output", output, "--overwrite", "--threshold", "0.4"]
        times.append((images, timed([*call, *TWO_PROCESSES])))
    return rate_between(*times)


def measured_once(folder: Path, data: Path, network: Network, rate: float) -> dict:
    """What needs no rounds: the defaults' rate, the shares of merge and evaluation, where an image's time goes."""
    images = network.images // 6
    times = [
        (some, label(data, network, some, folder / f"{network.name}-defaults", [])) for some in (images // 4, images)
    ]
    many = folder / f"{network.name}-{network.images}"
    merged = subprocess.run([sys.executable, "-c", MERGE, many], check=True, capture_output=True, text=True)
    evaluation = printed(["speed_evaluation.py", many])
    an_image = evaluation["milliseconds_an_image"] / 1000
    defaults = rate_between(*times)
    stages = ["speed_stages.py", many, *network.options[1:], "--images", min(200, network.images)]
    return {
        "defaults_images_per_second": defaults,
        "merge_share": float(merged.stdout.split()[-1]) * rate / network.images,
        "evaluation_share": an_image * rate,
        "evaluation_share_of_defaults": an_image * defaults,
        "evaluation_before_seconds": evaluation["seconds_of_what_is_drawn_again"],
        "stages_milliseconds": printed(stages, cores=sorted(os.sched_getaffinity(0))[:1]),
    }


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
            images: images / label(data, network, images, folder / f"{network.name}-curve", PLAIN) for images in points
        }
        rates = columns[network.name]["rates"]
        processes[network.name] = {1: rates["one_process"]["median"], 2: rates["two_processes"]["median"]}
    draw(file, by_images, processes)


def label(data: Path, network: Network, images: int, output: Path, options: list[str], cores=None) -> float:
    """Seconds that a call takes on the first images of the data folder."""
    manifest = output.with_suffix(".csv")
    lines = (data / "labels.csv").read_text().splitlines()
    manifest.write_text("\n".join(lines[: images + 1]))
    call = [*CAMBOXES, "label", "--input", manifest, "--root", data, "--label-map", data / "label_map.json",
            "--output", output, "--overwrite", *network.options, *options]  # fmt: skip
    return timed(call, cores)


def rate_between(few: tuple[int, float], many: tuple[int, float]) -> float:
    """Images/s of what the second call did beyond the first; each is a number of images, and seconds."""
    if many[1] <= few[1]:
        raise SystemExit(
            f"{many[0]} images took {many[1]:.1f} s, {few[0]} took {few[1]:.1f} s: start-up varies by more than the "
            "images take; give a larger --count, or a machine with nothing else to do"
        )
    return (many[0] - few[0]) / (many[1] - few[1])


def timed(call: list, cores: list[int] | None = None) -> float:
    start = time.perf_counter()
    output_of(call, cores)
    return time.perf_counter() - start


def printed(call: list, cores: list[int] | None = None) -> dict:
    """The JSON that a script beside this one prints."""
    return json.loads(output_of([sys.executable, HERE / call[0], *call[1:]], cores).splitlines()[-1])


def output_of(call: list, cores: list[int] | None) -> str:
    """What a process prints; pinned to these cores, and with one thread for each pass, where they are given."""
    pinned = {}
    if cores is not None:
        pinned["env"] = os.environ | {"OMP_NUM_THREADS": "1"}
        pinned["preexec_fn"] = functools.partial(os.sched_setaffinity, 0, cores)
    done = subprocess.run([str(part) for part in call], check=False, capture_output=True, text=True, **pinned)
    if done.returncode:
        raise SystemExit(f"{done.stderr}\n{subprocess.list2cmdline(done.args)} ended with exit code {done.returncode}")
    return done.stdout


def summary(rounds: list[Figures], price: float) -> dict:
    """Medians and their spread; the ratios also by themselves, under the names that are held to."""
    spread = {
        name: {
            "median": statistics.median(figures[name] for figures in rounds),
            "lowest": min(figures[name] for figures in rounds),
            "highest": max(figures[name] for figures in rounds),
        }
        for name in rounds[0]
    }
    held = [name for name in spread if "_over_" in name or name == "rebox_images_per_second"]
    return {
        **{name: spread[name]["median"] for name in held},
        "dollars_per_million_images": price / (spread["end_to_end"]["median"] * 3600) * 1e6,
        "rates": spread,
    }


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
    "limit": "limit, images/s",
    "forward": "  best bare forward pass",
    "decode": "  best bare decode and resize",
    "torchcam": "torchcam loop, images/s",
    "gradcam": "grad-cam loop, images/s",
    "end_to_end_over_limit": "end to end / limit",
    "end_to_end_over_torchcam": "end to end / torchcam loop",
    "end_to_end_over_gradcam": "end to end / grad-cam loop",
    "one_process": "one process, one core, images/s",
    "two_processes": "two processes, two cores, images/s",
    "two_processes_over_one": "two processes / one",
    "rebox_images_per_second": "rebox, two processes, images/s",
    "start_up_seconds": "start-up and compilation, s",
}
SINGLE_ROWS = {
    "defaults_images_per_second": "label's own defaults, images/s",
    "merge_share": "merge / labelling job's time",
    "evaluation_share": "evaluation / labelling job's time, for each image more",
    "evaluation_share_of_defaults": "  the same with label's own defaults",
    "evaluation_before_seconds": "  evaluation's start-up and what it draws again, s",
    "memory_100k_over_5k": "peak memory, large run / small run",
    "dollars_per_million_images": "dollars per million images",
}


def print_table(found: dict) -> None:
    columns = {**found["networks"], **{f"{name} on the GPU": column for name, column in found.get("gpu", {}).items()}}
    print(f"median (lowest to highest) of {found['rounds']} rounds on {found['machine']}")
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    lines = {name: [spread(column["rates"].get(key)) for column in columns.values()] for key, name in ROWS.items()}
    lines |= {name: [shown(column.get(key)) for column in columns.values()] for key, name in SINGLE_ROWS.items()}
    stages = [column.get("stages_milliseconds", {}) for column in columns.values()]
    lines |= {f"{stage}, ms per image on one core": [shown(of.get(stage)) for of in stages] for stage in stages[0]}
    for name, values in lines.items():
        print(f"| {name} | {' | '.join(values)} |")
    for name, column in columns.items():
        print(f"{name}: {column['images']} images; the limit is that of {'; '.join(column['limit_settings'])}")
    print(f"peak memory in MiB, {' and '.join(map(str, found['memory']['images']))} images: ", end="")
    print(*found["memory"]["peak_mebibytes"], sep=" and ")


def spread(figure: Figures | None) -> str:
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
