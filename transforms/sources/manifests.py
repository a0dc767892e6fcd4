"""Reads manifests: tables with a path and labels in each row."""

from collections.abc import Callable, Iterator

from camboxes.transforms.sources import tables
from camboxes.transforms.sources.columns import Columns, layout_of
from camboxes.transforms.sources.entries import Assumption, Entry, PassedOver
from camboxes.transforms.sources.tables import Table

_Reader = Callable[[str, Columns], Table]


def _csv(path: str, columns: Columns) -> Table:
    return tables.csv_table(path, lambda names: bool(columns.find_path(names)))


def _tsv(path: str, columns: Columns) -> Table:
    return tables.csv_table(path, lambda names: bool(columns.find_path(names)), "\t,;|")


# The tables that a file's name tells; a .json may be COCO annotations as well.
_TEXTS: dict[str, _Reader] = {
    ".csv": _csv,
    ".json": lambda path, columns: tables.json_table(path),
    ".jsonl": lambda path, columns: tables.jsonl_table(path),
    ".tsv": _tsv,
}
READERS: dict[str, _Reader] = {
    **_TEXTS,
    **{f"{ending}.gz": reader for ending, reader in _TEXTS.items()},
    ".parquet": lambda path, columns: tables.parquet_table(path),
}


def read_manifest(table: Table, columns: Columns) -> Iterator[Entry | PassedOver | Assumption]:
    """Lists a table.

    Yields:
      First what is assumed of its columns, if anything; then an entry for each row, and PassedOver for each empty one.

    Raises:
      SourceError: see `layout_of`, `Layout.entry` and the table's own.
    """
    layout = layout_of(table, columns)
    if layout.assumed:
        yield Assumption(layout.assumed)
    for row in table.rows(layout.columns):
        yield row if isinstance(row, PassedOver) else layout.entry(table, row)
