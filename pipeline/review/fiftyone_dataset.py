"""Writes a run into a persistent FiftyOne dataset, with saved views for reviewers.

The database may be deleted at any time: decisions are in OUT/review.jsonl, everything else is in the run.

Samples are written as documents of FiftyOne's database, not as FiftyOne's objects. FiftyOne checks each value of an
object several times, so a run of 10,000 images took minutes (benchmarks/review.py).
"""

import datetime
import hashlib
import itertools
import random
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camboxes.models.counts import counted
from camboxes.pipeline.review import fiftyone_samples
from camboxes.pipeline.untrusted_text import on_one_line
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.ordered_threads import batched
from camboxes.transforms.records import NO_BOX, REJECTED
from camboxes.transforms.review.decisions import Decision, read_decisions

if TYPE_CHECKING:
    import fiftyone as fo

Row = dict[str, Any]

INFO = "camboxes"  # the key of a dataset's info that names its run
COLUMNS = ("image_id", "path", "width", "height", "status", "reason", "labels", "top5", "maps", "boxes", "review")
_OURS = ("path", "coco_id", "status", "reason", "verdict", "decided", "review_priority", "review_reasons", "shard")
_COLORS = {"accepted": "#3fa45b", "rejected": "#d2544b", "skipped": "#7d8590"}  # as in the panel
_FIRST = "most worth reviewing"  # the saved view that the App opens with
_BATCH = 1000  # samples that are sent to the database at once


def dataset_name(run: str) -> str:
    """The name of a run's dataset: the folder's name, and a few digits of a hash of its path."""
    path = storage.absolute(run)
    return f"{Path(path).name}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"


def load(
    planned: PlannedRun, name: str, photographs: Mapping[str, str], advance: Callable[[int], Any] = lambda done: None
) -> "fo.Dataset":
    """Makes a run's dataset, or updates it: adds new images, and keeps people's work.

    Images that the dataset lacks are added. Rows and decisions that changed are written again. An accepted image has
    the boxes of the decision. Nothing is deleted: samples that people added, tags, corrections and saved views stay. A
    note on stderr says if people's work is no longer visible. If this folder held another run before, that run's
    dataset is renamed.

    `photographs` has the file of each image, by path. An image without a file is not added; if it was loaded before, it
    stays as it is. `advance` gets the number of images that are done.

    Raises:
      ValueError: a dataset of that name holds no run, or the run of another folder; a decision cannot be read.
    """
    decisions = read_decisions(planned.output)
    dataset = _opened(planned, name)
    present = _present(dataset)
    names = {category.id: category.name for category in planned.categories}
    rows = (row | {"shard": key} for key, table in planned.tables(COLUMNS) for row in table.to_pylist())
    unseen, replaced = 0, []
    for batch in batched(rows, _BATCH):
        added, changed = [], {}
        for row in batch:
            path, decision = row["path"], decisions.get(row["path"])
            before = present.get(path)
            if path not in photographs:
                unseen += before is not None
            elif before is None:
                added.append(_document(row, names, photographs[path], decision))
            elif not _row_state(row).items() <= before.items():
                changed[before["id"]] = _document(row, names, photographs[path], decision)
            else:
                fields = {} if before["filepath"] == photographs[path] else {"filepath": photographs[path]}
                if not _decision_state(decision).items() <= before.items():
                    decided, corrected = _decided_elsewhere(dataset, before["id"], row, decision)
                    fields |= decided
                    replaced += [path] if corrected else []
                if fields:
                    changed[before["id"]] = fields
        _write(dataset, added, changed)
        advance(len(batch))
    if unseen:
        _tell(f"{counted(unseen, 'image')} loaded before have no photograph here now; they stay as they were")
    if replaced:
        some = ", ".join(map(on_one_line, replaced[:3])) + (", ..." if len(replaced) > 3 else "")
        _tell(
            f"{counted(len(replaced), 'image')} accepted elsewhere, which replaces boxes that were corrected here: "
            f"{some}"
        )
    _save_views(dataset)
    _let_annotate(dataset)
    return dataset


def first_view(dataset: "fo.Dataset") -> str:
    """The query of the App's address that opens what is most worth reviewing; empty if everything is decided."""
    from fiftyone.core.utils import to_slug

    return f"?view={to_slug(_FIRST)}" if len(dataset.load_saved_view(_FIRST)) else ""


def detections_document(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Makes FiftyOne's document of detections, from values of `fiftyone_samples.detection` or of a document.

    A detection keeps its _id if it has one. Values of None are left out: the App fails on a confidence of null.
    """
    from bson import ObjectId

    own = {"_cls": "Detection", "attributes": {}, "tags": []}
    return {
        "_cls": "Detections",
        "detections": [
            {"_id": ObjectId()} | own | {name: value for name, value in box.items() if value is not None}
            for box in found
        ],
    }


def over(present: Sequence[Row], found: Sequence[Row]) -> list[Row]:
    """Merges new detections over present ones: a box with the same box_uid keeps its id, tags and people's fields."""
    known = {box["box_uid"]: box for box in present if box.get("box_uid")}
    return [known.get(box["box_uid"], {}) | box for box in found]


def set_fields(dataset: "fo.Dataset", changes: Mapping[Any, Mapping[str, Any]], *, undecided: bool = False) -> None:
    """Sets fields of samples, by id, to values in FiftyOne's form.

    With `undecided`, samples that are decided at the time of writing are skipped.
    """
    import fiftyone.core.odm as foo
    from bson import ObjectId
    from pymongo import UpdateOne

    now = {"last_modified_at": datetime.datetime.now(datetime.UTC)}
    only = {"verdict": None} if undecided else {}
    writes = [UpdateOne({"_id": ObjectId(key), **only}, {"$set": {**fields, **now}}) for key, fields in changes.items()]
    if writes:
        foo.bulk_write(writes, dataset._sample_collection, ordered=False)


def _tell(sentence: str) -> None:
    """Prints to stderr without breaking the progress bar."""
    from tqdm import tqdm

    tqdm.write(sentence, file=sys.stderr)


def _write(dataset: "fo.Dataset", added: list[Row], changed: Mapping[str, Row]) -> None:
    import fiftyone.core.odm as foo

    now = datetime.datetime.now(datetime.UTC)
    own = {"_dataset_id": dataset._doc.id, "_media_type": "image", "created_at": now, "last_modified_at": now}
    if added:
        documents = [{**own, "_rand": random.random(), "tags": [], **document} for document in added]
        foo.insert_documents(documents, dataset._sample_collection, progress=False)
    set_fields(dataset, changed)


def _opened(planned: PlannedRun, name: str) -> "fo.Dataset":
    import fiftyone as fo

    held = {"run": storage.absolute(planned.output), "fingerprints": dict(planned.fingerprints)}
    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        before = dataset.info.get(INFO)
        if before is None:
            raise ValueError(f"FiftyOne has a dataset {name!r} already that holds no run; choose another name")
        if before["run"] != held["run"]:
            raise ValueError(f"FiftyOne's dataset {name!r} holds the run in {before['run']!r}; choose another name")
        if before == held:
            return dataset
        dataset.name = next(
            free for number in itertools.count(1) if not fo.dataset_exists(free := f"{name}-before-{number}")
        )
        _tell(
            f"{planned.output!r} holds another run than before; what was done with that one in FiftyOne is kept in its "
            f"dataset {dataset.name!r} (to delete it: {shlex.join(['fiftyone', 'datasets', 'delete', dataset.name])})"
        )
    dataset = fo.Dataset(name, persistent=True)
    dataset.media_type = "image"
    _declare(dataset, planned)
    dataset.info = {
        INFO: held,
        "categories": [{"id": category.id, "name": category.name} for category in planned.categories],
    }
    dataset.save()
    return dataset


def _declare(dataset: "fo.Dataset", planned: PlannedRun) -> None:
    """Declares every field, so that the App can filter by fields that no image has, and guesses no types."""
    import fiftyone as fo

    for field, label in (("labels", fo.Classifications), ("boxes", fo.Detections), ("heat_map", fo.Heatmap)):
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=label)
    for field, kind in (
        ("path", fo.StringField),
        ("coco_id", fo.IntField),
        ("status", fo.StringField),
        ("reason", fo.StringField),
        ("verdict", fo.StringField),
        ("decided", fo.StringField),
        ("review_priority", fo.FloatField),
        ("shard", fo.StringField),
        *((f"boxes.detections.{name}", fo.StringField) for name in ("box_uid", "source", "method", "drawn_label")),
        *((f"boxes.detections.{name}", fo.FloatField) for name in ("calibrated_score", "threshold", "component_area")),
        ("boxes.detections.rank", fo.IntField),
    ):
        dataset.add_sample_field(field, kind)
    dataset.add_sample_field("review_reasons", fo.ListField, subfield=fo.StringField)
    dataset.add_sample_field("boxes.detections.drawn", fo.ListField, subfield=fo.FloatField)
    for name in _OURS:
        field = dataset.get_field(name)
        field.read_only = True  # in the App's sidebar, because a verdict typed there would reach no file
        field.save()
    for field in ("path", "coco_id"):
        dataset.create_index(field, unique=True)
    for field in ("verdict", "status", "review_priority"):
        dataset.create_index(field)
    names = [category.name for category in planned.categories]
    dataset.classes = {"boxes": names, "labels": names}
    verdicts = [{"value": verdict, "color": color} for verdict, color in _COLORS.items()]
    dataset.app_config.color_scheme = fo.ColorScheme(  # each label has a colour of its own
        color_by="value", fields=[{"path": "verdict", "valueColors": verdicts}]
    )
    dataset.app_config.active_fields = fo.ActiveFields(paths=["boxes", "labels", "verdict"])
    dataset.app_config.sidebar_groups = [
        fo.SidebarGroupDocument(name=name, paths=paths, expanded=expanded)
        for name, paths, expanded in (
            ("review", ["verdict", "review_priority", "review_reasons", "status", "reason"], True),
            ("labels", ["boxes", "heat_map", "labels"], True),
            ("tags", ["tags", "_label_tags"], False),
            (
                "image",
                ["path", "coco_id", "decided", "shard", "id", "filepath", "created_at", "last_modified_at"],
                False,
            ),
            (
                "metadata",
                [f"metadata.{name}" for name in ("width", "height", "size_bytes", "mime_type", "num_channels")],
                False,
            ),
        )
    ]


def _document(row: Row, names: Mapping[int, str], location: str, decision: Decision | None) -> Row:
    """A sample's fields in FiftyOne's form."""
    from bson import ObjectId

    found = fiftyone_samples.detections(row, names)
    size = None if row["width"] is None else {"width": row["width"], "height": row["height"]}
    if decision is not None and decision.verdict == "accepted" and size:
        found = fiftyone_samples.decided_detections(decision, (row["width"], row["height"]))
    return {
        "filepath": location,
        "metadata": size and {"_cls": "ImageMetadata", **size},
        "path": row["path"],
        "coco_id": row["image_id"],
        **_row_state(row),
        **_decision_state(decision),
        "labels": {
            "_cls": "Classifications",
            "classifications": [
                {
                    "_id": ObjectId(),
                    "_cls": "Classification",
                    "tags": [],
                    "label": label["label"],
                    **({} if (sure := fiftyone_samples.probability(label)) is None else {"confidence": sure}),
                }
                for label in row["labels"]
            ],
        },
        "boxes": detections_document(found),
        "heat_map": _heat_map(row),
        "review_priority": None if row["review"] is None else row["review"]["priority"],
        "review_reasons": [] if row["review"] is None else row["review"]["reasons"],
    }


def _heat_map(row: Row) -> Row | None:
    from bson import ObjectId
    from fiftyone.core.utils import serialize_numpy_array

    points = fiftyone_samples.heat_map(row)
    if points is None:
        return None
    own = {"_id": ObjectId(), "_cls": "Heatmap", "tags": []}
    # The App leaves points of value 0 out.
    return own | {"map": serialize_numpy_array(np.maximum(points, 1)), "range": [0.0, 255.0]}


def _row_state(row: Row) -> Row:
    """The fields that show whether a sample is that of this row."""
    return {name: row[name] for name in ("status", "reason", "shard")}


def _decision_state(decision: Decision | None) -> Row:
    """The fields that show whether a sample is as decided."""
    return {"verdict": decision and decision.verdict, "decided": decision and decision.time}


def _present(dataset: "fo.Dataset") -> dict[str, Row]:
    """The fields of each sample that show whether it is up to date, by path."""
    names = ["path", "id", "filepath", "status", "reason", "shard", "verdict", "decided"]
    samples = (dict(zip(names, values, strict=True)) for values in zip(*dataset.values(names), strict=True))
    return {sample["path"]: sample for sample in samples}


def _decided_elsewhere(dataset: "fo.Dataset", key: str, row: Row, decision: Decision | None) -> tuple[Row, bool]:
    """A sample's fields after a decision that this database does not have, as the panel would set them.

    Returns:
      The fields, and whether they replace boxes that a person corrected here without accepting them.
    """
    from bson import ObjectId

    fields = _decision_state(decision)
    if decision is None or decision.verdict != "accepted" or row["width"] is None:
        return fields, False
    sample = dataset._sample_collection.find_one({"_id": ObjectId(key)}, ["verdict", "boxes"])
    present = sample["boxes"]["detections"]
    found = fiftyone_samples.decided_detections(decision, (row["width"], row["height"]))
    fields["boxes"] = detections_document(over(present, found))
    return fields, sample["verdict"] != "accepted" and any(map(fiftyone_samples.is_corrected, present))


def _let_annotate(dataset: "fo.Dataset") -> None:
    """Sets the App's Annotate tab up for the boxes; FiftyOne does not let an empty dataset have one."""
    if len(dataset) and "boxes" not in dataset.label_schemas:
        schema = dataset.generate_label_schemas("boxes", scan_samples=False)
        schema |= {"component": "dropdown", "classes": dataset.classes["boxes"], "attributes": []}
        dataset.set_label_schemas({"boxes": schema})
        dataset.activate_label_schemas("boxes")


def _save_views(dataset: "fo.Dataset") -> None:
    from fiftyone import ViewField as F

    undecided = dataset.match((F("verdict") == None) & (F("status") != REJECTED))  # noqa: E711 (FiftyOne's expression)
    unlikely = F("review_reasons").filter(F().starts_with("unlikely_label"))
    views = {
        _FIRST: undecided.sort_by("review_priority", reverse=True),
        "no box": dataset.match(F("status") == NO_BOX),
        "several boxes": dataset.match(F("boxes.detections").length() > 1),
        "suspected wrong label": dataset.match(unlikely.length() > 0),
        "rejected files": dataset.match(F("status") == REJECTED),
        "accepted": dataset.match(F("verdict") == "accepted"),
    }
    for name, view in views.items():
        if not dataset.has_saved_view(name):  # people may have changed it
            dataset.save_view(name, view)
