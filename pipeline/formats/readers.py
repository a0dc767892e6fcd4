"""Reads true boxes: from a file in one of the formats, or from a run's review."""

import posixpath
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camboxes.pipeline.formats import coco, csv, voc, yolo_datasets
from camboxes.pipeline.formats.ground_truth import GroundTruth, TrueImage, box_arrays
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.review.decisions import FILE, Decision
from camboxes.transforms.review.keep_decided import decided

_YOLO = "data.yaml"


def read_ground_truth(path: str) -> GroundTruth:
    """Reads true boxes.

    Args:
      path: a .json or .csv file on any Beam filesystem; a local data.yaml of YOLO, or its folder; or a local folder of
        Pascal VOC .xml at any depth.

    Raises:
      ValueError: it is none of these, or holds no box. The error names the file and the line or id.
    """
    local = Path(path) if storage.is_local(path) else None
    if local and local.is_dir():
        if (local / _YOLO).is_file():
            return yolo_datasets.read(local / _YOLO, storage.join(path, _YOLO))
        files = sorted(local.rglob("*.xml"))
        if not files:
            raise ValueError(
                f"ground truth {path!r} holds no .xml files and no {_YOLO}; expected a folder of Pascal VOC "
                "annotations or of a YOLO data set, or name a .json or .csv file"
            )
        return voc.read(((str(file), file.read_bytes()) for file in files), path)
    suffix = posixpath.splitext(path)[1].lower()
    if local and local.is_file() and suffix in (".yaml", ".yml"):
        return yolo_datasets.read(local, path)
    read = {".json": coco.read, ".csv": csv.read}.get(suffix)
    if read is None or not storage.exists(path):
        problem = "is none of these" if storage.exists(path) else "does not exist"
        raise ValueError(
            f"ground truth {path!r} {problem}; expected COCO annotations (.json), a .csv of boxes, or on this machine "
            f"YOLO's {_YOLO} or a folder of Pascal VOC .xml files"
        )
    return read(storage.read_bytes(path), path)


def reviewed(run: PlannedRun) -> GroundTruth:
    """Reads true boxes from a finished run's review.

    The boxes of an accepted image are all boxes of each of its labels. The boxes of a rejected image are wrong, and so
    is every box of the same label that reaches IoU 0.5 with one of them; nothing else is known of that image.

    Raises:
      ValueError: nobody accepted a box, or the decisions cannot be read.
    """
    decisions, images = decided(run), {}
    for row in run.rows(["path", "width", "height", "labels"]):
        decision = decisions.get(row["path"])
        if decision and decision.verdict in ("accepted", "rejected"):
            images[row["path"]] = _reviewed_image(row, decision)
    source = storage.join(run.output, FILE)
    if not any(image.boxes for image in images.values()):
        raise ValueError(f"review {source!r} holds no accepted box; expected at least one to judge by")
    return GroundTruth(source, tuple(sorted(category.name for category in run.categories)), images)


def _reviewed_image(row: Mapping[str, Any], decision: Decision) -> TrueImage:
    of_label: defaultdict[str, list[list[float]]] = defaultdict(list)
    for box in decision.boxes:
        of_label[box.label].append(list(box.bbox))
    boxes = box_arrays(of_label)
    image = TrueImage(row["path"], row["width"], row["height"], {}, {}, boxes)
    if decision.verdict == "rejected":
        return image
    wrong = {label["label"]: None for label in row["labels"] if label["label"] not in boxes}
    return image._replace(boxes=boxes, wrong=wrong)
