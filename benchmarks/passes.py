"""How a CPU is kept busiest: one forward pass on all cores or one a core, and in what batches.

    python benchmarks/passes.py [--model NAME] [--size PIXELS] [--rounds N]

Prints images/s for each batch size (the median over the rounds, which take turns), and by how much the features of one
batch differ when it is run on all cores and on one: what is not zero there makes other bytes on another machine.
"""

import argparse
import dataclasses
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from camboxes.models import ModelSpec, load_classifier
from camboxes.models.execution.process import passes_side_by_side, use_one_core

SIZES = (1, 2, 4, 8, 16)
IMAGES = 96
WARM_UP = 2  # passes, which make layers ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    classifier = load_classifier(dataclasses.replace(ModelSpec(arguments.model), size=arguments.size, device="cpu"))
    side = classifier.spec.size
    batches = {
        size: torch.randint(
            0, 256, (size, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        for size in SIZES
    }
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(arguments.rounds):
        for size, batch in batches.items():
            rates.setdefault(("all cores", size), []).append(rate(classifier, batch, 1, all_cores))
            lanes = passes_side_by_side(classifier.spec.device)
            rates.setdefault(("a core each", size), []).append(rate(classifier, batch, lanes, use_one_core))
    print(f"{classifier.spec.name} at {side}, images/s | " + " | ".join(map(str, SIZES)))
    for mode in ("all cores", "a core each"):
        print(f"{mode} | " + " | ".join(f"{statistics.median(rates[mode, size]):.0f}" for size in SIZES))
    features = []
    for cores in (all_cores, use_one_core):
        with ThreadPoolExecutor(1, initializer=cores) as thread:
            features.append(thread.submit(classifier.infer, batches[8]).result().features)
    difference = float((features[0] - features[1]).abs().max())
    print(f"largest difference of a feature between all cores and one: {difference:.1e}")


def all_cores() -> None:
    torch.set_num_threads(os.cpu_count() or 1)


def rate(classifier, batch, lanes, initializer) -> float:
    with ThreadPoolExecutor(lanes, initializer=initializer) as threads:
        list(threads.map(lambda _: classifier.infer(batch), range(WARM_UP * lanes)))
        start, passes = time.perf_counter(), -(-IMAGES // len(batch))
        list(threads.map(lambda _: classifier.infer(batch), range(passes)))
        return passes * len(batch) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
