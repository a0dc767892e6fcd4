"""Writes data sets in the layouts that trainers expect."""

import contextlib
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from camboxes.pipeline.detection_data.selected_images import Exported, SelectedImages
from camboxes.pipeline.formats import coco, parquet, voc, yolo
from camboxes.transforms import storage
from camboxes.transforms.coco import DESCRIPTION, Counts

# XML cannot hold these characters, and some of them end a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def write_dataset(kind: str, images: SelectedImages, output: Path) -> Exported:
    """Writes a data set in a format (coco, yolo, voc or parquet) to a local folder.

    Raises:
      IncompleteRunError: the run has not a row for each planned image.
    """
    names = {"coco": _coco, "yolo": _yolo, "voc": _voc, "parquet": _parquet}[kind](images, output)
    return images.conclude(output / name for name in names)


def _coco(images: SelectedImages, output: Path) -> list[str]:
    """images/ and annotations/instances_SPLIT.json, with the run's ids of images."""
    files = {split: f"annotations/instances_{split}.json" for split in images.splits}
    with contextlib.ExitStack() as stack:
        # Annotation ids are unique over all files and begin with train's, so the rows wait for all of train.
        rows = {split: stack.enter_context(tempfile.TemporaryFile("w+")) for split in images.splits}
        for row in images.with_files(dict.fromkeys(images.splits, output / "images")):
            rows[row["split"]].write(json.dumps(row) + "\n")
        counts = Counts()
        for split, file in files.items():
            info = {
                "description": DESCRIPTION,
                "version": importlib.metadata.version("camboxes"),
                "settings": dict(images.run.settings),
                "split": split,
            }
            rows[split].seek(0)
            with storage.replacing(str(output / file)) as dataset:
                coco.write(dataset, map(json.loads, rows[split]), images.categories, info, counts)
    return ["images/", *files.values()]


def _yolo(images: SelectedImages, output: Path) -> list[str]:
    """images/SPLIT, labels/SPLIT, data.yaml and classes.txt, as ultralytics expects them."""
    for split in images.splits:
        (output / "labels" / split).mkdir(parents=True)
    for row in images.with_files({split: output / "images" / split for split in images.splits}):
        _write(output / "labels" / row["split"] / f"{Path(row['path']).stem}.txt", yolo.write(row))
    # ultralytics refuses a data set without val, and a val folder without images.
    number = images.exported.images
    folders = {split: f"images/{split if number[split] else 'train'}" for split in ("train", "val")}
    if number.get("test"):
        folders["test"] = "images/test"
    _write(output / "data.yaml", yolo.data_yaml(folders, images.categories))
    _write(output / "classes.txt", class_list(images.categories))
    return ["data.yaml", "classes.txt", "images/", "labels/"]


def _voc(images: SelectedImages, output: Path) -> list[str]:
    """VOCdevkit/VOC2012 as torchvision's VOCDetection(root=DIR) expects it, every image a JPEG, and classes.txt."""
    name = "VOCdevkit/VOC2012"
    root = output / name
    with contextlib.ExitStack() as stack:
        sets = {
            split: stack.enter_context(storage.replacing(str(root / "ImageSets" / "Main" / f"{split}.txt")))
            for split in images.splits
        }
        for row in images.with_files(dict.fromkeys(images.splits, root / "JPEGImages"), jpeg=True):
            stem = Path(row["path"]).stem
            _write(root / "Annotations" / f"{stem}.xml", voc.write(row))
            sets[row["split"]].write(f"{stem}\n".encode())
    _write(root / "classes.txt", class_list(images.categories))
    return [f"{name}/"]


def _parquet(images: SelectedImages, output: Path) -> list[str]:
    """boxes.parquet, in the order of the images' ids."""
    with (
        storage.replacing(str(output / "boxes.parquet")) as file,
        pq.ParquetWriter(file, parquet.SCHEMA, compression="zstd") as boxes,
    ):
        for rows in images.by_shard():
            boxes.write_table(parquet.table(rows))
    return ["boxes.parquet"]


def class_list(categories: Sequence[str]) -> str:
    """The text of classes.txt: the names of the categories, one a line.

    Raises:
      ValueError: a name holds a control character.
    """
    if wrong := [name for name in categories if _CONTROL.search(name)]:
        raise ValueError(
            f"labels {', '.join(map(repr, wrong))} hold control characters, which classes.txt and XML cannot; "
            "rename them in the input, or export as coco or parquet"
        )
    return "".join(f"{name}\n" for name in categories)


def _write(file: Path, content: str) -> None:
    storage.write_bytes(str(file), content.encode())
