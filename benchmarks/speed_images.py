"""The data set and the networks that speed.py measures with, made the same way every time.

A data folder holds images/, labels.csv (path,label) and label_map.json (label -> class indices): crops of photographs,
500 x 375 pixels or upright, mirrored and shifted in colour, so that decoding and maps cost what they cost on
photographs. Beside it stand NETWORK.json and NETWORK.pth for those that import nothing of camboxes: library, name,
weights, mean, std and the last layer with maps.

ResNet-50 has random weights, for its own have to be downloaded and speed does not depend on them; its batch norms are
fitted to some of the images, and its classes' weights are positive, so that maps differ from place to place and boxes
are drawn.
"""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from camboxes.models.networks.by_name import load_network
from camboxes.pipeline.commands import demo

# The demo's labels, in ImageNet's numbering.
CLASSES = {"Egyptian cat": 285, "espresso": 967, "military uniform": 652, "moped": 665, "tripod": 872}
# What `camboxes label` is called with, beside what the peers load.
NETWORKS = {
    "efficientnet_lite0": ["--model", "efficientnet_lite0"],
    "resnet50": ["--model", "torchvision:resnet50", "--weights"],
}
LAST_LAYERS = {"efficientnet_lite0": "bn2", "resnet50": "layer4"}
_SUFFIXES = {".jpg", ".jpeg", ".png"}


def make_images(folder: Path, count: int, photographs: Path | None = None) -> None:
    """Writes a data folder of `count` images.

    Args:
      folder: where it is made.
      count: how many images.
      photographs: a folder of photographs to crop, at any depth, whose images get the demo's labels in turn; None for
        the demo's photographs and their labels.
    """
    if photographs is None:
        demo.gather(folder / "photographs")
        sources = [(path, path.parent.name) for path in sorted((folder / "photographs").glob("*/*"))]
    else:
        found = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise SystemExit(
                f"--images {photographs}: there is no photograph; expected a folder with .jpg, .jpeg or .png files"
            )
        sources = list(zip(found, itertools.cycle(CLASSES), strict=False))
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for number, (source, label) in zip(range(count), itertools.cycle(sources), strict=False):
            path = f"images/{number:06d}.jpg"
            with Image.open(source) as photograph:
                crop(photograph.convert("RGB"), generator).save(folder / path, quality=90)
            rows.writerow([path, label])
    (folder / "label_map.json").write_text(json.dumps({label: [index] for label, index in CLASSES.items()}))


def crop(photograph: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A part of a photograph, at least half as wide or high as there is room for, in other colours."""
    size = (500, 375) if generator.random() < 0.75 else (375, 500)
    room = min(photograph.width / size[0], photograph.height / size[1])
    width, height = (generator.uniform(0.5, 1) * room * np.array(size)).tolist()
    x, y = generator.uniform(0, photograph.width - width), generator.uniform(0, photograph.height - height)
    cut = photograph.resize(size, Image.Resampling.BICUBIC, (x, y, x + width, y + height))
    pixels = np.asarray(cut, np.float32) * generator.uniform(0.8, 1.2, 3) + generator.uniform(-16, 16, 3)
    changed = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return changed.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else changed


def make_network(name: str, folder: Path) -> list[str]:
    """Writes NETWORK.json and NETWORK.pth into a data folder; the options with which `camboxes label` takes it."""
    weights, options = folder / f"{name}.pth", NETWORKS[name]
    if options[-1] == "--weights":
        torch.save(random_state(name, folder), weights)
        options = [*options, str(weights)]
        network = load_network(f"torchvision:{name}", str(weights))
    else:
        network = load_network(name, None)
        torch.save(network.module.state_dict(), weights)
    library, bare = network.name.split(":")
    described = {"library": library, "name": bare, "weights": str(weights), "last_layer": LAST_LAYERS[name]}
    described |= {"mean": network.preprocessing.mean, "std": network.preprocessing.std}
    (folder / f"{name}.json").write_text(json.dumps(described))
    return options


def random_state(name: str, folder: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    module = torchvision.models.get_model(name)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # the mean over all that is seen
    files = [torchvision.io.read_image(str(path)) for path in sorted((folder / "images").iterdir())[:16]]
    images = torch.stack([torchvision.transforms.v2.functional.resize(file, [224, 224]) for file in files])
    with torch.no_grad():
        module.train()(images.float() / 127.5 - 1)
        module.fc.weight.abs_()
    return module.state_dict()
