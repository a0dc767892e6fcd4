"""Reads COCO annotations as image-level labels; boxes and masks are ignored."""

import json
from collections.abc import Iterator
from typing import Any

from camboxes.transforms.sources.entries import Entry, SourceError
from camboxes.transforms.sources.tables import read_whole

_LISTS = ("images", "annotations", "categories")
_KEPT = (*_LISTS, "id", "file_name", "name", "image_id", "category_id")


def read_coco(path: str) -> Iterator[Entry]:
    """Lists each image of a COCO file: its file_name, and the names of its annotations' categories, each once.

    Crowds count: they say that the category is on the image. An image without annotations has no labels.

    The file is parsed as a whole, but boxes and masks are dropped while parsing. Memory peaks at twice the file's size,
    or at its size and 300 bytes for each annotation and image.

    Raises:
      SourceError: it is not JSON, or no COCO annotations; says what is missing, or which id leads nowhere.
    """
    source = f"file {path!r}"
    try:
        data = json.loads(read_whole(path).decode("utf-8-sig"), object_hook=_kept)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{source} is not JSON ({error}); expected COCO annotations") from None
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in _LISTS):
        raise SourceError(
            f"{source} is no COCO annotations; expected an object with the lists {', '.join(_LISTS)}, or a list of rows"
        )
    names = _by_id(data["categories"], "name", f"{source}, categories")
    files = _by_id(data["images"], "file_name", f"{source}, images")
    labels: dict[int | str, dict[str, None]] = {number: {} for number in files}
    for annotation in data["annotations"]:
        image, category = (_value(annotation, key, int | str, source) for key in ("image_id", "category_id"))
        if image not in files or category not in names:
            raise SourceError(
                f"{source}: an annotation has the image_id {image!r} and the category_id {category!r}, "
                f"but no {'category' if image in files else 'image'} has that id; add it, or delete the annotation"
            )
        labels[image][names[category]] = None
    for number, file in files.items():
        yield Entry(file, tuple(labels[number]))


def _kept(value: dict[str, Any]) -> dict[str, Any]:
    """The entries of an object that are used; most of the file is masks."""
    return {key: value[key] for key in _KEPT if key in value}


def _by_id(entries: list[Any], key: str, where: str) -> dict[int | str, str]:
    """The text under `key` of each entry, by the entry's id."""
    found: dict[int | str, str] = {}
    for entry in entries:
        number, text = _value(entry, "id", int | str, where), _value(entry, key, str, where)
        if number in found:
            raise SourceError(f"{where}: the id {number!r} is there twice; expected each once")
        found[number] = text
    return found


def _value(entry: Any, key: str, kind: Any, where: str) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
        raise SourceError(f"{where}: expected {key} in each entry, got {entry!r:.80}")
    return entry[key]
