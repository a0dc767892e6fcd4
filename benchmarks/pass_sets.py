"""What each pass, scale, map and the refinement of `label`'s default buy for their time, and cheaper sets of passes.

    python benchmarks/pass_sets.py DATA_FOLDER [DATA_FOLDER ...] [--sets TEXT] [--every N]

Data folders are those of quality.py; EfficientNet-Lite0 in fp32, photographs in their own shape, all labels competing.
Each pass is made once an image, and all sets are fused from the same maps. The columns:

    .3 / .5 / .7   GT-known Loc of the boxes at 1*otsu, at the peak; of maps that are not refined at 0.9*otsu
    V2             at the best of quality.py's fixed thresholds for each of the three
    AP50           pycocotools', of the same boxes
    difference     of .5, V2 and AP50 to the default, and the interval of 90% of paired resamples of the images
    ms             of one core's time for an image of 500 x 375 pixels, with one label and with two: the passes, in
                   batches as `label` makes them, and the refinement; the least of ROUNDS rounds

--sets keeps the sets whose name contains TEXT, beside the default; --every takes each Nth image alone.
"""

import argparse
import csv
import dataclasses
import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from quality import DELTAS, THRESHOLDS, best_iou, boxes_by_pair

from camboxes.models import Classifier, ModelSpec, load_classifier
from camboxes.models.cam.methods import Methods
from camboxes.models.execution.process import use_one_core
from camboxes.models.localization.affinity import refine
from camboxes.models.localization.fusion import claims, compete, fuse
from camboxes.models.localization.looks import Look, Maps
from camboxes.models.spec import Factor
from camboxes.pipeline.evaluation.average_precision import Boxes, match_boxes, precision
from camboxes.pipeline.evaluation.figures import RESAMPLES, RESAMPLES_OF_DETECTION
from camboxes.pipeline.evaluation.resampling import bootstrap
from camboxes.transforms import BoxRule
from camboxes.transforms.boxes.from_map import WorkingMap
from camboxes.transforms.boxes.stored_maps import quantize
from camboxes.transforms.images.decoding import decode_at_least
from camboxes.transforms.inference.image_loading import decode_jpeg

MAPS = {"c": Factor("cam", None), "a": Factor("layercam", "32[-2]"), "b": Factor("layercam", "16")}
ROUNDS = 7


class Pass(NamedTuple):
    """A forward pass, and the gradients that its maps need."""

    scale: int  # the short side of the input in pixels
    fine: bool  # without the last downsampling
    maps: str  # keys of MAPS, whose product is the pass's map


class PassSet(NamedTuple):
    """Passes whose maps are fused, and refined at the largest scale or not."""

    passes: tuple[Pass, ...]
    refined: bool = True


def parsed(text: str) -> PassSet:
    """Reads `SIZE[f]:MAPS`, f for fine, several joined by +, with "plain" behind them for no refinement."""
    words = [word for word in text.split() if word not in ("+", "plain")]
    parts = [word.split(":") for word in words]
    passes = tuple(Pass(int(size.rstrip("f")), size.endswith("f"), maps) for size, maps in parts)
    return PassSet(passes, not text.endswith("plain"))


DEFAULT = "224f:cab + 448:cab"
SETS = [
    DEFAULT,
    f"{DEFAULT} plain",
    # Maps.
    "224f:cab + 448:ca",
    "224f:ca + 448:cab",
    "224f:ca + 448:ca",
    "224f:cab + 448:c",
    "224f:c + 448:cab",
    "224f:c + 448:c",
    # Scales.
    "224:cab + 448:cab",
    "192f:cab + 448:cab",
    "160f:cab + 448:cab",
    "224f:cab + 384:cab",
    "192f:cab + 384:cab",
    "160f:cab + 320:cab",
    "448:cab",
    "384:cab",
    "224f:cab",
    # Both.
    "192f:cab + 448:ca",
    "160f:cab + 448:ca",
    "224:cab + 448:ca",
    "192f:ca + 448:ca",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--sets", default="")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    use_one_core()
    network = Network()
    sets = {name: parsed(name) for name in SETS if arguments.sets in name or name == DEFAULT}
    times = network.milliseconds(list(sets.values()))
    for folder in arguments.data:
        print(f"| {folder.name} | .3 / .5 / .7 | V2 | AP50 | .5, difference | V2 | AP50 | ms |\n{8 * '|---'}|")
        judged = judge(network, folder, arguments.every, sets)
        figures = {name: of_set.figures() for name, of_set in judged.items()}
        for (name, of_set), milliseconds in zip(judged.items(), times, strict=True):
            known = " / ".join(f"{100 * np.mean(of_set.iou >= delta):.1f}" for delta in DELTAS)
            _, (v2, _), (ap50, _) = figures[name]
            compared = [difference(*both) for both in zip(figures[DEFAULT], figures[name], strict=True)]
            print(
                f"| `{name}` | {known} | {v2:.1f} | {ap50:.1f} | {' | '.join(compared)} | {milliseconds} |", flush=True
            )


class Network:
    """The network at both strides, and the looks that passes are read from."""

    def __init__(self) -> None:
        self.classifier = load_classifier(ModelSpec(aspect="keep", precision="fp32"))
        self._fine = self.classifier.at_stride(16)
        self._layers = tuple(self.classifier.layer(stride) for stride in ("16", "8"))
        for name in self._layers:
            self._fine.layer(name)

    def look(self, of: Pass, batch_size: int = 1) -> Look:
        """Prepares a pass."""
        network: Classifier = self._fine if of.fine else self.classifier
        return Look(Methods(network, [MAPS[key] for key in of.maps]), 0, of.scale, batch_size, False, self._layers)

    def resized(self, photograph: np.ndarray, scale: int) -> tuple[torch.Tensor]:
        """Resizes a photograph as a look of one scale takes it."""
        return (dataclasses.replace(self.classifier.preprocessing, size=scale).resize(photograph),)

    def maps(self, of: Pass, photographs: Sequence[np.ndarray], class_ids: Sequence[Sequence[int]]) -> Maps:
        """Makes a pass over photographs of one shape."""
        look = self.look(of, len(photographs))
        return look.read(look.forward([self.resized(each, of.scale) for each in photographs]), class_ids)

    def milliseconds(self, sets: Sequence[PassSet]) -> list[str]:
        """For one label and for two, of each set."""
        passes = sorted({each for of_set in sets for each in of_set.passes})
        photograph = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
        least: dict[tuple[Pass | int, int], float] = defaultdict(lambda: math.inf)
        for _ in range(ROUNDS):
            for each in passes:
                size = max(1, round(4 * min(1, (224 / each.scale) ** 2)))
                for labels in (1, 2):
                    start = time.thread_time()
                    maps = self.maps(each, size * [photograph], size * [[7, 300][:labels]])
                    read = time.thread_time()
                    refine(maps.factors[0][:1], [layer[:1] for layer in maps.layers])
                    end = time.thread_time()
                    least[each, labels] = min(least[each, labels], (read - start) / size)
                    least[each.scale, labels] = min(least[each.scale, labels], end - read)

        def of_set(passes: Sequence[Pass], refined: bool, labels: int) -> float:
            refinement = least[max(each.scale for each in passes), labels] if refined else 0
            return 1000 * (sum(least[each, labels] for each in passes) + refinement)

        return [", ".join(f"{of_set(*each, labels):.0f}" for labels in (1, 2)) for each in sets]


class Judged:
    """The boxes of a set, and how well they fit."""

    def __init__(self, true: Boxes, paths: list[str]):
        self._true, self._paths = true, paths
        self._pairs: list[tuple[int, float, list[float]]] = []
        self._drawn: list[tuple[int, int, Sequence[float], float]] = []

    def add(self, image: int, category: int, map_: WorkingMap, probability: float, rule: BoxRule, true) -> None:
        """Draws the box of a label, and compares it with the true boxes of the label, where it has any."""
        for box in map_.draw(rule).boxes:
            self._drawn.append((image, category, box.bbox, probability * box.mean))
        if true:
            others = [BoxRule(threshold, boxes=rule.boxes) for threshold in (rule.threshold, *THRESHOLDS)]
            iou, *at = (best_iou(bbox, true) for bbox in map_.outlines(others))
            self._pairs.append((image, iou, at))

    @property
    def iou(self) -> np.ndarray:
        """Of each pair of an image and a label the box's largest IoU with a true one: float64 [pairs]."""
        return np.array([iou for _, iou, _ in self._pairs])

    def figures(self) -> list[tuple[float, np.ndarray]]:
        """GT-known Loc at IoU 0.5, V2 and AP50, in percent: of all images, and of each resample."""
        image, hits = np.array([image for image, _, _ in self._pairs]), 100.0 * (self.iou >= 0.5)
        at = np.array([of_pair for _, _, of_pair in self._pairs])
        at_deltas = [100.0 * (at >= delta) for delta in DELTAS]

        def of_own_boxes(weights: np.ndarray) -> np.ndarray:
            shares = weights[:, image] / weights[:, image].sum(axis=1, keepdims=True)
            v2 = np.mean([(shares @ at_delta).max(axis=1) for at_delta in at_deltas], axis=0)
            return np.stack([shares @ hits, v2], axis=1)

        columns = map(np.array, zip(*self._drawn, strict=True))
        matches = match_boxes(self._true, Boxes(*columns, np.zeros(len(self._drawn), bool)))
        own = bootstrap(of_own_boxes, self._paths, RESAMPLES, len(image))
        drawn = bootstrap(
            lambda weights: precision(matches, weights).ap50[:, None], self._paths, RESAMPLES_OF_DETECTION
        )
        return [(values[n], samples[:, n]) for values, samples in (own, drawn) for n in range(len(values))]


def judge(network: Network, folder: Path, every: int, sets: dict[str, PassSet]) -> dict[str, Judged]:
    label_map = json.loads((folder / "label_map.json").read_text())
    labels = defaultdict(list)
    for row in csv.DictReader((folder / "labels.csv").open()):
        if label_map[row["label"]]:
            labels[row["path"]].append(row["label"])
    paths, categories = sorted(labels)[::every], sorted(label_map)
    true_of = boxes_by_pair(json.loads((folder / "instances.json").read_text()))
    true = [
        (image, categories.index(label), box)
        for image, path in enumerate(paths)
        for label in labels[path]
        for box in true_of.get((Path(path).name, label), ())
    ]
    columns = [np.array(column) for column in zip(*true, strict=True)]
    truth = Boxes(*columns, np.zeros(len(true)), np.zeros(len(true), bool))
    found = {name: Judged(truth, paths) for name in sets}
    # Of each scale one pass with all maps that any set wants.
    wanted: dict[tuple[int, bool], str] = defaultdict(str)
    for each in (each for of_set in sets.values() for each in of_set.passes):
        wanted[each.scale, each.fine] += "".join(key for key in each.maps if key not in wanted[each.scale, each.fine])
    first = network.look(Pass(224, True, "c"))
    for image, path in enumerate(paths):
        photograph, width, height = decode_at_least((folder / path).read_bytes(), 896, decode_jpeg)
        logits = first.forward([network.resized(photograph, 224)]).logits
        probabilities = network.classifier.probabilities(logits)[0].tolist()
        ids = [max(label_map[label], key=probabilities.__getitem__) for label in labels[path]]
        passed = {key: network.maps(Pass(*key, maps), [photograph], [ids]) for key, maps in wanted.items()}
        for name, of_set in sets.items():
            fused = fused_maps(of_set, passed, wanted)
            rule = BoxRule("1*otsu" if of_set.refined else "0.9*otsu", boxes="peak")
            for label, class_id, map_ in zip(labels[path], ids, fused.numpy(), strict=True):
                drawn, boxes = WorkingMap(quantize(map_), width, height), true_of.get((Path(path).name, label))
                found[name].add(image, categories.index(label), drawn, probabilities[class_id], rule, boxes)
    return found


def fused_maps(of_set: PassSet, passed: dict, wanted: dict) -> torch.Tensor:
    """One image's maps as `Localizer` fuses them: float32 [labels, height, width]."""
    terms, smallest = [], min(each.scale for each in of_set.passes)
    for scale, fine, keys in of_set.passes:
        factors = dict(zip(wanted[scale, fine], passed[scale, fine].factors, strict=True))
        several = len(factors[keys[0]][0]) > 1
        terms.append((scale / smallest if several else 1.0, [factors[key] for key in keys]))
    fused = fuse(terms)
    if fused.shape[1] > 1:
        fused = compete(fused[0], claims(terms)[0])[None]
    if of_set.refined:
        fused = refine(fused, passed[max(of_set.passes)[:2]].layers)
    return fused[0]


def difference(default: tuple[float, np.ndarray], found: tuple[float, np.ndarray]) -> str:
    if found is default:
        return ""
    low, high = np.percentile(found[1] - default[1], [5, 95])
    return f"{found[0] - default[0]:+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
