"""What dual encoders of open_clip can do, with random weights: the figures of docs/how-to/labels-in-words.md.

    python benchmarks/dual_encoders.py ARCHITECTURE…

A row for each: the size of its maps, whether it takes images of another size, and how far its embeddings are from
open_clip's own, as a share of the largest value. Then how long the text tower of the last one takes for a label.
"""

import sys
import time

import open_clip
import torch

from camboxes.models import ModelSpec, class_maps
from camboxes.models.classifier import Classifier
from camboxes.models.networks.dual_encoders import DualEncoder, image_tower
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.networks.prompts import embed, read_prompts


def main() -> None:
    torch.set_num_threads(1)
    print(
        "| tower | million parameters | input | map | other sizes | difference |\n| --- | --- | --- | --- | --- | --- |"
    )
    for architecture in sys.argv[1:]:
        torch.manual_seed(0)
        model = open_clip.create_model(architecture).eval()
        print(row(architecture, model.visual), flush=True)
    start, labels = time.perf_counter(), [f"label {number}" for number in range(10)]
    embed(model, open_clip.get_tokenizer(architecture), read_prompts(labels))
    print(f"\n{architecture}: {(time.perf_counter() - start) / len(labels):.1f} s a label on one core")


def row(architecture: str, visual: torch.nn.Module) -> str:
    millions = sum(parameter.numel() for parameter in visual.parameters()) / 1e6
    size = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
    with torch.no_grad():
        images = torch.randn(2, 3, size, size)
        expected = visual(images)
        module = DualEncoder(image_tower(architecture, visual), expected.shape[1], 3).eval()
        difference = (module.tower.forward_head(module.forward_features(images)) - expected).abs().max()
    classifier = Classifier(
        module, Preprocessing((0,) * 3, (1,) * 3, size, "bicubic"), ModelSpec(architecture, size=size)
    )
    height, width = maps(classifier, images).shape[2:]
    stride = classifier.preprocessing.stride
    try:
        other = (
            "yes" if maps(classifier, torch.randn(2, 3, size + stride, size + 2 * stride)).isfinite().all() else "NaN"
        )
    except (RuntimeError, AssertionError):
        other = "no"
    share = difference / expected.abs().max()
    return f"| {architecture} | {millions:.0f} | {size} | {height} x {width} | {other} | {share:.0e} |"


def maps(classifier: Classifier, images: torch.Tensor) -> torch.Tensor:
    return class_maps(classifier, images, torch.zeros((len(images), 1), dtype=torch.int64), "layercam")


if __name__ == "__main__":
    main()
