"""What a user would write with torchcam or with grad-cam, from their documentation. Imports nothing of camboxes.

    python benchmarks/speed_peers.py {torchcam,gradcam} DATA_FOLDER NETWORK.json [--images N] [--device cuda]

NETWORK.json and the data folder are what speed_images.py writes. Photographs are opened and resized by Pillow, put
through the network eight at a time, with all that PyTorch does by default; each map is brought to its photograph's
size, min-max scaled and cut at 0.25; the box of its largest component goes to a JSON file. Prints JSON: images/s over
N photographs (after one batch that warms up), and the boxes found.
"""

import argparse
import contextlib
import csv
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import normalize, resize, to_pil_image, to_tensor

BATCH = 8
THRESHOLD = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=["torchcam", "gradcam"])
    parser.add_argument("data", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    classes = json.loads((arguments.data / "label_map.json").read_text())
    with (arguments.data / "labels.csv").open() as file:
        rows = [(arguments.data / row["path"], classes[row["label"]][0]) for row in csv.DictReader(file)]
    rows = rows[: arguments.images]
    network = json.loads(arguments.network.read_text())
    with {"torchcam": torchcam, "gradcam": gradcam}[arguments.library](network, arguments.device) as maps:
        label(rows[:BATCH], network, maps, arguments.device)
        start = time.perf_counter()
        boxes = label(rows, network, maps, arguments.device)
        seconds = time.perf_counter() - start
    print(json.dumps({"images_per_second": len(rows) / seconds, "boxes": boxes}))


def label(rows, network, maps, device) -> int:
    images, annotations = [], []
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        photographs = [Image.open(path).convert("RGB") for path, _ in batch]
        tensors = [
            normalize(to_tensor(resize(photograph, [224, 224])), network["mean"], network["std"])
            for photograph in photographs
        ]
        class_ids = [class_id for _, class_id in batch]
        for (path, class_id), photograph, map_ in zip(
            batch, photographs, maps(torch.stack(tensors).to(device), class_ids), strict=True
        ):
            images.append(
                {"id": len(images) + 1, "file_name": path.name, "width": photograph.width, "height": photograph.height}
            )
            box = largest_box(np.asarray(map_.resize(photograph.size, Image.Resampling.BICUBIC)))
            if box is not None:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": len(images), "category_id": class_id, "bbox": box}
                )
    with tempfile.TemporaryFile("w") as file:
        json.dump({"images": images, "annotations": annotations}, file)
    return len(annotations)


def largest_box(map_: np.ndarray) -> list[int] | None:
    low, high = map_.min(), map_.max()
    if not high > low:
        return None
    foreground = ((map_ - low) / (high - low) >= THRESHOLD).astype(np.uint8)
    _, _, components, _ = cv2.connectedComponentsWithStats(foreground)
    x, y, width, height, _ = max(components[1:].tolist(), key=lambda component: component[4])
    return [x, y, width, height]


@contextlib.contextmanager
def torchcam(network, device):
    from torchcam.methods import CAM

    model = build(network, device)
    with CAM(model) as extractor:

        def maps(batch, class_ids):
            with torch.inference_mode():
                scores = model(batch)
            return [to_pil_image(map_, mode="F") for map_ in extractor(class_ids, scores)[0]]

        yield maps


@contextlib.contextmanager
def gradcam(network, device):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = build(network, device)
    with GradCAM(model=model, target_layers=[model.get_submodule(network["last_layer"])]) as cam:

        def maps(batch, class_ids):
            found = cam(input_tensor=batch, targets=[ClassifierOutputTarget(class_id) for class_id in class_ids])
            return [to_pil_image(map_, mode="F") for map_ in found]

        yield maps


def build(network, device) -> torch.nn.Module:
    if network["library"] == "timm":
        import timm

        model = timm.create_model(network["name"])
    else:
        import torchvision

        model = torchvision.models.get_model(network["name"])
    model.load_state_dict(torch.load(network["weights"], weights_only=True))
    return model.eval().to(device)


if __name__ == "__main__":
    main()
