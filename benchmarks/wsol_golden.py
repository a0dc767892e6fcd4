"""Is the evaluation that of the literature, how fast is it, and how close do stored maps come?

    python benchmarks/wsol_golden.py FOLDER
    python benchmarks/wsol_golden.py DATA_FOLDER --stored [--every N]

The first checks transforms/wsol against a reference evaluator's numbers, and exits 1 where one point of one curve
differs, or PxAP by 1e-9. FOLDER holds maps/NAME.png (uint8 k, the map is (k + 0.5) / 255, 224 x 224), masks/NAME_m.png
and masks/NAME_ignore.png at image size, and golden.json: threshold_step, iou_percent, for MaxBoxAcc and MaxBoxAccV2
the value, best_per_iou and curve by IoU, for PxAP the value, and images with image (NAME), width, height, boxes_xyxy.
It then times the box metrics of those maps at step 0.001 on one core, beside a plain implementation that takes every
threshold on its own, and exits 1 where their counts differ.

With --stored the same functions judge EfficientNet-Lite0's CAM of a data folder (see benchmarks/quality.py; one
category an image, with its imagenet_ids) in float, and once more quantized to uint8 as a run stores it. --every takes
each Nth image alone.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from camboxes.transforms.wsol import metrics

STEP = 0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stored", action="store_true")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.stored:
        compare_stored(arguments.folder, arguments.every)
    elif not (is_golden(arguments.folder) and is_fast(arguments.folder)):
        sys.exit(1)


def is_golden(folder: Path) -> bool:
    golden = json.loads((folder / "golden.json").read_text())
    if tuple(golden["iou_percent"]) != metrics.IOU_PERCENT:
        raise ValueError(f"{folder} was judged at IoU {golden['iou_percent']}; expected {list(metrics.IOU_PERCENT)}")
    step = golden["threshold_step"]
    boxes, pixels = metrics.BoxCounts.none(step), metrics.PixelCounts.none(step)
    for name, score_map, truth in images(folder):
        boxes += metrics.BoxCounts.of(name, score_map, truth, step)
        mask, ignore = (
            cv2.imread(str(folder / "masks" / f"{name}_{what}.png"), cv2.IMREAD_GRAYSCALE) for what in ("m", "ignore")
        )
        pixels += metrics.PixelCounts.of(name, score_map, metrics.pixel_labels(name, [mask], ignore), step)
    differences = {"PxAP": abs(pixels.result().value - golden["PxAP"]["value"])}
    found = boxes.result()
    for metric, accuracy in (("MaxBoxAcc", found.max_box_acc), ("MaxBoxAccV2", found.max_box_acc_v2)):
        expected = golden[metric]
        curves = np.array([expected["curve"][str(delta)] for delta in metrics.IOU_PERCENT])
        differences[metric] = max(
            abs(accuracy.value - expected["value"]),
            np.abs(accuracy.best - expected["best_per_iou"]).max(),
            np.abs(accuracy.curves - curves).max(),
        )
    for metric, difference in differences.items():
        print(f"{metric}: largest difference {difference:g}")
    return differences["PxAP"] <= 1e-9 and differences["MaxBoxAcc"] == differences["MaxBoxAccV2"] == 0


def images(folder: Path):
    """Name, map and scaled boxes of each image."""
    for image in json.loads((folder / "golden.json").read_text())["images"]:
        cells = cv2.imread(str(folder / "maps" / f"{image['image']}.png"), cv2.IMREAD_GRAYSCALE)
        # In float64: 25.5 / 255 is an edge of the histograms.
        yield (
            image["image"],
            (cells + 0.5) / 255,
            metrics.scale_boxes(image["boxes_xyxy"], image["width"], image["height"]),
        )


def is_fast(folder: Path) -> bool:
    """Prints the speed; returns whether both ways counted the same."""
    maps = list(images(folder))
    ours, our_seconds = timed(
        lambda: sum((metrics.BoxCounts.of(*each, STEP) for each in maps), metrics.BoxCounts.none(STEP))
    )
    plain, plain_seconds = timed(lambda: sum(plain_counts(score_map, truth) for _, score_map, truth in maps))
    same = bool((ours.counts == plain).all())
    ours_a_second, plain_a_second = len(maps) / our_seconds, len(maps) / plain_seconds
    print(
        f"box metrics at step {STEP}: {ours_a_second:.1f} maps/s, plain {plain_a_second:.1f} maps/s, "
        f"{plain_seconds / our_seconds:.1f} times; {'the same' if same else 'DIFFERENT'} counts"
    )
    return same


def timed(work):
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def plain_counts(score_map: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """One map's `BoxCounts.counts`, step by step: each threshold, contour and pair of boxes on its own."""
    grey = (score_map * 255).astype(np.uint8)
    counts = np.zeros(metrics.BoxCounts.shape(STEP), np.int64)
    for number, t in enumerate(np.arange(0, 1, STEP)):
        _, foreground = cv2.threshold(grey, int(t * grey.max()), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        every = np.array([corners(*cv2.boundingRect(contour)) for contour in contours] or [[0, 0, 0, 0]])
        largest = (
            np.array([corners(*cv2.boundingRect(max(contours, key=cv2.contourArea)))]) if contours else np.zeros((1, 4))
        )
        for rule, boxes in enumerate((largest, every)):
            best = max(plain_iou(boxes, true).max() for true in truth)
            for row, delta in enumerate(metrics.IOU_PERCENT):
                counts[rule, row, number] += best >= delta / 100
    return counts


def corners(x: int, y: int, width: int, height: int) -> list[int]:
    return [x, y, min(x + width, 223), min(y + height, 223)]


def plain_iou(boxes: np.ndarray, true: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = boxes.T
    common_width = np.maximum(np.minimum(x1, true[2]) - np.maximum(x0, true[0]) + 1, 0)
    common_height = np.maximum(np.minimum(y1, true[3]) - np.maximum(y0, true[1]) + 1, 0)
    common = common_width * common_height
    true_area = (true[2] - true[0] + 1) * (true[3] - true[1] + 1)
    return common / ((x1 - x0 + 1) * (y1 - y0 + 1) + true_area - common)


def compare_stored(folder: Path, every: int) -> None:
    import torch

    from camboxes.models import class_maps, load_classifier
    from camboxes.transforms.boxes.stored_maps import quantize
    from camboxes.transforms.images.decoding import decode

    torch.set_num_threads(1)
    classifier = load_classifier("efficientnet_lite0")
    truth = json.loads((folder / "instances.json").read_text())
    classes = {category["id"]: category["imagenet_ids"][0] for category in truth["categories"]}
    ways = {"float": lambda cam: cam, "uint8": lambda cam: quantize(cam).cells}
    counts = dict.fromkeys(ways, metrics.BoxCounts.none(STEP))
    for image in truth["images"][::every]:
        objects = [each for each in truth["annotations"] if each["image_id"] == image["id"] and not each["iscrowd"]]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (each["bbox"] for each in objects)]
        scaled = metrics.scale_boxes(boxes, image["width"], image["height"])
        resized = classifier.preprocessing.resize(decode((folder / "images" / image["file_name"]).read_bytes()))
        pixels = classifier.preprocessing.normalize(resized[None])
        with torch.inference_mode():
            class_id = torch.tensor([[classes[objects[0]["category_id"]]]])
            cam = class_maps(classifier, pixels, class_id)[0, 0].numpy()
        for way, stored in ways.items():
            counts[way] += metrics.BoxCounts.of(image["file_name"], metrics.scale_map(stored(cam)), scaled, STEP)
    results = {way: of_way.result() for way, of_way in counts.items()}
    for way, result in results.items():
        v2 = result.max_box_acc_v2
        best = " / ".join(f"{value:.2f}" for value in v2.best)
        print(f"{way}: MaxBoxAcc {result.max_box_acc.value:.2f}, MaxBoxAccV2 {v2.value:.2f} (.3 / .5 / .7: {best})")
    apart = [
        np.abs(getattr(results["float"], metric).curves - getattr(results["uint8"], metric).curves).max()
        for metric in ("max_box_acc", "max_box_acc_v2")
    ]
    judged = counts["float"].images
    print(f"{judged} images; largest difference of a point, MaxBoxAcc and V2: {apart[0]:.2f}, {apart[1]:.2f}")


if __name__ == "__main__":
    main()
