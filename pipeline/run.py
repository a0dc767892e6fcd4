"""A finished run, as Python reads it."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

    from camboxes.transforms import PlannedRun


class Counts(NamedTuple):
    """How many images were planned, how they ended, and how many boxes there are."""

    planned: int
    ok: int
    no_box: int
    skipped: int
    rejected: int
    boxes: int


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of an image.

    Attributes:
      label: the data set's.
      bbox: x, y, width, height in pixels of the upright image.
      score: the class's probability times the mean of the scaled map inside the box, in [0, 1].
      calibrated_score: the probability that the box reaches IoU 0.5; None before `camboxes tune` and `rebox`.
      rank: 1 for the largest component of its label.
      uid: keeps when a threshold changes.
    """

    label: str
    bbox: tuple[float, float, float, float]
    score: float
    calibrated_score: float | None
    rank: int
    uid: str

    @classmethod
    def of(cls, box: Mapping[str, Any], labels: Mapping[int, str]) -> "Box":
        """The entry of a row's boxes; `labels` has the names of categories by their ids."""
        scored = (box[name] for name in ("score", "calibrated_score", "rank", "box_uid"))
        return cls(labels[box["category_id"]], tuple(box["bbox"]), *scored)


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of a run.

    Attributes:
      path: relative to the input's root.
      status: ok, no_box, skipped or rejected.
      reason: "code: what happened"; None where there is nothing to say.
      width: of the upright image in pixels; None where it could not be decoded.
      height: likewise.
      labels: the data set's.
      boxes: by label and rank.
    """

    path: str
    status: str
    reason: str | None
    width: int | None
    height: int | None
    labels: tuple[str, ...]
    boxes: tuple[Box, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a run. Nothing is read before it is asked for.

    Attributes:
      path: the folder, on this machine or on a store.
    """

    path: str

    @classmethod
    def open(cls, path: str) -> "Run":
        """The finished run in a folder, written by this version or an earlier one.

        Raises:
          CallError: there is none, or it is not finished.
        """
        from camboxes.pipeline.jobs import run_folder

        run_folder.finished(path)
        return cls(path)

    @property
    def annotations(self) -> str:
        """The path of the COCO data set; a very large one is written in parts instead."""
        return self._file("annotations.json")

    @property
    def results(self) -> str:
        """The path of the COCO results."""
        return self._file("results.json")

    @property
    def report(self) -> str:
        """The path of the page with pictures and charts."""
        return self._file("report.html")

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds: counts, settings, rates, versions."""
        from camboxes.transforms import storage

        return storage.read_json(self._file("summary.json"))

    @property
    def counts(self) -> Counts:
        """The numbers of images by status, and of boxes."""
        images = self.summary["images"]
        return Counts(**{name: images[name] for name in Counts._fields[:-1]}, boxes=self.summary["annotations"])

    def images(self) -> Iterator[Image]:
        """All images in the order of their ids, rejected ones too."""
        names = {category.id: category.name for category in self._plan.categories}
        for row in self._plan.rows([field.name for field in dataclasses.fields(Image)]):
            row["labels"] = tuple(label["label"] for label in row["labels"])
            row["boxes"] = tuple(Box.of(box, names) for box in row["boxes"] or ())
            yield Image(**row)

    def table(self) -> "pa.Table":
        """All rows: see `camboxes.transforms.records` for the columns."""
        import pyarrow as pa

        return pa.concat_tables([rows for _, rows in self._plan.tables()], promote_options="default")

    @functools.cached_property
    def _plan(self) -> "PlannedRun":
        from camboxes.pipeline.jobs import run_folder

        return run_folder.finished(self.path)

    def _file(self, name: str) -> str:
        from camboxes.transforms import storage

        return storage.join(self.path, name)
