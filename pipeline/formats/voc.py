"""Pascal VOC annotations: one XML file for each image.

Corners are whole pixels counted from 1, and both belong to the box, as in the VOC devkit: the width is xmax - xmin + 1.
Difficult objects are ignored boxes.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from camboxes.pipeline.formats.ground_truth import GroundTruth, GroundTruthBuilder


def write(row: Mapping[str, Any]) -> str:
    """The annotation of an image.

    xmin = round(x) + 1 and xmax = round(x + width), so a reader who subtracts 1 from the minimum alone (supervision) is
    off by half a pixel at most. A box has at least one pixel, and lies in the image. Each object's <source> says where
    the box comes from.
    """
    annotation = ET.Element("annotation")
    _add(annotation, folder="VOC2012", filename=row["path"])
    _add(ET.SubElement(annotation, "source"), database="camboxes")
    _add(ET.SubElement(annotation, "size"), width=row["width"], height=row["height"], depth=3)
    _add(annotation, segmented=0)
    for box in row["boxes"]:
        x, y, width, height = box["bbox"]
        xmin, xmax = _corners(x, x + width, row["width"])
        ymin, ymax = _corners(y, y + height, row["height"])
        item = ET.SubElement(annotation, "object")
        _add(item, name=box["category"], pose="Unspecified", truncated=0, difficult=0)
        _add(ET.SubElement(item, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
        drawn_with = {tag: box[tag] for tag in ("model", "method", "threshold") if box[tag] is not None}
        _add(ET.SubElement(item, "source"), annotation=box["source"], **drawn_with)
    ET.indent(annotation)
    return ET.tostring(annotation, encoding="unicode") + "\n"


def _corners(low: float, high: float, size: int) -> tuple[int, int]:
    """The first and the last pixel, counted from 1, of a half-open interval on a side of `size` pixels."""
    first = min(round(low) + 1, size)
    return first, min(max(round(high), first), size)


def _add(parent: ET.Element, **texts: Any) -> None:
    for tag, text in texts.items():
        ET.SubElement(parent, tag).text = str(text)


def read(annotations: Iterable[tuple[str, bytes]], source: str) -> GroundTruth:
    """Reads annotations, given as the name of each XML file and its bytes, of a folder `source`.

    Raises:
      ValueError: a file is no annotation, two are of the same image, or there is no box.
    """
    found = GroundTruthBuilder(source)
    seen: dict[str, str] = {}
    for file, data in annotations:
        where = f"ground truth {file!r}"
        try:
            annotation = ET.fromstring(data)
        except ET.ParseError as error:
            raise ValueError(f"{where} is not XML ({error}); expected a Pascal VOC annotation") from None
        image = _text(annotation, "filename", where)
        if image in seen:
            raise ValueError(f"{where}: its image {image!r} is that of {seen[image]!r} too; expected each image once")
        seen[image] = file
        # Annotation tools that do not know the size write 0.
        sides = [None if side == "0" else side for side in map(annotation.findtext, ("size/width", "size/height"))]
        found.add_image(image, sides[0], sides[1], where)
        for number, item in enumerate(annotation.findall("object"), start=1):
            _read_object(image, item, found, f"{where}, object {number}")
    return found.build()


def _read_object(image: str, item: ET.Element, found: GroundTruthBuilder, where: str) -> None:
    corners = [_text(item, f"bndbox/{corner}", where) for corner in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = map(float, corners)
    except ValueError:
        raise ValueError(f"{where}: its corners are {', '.join(corners)!r:.80}; expected four numbers") from None
    difficult = item.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"{where}: difficult is {difficult!r:.80}; expected 0 or 1")
    box = [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]
    found.add_box(image, _text(item, "name", where), box, difficult == "1", where)


def _text(element: ET.Element, path: str, where: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"{where} has no {path}; expected a Pascal VOC annotation")
    return text
