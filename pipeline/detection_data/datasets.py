"""Writes data sets in the layouts that trainers expect."""

import collections
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from camboxes.pipeline.detection_data.selection import Row, Selection
from camboxes.pipeline.detection_data.trainer_images import for_trainers, hard_linked, stem
from camboxes.pipeline.formats import class_list, coco, parquet, voc, yolo
from camboxes.pipeline.reporter import Reporter
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.coco import DESCRIPTION, Counts
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.contents.shard_contents import seen
from camboxes.transforms.doubts.same_bytes import Found, SameBytes
from camboxes.transforms.images.decoding import ACCEPTED, BadImageError
from camboxes.transforms.records import PERSON, source_of
from camboxes.transforms.write import IncompleteRunError

_COLUMNS = ["image_id", "path", "digest", "width", "height", "status", "labels", "boxes", "review"]
_NO_COPIES = Found(0, None, 0, None)


@dataclasses.dataclass
class Exported:
    """What an export wrote, and what became of each image of the run.

    Attributes:
      planned: images of the run.
      images: number of exported images, by split.
      boxes: number of exported boxes, by split.
      kept: the input's folders whose split was kept; none where the images were split by their content.
      left_out: number of images that are not exported, by the reason.
      unreadable: images whose file is not what the run saw: for each path what is wrong.
      partial: number of exported images that have a label without an exported box.
      empty: number of exported images without any box: a person found nothing there, or nothing right.
      copies: exported images of the same bytes, and of which the splits differ.
      files: the files and folders that were written.
    """

    planned: int
    images: dict[str, int]
    boxes: dict[str, int]
    kept: list[str]
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    partial: int = 0
    empty: int = 0
    copies: Found = _NO_COPIES
    files: list[str] = dataclasses.field(default_factory=list)


class DatasetWriter:
    """Writes the selected images of a run as one data set. Each format has a method."""

    def __init__(self, run: PlannedRun, selection: Selection, output: Path, copy: bool, reporter: Reporter):
        """Takes what is written, and where.

        Args:
          run: a finished run.
          selection: what of it is exported.
          output: a local folder.
          copy: copy images even where a link would do.
          reporter: is told the progress.
        """
        self._run = run
        self._selection = selection
        self._output = output
        self._copy = copy
        self._reporter = reporter
        self._categories = [category.name for category in run.categories]  # their ids are dense from 1
        self._same_bytes = SameBytes()
        images, boxes = (dict.fromkeys(map(str, selection.splits), 0) for _ in range(2))
        self._exported = Exported(run.images, images, boxes, sorted(selection.folders) if selection.given else [])

    def write(self, kind: str) -> Exported:
        """Writes the data set in one of the formats: coco, yolo, voc or parquet.

        Raises:
          IncompleteRunError: the run has not a row for each planned image.
        """
        exported = self._exported
        names = {"coco": self._coco, "yolo": self._yolo, "voc": self._voc, "parquet": self._parquet}[kind]()
        accounted = sum(exported.images.values()) + exported.left_out.total() + len(exported.unreadable)
        if accounted != exported.planned:
            raise IncompleteRunError(
                f"{exported.planned} images were planned in {self._run.output!r}, and {accounted} are accounted for"
            )
        exported.copies = self._same_bytes.found()
        exported.files = [str(self._output / name) for name in names]
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
            self._write(f"labels/{row['split']}/{Path(row['path']).stem}.txt", yolo.write(row))
        # ultralytics refuses a data set without val, and a val folder without images.
        images = self._exported.images
        folders = {split: f"images/{split if images[split] else 'train'}" for split in ("train", "val")}
        if images.get("test"):
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
                key = Path(row["path"]).stem
                self._write(f"{root}/Annotations/{key}.xml", voc.write(row))
                sets[row["split"]].write(f"{key}\n".encode())
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
                    self._count(row)
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
        with self._reporter.progress(self._run.images, "image") as done:
            for _, shard in self._run.tables(_COLUMNS):
                for row in self._selected(shard.to_pylist()):
                    try:
                        name = self._write_image(row, folders[row["split"]], jpeg)
                    except BadImageError as error:
                        self._exported.unreadable[row["path"]] = str(error)
                    else:
                        self._count(row)
                        yield row | {"path": name}
                done(shard.num_rows)

    def _write_image(self, row: Row, folder: Path, jpeg: bool) -> str:
        """Writes or links an image's file; gives its name."""
        location = self._run.location(row["path"])
        image = for_trainers(seen(read_image(location, ACCEPTED), row["digest"]), jpeg)
        name = stem(row["path"]) + image.suffix
        if self._copy or not image.linkable or not hard_linked(str(location), folder / name):
            storage.write_bytes(str(folder / name), image.data)
        return name

    def _count(self, row: Row) -> None:
        """Counts an exported image."""
        self._same_bytes.add(row["digest"], row["path"], row["split"])
        self._exported.images[row["split"]] += 1
        self._exported.boxes[row["split"]] += len(row["boxes"])
        self._exported.empty += not row["boxes"]
        boxed = {box["category_id"] for box in row["boxes"]}
        self._exported.partial += any(label["category_id"] not in boxed for label in row["labels"])

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
