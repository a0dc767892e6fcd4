"""What a detector makes of pseudo-boxes: trained on them, and on ground truth of the same images, judged on others.

    python benchmarks/bootstrapping.py RACCOON_FOLDER BACKGROUND_FOLDER [BACKGROUND_FOLDER ...] [--seeds N]

Data folders are as in quality.py. Every second raccoon image in the order of their names is trained on, the others are
tested on. `camboxes train` is given the training half, and every image of the background folders as the class
"background"; `camboxes label` then draws one box on each image of the training half. A small FCOS on EfficientNet-Lite0
is trained from each of

    ground truth   the training half's true boxes
    pseudo-boxes   those of camboxes, from image-level labels alone
    centred box    one of 80% of each side, without looking: what the images' composition gives away

with the same images, steps and augmentation, once for each seed. AP50 is pycocotools', on the test half, in percent;
ratios are to ground truth. The recipe was settled on the ground-truth arm alone.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from quality import best_iou, boxes_by_pair
from timm.layers import freeze_batch_norm_2d
from torch import nn
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, box_convert
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.transforms import v2
from trained import camboxes

from camboxes.models import load_classifier

SIZE = 256  # longer side of the detector's input
STEPS = 150
BATCH = 8
RATE = 2e-3
AUGMENTATION = v2.Compose(
    [
        v2.ColorJitter(0.3, 0.3, 0.3),
        v2.RandomZoomOut(fill=127, side_range=(1.0, 2.0)),
        v2.RandomIoUCrop(),
        v2.RandomHorizontalFlip(),
        v2.SanitizeBoundingBoxes(),
        v2.ToDtype(torch.float32, scale=True),
    ]
)


class Backbone(nn.Module):
    """EfficientNet-Lite0 with its ImageNet weights under a feature pyramid.

    Its blocks at stride 32 are trained, what is before them and every batch norm is not.
    """

    out_channels = 64

    def __init__(self) -> None:
        super().__init__()
        network = freeze_batch_norm_2d(load_classifier("efficientnet_lite0").network)  # all of it is frozen
        blocks = network.blocks
        stride8 = nn.Sequential(network.conv_stem, network.bn1, *blocks[:3])
        self.stages = nn.ModuleDict({"8": stride8, "16": blocks[3:5], "32": blocks[5:].requires_grad_(True)})
        self.pyramid = FeaturePyramidNetwork([40, 112, 320], self.out_channels, LastLevelMaxPool())

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Normalised images to the pyramid's maps, strides 8, 16, 32 and 64."""
        maps = {}
        for stride, stage in self.stages.items():
            images = maps[stride] = stage(images)
        return self.pyramid(maps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raccoon", type=Path)
    parser.add_argument("background", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--output", type=Path, help="keep classifier and run there, and begin with those that are there"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    instances = json.loads((arguments.raccoon / "instances.json").read_text())
    names = sorted(image["file_name"] for image in instances["images"])
    training, test = names[::2], names[1::2]
    images = {name: read(arguments.raccoon / "images" / name) for name in names}
    truth = by_name(instances)
    with tempfile.TemporaryDirectory() as temporary:
        pseudo = pseudo_boxes(arguments.raccoon, arguments.background, training, arguments.output or Path(temporary))
    arms = {
        "ground truth": {name: truth[name] for name in training},
        "pseudo-boxes": pseudo,
        "centred box": {name: [centred(images[name])] for name in training},
    }
    seeds = " | ".join(f"seed {seed}" for seed in range(arguments.seeds))
    print(f"| trained on | GT-known .5 of its boxes | AP50: {seeds} | mean | ratio |")
    print("|---" * (4 + arguments.seeds) + "|")
    reached = {}
    for arm, boxes in arms.items():
        known = 100 * np.mean([best_iou(boxes[name][0], truth[name]) >= 0.5 for name in boxes])
        figures = []
        for seed in range(arguments.seeds):
            start = time.monotonic()
            detector = train(images, boxes, seed)
            figures.append(ap50(detector, images, instances, test))
            print(f"{arm}, seed {seed}: AP50 {figures[-1]:.1f}, {time.monotonic() - start:.0f} s", file=sys.stderr)
        reached[arm] = np.mean(figures)
        ratio = reached[arm] / reached["ground truth"]
        cells = [f"{known:.1f}", *(f"{figure:.1f}" for figure in figures), f"{reached[arm]:.1f}", f"{ratio:.2f}"]
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)


def read(path: Path) -> torch.Tensor:
    return decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True)


def centred(image: torch.Tensor) -> list[float]:
    height, width = image.shape[1:]
    return [0.1 * width, 0.1 * height, 0.8 * width, 0.8 * height]


def by_name(coco: dict) -> dict[str, list[list[float]]]:
    """File name without folders -> boxes, of a data set of one category."""
    return {Path(path).name: boxes for (path, _), boxes in boxes_by_pair(coco).items()}


def pseudo_boxes(folder: Path, background: list[Path], names: list[str], output: Path) -> dict[str, list[list[float]]]:
    """What camboxes draws on the named images of a folder, from labels alone; images without a box are left out."""
    output.mkdir(parents=True, exist_ok=True)
    root = os.path.commonpath([other.resolve().parent for other in (folder, *background)])
    positive = [(folder / "images" / name, "raccoon") for name in names]
    negative = [(path, "background") for other in background for path in sorted((other / "images").iterdir())]
    for manifest, rows in (("images.csv", positive + negative), ("training.csv", positive)):
        with (output / manifest).open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "label"])
            table.writerows((path.resolve().relative_to(root), label) for path, label in rows)
    classifier, run = str(output / "classifier"), str(output / "run")
    steps = [
        ["train", "--input", str(output / "images.csv"), "--output", classifier],
        ["label", "--input", str(output / "training.csv"), "--output", run, "--model", classifier],
    ]
    for step in steps:
        camboxes(*step, "--root", root)
    return by_name(json.loads(Path(run, "annotations.json").read_text()))


def train(images: dict[str, torch.Tensor], boxes: dict[str, list[list[float]]], seed: int) -> FCOS:
    torch.manual_seed(seed)
    detector = FCOS(
        Backbone(),
        num_classes=1,
        min_size=SIZE,
        max_size=SIZE,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4),
        score_thresh=0.01,
    ).to(memory_format=torch.channels_last)
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    names = sorted(boxes)  # seeds shuffle all arms alike
    order = torch.cat([torch.randperm(len(names)) for _ in range(-(-STEPS * BATCH // len(names)))])
    for step in range(STEPS):
        batch = [example(images[names[i]], boxes[names[i]]) for i in order[step * BATCH : (step + 1) * BATCH]]
        losses = detector(*zip(*batch, strict=True))
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.2f}", file=sys.stderr)
    return detector.eval()


def example(image: torch.Tensor, boxes: list[list[float]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """An augmented image with values of 0 to 1, and its boxes and classes as torchvision's detectors take them."""
    corners = box_convert(torch.tensor(boxes), "xywh", "xyxy")
    target = {
        "boxes": tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=image.shape[1:]),
        "labels": torch.zeros(len(boxes), dtype=torch.int64),
    }
    return AUGMENTATION(tv_tensors.Image(image), target)


def ap50(detector: FCOS, images: dict[str, torch.Tensor], instances: dict, names: list[str]) -> float:
    ids = {image["file_name"]: image["id"] for image in instances["images"]}
    category = instances["categories"][0]["id"]
    results = []
    for name in names:
        with torch.inference_mode():
            (found,) = detector([v2.functional.to_dtype(images[name], scale=True)])
        for box, score in zip(
            box_convert(found["boxes"], "xyxy", "xywh").tolist(), found["scores"].tolist(), strict=True
        ):
            results.append({"image_id": ids[name], "category_id": category, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = instances
        truth.createIndex()
        judged = COCOeval(truth, truth.loadRes(results), "bbox")
        judged.params.imgIds = [ids[name] for name in names]
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return 100 * judged.stats[1]


if __name__ == "__main__":
    main()
