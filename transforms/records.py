"""The elements that flow between the steps: shards of some hundred rows in Arrow, one row per image.

Every step passes the same shard on with its rows extended. So there are three schemas: PLANNED, MAPPED and LABELED.
`LABELED` is the schema of a shard file, version 3:

    image_id      int64, dense from 1 over a planned run; null in an unplanned shard
    path          relative to the input root, with forward slashes; the image's identity
    digest        SHA-256 of the file's bytes, hexadecimal; null if they could not be read
    width, height pixels, after EXIF orientation; null if the image could not be decoded
    status        ok, no_box, skipped (no label stands for a class), or rejected
    reason        "code: what happened", also per label; null for most images. A skipped image with the code background
                  is known to show none of the classes: see `is_background`
    labels        label, category_id, class_index (the model class chosen; null: the label stands for none), logit,
                  probability; a label that is background is not among them
    top5          class_index, name ("class 3" if it has none) and probability of the network's first five classes
    maps          per label: category_id, height, width (cells), raw_min, raw_max (float32, before quantisation), cells
                  (uint8, row-major), rectangle (x, y, width, height of the oriented image that the map covers, in
                  pixels), method, scales (short sides of the network's input, in pixels), coherence and agreement
                  (how the map changes when it is spread along the network's mid-level features, see
                  `models.localization.affinity`; null if the network has no such features)
    plain_maps    the maps before refinement, if they were kept; shards of version 2 do not have this column
    boxes         per box: category_id, bbox (x, y, width, height in pixels of the oriented image), score,
                  calibrated_score (null before calibration), rank, box_uid, component_area (share of the working
                  grid's cells), threshold (the smallest foreground value of this map, in [0, 1]), source (machine or
                  person, see `keep`; shards of version 2 do not have this field)
    review        priority: the expected number of labels that a person has to correct; reasons: "code: label", see
                  `review`. Null for rejected images.

The schema's metadata holds the settings of the steps (`settings`), so that a shard file explains itself.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa

from camboxes.transforms.sources.background import BACKGROUND

SCHEMA_VERSION = 3

OK, NO_BOX, SKIPPED, REJECTED = "ok", "no_box", "skipped", "rejected"
STATUSES = (OK, NO_BOX, SKIPPED, REJECTED)
MACHINE, PERSON = "machine", "person"  # sources of boxes


def _fields(text: str) -> list[tuple[str, pa.DataType]]:
    """Reads "NAME TYPE, NAME TYPE, ...", with Arrow's names of types."""
    return [(name, pa.type_for_alias(kind)) for name, kind in map(str.split, text.split(","))]


_PLANNED_LABEL = pa.struct([*_fields("label string, category_id int32"), ("class_indices", pa.list_(pa.int32()))])
_LABEL = pa.struct(_fields("label string, category_id int32, class_index int32, logit float32, probability float32"))
_CLASS = pa.struct(_fields("class_index int32, name string, probability float32"))
_MAP = pa.struct(
    [
        *_fields("category_id int32, height int16, width int16, raw_min float32, raw_max float32, cells binary"),
        ("rectangle", pa.list_(pa.int32(), 4)),
        ("method", pa.string()),
        ("scales", pa.list_(pa.int16())),
        *_fields("coherence float32, agreement float32"),
    ]
)
_BOX = pa.struct(
    [
        ("category_id", pa.int32()),
        ("bbox", pa.list_(pa.float64(), 4)),
        *_fields("score float64, calibrated_score float64, rank int32, box_uid string, component_area float64"),
        *_fields("threshold float64, source string"),
    ]
)
_REVIEW = pa.struct([("priority", pa.float64()), ("reasons", pa.list_(pa.string()))])

# The columns of a reader. `location`: where to read the image, null if its path leads outside the root. `place`: the
# position of an image in its container (see `members`). `image`: the image's bytes, if a user's own job has them.
# `background`: its labels that are no class (see `sources.background`); the reason of its row names them. These four
# columns and class_indices do not reach a shard file.
PLANNED = pa.schema(
    [
        *_fields("image_id int64, path string"),
        ("labels", pa.list_(_PLANNED_LABEL)),
        ("background", pa.list_(pa.string())),
        *_fields("place int64, location string, image binary"),
    ]
)
MAPPED = pa.schema(
    [
        *_fields("image_id int64, path string, digest string, width int32, height int32, status string, reason string"),
        ("labels", pa.list_(_LABEL)),
        ("top5", pa.list_(_CLASS)),
        ("maps", pa.list_(_MAP)),
        ("plain_maps", pa.list_(_MAP)),
    ]
)
LABELED = MAPPED.append(pa.field("boxes", pa.list_(_BOX))).append(pa.field("review", _REVIEW))


def is_background(row: Mapping[str, Any]) -> bool:
    """Whether a row's image is labelled as background: nothing is on it that a box could be drawn around."""
    return row["status"] == SKIPPED and (row["reason"] or "").partition(":")[0] == BACKGROUND


def score_of(box: Mapping[str, Any]) -> float:
    """The score of a row's box that results.json holds: the calibrated one if there is one."""
    return box["score"] if box["calibrated_score"] is None else box["calibrated_score"]


def source_of(box: Mapping[str, Any]) -> str:
    """Who drew a row's box; before version 3 of the schema the machine drew all of them."""
    return box.get("source") or MACHINE


def rejected(row: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The row of a rejected image: it keeps the labels, and of the image's facts those that `row` has."""
    return _not_seen(row) | {"status": REJECTED, "reason": reason}


def skipped(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a planned image none of whose labels stands for a class; see `rejected`."""
    reason = "no_class: none of its labels stands for a class of the network"
    if row["labels"] and all(label["category_id"] is None for label in row["labels"]):
        reason = "no_category: none of its labels is among the given categories"
    if row["background"]:
        reason = f"{BACKGROUND}: {', '.join(row['background'])}"
    return _not_seen(row) | {"status": SKIPPED, "reason": reason}


def _not_seen(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of an image that the network does not see."""
    kept = {name: row.get(name) for name in ("image_id", "path", "digest", "width", "height")}
    labels = [{name: label[name] for name in ("label", "category_id")} for label in row["labels"]]
    return kept | {"labels": labels, "top5": [], "maps": [], "plain_maps": []}


class LabeledImage(NamedTuple):
    """One image of a user's own pipeline, for `BatchImages`.

    Attributes:
      path: the image's identity, and its place on any Beam filesystem, unless `image` is given.
      labels: its image-level labels.
      image: the encoded file's bytes, or None.
    """

    path: str
    labels: tuple[str, ...]
    image: bytes | None = None


def check_labels(labels: Any) -> None:
    """Raises a ValueError where an image's labels are one text: its letters would be taken for labels."""
    if isinstance(labels, str):
        raise ValueError(f"labels are {labels!r}; expected a list of labels, as [{labels!r}]")


def no_class(label: Mapping[str, Any]) -> str:
    """The reason why there is no box of an entry of a row's labels that has no class."""
    if label["category_id"] is None:
        return f"no_category: {label['label']} is not among the given categories"
    return f"no_class: {label['label']} stands for no class of the network"


@dataclasses.dataclass(frozen=True)
class Shard:
    """The element between the steps: rows in one of this module's schemas.

    The key names the shard's file; the same input makes the same key.
    """

    key: str
    rows: pa.Table

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the steps so far."""
        return json.loads((self.rows.schema.metadata or {}).get(b"camboxes", b"{}"))

    def extended(self, rows: Iterable[Mapping[str, Any]], schema: pa.Schema, settings: Mapping[str, Any]) -> "Shard":
        """The same shard with other rows, and with the settings of one more step."""
        return Shard(self.key, table(rows, schema, {**self.settings, **settings}))


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, settings: Mapping[str, Any]) -> pa.Table:
    """Makes one Arrow table of rows, with the schema's version and the settings of the steps in its metadata."""
    record = json.dumps({**settings, "schema_version": SCHEMA_VERSION}, sort_keys=True)
    return pa.Table.from_pylist(list(rows), schema.with_metadata({"camboxes": record}))


class ShardCoder(beam.coders.Coder):
    """Encodes a shard as its length-prefixed key and an Arrow IPC stream. Equal shards have equal bytes."""

    def encode(self, value: Shard) -> bytes:
        """Encodes a shard."""
        sink = pa.BufferOutputStream()
        rows = value.rows.combine_chunks()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        key = value.key.encode()
        return len(key).to_bytes(4, "big") + key + sink.getvalue().to_pybytes()

    def decode(self, encoded: bytes) -> Shard:
        """Decodes a shard."""
        start = 4 + int.from_bytes(encoded[:4], "big")
        return Shard(encoded[4:start].decode(), pa.ipc.open_stream(encoded[start:]).read_all())

    def is_deterministic(self) -> bool:
        """Always true: shards may be keys and may be compared by their bytes."""
        return True

    def to_type_hint(self) -> type:
        """The type that this coder encodes."""
        return Shard


beam.coders.registry.register_coder(Shard, ShardCoder)
