"""What each trick is worth: an image's time with all of them, and with one replaced by what is plain.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/tricks.py DATA_FOLDER NETWORK.json
                                       [--maps plain|default] [--precision fp32|bf16] [--tricks NAME ...] [--rounds N]

DATA_FOLDER and NETWORK.json are what speed_images.py writes. On one core a batch of photographs goes from bytes
in memory to stored maps as in a job. The variants take turns, a batch each. Prints milliseconds of CPU time for
an image, the lowest of the rounds, since other programs only add to it; and the ratio to that with all tricks.
"""

import argparse
import contextlib
import csv
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from speed_ceiling import PHOTOGRAPH, load
from torch import nn

from camboxes.models import Localizer, MapSpec
from camboxes.models.execution import kernels
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.transforms.boxes.stored_maps import quantize
from camboxes.transforms.images.decoding import decode, decode_at_least
from camboxes.transforms.inference.image_loading import decode_jpeg

PLAIN = MapSpec("cam", scales=(224,))
TO_MEET = kernels._Packed._to_meet


def pytorchs_gradient(self: Any, gradient: torch.Tensor, height: int, width: int) -> torch.Tensor:
    size = (len(gradient), self._weight.shape[1] * self._groups, height, width)
    described = self._stride, self._padding, self._dilation, self._groups
    return nn.grad.conv2d_input(size, self._weight, gradient.to(self.precision), *described)


def first_layout(self: Any, maps: torch.Tensor) -> torch.Tensor:
    return next(iter(self._of_size.values())) if self._of_size else TO_MEET(self, maps)


def by_channels(self: Any, images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
    return (images.to(torch.float32, memory_format=torch.channels_last) / 255 - mean) / std


# What is exchanged for each: an object, the name of one of its attributes, and what stands there instead.
TRICKS: dict[str, tuple[Any, str, Any] | None] = {
    "all": None,
    "weights as they are": (kernels._Packed, "_to_meet", lambda self, maps: self._weight),
    "weights laid out for the first size alone": (kernels._Packed, "_to_meet", first_layout),
    "PyTorch's gradients of fused layers": (kernels.FusedConvolution, "backward", pytorchs_gradient),
    "normalised by channels": (Preprocessing, "normalize", by_channels),
    "layers one by one": None,  # by an option
    "JPEGs by Pillow": None,  # by an argument
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("--maps", choices=["plain", "default"], default="default")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--tricks", nargs="+", choices=list(TRICKS), default=list(TRICKS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network, names = json.loads(arguments.network.read_text()), list(dict.fromkeys(["all", *arguments.tricks]))
    classes = json.loads((arguments.data / "label_map.json").read_text())
    with (arguments.data / "labels.csv").open() as file:
        rows = [
            (arguments.data / row["path"], classes[row["label"]]) for row in itertools.islice(csv.DictReader(file), 32)
        ]
    jobs: dict[str, Callable[[], float]] = {}
    for name in names:
        classifier = load(network, "cpu", arguments.precision, "off" if name == "layers one by one" else "on")
        localizer = Localizer(classifier, PLAIN if arguments.maps == "plain" else MapSpec.default_for(classifier))
        jobs[name] = job(localizer, rows, None if name == "JPEGs by Pillow" else decode_jpeg)
        measured(name, jobs[name])  # layers are made
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, run in jobs.items():
            found[name].append(measured(name, run))
    for name, figures in found.items():
        print(f"{name} | {min(figures):.1f} | {min(figures) / min(found['all']):.2f}")


def measured(name: str, run: Callable[[], float]) -> float:
    exchanged = TRICKS[name]
    with mock.patch.object(*exchanged) if exchanged else contextlib.nullcontext():
        return run()


def job(localizer: Localizer, rows: Sequence[tuple[Path, list[int]]], decoder: Any) -> Callable[[], float]:
    """What labels a batch, and gives the milliseconds for an image."""
    files = [(path.read_bytes(), ids) for path, ids in rows]
    files = [(data, ids) for data, ids in files if decode(data).shape[:2] == PHOTOGRAPH][: localizer.batch_size]

    def run() -> float:
        start = time.process_time()
        images = [decode_at_least(data, 2 * max(localizer.scales), decoder).pixels for data, _ in files]
        for found in localizer.localize(list(map(localizer.resize, images)), [[ids] for _, ids in files]):
            for map_ in found.maps:
                quantize(map_)
        return 1000 * (time.process_time() - start) / len(files)

    return run


if __name__ == "__main__":
    main()
