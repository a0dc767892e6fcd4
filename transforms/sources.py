"""Image-level-labelled data sets as people have them: a folder of class folders, or a manifest."""

import csv
import glob
import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from apache_beam.io.filesystems import FileSystems

from camboxes.transforms import storage
from camboxes.transforms.class_folders import encodable, read_class_folders
from camboxes.transforms.coco_labels import read_coco
from camboxes.transforms.entries import Entry, SourceError, Statement
from camboxes.transforms.open_images import is_open_images, read_open_images


def entries(path: str, root: str | None = None) -> Iterator[Statement]:
    """Lists a data set, one entry after the other; what is listed is not held.

    Args:
      path: a folder of class folders, or of splits with class folders; or a manifest: .csv with the columns path and
        label, .jsonl or .parquet with a path and a label or a list of labels in each row, .json of COCO annotations,
        .csv of Open Images' image-level labels. Local or on any Beam filesystem.
      root: see `root_of`.

    Yields:
      For a folder see `read_class_folders`; for a manifest an entry for each of its rows.

    Raises:
      SourceError: there is no such input, or it cannot be understood.
    """
    if _is_folder(path):
        return _within(read_class_folders(storage.absolute(path)), root_of(path, root))
    suffix = posixpath.splitext(path)[1].lower()
    if suffix not in _MANIFESTS:
        expected = "a folder of class folders, a manifest ending in " + ", ".join(_MANIFESTS)
        expected += ", or containers of images: .tar, .tfrecord, .parquet"
        found = "is none of these" if storage.exists(path) else "does not exist"
        raise SourceError(f"input {path!r} {found}; expected {expected}")
    if not storage.exists(path):
        raise SourceError(f"input {path!r} does not exist")
    return _within(_MANIFESTS[suffix](path), root_of(path, root))


def root_of(path: str, root: str | None = None) -> str:
    """The folder that a data set's paths are relative to, and that nothing is read outside of; absolute.

    Args:
      path: see `entries`.
      root: what the user named; None for the folder of class folders itself, or the manifest's own.
    """
    return storage.absolute(root or (path if _is_folder(path) else _parent(path)))


def _parent(path: str) -> str:
    path = re.split(r"[*?\[]", path)[0] if not storage.exists(path) else path
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def _is_folder(path: str) -> bool:
    if storage.is_local(path):
        return Path(path).is_dir()
    return path.endswith("/") or bool(storage.matching(f"{glob.escape(path)}/**"))


def _within(rows: Iterable[Statement], root: str) -> Iterator[Statement]:
    """Gives each path its one spelling: relative to the root where it lies inside it."""
    prefix = root.rstrip("/") + "/"
    local = storage.is_local(root)
    for row in rows:
        spelled = encodable(row.path)
        if local and "://" not in spelled:
            absolute = posixpath.normpath(posixpath.join(root, spelled))
            spelled = absolute.removeprefix(prefix) if absolute.startswith(prefix) else posixpath.normpath(spelled)
        else:
            spelled = spelled.removeprefix(prefix)
            spelled = spelled if "://" in spelled else posixpath.normpath(spelled)
        if isinstance(row, Entry):
            yield Entry(spelled, tuple(map(encodable, row.labels)), tuple(map(encodable, row.denied)))
        else:
            yield row._replace(path=spelled)


def _entry(row: Mapping[str, Any], where: str) -> Entry:
    path = row.get("path")
    if not isinstance(path, str) or not path:
        raise SourceError(f"{where}: expected a path and a label or labels, got {dict(row)!r}")
    labels = row.get("labels", row.get("label"))
    if isinstance(labels, str | int) or labels is None:
        labels = [labels]
    # An image without a label is no mistake of the manifest's: it is planned, and ends as skipped.
    return Entry(path, tuple(str(label) for label in labels if label not in (None, "")))


def _lines(path: str) -> Iterator[str]:
    """A text file's lines with their ends, which are left as they are."""
    with (
        FileSystems.open(path, compression_type="uncompressed") as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
    ):
        try:
            yield from text
        except UnicodeDecodeError as error:
            raise SourceError(f"manifest {path!r} is not UTF-8 ({error}); save it as UTF-8") from None


def _read_csv(path: str) -> Iterator[Entry]:
    if is_open_images(path):
        yield from read_open_images(path)
        return
    reader = csv.DictReader(_lines(path), strict=True)  # else a quote that is never closed swallows all that follows
    columns = reader.fieldnames or []
    if "path" not in columns or "label" not in columns:
        raise SourceError(f"manifest {path!r} begins with {','.join(columns)!r}; expected a header with path and label")
    try:
        for row in reader:
            yield _entry(row, f"manifest {path!r}, line {reader.line_num}")
    except csv.Error as error:
        raise SourceError(f"manifest {path!r}, line {reader.line_num}: not CSV ({error})") from None


def _read_jsonl(path: str) -> Iterator[Entry]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"manifest {path!r}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SourceError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise SourceError(f"{where}: expected an object with path and label or labels, got {line[:80]!r}")
        yield _entry(row, where)


def _read_parquet(path: str) -> Iterator[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with FileSystems.open(path, compression_type="uncompressed") as file:
            rows = pq.ParquetFile(file)
            columns = rows.schema_arrow.names
            label = next((name for name in ("labels", "label") if name in columns), None)
            if "path" not in columns or label is None:
                raise SourceError(
                    f"manifest {path!r} has the columns {', '.join(columns)}; expected path and label or labels"
                )
            batches = rows.iter_batches(columns=["path", label])
            for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
                yield _entry(row, f"manifest {path!r}, row {number}")
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"manifest {path!r} is not readable as Parquet ({error})") from error


_MANIFESTS = {".csv": _read_csv, ".json": read_coco, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
