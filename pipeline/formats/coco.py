"""COCO annotations: one JSON file for a data set.

`bbox` is x, y, width, height as the rest of the code has it. Boxes with `iscrowd` are ignored boxes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from camboxes.pipeline.formats.ground_truth import GroundTruth, GroundTruthBuilder
from camboxes.transforms.coco import Counts, write_coco


def write(
    file: IO[bytes],
    rows: Iterable[Mapping[str, Any]],
    categories: Sequence[str],
    info: Mapping[str, Any],
    counts: Counts,
) -> None:
    """Writes one part of a data set: images in ascending image_id, whose `path` becomes file_name.

    The ids of the categories count from 1. Annotation ids go on from `counts`, those of the parts written before; it is
    updated.
    """
    with Path(os.devnull).open("wb") as results:
        write_coco(
            file,
            results,
            rows=rows,
            categories=[{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
            info=info,
            counts=counts,
            attributes=lambda box: {name: box[name] for name in ("source", "model", "method", "threshold")},
        )


def read(data: bytes, source: str) -> GroundTruth:
    """Reads the bytes of a file; errors name `source`.

    Raises:
      ValueError: it is no COCO data set, or holds no box.
    """
    found = GroundTruthBuilder(source)
    source = f"ground truth {source!r}"
    try:
        dataset = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{source} is not JSON ({error}); expected COCO annotations") from None
    if not isinstance(dataset, dict):
        raise ValueError(
            f"{source} is a JSON {type(dataset).__name__}; expected an object with images, annotations and categories "
            "(COCO results alone are no ground truth)"
        )
    names = {number: name for _, _, number, name in _unique(_entries(dataset, "categories", source), "name")}
    found.categories.update(names.values())
    paths: dict[int | str, str] = {}
    for where, entry, number, path in _unique(_entries(dataset, "images", source), "file_name"):
        paths[number] = path
        found.add_image(path, entry.get("width"), entry.get("height"), where)
    for where, entry in _entries(dataset, "annotations", source):
        image, category = (_value(entry, key, int | str, where) for key in ("image_id", "category_id"))
        if image not in paths:
            raise ValueError(f"{where}: no image has the id {image!r}; the ids of images and annotations must agree")
        if category not in names:
            raise ValueError(f"{where}: no category has the id {category!r}; add it to categories")
        box = _value(entry, "bbox", list, where)
        if len(box) != 4 or not {*map(type, box)} <= {int, float}:
            raise ValueError(f"{where}: bbox is {box!r:.80}; expected four numbers: x, y, width, height")
        crowd = bool(_value({"iscrowd": 0} | entry, "iscrowd", int, where))
        found.add_box(paths[image], names[category], [float(number) for number in box], crowd, where)
    return found.build()


def _entries(dataset: Mapping[str, Any], key: str, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of one of the lists, each with its place in the source."""
    kind = {"images": "image", "annotations": "annotation", "categories": "category"}[key]
    for number, entry in enumerate(_value(dataset, key, list, source), start=1):
        if not isinstance(entry, dict):
            raise ValueError(f"{source}, {kind} number {number} is {entry!r:.80}; expected an object")
        name = f"id {entry['id']!r:.80}" if "id" in entry else f"number {number}"
        yield f"{source}, {kind} {name}", entry


def _unique(
    entries: Iterable[tuple[str, dict[str, Any]]], name: str
) -> Iterator[tuple[str, dict[str, Any], int | str, str]]:
    """Adds to each entry its id and its name, which no other entry may have."""
    seen: set[tuple[str, int | str]] = set()
    for where, entry in entries:
        number, text = _value(entry, "id", int | str, where), _value(entry, name, str, where)
        if not seen.isdisjoint({("id", number), (name, text)}):
            raise ValueError(f"{where}: id {number!r} or {name} {text!r} is there twice; expected each once")
        seen |= {("id", number), (name, text)}
        yield where, entry, number, text


def _value(entry: Mapping[str, Any], key: str, kind: Any, where: str) -> Any:
    if key not in entry:
        raise ValueError(f"{where} has no {key!r}; expected COCO annotations")
    if not isinstance(entry[key], kind):
        raise ValueError(f"{where}: {key} is {entry[key]!r:.80}; expected {getattr(kind, '__name__', kind)}")
    return entry[key]
