"""Reads images from Parquet files: a column `image` of bytes, or of bytes and path, as Hugging Face stores datasets.

Labels are in the column `labels` or `label`: texts, whole numbers, or lists of them; without either, in the file's only
ClassLabel (Hugging Face's type). A number becomes a name if the file's schema has names for the column, else it stays a
number ("7"); a number below 0 means no label. A member is named by the number of its row, from 0, and the last part of
its path, if it has one: 00000017-cat.jpg.
"""

import bisect
import contextlib
import itertools
import json
import posixpath
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from camboxes.models.counts import counted
from camboxes.transforms import storage
from camboxes.transforms.containers.members import ContainerError, Image, Member, changed, distinct, one_for_each, safe
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.sources.class_folders import IMAGE_SUFFIXES
from camboxes.transforms.sources.label_values import labels_of

_IMAGE = "image"
_BYTES, _TEXTS = (pa.binary(), pa.large_binary()), (pa.string(), pa.large_string())
_BUFFER = 1 << 20  # bytes read at a time from a column; without it the images of a row group are read at once
_SUFFIX = ".jpg"  # of names without one; decoders look at the bytes

_Label = tuple[str, Sequence[str]]  # a column, and the names of its numbers


def holds_images(path: str) -> bool:
    """Whether a Parquet file has a column of images; else it is a manifest.

    Raises:
      ContainerError: it is not Parquet.
    """
    with _opened(path) as rows:
        schema = rows.schema_arrow
        return _IMAGE in schema.names and _parts(schema).get("bytes") in _BYTES


def members(container: str) -> Iterator[Member]:
    """Lists a Parquet file's rows; of the images at most the paths are read. See `any_format.members`."""
    with _opened(container) as rows:
        label = _label_column(rows.schema_arrow, container)
        columns = [label[0], f"{_IMAGE}.path"] if _parts(rows.schema_arrow).get("path") in _TEXTS else [label[0]]
        for place, row in enumerate(row for batch in rows.iter_batches(columns=columns) for row in batch.to_pylist()):
            yield _member(place, row, label, container)


def described(container: str) -> str:
    """Says what a file without labels holds; see `any_format.described`."""
    with _opened(container) as rows:
        column, _ = _label_column(rows.schema_arrow, container)
        return f"has no label in the column {column} of its {counted(rows.metadata.num_rows, 'row')}"


def beginnings(container: str) -> set[int]:
    """The rows at which row groups begin."""
    with _opened(container) as rows:
        return set(_starts(rows))


def images(container: str, wanted: Sequence[Member]) -> Generator[Image]:
    """Reads the images of rows that have the labels and the paths that were listed.

    A row group is read from its beginning: an image in the middle costs those before it. If reading a group fails, its
    other members give the error, and the next group is read.

    Memory: pyarrow holds up to three copies of a page as the file's writer made it, at most 1,024 rows of one group.
    With images of 100 kB that is 20 MB for groups of 100 rows, as Hugging Face makes them, and 300 MB for larger ones.
    """
    with _opened(container, read_ahead=True) as rows:
        label = _label_column(rows.schema_arrow, container)
        starts = _starts(rows)
        for group, of_group in itertools.groupby(wanted, lambda member: bisect.bisect_right(starts, member.place) - 1):
            if group < rows.num_row_groups:
                members, begin = {member.place: member for member in of_group}, starts[group]
                # One row a batch: a batch is decoded as a whole.
                batches = rows.iter_batches(batch_size=1, row_groups=[group], columns=[_IMAGE, label[0]])
                found = itertools.islice(enumerate(batches, start=begin), max(members) + 1 - begin)
                yield from one_for_each(
                    len(members),
                    (
                        _image_of(members[place], batch.to_pylist()[0], label, container)
                        for place, batch in found
                        if place in members
                    ),
                )


def _image_of(listed: Member, row: Mapping[str, Any], label: _Label, container: str) -> Image:
    found = _member(listed.place, row, label, container)
    if (found.name, sorted(found.labels)) == (listed.name, sorted(listed.labels)):
        return _image(row[_IMAGE])
    labels = ", ".join(found.labels) or "none"
    return changed(f"row {listed.place} was {listed.name!r}, and now is {found.name!r} with the labels {labels}")


def _member(place: int, row: Mapping[str, Any], label: _Label, container: str) -> Member:
    column, names = label
    try:
        labels = distinct(labels_of(row[column], names))
    except ValueError as error:
        raise ContainerError(container, f"cannot be understood in row {place}: {column} {error}") from None
    path = row[_IMAGE].get("path") if isinstance(row.get(_IMAGE), dict) else None
    if not path or not isinstance(path, str):
        return Member(f"{place:08d}{_SUFFIX}", labels, place)
    last = safe(path).rpartition("/")[2]
    suffix = "" if posixpath.splitext(last)[1].lower() in IMAGE_SUFFIXES else _SUFFIX
    return Member(f"{place:08d}-{last}{suffix}", labels, place)


def _image(value: Any) -> Image:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes):
        return data
    if path is None:
        return BadImageError("missing", "the row has no image")
    return BadImageError("missing", f"the row has no bytes, only the path {path!r}, which is not followed; embed them")


@contextlib.contextmanager
def _opened(container: str, read_ahead: bool = False) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file. Beam reads ahead 16 MiB on S3; labels are small, and lie far apart between images."""
    with storage.open_binary(container) as file:
        try:
            source = file if read_ahead else getattr(file, "raw", file)
            yield pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ContainerError(container, f"is not readable as Parquet ({error})") from error


def _starts(rows: pq.ParquetFile) -> list[int]:
    """The rows at which row groups begin, and the number of all rows."""
    sizes = (rows.metadata.row_group(group).num_rows for group in range(rows.num_row_groups))
    return list(itertools.accumulate(sizes, initial=0))


def _parts(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The types of an image's parts, by their names; an image that is no struct has the part bytes alone."""
    kind = schema.field(_IMAGE).type
    return {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {"bytes": kind}


def _label_column(schema: pa.Schema, container: str) -> _Label:
    """The column that holds the labels, and the names of its numbers, if any."""
    if _IMAGE not in schema.names:
        raise ContainerError(container, f"has the columns {', '.join(schema.names)}; expected one called {_IMAGE}")
    named = {column: names for column in schema.names if (names := _class_names(_features(schema).get(column)))}
    given = [column for column in ("labels", "label") if column in schema.names]
    if not given and len(named) != 1:
        raise ContainerError(
            container, f"has the columns {', '.join(schema.names)}; expected label or labels, or one ClassLabel"
        )
    column = given[0] if given else next(iter(named))
    return column, named.get(column, ())


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The features that Hugging Face's datasets wrote for each column; empty for a file of another writer."""
    try:
        return dict(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}


def _class_names(feature: Any) -> Sequence[str]:
    """The names of a ClassLabel, or of a list of ClassLabels as any release of datasets writes it."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_names(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") == "ClassLabel":
        return feature.get("names") or ()
    return _class_names(feature.get("feature"))
