"""Image-level-labelled data sets as people have them: a folder of class folders, or a manifest."""

import csv
import dataclasses
import io
import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apache_beam.io.filesystems import FileSystems

from camboxes.transforms import storage

# Files with other endings in a class folder are counted and passed over; a manifest may name any file.
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jpe .jpeg .jpg .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)


class SourceError(ValueError):
    """The input as a whole cannot be read: what was given, what was expected, what to do."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set's image-label pairs.

    Attributes:
      root: the folder that paths are relative to, and that nothing is read outside of; absolute.
      labels: for each image's path its labels, in the order given, without repetitions. Paths within the root are
        relative to it, with forward slashes; others are kept as they were given.
      repeated: how many (path, label) pairs were given more than once and dropped.
      passed_over: how many files were no images by their name, or lay in no class folder.
    """

    root: str
    labels: Mapping[str, tuple[str, ...]]
    repeated: int = 0
    passed_over: int = 0


def read_source(path: str, root: str | None = None) -> Source:
    """Lists a data set.

    Args:
      path: a folder of class folders, or a manifest: .csv with the columns path and label, .jsonl or .parquet with a
        path and a label or a list of labels in each row. Local or on any Beam filesystem.
      root: the folder that a manifest's paths are relative to; None for the manifest's own.

    Raises:
      SourceError: there is no such input, or it cannot be understood.
    """
    if _is_folder(path):
        return _read_class_folders(storage.absolute(path))
    suffix = posixpath.splitext(path)[1].lower()
    if suffix not in _MANIFESTS:
        expected = "a folder of class folders, or a manifest ending in " + ", ".join(_MANIFESTS)
        found = "is none of these" if storage.exists(path) else "does not exist"
        raise SourceError(f"input {path!r} {found}; expected {expected}")
    if not storage.exists(path):
        raise SourceError(f"input {path!r} does not exist")
    return _collect(_MANIFESTS[suffix](path), storage.absolute(root or _parent(path)))


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def _is_folder(path: str) -> bool:
    if storage.is_local(path):
        return Path(path).is_dir()
    return path.endswith("/") or bool(FileSystems.match([path.rstrip("/") + "/*"], limits=[1])[0].metadata_list)


def _files_below(folder: str) -> list[str]:
    """Paths relative to the folder, with forward slashes."""
    if storage.is_local(folder):
        # Not FileSystems.match: it does not follow linked folders, and data sets of links are common.
        found = (
            Path(root, name).relative_to(folder).as_posix()
            for root, _, files in os.walk(folder, followlinks=True)
            for name in files
        )
        # A name that is not UTF-8 cannot stand in JSON; spelled with escapes it is planned, and found missing.
        return sorted(path.encode("utf-8", "backslashreplace").decode() for path in found)
    prefix = folder.rstrip("/") + "/"
    return sorted(file.path.removeprefix(prefix) for file in FileSystems.match([prefix + "**"])[0].metadata_list)


def _read_class_folders(folder: str) -> Source:
    labels: dict[str, tuple[str, ...]] = {}
    passed_over = 0
    for path in _files_below(folder):
        visible = not any(part.startswith(".") for part in path.split("/"))
        if visible and "/" in path and posixpath.splitext(path)[1].lower() in IMAGE_SUFFIXES:
            labels[path] = (path.split("/")[0],)
        else:
            passed_over += visible
    if not labels:
        raise SourceError(
            f"input {folder!r} holds no class folders with images; "
            f"expected {posixpath.join(folder, 'LABEL', 'IMAGE.jpg')}, or name a manifest"
        )
    return Source(folder, labels, passed_over=passed_over)


def _collect(pairs: Iterator[tuple[str, list[str]]], root: str) -> Source:
    found: dict[str, dict[str, None]] = {}
    repeated = 0
    for path, labels in pairs:
        of_image = found.setdefault(_within(path, root), {})
        for label in labels:
            repeated += label in of_image
            of_image[label] = None
    return Source(root, {path: tuple(labels) for path, labels in found.items()}, repeated=repeated)


def _within(path: str, root: str) -> str:
    """A path's one spelling: relative to the root where it lies inside it."""
    prefix = root.rstrip("/") + "/"
    if storage.is_local(root) and "://" not in path:
        absolute = posixpath.normpath(posixpath.join(root, path))
        return absolute.removeprefix(prefix) if absolute.startswith(prefix) else posixpath.normpath(path)
    path = path.removeprefix(prefix)
    return path if "://" in path else posixpath.normpath(path)


def _text(path: str) -> str:
    try:
        return storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"manifest {path!r} is not UTF-8 ({error}); save it as UTF-8") from None


def _pair(row: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
    path = row.get("path")
    if not isinstance(path, str) or not path:
        raise SourceError(f"{where}: expected a path and a label or labels, got {dict(row)!r}")
    labels = row.get("labels", row.get("label"))
    if isinstance(labels, str | int) or labels is None:
        labels = [labels]
    # An image without a label is no mistake of the manifest's: it is planned, and ends as skipped.
    return path, [str(label) for label in labels if label not in (None, "")]


def _read_csv(path: str) -> Iterator[tuple[str, list[str]]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    columns = reader.fieldnames or []
    if "path" not in columns or "label" not in columns:
        raise SourceError(f"manifest {path!r} begins with {','.join(columns)!r}; expected a header with path and label")
    for row in reader:
        yield _pair(row, f"manifest {path!r}, line {reader.line_num}")


def _read_jsonl(path: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"manifest {path!r}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SourceError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise SourceError(f"{where}: expected an object with path and label or labels, got {line[:80]!r}")
        yield _pair(row, where)


def _read_parquet(path: str) -> Iterator[tuple[str, list[str]]]:
    import pyarrow.parquet as pq

    try:
        with FileSystems.open(path, compression_type="uncompressed") as file:
            rows = pq.read_table(file)
    except Exception as error:  # pyarrow's errors for a file that is not Parquet are many
        raise SourceError(f"manifest {path!r} is not readable as Parquet ({error})") from error
    label = next((name for name in ("labels", "label") if name in rows.column_names), None)
    if "path" not in rows.column_names or label is None:
        raise SourceError(
            f"manifest {path!r} has the columns {', '.join(rows.column_names)}; expected path and label or labels"
        )
    for number, row in enumerate(rows.select(["path", label]).to_pylist()):
        yield _pair(row, f"manifest {path!r}, row {number}")


_MANIFESTS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
