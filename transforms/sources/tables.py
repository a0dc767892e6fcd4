"""Reads the rows of tables: CSV, JSON Lines, a JSON list of rows, Parquet; each but the last may be gzipped."""

import contextlib
import csv
import functools
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from camboxes.transforms import storage
from camboxes.transforms.sources.entries import PassedOver, SourceError
from camboxes.transforms.sources.label_values import cell_value

_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as surrogateescape decodes them
_UNMARKED = re.compile("[^\\0]\\0[^\\0]\\0|\\0[^\\0]\\0[^\\0]")  # ASCII in UTF-16
_SHOWN = 80  # characters of a row, in an error
EMPTY_ROW = "an empty row of the table"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      where: the file and the line, for errors.
      cells: the values by the names of their columns. Those at the end of a CSV's line may be missing.
    """

    where: str
    cells: Mapping[str, Any]


class Table(NamedTuple):
    """A file of rows.

    Attributes:
      path: of the file.
      names: of the columns, in their order. In JSON they are the keys of all rows.
      rows: reads the rows, each time from the first; takes the names of the columns that are needed.
      parse: takes a cell to the value that it stands for: in a CSV the text "3" is a number.
    """

    path: str
    names: tuple[str, ...]
    rows: Callable[[Collection[str]], Iterator[Row | PassedOver]]
    parse: Callable[[Any], Any]

    def __str__(self) -> str:
        """The file, for errors."""
        return f"table {self.path!r}"


def csv_table(path: str, fits: Callable[[Sequence[str]], bool], signs: str = ",;\t|") -> Table:
    """Reads a CSV with a header. Rows without any content are passed over.

    Args:
      path: of the file.
      fits: whether a header is understood. The first of `signs` that makes such a header separates cells; else the one
        that makes the most names.
      signs: what may separate cells.

    Raises, as its rows do:
      SourceError: it is not CSV, or a row has more cells than the header; names the line.
    """
    with contextlib.closing(text_lines(path)) as lines:
        first, above = next(lines, ""), 1
        if said := re.fullmatch(r'"?sep=(.)"?\s*', first):  # for Excel
            first, above, signs = next(lines, ""), 2, said[1]
    try:
        headers = {sign: tuple(next(csv.reader([first], delimiter=sign, skipinitialspace=True), ())) for sign in signs}
    except csv.Error as error:
        raise SourceError(f"table {path!r}, line {above}: not CSV ({error})") from None
    sign = next((sign for sign in signs if fits(headers[sign])), max(signs, key=lambda sign: len(headers[sign])))
    rows = functools.partial(_csv_rows, path, headers[sign], sign, above)
    return Table(path, headers[sign], rows, lambda cell: cell_value(cell) if isinstance(cell, str) else cell)


def _csv_rows(
    path: str, names: Sequence[str], sign: str, above: int, needed: Collection[str]
) -> Iterator[Row | PassedOver]:
    lines = text_lines(path)
    for _ in range(above):
        next(lines, None)
    # strict: else a quote that is never closed swallows the rest of the file.
    reader = csv.reader(lines, delimiter=sign, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            where = f"table {path!r}, line {above + reader.line_num}"
            if len(cells) > len(names):
                raise SourceError(
                    f"{where}: {len(cells)} cells below a header of {len(names)}: {sign.join(cells)[:_SHOWN]!r}; put a "
                    f"text that holds {sign!r} in double quotes, and write one row for each label"
                )
            if any(cell.strip() for cell in cells):
                yield Row(where, dict(zip(names, cells, strict=False)))
            elif cells:  # not an empty line
                yield PassedOver(storage.absolute(path), EMPTY_ROW)
    except csv.Error as error:
        raise SourceError(f"table {path!r}, line {above + reader.line_num}: not CSV ({error})") from None


def jsonl_table(path: str) -> Table:
    """Reads a file with a JSON object in each line.

    Raises:
      SourceError: it is something else; names the line.
    """
    return _objects(path, lambda: _json_lines(path))


def json_table(path: str) -> Table:
    """Reads a JSON list of objects, as a whole.

    Raises:
      SourceError: it is something else; names the row, from 0.
    """
    try:
        found = json.loads(read_whole(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"table {path!r} is not JSON ({error})") from None
    return _objects(path, lambda: ((f"table {path!r}, row {number}", row) for number, row in enumerate(found)))


def is_json_list(path: str) -> bool:
    """Whether a JSON file begins as a list does."""
    with opened(path) as file:
        return re.match(rb"(\xef\xbb\xbf)?\s*\[", file.read(256)) is not None


def _json_lines(path: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text_lines(path), start=1):
        if line.strip():
            where = f"table {path!r}, line {number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{where}: not JSON ({error})") from None


def _objects(path: str, values: Callable[[], Iterator[tuple[str, Any]]]) -> Table:
    names: dict[str, None] = {}
    for where, value in values():
        if not isinstance(value, dict):
            raise SourceError(f"{where}: expected an object with a path and labels, got {json.dumps(value)[:_SHOWN]}")
        names.update(dict.fromkeys(value))
    none = dict.fromkeys(names)  # a key that a row lacks is null
    return Table(
        path, tuple(names), lambda needed: (Row(where, none | value) for where, value in values()), lambda cell: cell
    )


def parquet_table(path: str) -> Table:
    """Reads a Parquet file; of its columns only those that are needed.

    Raises, as its rows do:
      SourceError: it is not Parquet.
    """

    def rows(needed: Collection[str]) -> Iterator[Row]:
        with _parquet(path) as file:
            batches = file.iter_batches(columns=[*needed])
            for number, cells in enumerate(cells for batch in batches for cells in batch.to_pylist()):
                yield Row(f"table {path!r}, row {number}", cells)

    with _parquet(path) as file:
        return Table(path, tuple(file.schema_arrow.names), rows, lambda cell: cell)


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with storage.open_binary(path) as file:
            yield pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"table {path!r} is not readable as Parquet ({error})") from error


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Opens a file for reading at any place; decompresses it if its name ends in .gz.

    Raises:
      SourceError: it is not gzip, or ends too early; when it is read.
    """
    with storage.open_binary(path) as file:
        try:
            yield gzip.GzipFile(fileobj=file) if path.lower().endswith(".gz") else file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise SourceError(f"{path!r} cannot be decompressed ({error}); expected a whole gzip file") from None


def read_whole(path: str) -> bytes:
    """Reads a file; decompresses it if its name ends in .gz. Errors: see `opened`."""
    with opened(path) as file:
        return file.read()


def text_lines(path: str) -> Generator[str, None, None]:
    """Reads the lines of a text file, with their ends as they are; in UTF-8, or UTF-16 with a byte order mark.

    Raises:
      SourceError: it is neither, and names the line; or see `opened`.
    """
    with opened(path) as file:
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
