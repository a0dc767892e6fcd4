"""Finds tables of labels inside a folder of images: Hugging Face's metadata.csv, Roboflow's _classes.csv."""

import posixpath
from collections.abc import Iterator

from camboxes.transforms import storage
from camboxes.transforms.sources.columns import Columns
from camboxes.transforms.sources.entries import Assumption, Entry, PassedOver, SourceError, SplitFolder, Statement
from camboxes.transforms.sources.manifests import READERS, read_manifest
from camboxes.transforms.sources.splits import split_called
from camboxes.transforms.sources.tables import Table

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_CLASSES = "_classes.csv"
_SPLITS = ("train", "val", "valid", "validation", "test")  # by the names that both use
NO_TABLE = "a split without a table of labels"


def tables_below(folder: str, columns: Columns) -> dict[str, Table]:
    """The table of a folder of images, or that of each of its splits, by the name of the split; "" for none.

    A metadata file counts if it has a column file_name, as Hugging Face writes it, or if `columns` names another.

    Raises:
      SourceError: a folder has two tables, or one cannot be read.
    """
    if table := _table_in(folder, columns):
        return {"": table}
    found = {name: _table_in(storage.join(folder, name), columns) for name in _SPLITS}
    return {name: table for name, table in found.items() if table}


def read_tables(folder: str, tables: dict[str, Table], columns: Columns) -> Iterator[Statement]:
    """Lists the images of what `tables_below` found; their paths are whole. Errors: see `read_manifest`."""
    for name in _SPLITS:
        if "" not in tables and name not in tables and storage.exists(storage.join(folder, name)):
            yield PassedOver(storage.join(folder, name, ""), NO_TABLE)
    for name, table in tables.items():
        prefix = posixpath.join(folder, name)
        if name:
            split = split_called(name)
            assert split is not None, f"{name} is called like a split"
            yield SplitFolder(prefix, split)
        for statement in read_manifest(table, columns):
            if isinstance(statement, Entry):
                yield statement._replace(path=posixpath.join(prefix, statement.path))
            elif isinstance(statement, Assumption):
                file = posixpath.join(name, posixpath.basename(table.path))
                yield Assumption(f"{file}: {statement.text}")
            else:
                yield statement


def _table_in(folder: str, columns: Columns) -> Table | None:
    files = [storage.join(folder, name) for name in (*_METADATA, _CLASSES)]
    files = [file for file in files if storage.exists(file)]
    found = []
    for file in files:
        table = READERS[posixpath.splitext(file)[1]](file, columns)
        names = columns.find_path(table.names)
        if file.endswith(_CLASSES) or columns.path or "file_name" in names:
            found.append(table)
    if len(found) > 1:
        raise SourceError(f"input {folder!r} holds {' and '.join(table.path for table in found)}; name the one to read")
    return found[0] if found else None
