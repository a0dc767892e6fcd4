"""What each map costs: its time over that of a bare forward pass, and Score-CAM's against grad-cam's.

    python benchmarks/methods.py [--model NAME] [--weights FILE] [--size PIXELS] [--rounds N] [--without-scorecam]

The first table has one line for each method that the network can do: the median over the rounds of (forward pass and
maps of one class an image) over (the network alone, in inference mode, on the same batch), and the milliseconds for an
image. All on one core, as in a job; the methods take turns within a round, and each round begins with the bare pass.

The second table: each method on a photograph (scikit-image's cat) at the last feature maps, on all cores, each in a
process of its own: seconds, by how much the peak of resident memory grew, and the correlation of the two maps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from camboxes.models import MapSpec, ModelSpec, class_maps, load_classifier
from camboxes.models.cam.methods import Methods
from camboxes.models.spec import CELLS, OF_ATTENTION

METHODS = ["cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigencam",
           "layercam@32", "gradcam@16", "layercam@16", "cam*layercam@16", "layercam@8",
           *CELLS, *OF_ATTENTION]  # fmt: skip
CLASS = 285  # Egyptian cat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", help="a local file")
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--without-scorecam", action="store_true")
    parser.add_argument("--measure", choices=["camboxes", "grad-cam"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments)
        return
    torch.set_num_threads(1)
    classifier = load_classifier(ModelSpec(arguments.model, arguments.weights, size=arguments.size, device="cpu"))
    side, batch = classifier.spec.size, classifier.spec.batch_size
    pixels = torch.randint(
        0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images, ids = classifier.normalize(pixels), torch.full((batch, 1), CLASS)
    ways: dict[str, Callable] = {"bare forward": lambda: bare(classifier, images)}
    for method in METHODS:
        try:
            methods = Methods(classifier, MapSpec(method).terms[0].factors)
        except ValueError:  # not of this network
            continue
        ways[method] = lambda methods=methods: methods.maps(methods.forward(images), ids, batch)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            repeats = 1 if name in CELLS else 5  # those of the pixels take long enough to be told
            for _ in range(repeats):
                way()
            if number:  # the first round warms up
                seconds[name].append((time.perf_counter() - start) / repeats)
    print(f"| {classifier.spec.name} at {side}, batches of {batch}, one core | times bare forward | ms/image |")
    print("|---|---|---|")
    for name, times in seconds.items():
        ratio = statistics.median(one / alone for one, alone in zip(times, seconds["bare forward"], strict=True))
        print(f"| {name} | {ratio:.2f} | {1000 * statistics.median(times) / batch:.1f} |")
    if not arguments.without_scorecam:
        compare(arguments)


def bare(classifier, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return classifier.network(images)


def compare(arguments: argparse.Namespace) -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ("grad-cam", "camboxes"):
            call = [sys.executable, __file__, "--measure", way, "--model", arguments.model]
            call += ["--size", str(arguments.size)] if arguments.size else []
            done = subprocess.run(call, check=True, capture_output=True, text=True, cwd=folder)
            found[way] = json.loads(done.stdout.splitlines()[-1])
    print(
        "\n| Score-CAM, last feature maps, all cores | s/image | peak memory above the loaded network |\n|---|---|---|"
    )
    for way, values in found.items():
        print(f"| {way} | {values['seconds']:.1f} | {values['memory'] / 2**20:.0f} MiB |")
    correlation = np.corrcoef(*(values["map"] for values in found.values()))[0, 1]
    ratio = found["grad-cam"]["seconds"] / found["camboxes"]["seconds"]
    print(f"camboxes is {ratio:.1f} times as fast; correlation of the maps {correlation:.4f}")


def measure(arguments: argparse.Namespace) -> None:
    """Prints what one way takes, as JSON; in a process of its own, since a peak of memory never falls."""
    from skimage import data

    torch.set_num_threads(os.cpu_count() or 1)
    classifier = load_classifier(ModelSpec(arguments.model, size=arguments.size, device="cpu"))
    images = classifier.normalize(classifier.preprocessing.resize(data.cat())[None])
    if arguments.measure == "grad-cam":
        from pytorch_grad_cam import ScoreCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        extractor = ScoreCAM(classifier.network, [classifier.network.bn2])
        images = images.contiguous()  # as its users give them
    bare(classifier, images)
    before, start = peak(), time.perf_counter()
    if arguments.measure == "camboxes":
        found = class_maps(classifier, images, torch.tensor([[CLASS]]), "scorecam")[0, 0]
    else:
        targets = [ClassifierOutputTarget(CLASS)]
        extractor(images, targets)
        taken = time.perf_counter() - start
        seen, memory = extractor.activations_and_grads.activations[0].numpy(), peak() - before
        # Its map before it is resized and scaled; this computes the weights a second time, after the clock stopped.
        raw = extractor.get_cam_image(images, classifier.network.bn2, targets, seen, None, False)
        print(json.dumps({"seconds": taken, "memory": memory, "map": np.maximum(raw[0], 0).flatten().tolist()}))
        return
    taken = time.perf_counter() - start
    print(json.dumps({"seconds": taken, "memory": peak() - before, "map": found.flatten().tolist()}))


def peak() -> int:
    """The largest resident size so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
