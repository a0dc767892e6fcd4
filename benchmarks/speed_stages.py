"""Where an image's time goes: milliseconds of each stage, one after the other, with camboxes' own functions.

    python benchmarks/speed_stages.py RUN MODEL [--weights FILE] [--images N]

RUN is a finished run of `camboxes label` with plain CAM at 224, MODEL its network. Prints JSON.

    read        the file's bytes, and their digest
    decode      to an upright photograph
    resize      to the network's input
    transfer    batches made of images, normalised, on the device
    forward     the network on such batches
    map         what else a labelled batch costs: the classes' maps, their evidence, their storing
    boxes       from the stored maps
    write       the shards' files; the merge into COCO is not in it

Run it pinned to one core, with OMP_NUM_THREADS=1.
"""

import argparse
import hashlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from camboxes.models import Localizer, ModelSpec, load_classifier
from camboxes.models.execution.process import use_one_core
from camboxes.transforms import BoxRule, PlannedRun, storage
from camboxes.transforms.boxes.stored_maps import quantize
from camboxes.transforms.boxes_from_maps import draw
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.images.decoding import decode_at_least
from camboxes.transforms.inference.image_loading import decode_jpeg
from camboxes.transforms.ordered_threads import batched
from camboxes.transforms.records import LABELED, table

WARM_UP = 30  # by when a pass has become a program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("model")
    parser.add_argument("--weights")
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    use_one_core()
    localizer = Localizer(load_classifier(ModelSpec(arguments.model, arguments.weights, size=224, device="cpu")))
    run = PlannedRun.load(arguments.run)
    if run is None:
        raise SystemExit(f"{arguments.run!r} holds no run; expected the --output of camboxes label")
    planned = itertools.chain.from_iterable(run.planned_rows(key).to_pylist() for key in run.shards)
    seconds = of_pixels(localizer, list(itertools.islice(planned, arguments.images))) | of_rows(run, arguments.images)
    print(json.dumps({stage: 1000 * value for stage, value in seconds.items()}))


def of_pixels(localizer: Localizer, rows: list[dict]) -> dict[str, float]:
    """Seconds an image of all stages up to the stored map."""
    classifier = localizer.classifier
    size = classifier.spec.batch_size
    rows = rows[: len(rows) // size * size]  # full batches: what the others cost is padding
    files, read = each(lambda row: _bytes(row["location"]), rows)
    photographs, decoded = each(lambda data: decode_at_least(data, 224, decode_jpeg).pixels, files)
    pixels, resized = each(localizer.resize, photographs)
    batches = list(batched(pixels, size))
    normalised, transfer = each(lambda batch: _transfer(classifier, batch), batches)
    _, forward = each(lambda batch: _forward(classifier, batch), normalised)
    class_ids = [[label["class_indices"] for label in row["labels"]] for row in rows]
    found, localized = each(lambda pair: localizer.localize(*pair), zip(batches, batched(class_ids, size), strict=True))
    maps = [map_ for batch in found for localization in batch for map_ in localization.maps]
    _, quantized = each(quantize, maps)
    forward, transfer, localized = forward / size, transfer / size, localized / size
    return {
        "read": read,
        "decode": decoded,
        "resize": resized,
        "transfer": transfer,
        "forward": forward,
        "map": localized - forward - transfer + quantized,
    }


def of_rows(run: PlannedRun, images: int) -> dict[str, float]:
    """Seconds an image of the stages behind the stored map."""
    rule = BoxRule(**run.settings["rule"])
    drawn, boxes = each(lambda row: draw(row, rule), itertools.islice(run.rows(), images))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "shard.parquet"))
        _, write = each(lambda rows: storage.write_table(path, table(rows, LABELED, {})), [drawn])
    return {"boxes": boxes, "write": write / len(drawn)}


def each(work: Callable[[Any], Any], items: Sequence[Any] | Any) -> tuple[list[Any], float]:
    """What `work` makes of each item, and the seconds an item takes, once the first one has been done WARM_UP times."""
    items = list(items)
    for _ in range(WARM_UP):
        work(items[0])
    start = time.perf_counter()
    found = [work(item) for item in items]
    return found, (time.perf_counter() - start) / len(items)


def _bytes(location: str) -> bytes:
    data = read_image(location)
    hashlib.sha256(data)
    return data


def _transfer(classifier: Any, batch: Sequence[tuple[torch.Tensor, ...]]) -> torch.Tensor:
    return classifier.normalize(torch.stack([of_image[0] for of_image in batch]))


def _forward(classifier: Any, images: torch.Tensor) -> None:
    with torch.inference_mode():
        classifier(images)


if __name__ == "__main__":
    main()
