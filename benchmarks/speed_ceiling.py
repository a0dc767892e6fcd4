"""What the hardware gives: the best bare passes, the best bare decoding.

    python benchmarks/speed_ceiling.py DATA_FOLDER NETWORK.json [--maps plain|default] [--device cuda]

DATA_FOLDER and NETWORK.json are what speed_images.py writes. Everything goes from memory to memory. Prints a line of
JSON with the images/s of each setting of a fixed grid. Then, for each line on its input, it measures the best passes
and the best decoder again, and prints a line with the limit that they set, `by_clock` in images a second, `by_cpu` in
images a second of CPU time: 1 / (1/decode + 1/passes), for on a CPU both share the same cores; on a GPU the slower of
both. So a program can have the limit right before and right after what it measures itself.

    plain      normalised batches in, logits out, at 224 x 224: the passes of plain CAM
    default    the passes of the default maps: at each scale logits, and then the gradients of one logit of each image
               with respect to each layer that the maps ask for; images are decoded once, and resized to each scale

The network runs layer by layer ("eager"), in the kernels of models/execution ("fused"), or, without gradients, compiled
by torch.compile; on a CPU a pass on each core.
"""

import argparse
import ctypes
import dataclasses
import io
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from steady import Rates
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as transforms

from camboxes.models import Classifier, MapSpec, ModelSpec, load_classifier
from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.models.localization.looks import looks_for

SECONDS = 2.0  # for which each setting runs, after its warm-up
FILES = 256  # JPEGs in memory, gone through again and again
PHOTOGRAPH = 375, 500  # pixels; of most of the files
BATCHES = {"cpu": (4, 16), "cuda": (64, 256)}

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h

Size = tuple[int, int]  # height and width, in pixels


class Setting(NamedTuple):
    """A way to do some work: its name, how many threads do it side by side, and the work; that gives its images."""

    name: str
    lanes: int
    work: Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("--maps", choices=["plain", "default"], default="plain")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    torch._inductor.config.freezing = True
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # else every pass begins with the system's zeros
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
    cv2.setNumThreads(1)
    network, device = json.loads(arguments.network.read_text()), arguments.device
    if arguments.maps == "plain":
        sizes, passes = [(224, 224)], plain_passes(network, device)
    else:
        sizes = default_sizes(network)
        passes = default_passes(network, device)
    grids = [
        {setting: rates(setting) for setting in settings} for settings in (passes, decoders(arguments.data, sizes))
    ]
    print(json.dumps({setting.name: found.by_clock for grid in grids for setting, found in grid.items()}), flush=True)
    # By CPU time, with which other programs hardly interfere; a GPU's passes take next to none.
    best = [max(grid, key=lambda setting: grid[setting][device == "cpu"]) for grid in grids]
    for _ in sys.stdin:
        of_passes, of_decoder = map(rates, best)
        limit = Rates(*(1 / (1 / one + 1 / other) for one, other in zip(of_passes, of_decoder, strict=True)))
        if device == "cuda":
            limit = limit._replace(by_clock=min(of_passes.by_clock, of_decoder.by_clock))
        print(json.dumps(limit._asdict()), flush=True)


def plain_passes(network: dict, device: str) -> Iterator[Setting]:
    ways = [*itertools.product(("eager", "fused"), BATCHES[device])]
    ways.append(("compiled", BATCHES[device][-1]))  # it takes half a minute, so the likelier size alone
    for precision, (mode, size) in itertools.product(precisions(device), ways):
        work = bare_pass(network, device, mode, precision, noise(size, (224, 224)).to(device))
        yield Setting(f"{mode} {precision}, batches of {size}", lanes_of(device), work)


def bare_pass(network: dict, device: str, mode: str, precision: str, batch: torch.Tensor) -> Callable[[], int]:
    model: Callable[[torch.Tensor], object]
    if mode == "fused":
        model = load(network, device, precision, "on")
    else:
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        model, batch = build(network).to(device, dtype).to(memory_format=torch.channels_last), batch.to(dtype)
    if mode == "compiled":
        torch._dynamo.reset()
        model = torch.compile(model)

    def work() -> int:
        with torch.no_grad():  # a mode belongs to its thread
            model(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        return len(batch)

    return work


def default_passes(network: dict, device: str) -> Iterator[Setting]:
    modes = {"eager": "off", "fused": "on"}
    for mode, precision in itertools.product(modes, precisions(device)):
        loaded = load(network, device, precision, modes[mode])
        work = passes_with_gradients(loaded, MapSpec.default_for(loaded), default_sizes(network))
        yield Setting(f"{mode} {precision}", lanes_of(device), work)


def passes_with_gradients(classifier: Classifier, maps: MapSpec, sizes: Sequence[Size]) -> Callable[[], int]:
    looks = looks_for(classifier, maps)
    wanted = {factor.layer for term in maps.terms for factor in term.factors if factor.layer}
    passes = []
    for look, size in zip(looks, sizes, strict=True):
        network = look.methods.classifier
        layers = frozenset(map(network.layer, wanted))
        batch = noise(look.batch_size, size).to(classifier.spec.device)
        passes += [(network, batch, layers)] * (looks[0].batch_size // look.batch_size)

    def work() -> int:
        for network, batch, layers in passes:
            forward = ForwardPass(network, batch, layers, gradients=layers)
            for layer in layers:
                forward.gradients(layer, torch.arange(len(batch), device=batch.device))
        if classifier.spec.device == "cuda":
            torch.cuda.synchronize()
        return looks[0].batch_size

    return work


def default_sizes(network: dict) -> list[Size]:
    """What a photograph is resized to at each scale of the default maps."""
    preprocessing = load(network, "cpu", "fp32", "off").preprocessing
    scales = MapSpec.default_of(qualified(network), preprocessing.size).scales
    return [dataclasses.replace(preprocessing, size=scale).shape(*PHOTOGRAPH) for scale in scales]


def decoders(folder: Path, sizes: Sequence[Size]) -> Iterator[Setting]:
    files = [path.read_bytes() for path in sorted(folder.glob("images/*.jpg"))[:FILES]]
    largest = max(sizes)

    def pillow(data: bytes) -> None:
        with Image.open(io.BytesIO(data)) as image:
            photograph = image.convert("RGB")
        for height, width in sizes:
            np.asarray(photograph.resize((width, height), Image.Resampling.BICUBIC))

    def pillow_draft(data: bytes) -> None:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", largest)  # decodes at a half, a quarter ... of the size where that is enough
            for height, width in sizes:
                np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))

    def torchvision(data: bytes) -> None:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        for size in sizes:
            transforms.resize(image, list(size), transforms.InterpolationMode.BICUBIC, antialias=True)

    def opencv(data: bytes) -> None:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        for height, width in sizes:
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

    for decode in (pillow, pillow_draft, torchvision, opencv):

        def work(decode=decode, cycle=itertools.cycle(files)) -> int:  # noqa: B008  (the lanes share the files out)
            decode(next(cycle))
            return 1

        yield Setting(decode.__name__, cores(), work)


def rates(setting: Setting) -> Rates:
    """The rates of the lanes together, each over and over."""
    ready, worked = threading.Barrier(setting.lanes), []

    def of_lane(_: int) -> float:
        for _ in range(2):
            worked.append(setting.work())
        ready.wait()
        done, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < SECONDS:
            done += setting.work()
        worked.append(done)
        return done / seconds

    threads = max(1, cores() // setting.lanes)
    with ThreadPoolExecutor(setting.lanes, initializer=torch.set_num_threads, initargs=(threads,)) as lanes:
        lanes.submit(setting.work).result()  # compiles, where it is to be, in one thread only
        start = time.process_time()
        by_clock = sum(lanes.map(of_lane, range(setting.lanes)))
        return Rates(by_clock, sum(worked) / (time.process_time() - start))


def precisions(device: str) -> list[str]:
    """Those worth a trial: bf16 where there are kernels for it."""
    if device == "cuda":
        return ["bf16"]
    return ["fp32", "bf16"] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ["fp32"]


def lanes_of(device: str) -> int:
    """A pass a core: one on all cores is slower, or as fast (passes.py)."""
    return cores() if device == "cpu" else 1


def qualified(network: dict) -> str:
    return f"{network['library']}:{network['name']}"


def load(network: dict, device: str, precision: str, compilation: str) -> Classifier:
    return load_classifier(
        ModelSpec(
            qualified(network),
            network["weights"],
            size=224,
            aspect="keep",
            device=device,
            precision=precision,
            compile=compilation,
        )
    )


def build(network: dict) -> torch.nn.Module:
    if network["library"] == "timm":
        import timm

        model = timm.create_model(network["name"])
    else:
        import torchvision

        model = torchvision.models.get_model(network["name"])
    model.load_state_dict(torch.load(network["weights"], weights_only=True))
    return model.eval().requires_grad_(False)


def noise(images: int, size: Size) -> torch.Tensor:
    batch = torch.randn(images, 3, *size, generator=torch.Generator().manual_seed(0))
    return batch.contiguous(memory_format=torch.channels_last)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
