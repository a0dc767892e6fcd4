"""What choosing how a network is executed costs, and whether the choice is the same each time.

    python benchmarks/choices.py [--model NAME] [--weights FILE] [--repeats N]

Chooses for the maps of `camboxes label`, each time with an empty cache, and then with the answer in it. Prints for each
repeat the choice, the milliseconds that were measured, and the seconds, of the wall and of CPU, of choosing; at the end
the choices with their counts, and the medians. Run other programs beside it to see what they change.
"""

import argparse
import collections
import os
import shutil
import statistics
import tempfile
import time

from camboxes.models import Localizer, MapSpec, ModelSpec, load_classifier
from camboxes.models.execution import known
from camboxes.models.localization.measured import measured
from camboxes.models.spec import Execution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    classifier = load_classifier(ModelSpec(arguments.model, arguments.weights, aspect="keep"))
    localizer = Localizer(classifier, MapSpec.default_for(classifier))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        new, old = [], []
        for _ in range(arguments.repeats):
            shutil.rmtree(known.folder(), ignore_errors=True)
            new.append(timed(localizer))
            old.append(timed(localizer))
    print(*(f"{way}: {count}" for way, count in collections.Counter(way for way, *_ in new + old).items()), sep="; ")
    for name, found in (("measured", new), ("known", old)):
        wall, cpu = (statistics.median(column) for column in list(zip(*found, strict=True))[1:])
        print(f"{name}: {wall:.2f} s, {cpu:.2f} s of CPU (medians)")


def timed(localizer: Localizer) -> tuple[str, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    chosen, told = measured(localizer, Execution("auto", "auto"), images=1_000_000)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    times = "; ".join(f"{way}: {took:.0f} ms" for way, took in told.milliseconds.items()) if told else ""
    print(f"{chosen.classifier.execution} ({times}) in {wall:.2f} s, {cpu:.2f} s of CPU", flush=True)
    return str(chosen.classifier.execution), wall, cpu


if __name__ == "__main__":
    main()
