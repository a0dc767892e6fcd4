"""The selected images of a run, one after the other: writes their files, and counts what becomes of every image."""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camboxes.pipeline.detection_data.selection import Row, Selection
from camboxes.pipeline.detection_data.trainer_images import for_trainers, hard_linked
from camboxes.pipeline.formats.exported_names import stem
from camboxes.pipeline.reporter import Reporter
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.contents.shard_contents import seen
from camboxes.transforms.doubts.same_bytes import Found, SameBytes
from camboxes.transforms.images.decoding import ACCEPTED, BadImageError
from camboxes.transforms.records import PERSON, source_of
from camboxes.transforms.sources.entries import Split
from camboxes.transforms.write import IncompleteRunError

_COLUMNS = ["image_id", "path", "digest", "width", "height", "status", "reason", "labels", "boxes", "review"]
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
      background: number of exported images that are labelled as background alone, without boxes.
      empty: number of other exported images without any box: a person found nothing there, or nothing right.
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
    background: int = 0
    empty: int = 0
    copies: Found = _NO_COPIES
    files: list[str] = dataclasses.field(default_factory=list)


class SelectedImages:
    """Gives the images that are exported, once, with their `split` and the boxes as `formats` takes them."""

    def __init__(
        self, run: PlannedRun, selection: Selection, categories: Sequence[str], copy: bool, reporter: Reporter
    ):
        """Takes a finished run, and what of it is exported.

        Args:
          run: the run.
          selection: which of its images and boxes.
          categories: the names of the export's categories, in the order of their ids; all labels of the run that are no
            background, and maybe more.
          copy: copy images even where a link would do.
          reporter: receives progress.
        """
        self.run = run
        self.splits = selection.splits
        self._names = {of.id: of.name for of in run.categories if of.id not in selection.background}
        self.categories = categories
        self._ids = {of_run: categories.index(name) + 1 for of_run, name in self._names.items()}
        images, boxes = (dict.fromkeys(map(str, self.splits), 0) for _ in range(2))
        self.exported = Exported(run.images, images, boxes, sorted(selection.folders) if selection.given else [])
        self._selection = selection
        self._copy = copy
        self._reporter = reporter
        self._same_bytes = SameBytes()

    def by_shard(self) -> Iterator[list[Row]]:
        """The images of one shard after the other, in the order of their ids; no file is written."""
        for _, shard in self.run.tables(_COLUMNS):
            rows = list(self._selected(shard.to_pylist()))
            for row in rows:
                self._count(row)
            yield rows

    def with_files(self, folders: Mapping[Split, Path], jpeg: bool = False) -> Iterator[Row]:
        """The images in the order of their ids; writes the file of each to its split's folder.

        The `path` of an image is its new file name. With `jpeg` every file is a JPEG.
        """
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        with self._reporter.progress(self.run.images, "image", "exporting") as done:
            for _, shard in self.run.tables(_COLUMNS):
                left_out = shard.num_rows
                for row in self._selected(shard.to_pylist()):
                    done(1)
                    left_out -= 1
                    try:
                        name = self._write_image(row, folders[row["split"]], jpeg)
                    except BadImageError as error:
                        self.exported.unreadable[row["path"]] = str(error)
                    else:
                        self._count(row)
                        yield row | {"path": name}
                done(left_out)

    def conclude(self, files: Iterable[Path]) -> Exported:
        """What became of every image, after all were given.

        Raises:
          IncompleteRunError: the run has not a row for each planned image.
        """
        exported = self.exported
        accounted = sum(exported.images.values()) + exported.left_out.total() + len(exported.unreadable)
        if accounted != exported.planned:
            raise IncompleteRunError(
                f"{exported.planned} images were planned in {self.run.output!r}, and {accounted} are accounted for"
            )
        exported.copies = self._same_bytes.found()
        exported.files = list(map(str, files))
        return exported

    def _selected(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if reason := self._selection.left_out_for(row):
                self.exported.left_out[reason] += 1
            else:
                selected = self._selection.with_boxes(row)
                boxes = [box | self._described(box) for box in selected["boxes"]]
                labels = [label | {"category_id": self._ids[label["category_id"]]} for label in selected["labels"]]
                empty = self._selection.is_empty(row) and not boxes
                yield selected | {
                    "labels": labels,
                    "boxes": boxes,
                    "split": self._selection.split(row),
                    "background": empty,
                }

    def _write_image(self, row: Row, folder: Path, jpeg: bool) -> str:
        """Writes or links an image's file; gives its name."""
        location = self.run.location(row["path"])
        image = for_trainers(seen(read_image(location, ACCEPTED), row["digest"]), jpeg)
        name = stem(row["path"]) + image.suffix
        if self._copy or not image.linkable or not hard_linked(str(location), folder / name):
            storage.write_bytes(str(folder / name), image.data)
        return name

    def _count(self, row: Row) -> None:
        """Counts an exported image."""
        self._same_bytes.add(row["digest"], row["path"], row["split"])
        self.exported.images[row["split"]] += 1
        self.exported.boxes[row["split"]] += len(row["boxes"])
        self.exported.background += row["background"]
        self.exported.empty += not row["boxes"] and not row["background"]
        boxed = {box["category_id"] for box in row["boxes"]}
        self.exported.partial += any(label["category_id"] not in boxed for label in row["labels"])

    def _described(self, box: Row) -> Row:
        """A box's category in the export, and where the box comes from: a person, or a network and a method."""
        drawn_with = {"model": None, "method": None} if source_of(box) == PERSON else self._drawn_with
        of_run = box["category_id"]
        category = {"category_id": self._ids[of_run], "category": self._names[of_run]}
        return {**category, "source": source_of(box), **drawn_with}

    @functools.cached_property
    def _drawn_with(self) -> dict[str, Any]:
        """The network and the method of all boxes of the run."""
        settings = self.run.recorded_settings()
        return {"model": settings["model"]["name"], "method": settings["method"]}
