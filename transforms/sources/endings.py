"""Completes the names of images that a table gives without their ending, such as Kaggle's ids."""

import contextlib
import glob
import os
import posixpath
import sqlite3
from collections.abc import Iterable, Iterator

from camboxes.transforms import storage
from camboxes.transforms.sources.class_folders import IMAGE_SUFFIXES, why_ignored
from camboxes.transforms.sources.entries import Assumption, Entry, SourceError, Statement
from camboxes.transforms.sources.label_values import plain_text


def completed(statements: Iterable[Statement], root: str) -> Iterator[Statement]:
    """Gives each entry whose path has no image's ending that of the one file which fits.

    A file fits if it lies at the path, or would without its ending; if there is none, one that lies so in any folder
    beside. An entry that no file fits stays as it is. A folder is listed once, and only where an entry needs it.

    Args:
      statements: with paths relative to the root.
      root: see `root_of`.

    Yields:
      The statements, and an assumption at the end if a name was completed.

    Raises:
      SourceError: several files fit.
    """
    files, names, example = _Files(root), 0, ""
    for statement in statements:
        if isinstance(statement, Entry) and _is_incomplete(statement.path):
            file = files.fitting(statement.path)
            if file != statement.path:
                names, example = names + 1, example or f"{statement.path}, found as {file}"
            yield statement._replace(path=file)
        else:
            yield statement
    if names:
        yield Assumption(f"names without an ending: {names}, such as {example}")


def _is_incomplete(path: str) -> bool:
    inside = not path.startswith(("/", "../")) and "://" not in path
    return inside and posixpath.splitext(path)[1].lower() not in IMAGE_SUFFIXES


class _Files:
    """The files in folders that were asked for. Memory does not grow with their number."""

    def __init__(self, root: str):
        self._root = root
        self._listed: set[tuple[str, bool]] = set()
        self._files = sqlite3.connect("", isolation_level=None)  # in memory, and as it grows in a temporary file
        self._files.execute("PRAGMA journal_mode = OFF")
        self._files.execute(
            "CREATE TABLE files (below INTEGER, name TEXT, path TEXT, PRIMARY KEY (below, name, path)) WITHOUT ROWID"
        )

    def fitting(self, path: str) -> str:
        """The path of the one file that a path stands for; the path itself if there is none."""
        for below in (False, True):
            found = self._found(path, below)
            if path in found or not found:
                continue
            if len(found) > 1:
                raise SourceError(
                    f"the image {path!r} may be {' or '.join(map(repr, found[:3]))}; write its ending into the "
                    "table, or name the folder of the images: --root DIR"
                )
            return found[0]
        return path

    def _found(self, path: str, below: bool) -> list[str]:
        folder = posixpath.dirname(path)
        if (folder, below) not in self._listed:
            self._listed.add((folder, below))
            files = (file for file in self._in(folder, below) if not why_ignored(posixpath.basename(file)))
            self._files.executemany(
                "INSERT OR IGNORE INTO files VALUES (?, ?, ?)",
                ((below, posixpath.join(folder, _stem(file)), file) for file in files),
            )
        query = "SELECT path FROM files WHERE below = ? AND name = ? ORDER BY path LIMIT 4"
        return [file for (file,) in self._files.execute(query, (below, path))]

    def _in(self, folder: str, below: bool) -> Iterator[str]:
        """The files in a folder, or in the folders right inside it; their paths are relative to the root."""
        if not storage.is_local(self._root):
            prefix = self._root.rstrip("/") + "/"
            pattern = glob.escape(posixpath.join(prefix, folder, "")) + ("*/*" if below else "*")
            yield from (plain_text(file.removeprefix(prefix)) for file in storage.matching(pattern))
            return
        with contextlib.suppress(OSError, ValueError):  # there is no such folder, and no such file then
            for entry in os.scandir(posixpath.join(self._root, folder)):
                path = posixpath.join(folder, plain_text(entry.name))
                if not below and entry.is_file():
                    yield path
                elif below and entry.is_dir() and not why_ignored(entry.name):
                    yield from self._in(path, below=False)


def _stem(file: str) -> str:
    """A file's name without its ending, if that is an image's."""
    stem, ending = posixpath.splitext(posixpath.basename(file))
    return stem if ending.lower() in IMAGE_SUFFIXES else posixpath.basename(file)
