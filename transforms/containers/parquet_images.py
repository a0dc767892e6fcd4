"""Images in Parquet files: a column `image` of bytes, or of bytes and path, as Hugging Face's datasets are stored.

Labels are the column `labels` or `label`: texts, whole numbers, or lists of them. A number becomes a name where the
file's schema has names for the column (a ClassLabel of Hugging Face's), else it stays a number ("7"); below 0 it means
no label. Where there is neither column, the only ClassLabel there is counts. A member is called by its row's number,
from 0, and the last part of its path, where it has one: 00000017-cat.jpg.
"""

import bisect
import contextlib
import itertools
import json
import posixpath
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from camboxes.transforms import storage
from camboxes.transforms.containers.member_names import safe
from camboxes.transforms.containers.members import (
    ContainerError,
    Image,
    Member,
    changed,
    distinct,
    one_for_each,
)
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.sources.class_folders import IMAGE_SUFFIXES
from camboxes.transforms.sources.label_values import labels_of

_IMAGE = "image"
_BUFFER = 1 << 20  # bytes read at a time from a column; without it a row group's images are read at once
_SUFFIX = ".jpg"  # where no path says: a name only, decoders look at the bytes

_Label = tuple[str, Sequence[str]]  # a column, and the names of its numbers


def holds_images(path: str) -> bool:
    """Whether a Parquet file has a column of images, so that it is no mere manifest.

    Raises:
      ContainerError: it is not Parquet.
    """
    with storage.open_binary(path) as file, _parquet(_unbuffered(file), path) as rows:
        schema = rows.schema_arrow
        return _IMAGE in schema.names and (_is_bytes(schema.field(_IMAGE).type) or _has(schema, "bytes", _is_bytes))


def members(container: str) -> Iterator[Member]:
    """Lists a Parquet file's rows. Of the column of images at most the paths are read.

    Raises:
      ContainerError: it is not Parquet, has no column of images or of labels, or labels that cannot be understood.
    """
    with storage.open_binary(container) as file, _parquet(_unbuffered(file), container) as rows:
        label = _label_column(rows.schema_arrow, container)
        columns = [label[0], f"{_IMAGE}.path"] if _has(rows.schema_arrow, "path", _is_text) else [label[0]]
        for place, row in enumerate(row for batch in rows.iter_batches(columns=columns) for row in batch.to_pylist()):
            yield _member(place, row, label, container)


def described(container: str) -> str:
    """What the file holds, for somebody who misses labels in it."""
    with storage.open_binary(container) as file, _parquet(_unbuffered(file), container) as rows:
        column, _ = _label_column(rows.schema_arrow, container)
        return f"has no label in the column {column} of its {rows.metadata.num_rows} rows"


def beginnings(container: str) -> set[int]:
    """The rows at which groups of rows begin: reading from elsewhere costs what lies before it in the group."""
    with storage.open_binary(container) as file, _parquet(_unbuffered(file), container) as rows:
        return set(itertools.accumulate(_group_sizes(rows), initial=0))


def _group_sizes(rows: pq.ParquetFile) -> list[int]:
    return [rows.metadata.row_group(group).num_rows for group in range(rows.num_row_groups)]


def images(container: str, wanted: Sequence[Member]) -> Generator[Image]:
    """The images of rows, if these have the labels and the paths that were listed.

    Rows lie in groups, of which any can be read, but only from its beginning: an image in the middle costs those
    before it. Where a group cannot be read on, its other rows are the reason, and the next group is read.

    Memory: pyarrow holds a page as the file's writer made it, up to 1,024 rows of one group, some three times over: for
    images of 100 kB 20 MB where groups have 100 rows, as Hugging Face makes them, and 300 MB where they are larger.
    """
    with storage.open_binary(container) as file, _parquet(file, container) as rows:
        label = _label_column(rows.schema_arrow, container)
        ends = list(itertools.accumulate(_group_sizes(rows)))
        for group, of_group in itertools.groupby(wanted, key=lambda member: bisect.bisect_right(ends, member.place)):
            if group < len(ends):
                members = {member.place: member for member in of_group}
                begin = ends[group - 1] if group else 0
                # A batch is decoded as a whole, and one image is enough to hold.
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
    return Member(_name(place, path if isinstance(path, str) else None), labels, place)


def _image(value: Any) -> Image:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes):
        return data
    if path is None:
        return BadImageError("missing", "the row has no image")
    return BadImageError("missing", f"the row has no bytes, only the path {path!r}, which is not followed; embed them")


@contextlib.contextmanager
def _parquet(file: IO[bytes], container: str) -> Iterator[pq.ParquetFile]:
    try:
        yield pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ContainerError(container, f"is not readable as Parquet ({error})") from error


def _unbuffered(file: IO[bytes]) -> IO[bytes]:
    """The file without Beam's reading ahead, 16 MiB on S3: labels are small, and far from each other between images."""
    return getattr(file, "raw", file)


def _has(schema: pa.Schema, part: str, is_kind: Callable[[pa.DataType], bool]) -> bool:
    """Whether the images are structures that have such a part."""
    kind = schema.field(_IMAGE).type
    return pa.types.is_struct(kind) and any(field.name == part and is_kind(field.type) for field in kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _label_column(schema: pa.Schema, container: str) -> _Label:
    """The column that holds the labels, and the names of its numbers, none where they have none.

    Raises:
      ContainerError: there is no such column, or none of images.
    """
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
    """What Hugging Face's datasets says of each column; nothing in a file that it did not write."""
    try:
        return dict(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}


def _class_names(feature: Any) -> Sequence[str]:
    """The names of a ClassLabel, or of a list of them, as the one or the other release of datasets writes it."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_names(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") == "ClassLabel":
        return feature.get("names") or ()
    return _class_names(feature.get("feature"))


def _name(row: int, path: str | None) -> str:
    if not path:
        return f"{row:08d}{_SUFFIX}"
    last = safe(path).rpartition("/")[2]
    suffix = "" if posixpath.splitext(last)[1].lower() in IMAGE_SUFFIXES else _SUFFIX
    return f"{row:08d}-{last}{suffix}"
