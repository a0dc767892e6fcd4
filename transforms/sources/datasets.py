"""Lists a data set of any form: a folder of class folders, a folder with a table, or a table."""

import glob
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from camboxes.transforms import storage
from camboxes.transforms.sources.class_folders import read_class_folders
from camboxes.transforms.sources.coco_labels import read_coco
from camboxes.transforms.sources.columns import NO_COLUMNS, Columns
from camboxes.transforms.sources.endings import completed
from camboxes.transforms.sources.entries import Assumption, Entry, SourceError, Statement
from camboxes.transforms.sources.folder_tables import read_tables, tables_below
from camboxes.transforms.sources.label_values import plain_text
from camboxes.transforms.sources.manifests import READERS, read_manifest
from camboxes.transforms.sources.open_images import is_open_images, read_open_images
from camboxes.transforms.sources.tables import is_json_list


def entries(path: str, root: str | None = None, columns: Columns = NO_COLUMNS) -> Iterator[Statement]:
    """Lists a data set, one entry after the other, without holding the listing.

    Args:
      path: a folder of class folders, or of splits with class folders; a folder with a metadata.csv, .jsonl or .parquet
        or a _classes.csv, or of splits with one each; or a manifest: .csv, .tsv, .jsonl, .json or .parquet with a path
        and labels in each row, .json of COCO annotations, .csv of Open Images' image-level labels; those of text also
        as .gz. Local or on any Beam filesystem.
      root: see `root_of`.
      columns: what is said of a table's columns; for other data sets nothing can be.

    Yields:
      For class folders, see `read_class_folders`; for a table, `read_manifest` and `completed`; else an entry for each
      row.

    Raises:
      SourceError: there is no such input, or it cannot be understood.
    """
    found = root_of(path, root)
    if _is_folder(path):
        folder = storage.absolute(path)
        if tables := tables_below(folder, columns):
            return completed(_within(read_tables(folder, tables, columns), found), found)
        columns.check_unused(path)
        return _within(read_class_folders(folder), found)
    ending = _ending(path)
    if ending not in READERS:
        endings = ", ".join(sorted(ending for ending in READERS if not ending.endswith(".gz")))
        expected = f"a folder of class folders, a table ending in {endings}, of which those of text may be .gz, or "
        expected += "containers of images: .tar, .tfrecord, .parquet"
        what = "is none of these" if storage.exists(path) else "does not exist"
        raise SourceError(f"input {path!r} {what}; expected {expected}")
    if not storage.exists(path):
        raise SourceError(f"input {path!r} does not exist")
    if ending.startswith(".json") and not ending.startswith(".jsonl") and not is_json_list(path):
        columns.check_unused(path)
        return _within(read_coco(path), found)
    if ending.startswith((".csv", ".tsv")) and columns == NO_COLUMNS and is_open_images(path):
        return _within(read_open_images(path), found)
    return completed(_within(_read(path, columns), found), found)


def _read(path: str, columns: Columns) -> Iterator[Statement]:
    """Lists a table; a generator, so that a large one is read where the entries are taken."""
    yield from read_manifest(READERS[_ending(path)](path, columns), columns)


def _ending(path: str) -> str:
    """The ending of a file's name, in small letters; two of a file that is compressed: ".csv.gz"."""
    stem, ending = posixpath.splitext(path.lower())
    return posixpath.splitext(stem)[1] + ending if ending == ".gz" else ending


def root_of(path: str, root: str | None = None) -> str:
    """The folder that a data set's paths are relative to, absolute. Nothing is read outside of it.

    It is `root`, if the user named one; else the folder of class folders, or the folder of the manifest.
    """
    return storage.absolute(root or (path if _is_folder(path) else _parent(path)))


def _parent(path: str) -> str:
    path = re.split(r"[*?\[{]", path)[0] if not storage.exists(path) else path
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def _is_folder(path: str) -> bool:
    if storage.is_local(path):
        return Path(path).is_dir()
    return path.endswith("/") or any(storage.matching(f"{glob.escape(path)}/**"))


def _within(rows: Iterable[Statement], root: str) -> Iterator[Statement]:
    """Normalises each path: relative to the root if it lies below it."""
    prefix = root.rstrip("/") + "/"
    local = storage.is_local(root)
    for row in rows:
        if isinstance(row, Assumption):
            yield row
            continue
        spelled = plain_text(row.path)
        if local and "://" not in spelled:
            absolute = posixpath.normpath(posixpath.join(root, spelled))
            spelled = absolute.removeprefix(prefix) if absolute.startswith(prefix) else posixpath.normpath(spelled)
        else:
            spelled = spelled.removeprefix(prefix)
            spelled = spelled if "://" in spelled else posixpath.normpath(spelled)
        if isinstance(row, Entry):
            labels, denied = (tuple(filter(None, map(_label, given))) for given in (row.labels, row.denied))
            yield Entry(spelled, labels, denied)
        else:
            yield row._replace(path=spelled + "/" * row.path.endswith("/"))  # of a folder


def _label(text: str) -> str:
    return plain_text(text).strip()
