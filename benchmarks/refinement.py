"""What refinement costs: forward passes and maps with --refine affinity and without, in turn.

    python benchmarks/refinement.py [--images N] [--rounds N]

Random photographs, on one core, in batches as `label` runs them. Prints milliseconds an image, and the ratio
of the medians. Wants a machine with nothing else to do.
"""

import argparse
import dataclasses
import statistics
import time

import numpy as np

from camboxes.models import Localizer, MapSpec, load_classifier
from camboxes.models.execution.process import use_one_core

SETTINGS = {
    "cam, 224": MapSpec(),
    "cam, 224 + 448": MapSpec(scales=(224, 448)),
    "cam*layercam@16, 224 + 448": MapSpec("cam*layercam@16", (224, 448)),
    "label's default": MapSpec("cam*layercam@32[-2]*layercam@16", (224, 448), fine_scales=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    use_one_core()
    classifier = load_classifier("efficientnet_lite0")
    size = classifier.spec.batch_size
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (375, 500, 3), np.uint8) for _ in range(size)]
    for name, plain in SETTINGS.items():
        localizers = [Localizer(classifier, maps) for maps in (plain, dataclasses.replace(plain, refine="affinity"))]
        pixels = [localizers[0].resize(image) for image in images]
        times: list[list[float]] = [[], []]
        for _ in range(arguments.rounds):
            for localizer, found in zip(localizers, times, strict=True):
                start = time.perf_counter()
                for _ in range(max(1, arguments.images // size)):
                    localizer.localize(pixels, [[[7]]] * size)
                found.append((time.perf_counter() - start) / max(1, arguments.images // size) / size)
        without, refined = (statistics.median(found[1:]) for found in times)
        print(
            f"{name}: {1000 * without:.1f} ms, refined {1000 * refined:.1f} ms, {refined / without:.3f} x", flush=True
        )


if __name__ == "__main__":
    main()
