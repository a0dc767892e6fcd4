"""True boxes as people have them: COCO JSON, a CSV with a row for each box, a folder of Pascal VOC XML, or a review.

However they are given, boxes end as x, y, width, height in pixels of the upright image, half-open: pixels are counted
from 0, and x + width is the first column outside.

    COCO  bbox as it stands; iscrowd boxes are kept apart as ignored
    CSV   path,label and x,y,width,height, or xmin,ymin,xmax,ymax, where the width is xmax - xmin
    VOC   whole pixels counted from 1 and both corners inside, so the width is xmax - xmin + 1; difficult: ignored
"""

import csv
import dataclasses
import io
import json
import math
import posixpath
import types
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np

from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.boxes.from_map import best_iou
from camboxes.transforms.review.decisions import FILE, Decision
from camboxes.transforms.review.keep_decided import decided

_EXTENT = ("x", "y", "width", "height")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class TrueImage(NamedTuple):
    """What is known of one image. One without boxes is known to hold none.

    Attributes:
      path: as the ground truth gives it.
      width, height: pixels of the upright image; None where the ground truth does not say.
      boxes: by category name float64 [boxes, 4], see the module.
      ignored: likewise, boxes that are neither to be found nor wrong to find: COCO's crowds, VOC's difficult objects.
      wrong: of categories without true boxes what a person judged wrong: likewise; None for any box there could be.
    """

    path: str
    width: int | None
    height: int | None
    boxes: dict[str, np.ndarray]
    ignored: dict[str, np.ndarray]
    wrong: Mapping[str, np.ndarray | None] = types.MappingProxyType({})

    def is_right(self, category: str, bbox: Sequence[float]) -> bool | None:
        """Whether a box reaches IoU 0.5 with a true one; None where neither that nor the contrary is known."""
        box = np.array([bbox])
        if category in self.boxes:
            return bool(best_iou(box, self.boxes[category])[0] >= 0.5)
        if category not in self.wrong:
            return None
        wrong = self.wrong[category]
        return False if wrong is None or best_iou(box, wrong)[0] >= 0.5 else None


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """True boxes of a data set.

    Attributes:
      source: the file or folder that they were read from.
      categories: all names, sorted; of COCO also those without a box.
      images: by the path that the ground truth gives.
    """

    source: str
    categories: tuple[str, ...]
    images: dict[str, TrueImage]


def read_ground_truth(path: str) -> GroundTruth:
    """Reads true boxes.

    Args:
      path: a .json or .csv file, local or on any Beam filesystem, or a local folder, in which .xml files are looked for
        at any depth.

    Raises:
      ValueError: it is none of these, cannot be understood, or holds no box; names the file and the line or id.
    """
    found = _Found(path)
    suffix = posixpath.splitext(path)[1].lower()
    if storage.is_local(path) and Path(path).is_dir():
        _read_voc(path, found)
    elif suffix not in _FILES or not storage.exists(path):
        problem = "is none of these" if storage.exists(path) else "does not exist"
        raise ValueError(
            f"ground truth {path!r} {problem}; expected COCO annotations (.json), a .csv of boxes, or a local folder "
            "of Pascal VOC .xml files"
        )
    else:
        _FILES[suffix](path, found)
    return found.ground_truth()


def reviewed(run: PlannedRun) -> GroundTruth:
    """True boxes from a finished run's review.

    An accepted image's boxes are all that there are of each of its labels. Of a rejected image nothing is known but
    that the boxes which it had are wrong, and with them every box that reaches IoU 0.5 with one of its label.

    Raises:
      ValueError: nobody accepted a box, or the decisions cannot be read.
    """
    decisions, images = decided(run), {}
    for row in run.rows(["path", "width", "height", "labels"]):
        decision = decisions.get(row["path"])
        if decision is not None and decision.verdict in ("accepted", "rejected"):
            images[row["path"]] = _reviewed_image(row, decision)
    source = storage.join(run.output, FILE)
    if not any(image.boxes for image in images.values()):
        raise ValueError(f"review {source!r} holds no accepted box; expected at least one to judge by")
    return GroundTruth(source, tuple(sorted(category.name for category in run.categories)), images)


def _reviewed_image(row: Mapping[str, Any], decision: Decision) -> TrueImage:
    found: defaultdict[str, list[list[float]]] = defaultdict(list)
    for box in decision.boxes:
        found[box.label].append(list(box.bbox))
    boxes = _arrays(found)
    if decision.verdict == "rejected":
        return TrueImage(row["path"], row["width"], row["height"], {}, {}, boxes)
    wrong = {label["label"]: None for label in row["labels"] if label["label"] not in boxes}
    return TrueImage(row["path"], row["width"], row["height"], boxes, {}, wrong)


class _Found:
    """Images and boxes as a reader comes upon them."""

    def __init__(self, source: str):
        self.source = source
        self.categories: set[str] = set()
        self._sizes: dict[str, tuple[int | None, int | None]] = {}
        self._boxes: dict[bool, dict[str, dict[str, list[list[float]]]]] = {
            ignored: defaultdict(lambda: defaultdict(list)) for ignored in (False, True)
        }

    def image(self, path: str, width: int | None, height: int | None, where: str) -> None:
        """Adds an image; again with the same size changes nothing."""
        before = self._sizes.get(path, (width, height))
        if before != (width, height):
            raise ValueError(
                f"{where}: {path!r} has {width} x {height} pixels, and before it had {before[0]} x {before[1]}; "
                "expected one size for each image"
            )
        self._sizes[path] = width, height

    def box(self, path: str, category: str, box: list[float], ignored: bool, where: str) -> None:
        """Adds a box to an image.

        Raises:
          ValueError: the box has no extent, or is not finite.
        """
        if not all(map(math.isfinite, box)) or box[2] <= 0 or box[3] <= 0:
            raise ValueError(
                f"{where}: the box of {category!r} is x {box[0]:g}, y {box[1]:g}, {box[2]:g} x {box[3]:g} pixels; "
                "expected finite numbers and an extent above 0: correct the box, or delete it"
            )
        self.categories.add(category)
        self._boxes[ignored][path][category].append(box)

    def ground_truth(self) -> GroundTruth:
        """All of it.

        Raises:
          ValueError: there is no box to find.
        """
        if not self._boxes[False]:
            ignored = "only crowd or difficult boxes" if self._boxes[True] else "no boxes"
            raise ValueError(f"ground truth {self.source!r} holds {ignored}; expected at least one box to judge by")
        images = {
            path: TrueImage(
                path, *size, _arrays(self._boxes[False].get(path, {})), _arrays(self._boxes[True].get(path, {}))
            )
            for path, size in self._sizes.items()
        }
        return GroundTruth(self.source, tuple(sorted(self.categories)), images)


def _arrays(boxes: Mapping[str, list[list[float]]]) -> dict[str, np.ndarray]:
    return {category: np.array(of_category, np.float64) for category, of_category in boxes.items()}


def _read_coco(path: str, found: _Found) -> None:
    source = f"ground truth {path!r}"
    try:
        data = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{source} is not JSON ({error}); expected COCO annotations") from None
    if not isinstance(data, dict):
        raise ValueError(
            f"{source} is a JSON {type(data).__name__}; expected an object with images, annotations and categories "
            "(COCO results alone are no ground truth)"
        )
    names: dict[Any, str] = {}
    for where, entry in _entries(data, "categories", source):
        number, name = _value(entry, "id", int | str, where), _value(entry, "name", str, where)
        if number in names or name in found.categories:
            raise ValueError(f"{where}: id {number!r} or name {name!r} is there twice; expected each once")
        names[number] = name
        found.categories.add(name)
    files: dict[Any, str] = {}
    paths: set[str] = set()
    for where, entry in _entries(data, "images", source):
        number, file = _value(entry, "id", int | str, where), _value(entry, "file_name", str, where)
        if number in files or file in paths:
            raise ValueError(f"{where}: id {number!r} or file_name {file!r} is there twice; expected each once")
        files[number] = file
        paths.add(file)
        found.image(file, _side(entry.get("width"), where), _side(entry.get("height"), where), where)
    for where, entry in _entries(data, "annotations", source):
        image, category = (_value(entry, key, int | str, where) for key in ("image_id", "category_id"))
        if image not in files:
            raise ValueError(f"{where}: no image has the id {image!r}; the ids of images and annotations must agree")
        if category not in names:
            raise ValueError(f"{where}: no category has the id {category!r}; add it to categories")
        box = _value(entry, "bbox", list, where)
        if len(box) != 4 or not {*map(type, box)} <= {int, float}:
            raise ValueError(f"{where}: bbox is {box!r:.80}; expected four numbers: x, y, width, height")
        crowd = bool(_value({"iscrowd": 0} | entry, "iscrowd", int, where))
        found.box(files[image], names[category], [float(number) for number in box], crowd, where)


def _entries(data: Mapping[str, Any], key: str, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of one of COCO's lists, each with words for where it stands."""
    entries = _value(data, key, list, source)
    kind = {"images": "image", "annotations": "annotation", "categories": "category"}[key]
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise ValueError(f"{source}, {kind} number {number} is {entry!r:.80}; expected an object")
        name = f"id {entry['id']!r:.80}" if "id" in entry else f"number {number}"
        yield f"{source}, {kind} {name}", entry


def _value(entry: Mapping[str, Any], key: str, kind: Any, where: str) -> Any:
    if key not in entry:
        raise ValueError(f"{where} has no {key!r}; expected COCO annotations")
    if not isinstance(entry[key], kind):
        raise ValueError(f"{where}: {key} is {entry[key]!r:.80}; expected {getattr(kind, '__name__', kind)}")
    return entry[key]


def _side(value: Any, where: str) -> int | None:
    """A side of an image in pixels; None where it is not given."""
    if value in (None, ""):
        return None
    try:
        side = float(value)
    except (TypeError, ValueError):
        side = math.nan
    if not (side >= 1 and side.is_integer()):
        raise ValueError(f"{where}: a side of the image is {value!r:.80}; expected whole pixels, 1 or more")
    return int(side)


def _read_csv(path: str, found: _Found) -> None:
    source = f"ground truth {path!r}"
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not UTF-8 ({error}); save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or []
    given = [kind for kind in (_EXTENT, _CORNERS) if set(kind) <= set(columns)]
    # With corners, width and height are the image's, as in many a CSV made from VOC; both kinds in full are a riddle.
    if not {"path", "label"} <= set(columns) or len(given) != 1:
        raise ValueError(
            f"{source} begins with {','.join(columns)!r:.200}; expected a header with path,label and either "
            f"{','.join(_EXTENT)} or {','.join(_CORNERS)}"
        )
    for row in reader:
        _read_row(row, given[0], found, f"{source}, line {reader.line_num}")


def _read_row(row: dict[Any, Any], columns: Sequence[str], found: _Found, where: str) -> None:
    path, label = row["path"], row["label"]
    if None in row or not path:
        raise ValueError(f"{where}: expected a path, and as many cells as the header has, got {row!r:.200}")
    found.image(path, _side(row.get("image_width"), where), _side(row.get("image_height"), where), where)
    cells = [row[column] or "" for column in columns]
    if not any(cells):
        return
    if not label:
        raise ValueError(f"{where}: a box without a label; name what it holds, or leave its cells empty")
    try:
        box = [float(cell) for cell in cells]
    except ValueError:
        raise ValueError(
            f"{where}: {','.join(columns)} are {','.join(cells)!r:.80}; expected four numbers, or none of them"
        ) from None
    if columns == _CORNERS:
        box = [*box[:2], box[2] - box[0], box[3] - box[1]]
    found.box(path, label, box, False, where)


def _read_voc(folder: str, found: _Found) -> None:
    files = sorted(Path(folder).rglob("*.xml"))
    if not files:
        raise ValueError(
            f"ground truth {folder!r} holds no .xml files; expected a folder of Pascal VOC annotations, or name a "
            ".json or .csv file"
        )
    seen: dict[str, Path] = {}
    for file in files:
        where = f"ground truth {str(file)!r}"
        try:
            annotation = ET.fromstring(file.read_bytes())
        except ET.ParseError as error:
            raise ValueError(f"{where} is not XML ({error}); expected a Pascal VOC annotation") from None
        name = _text(annotation, "filename", where)
        if name in seen:
            raise ValueError(
                f"{where}: its image {name!r} is that of {str(seen[name])!r} too; expected each image once"
            )
        seen[name] = file
        # Annotation tools that do not know the size write 0.
        size = [side if side != "0" else None for side in (annotation.findtext(f"size/{s}") for s in _EXTENT[2:])]
        found.image(name, _side(size[0], where), _side(size[1], where), where)
        for number, item in enumerate(annotation.findall("object"), start=1):
            _read_object(name, item, found, f"{where}, object {number}")


def _read_object(image: str, item: ET.Element, found: _Found, where: str) -> None:
    corners = [_text(item, f"bndbox/{corner}", where) for corner in _CORNERS]
    try:
        xmin, ymin, xmax, ymax = map(float, corners)
    except ValueError:
        raise ValueError(f"{where}: its corners are {', '.join(corners)!r:.80}; expected four numbers") from None
    difficult = item.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"{where}: difficult is {difficult!r:.80}; expected 0 or 1")
    box = [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]
    found.box(image, _text(item, "name", where), box, difficult == "1", where)


def _text(element: ET.Element, path: str, where: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"{where} has no {path}; expected a Pascal VOC annotation")
    return text


_FILES = {".json": _read_coco, ".csv": _read_csv}
