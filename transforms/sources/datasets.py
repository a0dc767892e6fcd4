"""Lists a data set of any form: a folder of class folders, or a manifest."""

import glob
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from camboxes.transforms import storage
from camboxes.transforms.sources.class_folders import read_class_folders
from camboxes.transforms.sources.coco_labels import read_coco
from camboxes.transforms.sources.entries import Entry, PassedOver, SourceError, Statement
from camboxes.transforms.sources.label_values import plain_text
from camboxes.transforms.sources.manifests import read_csv, read_jsonl, read_parquet
from camboxes.transforms.sources.open_images import is_open_images, read_open_images


def entries(path: str, root: str | None = None) -> Iterator[Statement]:
    """Lists a data set, one entry after the other, without holding the listing.

    Args:
      path: a folder of class folders, or of splits with class folders; or a manifest: .csv or .tsv with the columns
        path and label, .jsonl or .parquet with a path and a label or a list of labels in each row, .json of COCO
        annotations, .csv of Open Images' image-level labels. Local or on any Beam filesystem.
      root: see `root_of`.

    Yields:
      For a folder, see `read_class_folders`; for a manifest, an entry for each of its rows.

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


def _read_csv(path: str) -> Iterator[Entry | PassedOver]:
    return read_open_images(path) if is_open_images(path) else read_csv(path)


_MANIFESTS: dict[str, Callable[[str], Iterator[Statement]]] = {
    ".csv": _read_csv,
    ".json": read_coco,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".tsv": _read_csv,
}
