"""How many images are in doubt with the right classes of their labels, and with others.

    python benchmarks/doubts.py DATA_FOLDER [CKPT]

DATA_FOLDER holds labels.csv (path,label) and the images; and label_map.json from labels to ImageNet's classes for
EfficientNet-Lite0. Instead of these, CKPT is a classifier of the labels, as camboxes train makes it. The wrong classes
are those of other labels (five permutations, the least and the most are printed), and the ones with the next index.
"""

import argparse
import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from camboxes.models import Classifier, ModelSpec, load_classifier
from camboxes.transforms.doubts.label_doubts import Doubts
from camboxes.transforms.planning.label_matching import LabelMatcher

_PERMUTATIONS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("model", nargs="?", default="efficientnet_lite0", metavar="CKPT")
    parser.add_argument("--images", type=int, default=500, help="at most (default: %(default)s)")
    arguments = parser.parse_args()
    labels: dict[str, set[str]] = {}
    with (arguments.data / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            labels.setdefault(row["path"], set()).add(row["label"])
    paths = sorted(labels)
    random.Random(0).shuffle(paths)
    paths = paths[: arguments.images]
    classifier = load_classifier(ModelSpec(arguments.model, precision="fp32"))
    given = None
    if not Path(arguments.model).is_dir():
        given = json.loads((arguments.data / "label_map.json").read_text())
    matcher = LabelMatcher(classifier.class_names, given)
    right = {label: matcher.match(label) for label in sorted(set().union(*labels.values()))}
    probabilities = _probabilities(classifier, [arguments.data / path for path in paths])
    of_images = [labels[path] for path in paths]
    count = len(classifier.class_names)
    moved = {label: [(index + 1) % count for index in classes] for label, classes in right.items()}
    shares = [_share(classifier, probabilities, of_images, classes) for classes in _permuted(right)]
    print(f"right classes        {_share(classifier, probabilities, of_images, right):.0%}")
    print(f"those of other labels {min(shares):.0%} to {max(shares):.0%}")
    print(f"the next index       {_share(classifier, probabilities, of_images, moved):.0%}")


def _probabilities(classifier: Classifier, paths: Sequence[Path]) -> np.ndarray:
    size, found = classifier.spec.batch_size or 4, []
    for start in range(0, len(paths), size):
        images = [np.array(Image.open(path).convert("RGB")) for path in paths[start : start + size]]
        batch = torch.stack([classifier.preprocessing.resize(image) for image in images])
        found.append(classifier.probabilities(classifier.infer(batch).logits))
    return torch.cat(found).numpy()


def _permuted(right: Mapping[str, Sequence[int]]) -> Iterable[Mapping[str, Sequence[int]]]:
    """Maps in which no label that stands for classes has its own."""
    labels = [label for label, classes in right.items() if classes]
    for seed in range(_PERMUTATIONS):
        order = list(labels)
        random.Random(seed).shuffle(order)
        others = dict(zip(order, [*order[1:], order[0]], strict=True))
        yield {label: right[others[label]] if label in others else () for label in right}


def _share(
    classifier: Classifier,
    probabilities: np.ndarray,
    of_images: Sequence[Iterable[str]],
    classes: Mapping[str, Sequence[int]],
) -> float:
    doubts = Doubts.about({"model": classifier.settings})
    for said, labels in zip(probabilities, of_images, strict=True):
        found = [{"label": label, "probability": max(said[list(classes[label])])} for label in labels if classes[label]]
        doubts.add({"labels": found, "top5": [{"probability": said.max()}]})
    return doubts.images / doubts.of


if __name__ == "__main__":
    main()
