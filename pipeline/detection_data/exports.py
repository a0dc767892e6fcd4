"""A run as a data set that detectors are trained on: which images and boxes, under which names, in which files."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from tqdm import tqdm

from camboxes.pipeline.sampling import in_share
from camboxes.transforms import PlannedRun, coco, storage
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.contents.shard_contents import seen
from camboxes.transforms.doubts.same_bytes import SameBytes
from camboxes.transforms.images.decoding import ACCEPTED, BadImageError, decode, opened, orientation
from camboxes.transforms.images.depth import is_plain
from camboxes.transforms.records import OK, PERSON, REJECTED, score_of, source_of
from camboxes.transforms.review.decisions import Decision
from camboxes.transforms.review.keep_decided import keep
from camboxes.transforms.sources.entries import Split
from camboxes.transforms.sources.splits import split_of
from camboxes.transforms.write import IncompleteRunError

Include = Literal["accepted", "reviewed", "all"]

Row = dict[str, Any]

_COLUMNS = ["image_id", "path", "digest", "width", "height", "status", "labels", "boxes", "review"]

# What every trainer reads, by the ending that it looks for. All else (GIF, TIFF, AVIF, ...) is written anew as PNG.
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp"}
_ENDINGS = sorted(set(_SUFFIXES.values()))

# These can stand in no XML, and some of them in no line of a file.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")

_BOXES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("path", pa.string()),
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("split", pa.string()),
        ("category_id", pa.int32()),
        ("category", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("box_width", pa.float64()),
        ("box_height", pa.float64()),
        ("score", pa.float64()),
        ("calibrated_score", pa.float64()),
        ("rank", pa.int32()),
        ("box_uid", pa.string()),
        ("source", pa.string()),
        ("model", pa.string()),
        ("method", pa.string()),
        ("threshold", pa.float64()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which boxes are exported, and to which side an image goes.

    Attributes:
      val: the share of the images that goes to val, from 0 up to, but not including, 1. Without effect where the data
        set comes split into train and val.
      seed: another seed makes another split.
      min_score: the smallest score, 0 to 1, of a box that is exported: the calibrated score where there is one. An
        accepted box is exported whatever its score.
      include: "accepted" for the images that a person accepted; "reviewed" for those that a person rejected, too, which
        lose their boxes; "all" for those that nobody has decided about, too.
      decisions: of the run's review, by path: see `keep.decided`.
      splits: the folders of a split that the data set comes with: see `Listing`. It counts where one of them is train.

    Raises:
      ValueError: a share or a score is out of its range.
    """

    val: float
    seed: int
    min_score: float
    include: Include = "all"
    decisions: Mapping[str, Decision] = dataclasses.field(default_factory=dict)
    splits: Mapping[str, Split] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.val < 1:
            raise ValueError(f"val is {self.val}; expected a share from 0 up to, but not including, 1")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min-score is {self.min_score}; expected a score from 0 to 1")

    @property
    def given(self) -> frozenset[str]:
        """The sides that the data set comes split into; none where it has no train."""
        sides = frozenset[str](self.splits.values())
        return sides if "train" in sides else frozenset()

    @property
    def sides(self) -> tuple[str, ...]:
        """All sides that an image may be on."""
        return ("train", "val", "test") if "test" in self.given else ("train", "val")

    def split(self, row: Row) -> str:
        """An image's side: as the data set comes split, or else by the seed and the image's content.

        So copies are on one side, and other images never move one.
        """
        side = split_of(row["path"], self.splits) if self.given else None
        if side and (side != "train" or "val" in self.given):
            return side
        return "val" if in_share(row["digest"], self.val, self.seed) else "train"

    def decided(self, row: Row) -> Row:
        """An image with the boxes that are exported: those that were accepted, or none where they were rejected."""
        decision = self._decision(row)
        if decision is None:
            return row | {"boxes": [box for box in row["boxes"] if score_of(box) >= self.min_score]}
        return keep(row, decision) if decision.verdict == "accepted" else row | {"boxes": []}

    def left_out_for(self, row: Row) -> str | None:
        """Why an image is left out; None where it is exported."""
        decision = self._decision(row)
        if decision is None:
            if row["status"] != OK:
                return row["status"]
            if self.include != "all":
                return "not reviewed"
            return None if self.decided(row)["boxes"] else "below --min-score"
        return None if decision.verdict == "accepted" or self.include != "accepted" else "rejected in review"

    def _decision(self, row: Row) -> Decision | None:
        """What counts of an image's review; to skip an image decides nothing, and nobody can see an unreadable one."""
        decision = self.decisions.get(row["path"])
        return decision if decision and decision.verdict != "skipped" and row["status"] != REJECTED else None


@dataclasses.dataclass
class Export:
    """Writes one data set, and counts what became of each image.

    Attributes:
      source: a finished run.
      selection: what of it is exported.
      output: a local folder.
      copy: images are copied even where a link would do.
      images: exported ones, by split.
      boxes: exported ones, by split.
      left_out: images without a box to export, by status, or "below --min-score".
      unreadable: images whose file is not what the run saw: for each path what is wrong.
      partial: how many exported images have a label without an exported box.
      empty: how many of them have no box at all: a person found nothing there, or nothing right.
      copies: exported ones with their sides.
    """

    source: PlannedRun
    selection: Selection
    output: Path
    copy: bool
    images: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    boxes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    partial: int = 0
    empty: int = 0
    copies: SameBytes = dataclasses.field(default_factory=SameBytes)

    @property
    def categories(self) -> list[str]:
        """The names of the categories, in the order of their ids, which are dense from 1."""
        return [category.name for category in self.source.categories]

    def write(self, kind: str) -> list[str]:
        """Writes the data set in one of the formats.

        Returns:
          The files and folders that were written, relative to the output.

        Raises:
          IncompleteRunError: the run has not a row for each planned image.
        """
        written = {"coco": self._coco, "yolo": self._yolo, "voc": self._voc, "parquet": self._parquet}[kind]()
        accounted = self.images.total() + self.left_out.total() + len(self.unreadable)
        if accounted != self.source.images:
            raise IncompleteRunError(
                f"{self.source.images} images were planned in {self.source.output!r}, and {accounted} are accounted for"
            )
        return written

    def _coco(self) -> list[str]:
        """images/ and annotations/instances_SIDE.json, with the run's ids of images and categories."""
        endings = bytearray(self.source.images + 1)  # an image's byte says its ending; 0: not exported
        for row, _, name in self._placed(lambda split: self.output / "images"):
            endings[row["image_id"]] = _ENDINGS.index(posixpath.splitext(name)[1]) + 1

        def rows(split: str) -> Iterator[Row]:
            for row in self.source.rows(_COLUMNS):
                if (ending := endings[row["image_id"]]) and self.selection.split(row) == split:
                    name = stem(row["path"]) + _ENDINGS[ending - 1]
                    yield self.selection.decided(row) | {"path": name}

        categories = [{"id": number, "name": name} for number, name in enumerate(self.categories, start=1)]
        files = [f"annotations/instances_{split}.json" for split in self.selection.sides]
        counts = coco.Counts()  # shared, so that annotation ids are unique over both files
        for split, file in zip(self.selection.sides, files, strict=True):
            info = {
                "description": coco.DESCRIPTION,
                "version": importlib.metadata.version("camboxes"),
                "settings": dict(self.source.settings),
                "split": split,
            }
            with storage.replacing(str(self.output / file)) as dataset, Path(os.devnull).open("wb") as results:
                coco.write_coco(
                    dataset,
                    results,
                    rows=rows(split),
                    categories=categories,
                    info=info,
                    counts=counts,
                    attributes=self._provenance,
                )
        return ["images/", *files]

    def _yolo(self) -> list[str]:
        """images/SIDE, labels/SIDE, data.yaml and classes.txt, as ultralytics expects them."""
        for split in self.selection.sides:
            (self.output / "labels" / split).mkdir(parents=True)
        for row, split, name in self._placed(lambda split: self.output / "images" / split):
            self._write(f"labels/{split}/{posixpath.splitext(name)[0]}.txt", yolo_lines(row))
        # ultralytics refuses a data set without val, and a val folder without images.
        folders = {split: f"images/{split if self.images[split] else 'train'}" for split in ("train", "val")}
        if self.images["test"]:
            folders["test"] = "images/test"
        # Without a `path`, folders are relative to the file itself, wherever the data set is moved.
        data = folders | {"names": dict(enumerate(self.categories))}
        self._write("data.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
        self._write("classes.txt", _lines(self.categories))
        return ["data.yaml", "classes.txt", "images/", "labels/"]

    def _voc(self) -> list[str]:
        """VOCdevkit/VOC2012 as torchvision's VOCDetection(root=DIR) expects it, every image a JPEG, and classes.txt."""
        root = "VOCdevkit/VOC2012"
        with contextlib.ExitStack() as files:
            sets = {
                split: files.enter_context(storage.replacing(str(self.output / root / f"ImageSets/Main/{split}.txt")))
                for split in self.selection.sides
            }
            for row, split, name in self._placed(lambda split: self.output / root / "JPEGImages", jpeg=True):
                key = posixpath.splitext(name)[0]
                self._write(f"{root}/Annotations/{key}.xml", voc_xml(row, name, self.categories, self._provenance))
                sets[split].write(_lines([key]).encode())
        self._write(f"{root}/classes.txt", _lines(self.categories))
        return [f"{root}/"]

    def _parquet(self) -> list[str]:
        """boxes.parquet: a row for each box, in the order of the images' ids, category ids and ranks.

        An image without boxes has a row of its own, in which all that is said of a box is null.
        """
        with (
            storage.replacing(str(self.output / "boxes.parquet")) as file,
            pq.ParquetWriter(file, _BOXES, compression="zstd") as table,
        ):
            for _, shard in self.source.tables(_COLUMNS):
                rows: list[Row] = []
                for row, split in self._taken(shard):
                    self._count(row, split)
                    rows += _box_rows(row, split, self.categories, self._provenance)
                table.write_table(pa.Table.from_pylist(rows, _BOXES))
        return ["boxes.parquet"]

    def _taken(self, shard: pa.Table) -> Iterator[tuple[Row, str]]:
        """A shard's images that are to be exported, with their exported boxes and their side."""
        for row in shard.to_pylist():
            if reason := self.selection.left_out_for(row):
                self.left_out[reason] += 1
            else:
                yield self.selection.decided(row), self.selection.split(row)

    def _placed(self, folder: Callable[[str], Path], jpeg: bool = False) -> Iterator[tuple[Row, str, str]]:
        """Puts each image to be exported into the folder of its side; gives its row, its side and its new name."""
        for split in self.selection.sides:
            folder(split).mkdir(parents=True, exist_ok=True)
        with tqdm(total=self.source.images, unit="image", disable=None) as bar:
            for _, shard in self.source.tables(_COLUMNS):
                for row, split in self._taken(shard):
                    location = self.source.location(row["path"])
                    try:
                        data = read_image(location, ACCEPTED)
                        picture = picture_for_trainers(seen(data, row["digest"]), jpeg)
                    except BadImageError as error:
                        self.unreadable[row["path"]] = str(error)
                        continue
                    name = stem(row["path"]) + picture.suffix
                    target = folder(split) / name
                    if self.copy or not picture.linkable or not _linked(str(location), target):
                        storage.write_bytes(str(target), picture.data)
                    self._count(row, split)
                    yield row, split, name
                bar.update(shard.num_rows)

    def _provenance(self, box: Mapping[str, Any]) -> Row:
        """Where a box comes from: a person, or which network, method and threshold."""
        drawn = {"model": None, "method": None} if source_of(box) == PERSON else self._drawn_with
        return {"source": source_of(box), **drawn, "threshold": box["threshold"]}

    @functools.cached_property
    def _drawn_with(self) -> Row:
        """The network and the method that all boxes of the run come from."""
        settings = self.source.recorded_settings()
        return {"model": settings["model"]["name"], "method": settings["method"]}

    def _count(self, row: Row, split: str) -> None:
        self.images[split] += 1
        self.copies.add(row["digest"], row["path"], split)
        self.boxes[split] += len(row["boxes"])
        self.empty += not row["boxes"]
        boxed = {box["category_id"] for box in row["boxes"]}
        self.partial += any(label["category_id"] not in boxed for label in row["labels"])

    def _write(self, name: str, content: str) -> None:
        storage.write_bytes(str(self.output / name), content.encode())


class Picture(NamedTuple):
    """An image as it goes to trainers.

    Attributes:
      suffix: the ending of its file's name.
      data: the encoded file.
      linkable: `data` is the original, and no trainer writes to it.
    """

    suffix: str
    data: bytes
    linkable: bool


def picture_for_trainers(data: bytes, jpeg: bool) -> Picture:
    """The original where every trainer sees it as the run did, else the upright photograph in a file of its own.

    Boxes are in pixels of the upright image. OpenCV, and ultralytics with it, turns an image by its EXIF orientation;
    torchvision and most COCO and VOC loaders do not; so an image that has one is written anew, upright and without it.
    So is a format that not every trainer reads, an image with transparent pixels, whose hidden colours trainers see,
    and a grey one of more than 8 bits, which Pillow's conversion makes white.

    Args:
      data: a file's bytes, in a format that the run could decode.
      jpeg: whether only JPEG will do.

    Raises:
      BadImageError: this machine cannot decode it.
    """
    with opened(data, ACCEPTED) as image:
        suffix = _SUFFIXES.get(image.format or "")
        as_it_is = is_plain(image) and orientation(image) == 1
    is_jpeg = suffix == ".jpg"
    if as_it_is and suffix and (is_jpeg or not jpeg):
        # ultralytics saves a JPEG that does not end with its end marker anew, in place: never to the original.
        return Picture(suffix, data, linkable=not is_jpeg or data.endswith(b"\xff\xd9"))
    file = io.BytesIO()
    photograph = Image.fromarray(decode(data, ACCEPTED))
    if is_jpeg or jpeg:
        photograph.save(file, "JPEG", quality=95, subsampling=0)
        return Picture(".jpg", file.getvalue(), linkable=False)
    photograph.save(file, "PNG")
    return Picture(".png", file.getvalue(), linkable=False)


def stem(path: str) -> str:
    """The name of an exported image and of its labels, without an ending: ASCII letters, digits, "_" and "-".

    It ends with the first 16 hex digits of the path's SHA-256: images of different folders, or of one name with
    different endings, never share a name, and an image keeps its name when others are added.
    """
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", posixpath.splitext(path)[0])[-80:].strip("_-")
    return f"{readable or 'image'}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def check_labels(names: Sequence[str]) -> None:
    """Refuses labels that cannot stand in XML or in one line of a file.

    Raises:
      ValueError: names them.
    """
    if wrong := [name for name in names if _CONTROL.search(name)]:
        raise ValueError(
            f"labels {', '.join(map(repr, wrong))} hold control characters, which classes.txt and XML cannot; "
            "rename them in the input, or export as coco or parquet"
        )


def yolo_lines(row: Row) -> str:
    """A line for each box: class (from 0), centre x, centre y, width and height, as shares of the upright image.

    Eight digits bring boxes of images up to 100,000 pixels back to 0.01.
    """
    lines = []
    for box in row["boxes"]:
        x, y, width, height = box["bbox"]
        shares = (
            (x + width / 2) / row["width"],
            (y + height / 2) / row["height"],
            width / row["width"],
            height / row["height"],
        )
        lines.append(" ".join([str(box["category_id"] - 1), *(f"{share:.8f}" for share in shares)]))
    return _lines(lines)


Provenance = Callable[[Mapping[str, Any]], Row]


def voc_xml(row: Row, file_name: str, names: Sequence[str], provenance: Provenance) -> str:
    """A Pascal VOC annotation.

    Corners are whole pixels counted from 1, and both belong to the box, as in the VOC devkit: xmin = round(x) + 1,
    xmax = round(x + width), so that a reader who subtracts 1 from the minimum (supervision) is off by half a pixel at
    most. A box has at least one pixel, and lies in the image. Each object's <source> says where it comes from.
    """
    annotation = ET.Element("annotation")
    _add(annotation, folder="VOC2012", filename=file_name)
    _add(ET.SubElement(annotation, "source"), database="camboxes")
    _add(ET.SubElement(annotation, "size"), width=row["width"], height=row["height"], depth=3)
    _add(annotation, segmented=0)
    for box in row["boxes"]:
        x, y, width, height = box["bbox"]
        xmin, xmax = _voc_edges(x, x + width, row["width"])
        ymin, ymax = _voc_edges(y, y + height, row["height"])
        item = ET.SubElement(annotation, "object")
        _add(item, name=names[box["category_id"] - 1], pose="Unspecified", truncated=0, difficult=0)
        _add(ET.SubElement(item, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
        known = {tag: value for tag, value in provenance(box).items() if value is not None}
        _add(ET.SubElement(item, "source"), annotation=known.pop("source"), **known)
    ET.indent(annotation)
    return ET.tostring(annotation, encoding="unicode") + "\n"


def _voc_edges(low: float, high: float, size: int) -> tuple[int, int]:
    first = min(round(low) + 1, size)
    return first, min(max(round(high), first), size)


def _add(parent: ET.Element, **texts: Any) -> None:
    for tag, text in texts.items():
        ET.SubElement(parent, tag).text = str(text)


def _box_rows(row: Row, split: str, names: Sequence[str], provenance: Provenance) -> Iterator[Row]:
    shared = {name: row[name] for name in ("image_id", "path", "digest", "width", "height")} | {"split": split}
    if not row["boxes"]:
        yield shared
    for box in sorted(row["boxes"], key=lambda box: (box["category_id"], box["rank"])):
        place = dict(zip(("x", "y", "box_width", "box_height"), box["bbox"], strict=True))
        yield shared | {"category": names[box["category_id"] - 1]} | place | box | provenance(box)


def _linked(location: str, target: Path) -> bool:
    """Makes a hard link where that is possible, and says whether it was.

    Not a symbolic one: supervision refuses those that lead out of the data set, and on another machine they lead
    nowhere. A hard link is the file itself, to trainers and to archives.
    """
    if not storage.is_local(location):
        return False
    try:
        os.link(Path(location).resolve(), target)  # resolved: else a link to a link would be made
    except OSError:  # on another filesystem, with links forbidden, or too many
        return False
    return True


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
