"""Writes data sets in the layouts that trainers expect."""

import collections
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import posixpath
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from camboxes.pipeline.detection_data.selection import Row, Selection
from camboxes.pipeline.detection_data.trainer_images import for_trainers, hard_linked, stem
from camboxes.pipeline.formats import class_list, coco, parquet, voc, yolo
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.coco import DESCRIPTION, Counts
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.contents.shard_contents import seen
from camboxes.transforms.doubts.same_bytes import SameBytes
from camboxes.transforms.images.decoding import ACCEPTED, BadImageError
from camboxes.transforms.records import PERSON, source_of
from camboxes.transforms.write import IncompleteRunError

_COLUMNS = ["image_id", "path", "digest", "width", "height", "status", "labels", "boxes", "review"]


@dataclasses.dataclass
class Exported:
    """What became of each image of a run.

    Attributes:
      images: exported ones, by split.
      boxes: exported ones, by split.
      left_out: images that are not exported, by the reason.
      unreadable: images whose file is not what the run saw: for each path what is wrong.
      partial: how many exported images have a label without an exported box.
      empty: how many of them have no box at all: a person found nothing there, or nothing right.
      copies: exported images with the same bytes, and the splits that they are in.
      files: the files and folders that were written, relative to the output.
    """

    images: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    boxes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    partial: int = 0
    empty: int = 0
    copies: SameBytes = dataclasses.field(default_factory=SameBytes)
    files: list[str] = dataclasses.field(default_factory=list)

    def add(self, row: Row) -> None:
        """Counts an exported image."""
        split = row["split"]
        self.images[split] += 1
        self.copies.add(row["digest"], row["path"], split)
        self.boxes[split] += len(row["boxes"])
        self.empty += not row["boxes"]
        boxed = {box["category_id"] for box in row["boxes"]}
        self.partial += any(label["category_id"] not in boxed for label in row["labels"])


class DatasetWriter:
    """Writes the selected images of a run as a data set: a method for each format."""

    def __init__(self, run: PlannedRun, selection: Selection, output: Path, copy: bool):
        """Takes what is written, and where.

        Args:
          run: a finished run.
          selection: what of it is exported.
          output: a local folder.
          copy: copies images even where a link would do.
        """
        self._run = run
        self._selection = selection
        self._output = output
        self._copy = copy
        self._categories = [category.name for category in run.categories]  # their ids are dense from 1
        self._exported = Exported()

    def write(self, kind: str) -> Exported:
        """Writes the data set in one of the formats: coco, yolo, voc or parquet.

        Raises:
          IncompleteRunError: the run has not a row for each planned image.
        """
        exported = self._exported
        exported.files = {"coco": self._coco, "yolo": self._yolo, "voc": self._voc, "parquet": self._parquet}[kind]()
        accounted = exported.images.total() + exported.left_out.total() + len(exported.unreadable)
        if accounted != self._run.images:
            raise IncompleteRunError(
                f"{self._run.images} images were planned in {self._run.output!r}, and {accounted} are accounted for"
            )
        return exported

    def _coco(self) -> list[str]:
        """images/ and annotations/instances_SPLIT.json, with the run's ids of images and categories."""
        splits = self._selection.splits
        files = [f"annotations/instances_{split}.json" for split in splits]
        with contextlib.ExitStack() as stack:
            # Annotation ids are unique over all files and begin with train's, so the rows wait for all of train.
            rows = {split: stack.enter_context(tempfile.TemporaryFile("w+")) for split in splits}
            for row in self._with_images("images"):
                rows[row["split"]].write(json.dumps(row) + "\n")
            counts = Counts()
            for split, file in zip(splits, files, strict=True):
                info = {
                    "description": DESCRIPTION,
                    "version": importlib.metadata.version("camboxes"),
                    "settings": dict(self._run.settings),
                    "split": split,
                }
                rows[split].seek(0)
                with storage.replacing(str(self._output / file)) as dataset:
                    coco.write(dataset, map(json.loads, rows[split]), self._categories, info, counts)
        return ["images/", *files]

    def _yolo(self) -> list[str]:
        """images/SPLIT, labels/SPLIT, data.yaml and classes.txt, as ultralytics expects them."""
        for split in self._selection.splits:
            (self._output / "labels" / split).mkdir(parents=True)
        for row in self._with_images("images/{split}"):
            self._write(f"labels/{row['split']}/{_key(row)}.txt", yolo.write(row))
        # ultralytics refuses a data set without val, and a val folder without images.
        images = self._exported.images
        folders = {split: f"images/{split if images[split] else 'train'}" for split in ("train", "val")}
        if images["test"]:
            folders["test"] = "images/test"
        self._write("data.yaml", yolo.data_yaml(folders, self._categories))
        self._write("classes.txt", class_list.write(self._categories))
        return ["data.yaml", "classes.txt", "images/", "labels/"]

    def _voc(self) -> list[str]:
        """VOCdevkit/VOC2012 as torchvision's VOCDetection(root=DIR) expects it, every image a JPEG, and classes.txt."""
        root = "VOCdevkit/VOC2012"
        with contextlib.ExitStack() as stack:
            sets = {
                split: stack.enter_context(storage.replacing(str(self._output / f"{root}/ImageSets/Main/{split}.txt")))
                for split in self._selection.splits
            }
            for row in self._with_images(f"{root}/JPEGImages", jpeg=True):
                self._write(f"{root}/Annotations/{_key(row)}.xml", voc.write(row))
                sets[row["split"]].write(f"{_key(row)}\n".encode())
        self._write(f"{root}/classes.txt", class_list.write(self._categories))
        return [f"{root}/"]

    def _parquet(self) -> list[str]:
        """boxes.parquet, in the order of the images' ids."""
        with (
            storage.replacing(str(self._output / "boxes.parquet")) as file,
            pq.ParquetWriter(file, parquet.SCHEMA, compression="zstd") as boxes,
        ):
            for _, shard in self._run.tables(_COLUMNS):
                rows = list(self._selected(shard.to_pylist()))
                for row in rows:
                    self._exported.add(row)
                boxes.write_table(parquet.table(rows))
        return ["boxes.parquet"]

    def _selected(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The images that are exported, with their `split` and the boxes as `formats` takes them."""
        for row in rows:
            if reason := self._selection.left_out_for(row):
                self._exported.left_out[reason] += 1
            else:
                selected = self._selection.with_boxes(row)
                boxes = [box | self._described(box) for box in selected["boxes"]]
                yield selected | {"boxes": boxes, "split": self._selection.split(row)}

    def _with_images(self, folder: str, jpeg: bool = False) -> Iterator[Row]:
        """Writes the file of each exported image.

        Args:
          folder: where to; {split} stands for the image's split.
          jpeg: whether every file is a JPEG.

        Yields:
          The image; its `path` is its new file name.
        """
        folders = {split: self._output / folder.format(split=split) for split in self._selection.splits}
        for path in folders.values():
            path.mkdir(parents=True, exist_ok=True)
        rows = tqdm(self._run.rows(_COLUMNS), total=self._run.images, unit="image", disable=None)
        for row in self._selected(rows):
            try:
                location = self._run.location(row["path"])
                image = for_trainers(seen(read_image(location, ACCEPTED), row["digest"]), jpeg)
            except BadImageError as error:
                self._exported.unreadable[row["path"]] = str(error)
                continue
            name = stem(row["path"]) + image.suffix
            target = folders[row["split"]] / name
            if self._copy or not image.linkable or not hard_linked(str(location), target):
                storage.write_bytes(str(target), image.data)
            self._exported.add(row)
            yield row | {"path": name}

    def _described(self, box: Row) -> Row:
        """The name of a box's category, and where the box comes from: a person, or a network and a method."""
        drawn_with = {"model": None, "method": None} if source_of(box) == PERSON else self._drawn_with
        return {"category": self._categories[box["category_id"] - 1], "source": source_of(box), **drawn_with}

    @functools.cached_property
    def _drawn_with(self) -> dict[str, Any]:
        """The network and the method of all boxes of the run."""
        settings = self._run.recorded_settings()
        return {"model": settings["model"]["name"], "method": settings["method"]}

    def _write(self, name: str, content: str) -> None:
        storage.write_bytes(str(self._output / name), content.encode())


def _key(row: Row) -> str:
    """An exported image's file name without its suffix."""
    return posixpath.splitext(row["path"])[0]
