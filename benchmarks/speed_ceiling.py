"""What the hardware gives: the best bare forward pass, the best bare decoding. Imports nothing of camboxes.

    python benchmarks/speed_ceiling.py forward NETWORK.json [--device cuda] [--only SETTING ...]
    python benchmarks/speed_ceiling.py decode DATA_FOLDER

NETWORK.json and the data folder are what speed_images.py writes. Prints JSON: images/s of each setting of a fixed grid.
`forward` is the network alone, uint8 images excluded: normalised batches that lie in memory go in, logits come out.
`decode` brings the bytes of JPEGs in memory to 224 x 224 pixels, in as many threads as there are cores.
"""

import argparse
import ctypes
import io
import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as transforms

SIDE = 224  # pixels
SECONDS = 2.0  # for which each setting runs, after its warm-up
FILES = 256  # JPEGs in memory, gone through again and again

# How the network runs, in batches of how many images; on a CPU each with one pass on all cores, and with one a core.
MODES = {
    "cpu": {
        "eager fp32": (4, 16),
        "compiled fp32": (4, 16),
        "eager bf16": (4, 16),
        "compiled bf16": (4, 16, 32),
    },
    "cuda": {"eager bf16": (64, 256), "compiled bf16": (64, 256)},
}
WAYS = {"cpu": ("all cores", "a core each"), "cuda": ("one pass",)}

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["forward", "decode"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="*", help="settings by the names that this prints")
    arguments = parser.parse_args()
    if arguments.part == "decode":
        rates = decode_rates(arguments.file)
    else:
        rates = forward_rates(json.loads(arguments.file.read_text()), arguments.device, arguments.only)
    print(json.dumps(rates))


def forward_rates(network: dict, device: str, only: list[str] | None) -> dict[str, float]:
    rates = {}
    torch._inductor.config.freezing = True
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # else every pass begins with the system's zeros
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
    for mode, sizes in MODES[device].items():
        for way, size in itertools.product(WAYS[device], sizes):
            name = f"{mode}, batches of {size}, {way}"
            if only is None or name in only:
                rates[name] = forward_rate(build(network), device, mode, size, way)
    return rates


def forward_rate(model: torch.nn.Module, device: str, mode: str, size: int, way: str) -> float:
    dtype = torch.float32 if mode.endswith("fp32") else torch.bfloat16
    model = model.to(device, dtype).to(memory_format=torch.channels_last)
    if mode.startswith("compiled"):
        torch._dynamo.reset()
        model = torch.compile(model)
    # Made where it is used, outside of any mode: a tensor made inside inference_mode would compile the network twice.
    batch = torch.randn(size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    batch = batch.to(device, dtype).contiguous(memory_format=torch.channels_last)
    lanes = cores() if way == "a core each" else 1

    def work() -> int:
        with torch.no_grad():  # a mode belongs to its thread
            model(batch)
        return size

    settle = torch.cuda.synchronize if device == "cuda" else None
    with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(cores() // lanes,)) as threads:
        threads.submit(work).result()  # compiles, where it is to be, in one thread only
        return measure(threads, [work] * lanes, settle)


def decode_rates(folder: Path) -> dict[str, float]:
    files = [path.read_bytes() for path in sorted(folder.glob("images/*.jpg"))[:FILES]]
    cv2.setNumThreads(1)

    def pillow(data: bytes) -> None:
        with Image.open(io.BytesIO(data)) as image:
            np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    def pillow_draft(data: bytes) -> None:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (SIDE, SIDE))  # decodes at a half, a quarter ... of the size where that is enough
            np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    def torchvision(data: bytes) -> None:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        transforms.resize(image, [SIDE, SIDE], transforms.InterpolationMode.BICUBIC, antialias=True)

    def opencv(data: bytes) -> None:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    rates = {}
    for decode in (pillow, pillow_draft, torchvision, opencv):

        def work(decode=decode, cycle=itertools.cycle(files)) -> int:  # noqa: B008  (the lanes share the files out)
            decode(next(cycle))
            return 1

        with ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,)) as threads:
            rates[decode.__name__] = measure(threads, [work] * cores())
    return rates


def measure(threads: Executor, lanes: list[Callable[[], int]], settle: Callable[[], None] | None = None) -> float:
    """Images/s of lanes that run side by side, each over and over; a lane's call says how many images it did."""
    ready = threading.Barrier(len(lanes))

    def rate(lane: Callable[[], int]) -> float:
        for _ in range(2):
            lane()
        ready.wait()
        done, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < SECONDS:
            done += lane()
            if settle is not None:
                settle()
        return done / seconds

    return sum(threads.map(rate, lanes))


def build(network: dict) -> torch.nn.Module:
    if network["library"] == "timm":
        import timm

        model = timm.create_model(network["name"])
    else:
        import torchvision

        model = torchvision.models.get_model(network["name"])
    model.load_state_dict(torch.load(network["weights"], weights_only=True))
    return model.eval().requires_grad_(False)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
