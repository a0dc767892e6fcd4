"""Writes COCO files from a run's rows: streamed, in the order of the image ids."""

import collections
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from camboxes.transforms.doubts.label_doubts import Doubts
from camboxes.transforms.records import PERSON, REJECTED, SKIPPED, STATUSES, score_of, source_of

DESCRIPTION = "Pseudo-boxes from image-level labels, by camboxes: drawn by a network; by a person where source says so."

Row = Mapping[str, Any]


def by_person(box: Row) -> Row:
    """The attributes of an annotation that name its box's source: none unless a person drew it."""
    return {"source": PERSON} if source_of(box) == PERSON else {}


@dataclasses.dataclass
class Counts:
    """Counts of a run's images and boxes.

    Attributes:
      images: number of images, in total and by status.
      rejected, skipped: number of rejected and of skipped images, by the code of the reason.
      categories: number of labelled images, of images with a box, and of boxes, by category name.
      annotations, by_person: number of boxes, and of those that a person drew.
      doubts: counts of images whose labels the network does not confirm.
    """

    images: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(("planned", *STATUSES), 0))
    rejected: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    categories: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    annotations: int = 0
    by_person: int = 0
    doubts: Doubts = dataclasses.field(default_factory=Doubts)

    def add(self, row: Row) -> None:
        """Counts a row."""
        self.images["planned"] += 1
        self.images[row["status"]] += 1
        for status, reasons in ((REJECTED, self.rejected), (SKIPPED, self.skipped)):
            if row["status"] == status:
                reasons[(row["reason"] or "").partition(":")[0]] += 1
        boxes = collections.Counter(box["category_id"] for box in row["boxes"])
        for label in row["labels"]:
            found = boxes[label["category_id"]]
            of_category = self.categories.setdefault(label["label"], {"images": 0, "with_box": 0, "boxes": 0})
            of_category["images"] += 1
            of_category["with_box"] += found > 0
            of_category["boxes"] += found
        self.doubts.add(row)
        self.annotations += len(row["boxes"])
        self.by_person += sum(source_of(box) == PERSON for box in row["boxes"])


def write_coco(
    dataset: IO[bytes],
    results: IO[bytes],
    *,
    rows: Iterable[Row],
    categories: Iterable[Mapping[str, Any]],
    info: Mapping[str, Any],
    counts: Counts,
    attributes: Callable[[Row], Row] = by_person,
) -> None:
    """Writes a COCO data set and its results, or one part of them.

    The rows, in the schema LABELED and by ascending image_id, are streamed; annotations, which follow after all images,
    wait in a temporary file. `counts` counts them; annotation ids continue from its number of annotations. `attributes`
    gives further attributes of a box's annotation.
    """
    number = counts.annotations
    with tempfile.TemporaryFile() as waiting:
        images, annotations, entries = _List(dataset), _List(waiting), _List(results)
        dataset.write(b'{"info": ' + _json(info) + b',\n"images": [\n')
        results.write(b"[\n")
        for row in rows:
            counts.add(row)
            if row["status"] != REJECTED:
                images.append(_image(row))
            for annotation, entry in _annotations(row, attributes):
                number += 1
                annotations.append({"id": number, **annotation})
                entries.append(entry)
        for values in (images, annotations, entries):
            values.end()
        results.write(b"]\n")
        dataset.write(b'],\n"annotations": [\n')
        waiting.seek(0)
        shutil.copyfileobj(waiting, dataset)
    named = _List(dataset)
    dataset.write(b'],\n"categories": [\n')
    for category in categories:
        named.append(category)
    named.end()
    dataset.write(b"]}\n")


def _image(row: Row) -> dict[str, Any]:
    return {
        "id": row["image_id"],
        "file_name": row["path"],
        "width": row["width"],
        "height": row["height"],
        **({} if (review := row["review"]) is None else {f"review_{name}": value for name, value in review.items()}),
    }


def _annotations(row: Row, attributes: Callable[[Row], Row]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """An image's boxes, by category and rank: as annotations without ids, and as entries of the results."""
    for box in sorted(row["boxes"], key=lambda box: (box["category_id"], box["rank"])):
        place = {"image_id": row["image_id"], "category_id": box["category_id"], "bbox": box["bbox"]}
        calibrated = box["calibrated_score"]
        annotation = {
            **place,
            "area": round(box["bbox"][2] * box["bbox"][3], 2),
            "iscrowd": 0,
            "segmentation": [],
            "score": box["score"],
            **({} if calibrated is None else {"calibrated_score": calibrated}),
            "rank": box["rank"],
            "box_uid": box["box_uid"],
            **attributes(box),
            # The image's priority, repeated here because viewers keep the attributes of a box.
            **({} if row["review"] is None else {"review_priority": row["review"]["priority"]}),
        }
        yield annotation, {**place, "score": score_of(box)}


class _List:
    """Writes the elements of a JSON list to a file, one a line."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._separator = b""

    def append(self, value: Mapping[str, Any]) -> None:
        self._file.write(self._separator + _json(value))
        self._separator = b",\n"

    def end(self) -> None:
        self._file.write(b"\n" if self._separator else b"")


# One encoder for all values; json.dumps would make one for each.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _json(value: Any) -> bytes:
    return _ENCODER.encode(value).encode()
