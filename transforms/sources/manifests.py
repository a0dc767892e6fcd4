"""Reads manifests with a path and a label, or a list of labels, in each row: CSV, JSON Lines, Parquet."""

import csv
import functools
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from camboxes.transforms import storage
from camboxes.transforms.sources.entries import Entry, PassedOver, SourceError
from camboxes.transforms.sources.label_values import cell_value, labels_in

_DELIMITERS = ",;\t|"
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as surrogateescape decodes them
_UNMARKED = re.compile("[^\\0]\\0[^\\0]\\0|\\0[^\\0]\\0[^\\0]")  # ASCII in UTF-16
_SHOWN = 80  # characters of a row, in an error
EMPTY_ROW = "an empty row of the manifest"


def read_csv(path: str) -> Iterator[Entry | PassedOver]:
    """Lists a CSV with the columns path and label, in any order and among others.

    Case and space in the header are ignored. The header decides whether cells are separated by commas, semicolons, tabs
    or |. A row without a label states an image; rows without any content are passed over.

    Raises:
      SourceError: it is not such a file; names the line.
    """
    lines = text_lines(path)
    delimiter, names, above = _header(path, lines)
    columns = _columns(path, names)
    # strict: else a quote that is never closed swallows the rest of the file.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            where = f"manifest {path!r}, line {above + reader.line_num}"
            if len(cells) > len(names):
                raise SourceError(
                    f"{where}: {len(cells)} cells below a header of {len(names)}: "
                    f"{delimiter.join(cells)[:_SHOWN]!r}; put a text that holds {delimiter!r} in double "
                    "quotes, and write one row for each label"
                )
            # Excel leaves out empty cells at the end.
            row: dict[str, Any] = dict(zip(names, cells, strict=False))
            row |= {name: cell_value(row[name]) for name in columns.labels if name in row}
            if any(cell.strip() for cell in cells):
                yield _entry(row, columns, where)
            elif cells:  # not an empty line
                yield PassedOver(storage.absolute(path), EMPTY_ROW)
    except csv.Error as error:
        raise SourceError(f"manifest {path!r}, line {above + reader.line_num}: not CSV ({error})") from None


def read_jsonl(path: str) -> Iterator[Entry | PassedOver]:
    """Lists a file with a JSON object in each line, with path and label or labels. Errors: see `read_csv`."""
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        where = f"manifest {path!r}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise SourceError(f"{where}: expected an object with path and label or labels, got {line[:_SHOWN]!r}")
        yield _entry(row, _columns(path, tuple(row)), where)


def read_parquet(path: str) -> Iterator[Entry | PassedOver]:
    """Lists a Parquet file with path and label or labels: texts, numbers, or lists of them. Errors: see `read_csv`."""
    try:
        with storage.open_binary(path) as file:
            rows = pq.ParquetFile(file)
            names = tuple(rows.schema_arrow.names)
            columns = _columns(path, names)
            if not all(columns):
                raise SourceError(
                    f"manifest {path!r} has the columns {', '.join(names)}; expected path and label or labels"
                )
            batches = rows.iter_batches(columns=[columns.path, *columns.labels])
            for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
                yield _entry(row, columns, f"manifest {path!r}, row {number}")
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"manifest {path!r} is not readable as Parquet ({error})") from error


def text_lines(path: str) -> Iterator[str]:
    """Reads the lines of a text file, with their ends as they are; in UTF-8, or UTF-16 with a byte order mark.

    Raises:
      SourceError: it is neither; names the line.
    """
    with storage.open_binary(path) as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # Excel's "Unicode text"
        file.seek(0)
        text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
        for number, line in enumerate(text, start=1):
            if number == 1 and _UNMARKED.match(line):
                raise SourceError(f"{path!r} is UTF-16 without its mark; save it as UTF-8")
            if escaped := _ESCAPED.search(line):
                raise SourceError(
                    f"{path!r}, line {number}, is not UTF-8 (byte {ord(escaped[0]) & 0xFF:#x}); "
                    "save it as UTF-8 (in Excel: CSV UTF-8)"
                )
            yield line


def _header(path: str, lines: Iterator[str]) -> tuple[str, tuple[str, ...], int]:
    """Reads a CSV's header. Cells are separated by the first sign that gives the columns path and label.

    Returns:
      The sign, the names of the columns, and how many lines the header takes.

    Raises:
      SourceError: no sign does.
    """
    first, count, signs = next(lines, ""), 1, _DELIMITERS
    if said := re.fullmatch(r'"?sep=(.)"?\s*', first):  # for Excel
        first, count, signs = next(lines, ""), 2, said[1]
    for sign in signs:
        names = tuple(next(csv.reader([first], delimiter=sign, skipinitialspace=True), ()))
        if all(_columns(path, names)):
            return sign, names, count
    raise SourceError(
        f"manifest {path!r} begins with {first.strip()[:_SHOWN]!r}; expected a header with path and label, separated "
        "by a comma, a semicolon, a tab or |"
    )


class _Columns(NamedTuple):
    """The names of a table's columns, or of an object's keys, that hold the path and the labels; empty for none."""

    path: str
    labels: tuple[str, ...]


@functools.lru_cache
def _columns(source: str, names: Sequence[str]) -> _Columns:
    """Finds path, label and labels among names; case and surrounding space are ignored."""
    found: dict[str, str] = {}
    for name in names:
        role = name.strip().casefold()
        if role in ("path", "label", "labels"):
            if role in found:
                raise SourceError(
                    f"manifest {source!r} has the column {role} twice; expected it once, with one row for each label"
                )
            found[role] = name
    return _Columns(found.get("path", ""), tuple(found[role] for role in ("label", "labels") if role in found))


def _entry(row: Mapping[str, Any], columns: _Columns, where: str) -> Entry:
    path = row.get(columns.path) if columns.path else None
    if not isinstance(path, str) or not path:
        raise SourceError(f"{where}: expected a path and a label or labels, got {str(dict(row))[:_SHOWN]}")
    try:
        # An image without a label is not an error: it is planned, and ends as skipped.
        return Entry(path, tuple(labels_in(row, columns.labels)))
    except ValueError as error:
        raise SourceError(f"{where}: {error}") from None
