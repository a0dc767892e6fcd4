"""Methods that were tried and have no place in models/: how good are their boxes beside those of methods that have one?

    python benchmarks/candidates.py DATA_FOLDER [DATA_FOLDER ...] [--settings TEXT] [--every N]

Data folders and figures are as in quality.py: EfficientNet-Lite0 at 224, squashed images, plain maps, the largest
component. Milliseconds are one map with its own forward passes, on one core. --settings keeps the rows whose name
contains TEXT, without it those of the last feature maps that need a single pass; --every takes each Nth image alone.

    ablation-cam      Ramaswamy and Desai, WACV 2020. Behind GAP and a linear layer, without channel k the logit loses
                      w_k mean(A_k): no pass is needed.
    finer-cam, alpha  Zhang et al., CVPR 2025: of the logit less alpha times those of the three classes with the
                      nearest logits, weighted by their probabilities.
    smoothgrad-cam++  Omeiza et al., 2019: Grad-CAM++ of derivatives that are means over SAMPLES noisy images. Behind
                      GAP and a linear layer derivatives are constants, so it is tried at stride 16.
    is-cam, ss-cam    Naidu et al., 2020; Wang et al., 2020: Score-CAM, whose scores are means over SAMPLES fractions
                      of each mask, or over noisy masks; tried, like Score-CAM beside them, on the CHANNELS strongest.
"""

import argparse
import csv
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from quality import DELTAS, THRESHOLDS, best_iou, boxes_by_pair, draw
from torch.nn.functional import interpolate

from camboxes.models import ModelSpec, class_maps, load_classifier
from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.transforms.boxes.stored_maps import quantize

SAMPLES, CHANNELS, NOISE = 6, 32, 0.2


def method(name):
    """One that models/ has."""
    return lambda classifier, image, index: class_maps(classifier, image, torch.tensor([[index]]), name)[0, 0]


def ablation_cam(classifier, image, index):
    maps, logits = last(classifier, image)
    drops = classifier.weight[index] * maps.mean((1, 2))
    return torch.einsum("k,kyx->yx", drops / logits[index], maps).relu()


def finer_cam(alpha):
    def finer(classifier, image, index):
        maps, logits = last(classifier, image)
        similar = (logits - logits[index]).abs().argsort()[1:4]
        others = logits[similar].softmax(0) @ classifier.weight[similar]
        return torch.einsum("k,kyx->yx", classifier.weight[index] - alpha * others, maps).relu()

    return finer


def smooth_grad_cam_plus_plus(classifier, image, index):
    layer, generator = classifier.layer("16"), torch.Generator().manual_seed(0)
    clean = ForwardPass(classifier, image, frozenset([layer]), gradients=frozenset()).maps(layer)[0].relu()
    noisy = image + NOISE * torch.randn(SAMPLES, *image.shape[1:], generator=generator)
    forward = ForwardPass(classifier, noisy, frozenset([layer]), gradients=frozenset([layer]))
    gradients = forward.gradients(layer, torch.full((SAMPLES,), index))
    first, second, third = (gradients.pow(order).mean(0) for order in (1, 2, 3))
    below = 2 * second + clean.sum((1, 2), keepdim=True) * third
    alpha = torch.where(below == 0, 0, second / below)
    return torch.einsum("k,kyx->yx", (alpha * first.relu()).sum((1, 2)), clean).relu()


def scored(variants):
    """Score-CAM with the mean score over variants of each mask, [channels, 1, height, width], in [0, 1]."""

    def score(classifier, image, index):
        maps = last(classifier, image)[0]
        maps = maps[maps.mean((1, 2)).topk(CHANNELS).indices]
        masks = interpolate(maps[:, None], image.shape[2:], mode="bilinear")
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        masks = torch.where(high > low, (masks - low) / (high - low), 0)
        scores = []
        for variant in variants(masks):
            batches = (variant * image).split(classifier.spec.batch_size)
            scores.append(torch.cat([logits_of(classifier, batch)[:, index] for batch in batches]))
        return torch.einsum("k,kyx->yx", torch.stack(scores).mean(0).softmax(0), maps).relu()

    return score


def integrated(masks):
    return (step / SAMPLES * masks for step in range(1, SAMPLES + 1))


def smoothed(masks):
    generator = torch.Generator().manual_seed(0)
    return (masks + NOISE * torch.randn(masks.shape, generator=generator) for _ in range(SAMPLES))


def last(classifier, image):
    """The last feature maps [channels, height, width], and the logits [classes]."""
    activations, _ = classifier.record(image, frozenset())
    return activations.features[0].float(), activations.logits[0]


def logits_of(classifier, images):
    return classifier.record(images.contiguous(memory_format=torch.channels_last), frozenset())[0].logits


CANDIDATES = {
    "cam": method("cam"),
    "gradcam++": method("gradcam++"),
    "ablation-cam": ablation_cam,
    "finer-cam, 0.3": finer_cam(0.3),
    "finer-cam, 0.6": finer_cam(0.6),
    "finer-cam, 1": finer_cam(1),
    "layercam@16": method("layercam@16"),
    "gradcam++@16": method("gradcam++@16"),
    "smoothgrad-cam++@16": smooth_grad_cam_plus_plus,
    "score-cam": scored(lambda masks: [masks]),
    "is-cam": scored(integrated),
    "ss-cam": scored(smoothed),
}
SLOW = {"layercam@16", "gradcam++@16", "smoothgrad-cam++@16", "score-cam", "is-cam", "ss-cam"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--settings")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    wanted = {
        name: way
        for name, way in CANDIDATES.items()
        if (arguments.settings in name if arguments.settings else name not in SLOW)
    }
    torch.set_num_threads(1)
    classifier = load_classifier(ModelSpec(batch_size=4))
    print("| candidate | pairs | GT-known .3 / .5 / .7 at t 0.25 | best-t V2 | ms/map |\n|---|---|---|---|---|")
    for folder in arguments.data:
        for name, (ious, seconds) in judged(classifier, folder, arguments.every, wanted).items():
            known = np.array([[100 * (ious[:, t] >= delta).mean() for t in range(len(THRESHOLDS))] for delta in DELTAS])
            fixed = " / ".join(f"{value:.1f}" for value in known[:, THRESHOLDS.index(0.25)])
            print(
                f"| {folder.name}: {name} | {len(ious)} | {fixed} | {known.max(1).mean():.1f} "
                f"| {1000 * np.mean(seconds):.0f} |",
                flush=True,
            )


def judged(classifier, folder, every, ways):
    """For each way the IoU of each pair of an image and a label at each threshold, [pairs, thresholds], and seconds."""
    label_map = json.loads((folder / "label_map.json").read_text())
    truth = boxes_by_pair(json.loads((folder / "instances.json").read_text()))
    labels = defaultdict(list)
    for row in csv.DictReader((folder / "labels.csv").open()):
        labels[row["path"]].append(row["label"])
    ious, seconds = {name: [] for name in ways}, {name: [] for name in ways}
    for path in sorted(labels)[::every]:
        photograph = np.array(Image.open(folder / path).convert("RGB"))
        image = classifier.normalize(classifier.preprocessing.resize(photograph)[None])
        logits = last(classifier, image)[1]
        for label in labels[path]:
            boxes = truth.get((Path(path).name, label))
            if not boxes or not label_map[label]:
                continue
            index = max(label_map[label], key=lambda index: float(logits[index]))
            for name, way in ways.items():
                start = time.perf_counter()
                stored = quantize(way(classifier, image, index).numpy())
                seconds[name].append(time.perf_counter() - start)
                drawn = [draw(stored, photograph.shape[1], photograph.shape[0], t) for t in THRESHOLDS]
                ious[name].append([best_iou(box, boxes) for box in drawn])
    return {name: (np.array(ious[name]), seconds[name]) for name in ways}


if __name__ == "__main__":
    main()
