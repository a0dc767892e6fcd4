"""Finds the columns of a table that hold paths and labels: by their names, or as a user names them."""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from camboxes.transforms.sources.class_folders import IMAGE_SUFFIXES
from camboxes.transforms.sources.entries import Entry, PassedOver, SourceError
from camboxes.transforms.sources.label_values import labels_of, listed_in
from camboxes.transforms.sources.tables import Row, Table

# Usual names, without case, spaces, _ and -. A name counts only where no name before it is there.
_PATHS = (
    {"path", "filename", "filepath", "file", "image", "imagepath", "imagefile", "imagename", "img", "imgpath"},
    {"imageid", "imgid"},
    {"id"},
)
# A name and its plural are read together.
_LABELS = {
    "label": "label", "labels": "label", "labelname": "labelname", "class": "class", "classes": "class",
    "classname": "classname", "category": "category", "categories": "category", "categoryname": "categoryname",
    "tag": "tag", "tags": "tag",
}  # fmt: skip
# Columns that are no classes, whatever they hold: splits, sizes, and the index that pandas writes.
_NO_CLASS = re.compile(r"|is(train|valid|val|test)|split|fold|width|height|unnamed:\d+|indexlevel\d+")
_PLAIN = {"path", "label", "labels"}  # names that leave no doubt
_BOXES = {"xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "bbox", "bboxes", "bndbox", "box", "boxes"}
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "": False}
_SHOWN = 80  # characters of a row, in an error
_NAMED = 10  # columns, in an error


@dataclasses.dataclass(frozen=True)
class Columns:
    """What a user says of a table's columns.

    Attributes:
      path: the name of the column with the images' paths; None to find it by the usual names.
      label: the name of the column with labels; or, separated by commas, those of columns that hold 0 or 1 for a class
        each. None to find it by the usual names, or to take all columns that hold 0 and 1.
      separator: what stands between the labels in a cell; None where a cell is one label.

    Raises:
      ValueError: the separator is empty.
    """

    path: str | None = None
    label: str | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.separator == "":
            raise ValueError('--label-separator is empty; expected what stands between labels, such as "|"')

    def check_unused(self, source: str) -> None:
        """Raises a SourceError for a source that has no columns, if columns are named."""
        if self != NO_COLUMNS:
            raise SourceError(
                f"input {source!r} is no table; --path-column, --label-column and --label-separator are for CSV, "
                "JSON Lines, a JSON list of rows, and Parquet without images: leave them out"
            )

    def find_path(self, names: Sequence[str]) -> list[str]:
        """The names of the columns that may hold the paths; one if all is well."""
        if self.path is not None:
            return _called(self.path, names)
        return next(filter(None, ([name for name in names if _key(name) in usual] for usual in _PATHS)), [])


NO_COLUMNS = Columns()


class Layout(NamedTuple):
    """What the columns of a table hold. Either `labels` or `classes` is empty.

    Attributes:
      path: the column of paths.
      labels: the columns of labels.
      classes: the class of each column of 0 and 1.
      separator: see `Columns`.
      assumed: all of this in words; None where the columns are path and label, and nothing more was said.
    """

    path: str
    labels: tuple[str, ...]
    classes: Mapping[str, str]
    separator: str | None
    assumed: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (self.path, *self.labels, *self.classes)

    def entry(self, table: Table, row: Row) -> Entry:
        """What a row says of an image. Without a label it is an image all the same: it is planned, and skipped.

        Raises:
          SourceError: the row is too short, or a value cannot be understood; names the line.
        """
        if lacking := [name for name in self.columns if name not in row.cells]:
            raise SourceError(
                f"{row.where}: {', '.join(map(repr, row.cells.values()))[:_SHOWN]} has no cell for "
                f"{_several(lacking)}; write an empty cell if that is meant"
            )
        path = row.cells[self.path]
        if isinstance(path, int) and not isinstance(path, bool):
            path = str(path)
        if not isinstance(path, str) or not path:
            raise SourceError(f"{row.where}: expected a path in {self.path!r}, got {str(dict(row.cells))[:_SHOWN]}")
        try:
            labels = [label for name in self.labels for label in self._labels(name, table.parse, row.cells[name])]
            labels += [label for name, label in self.classes.items() if _is_so(name, row.cells[name])]
        except ValueError as error:
            raise SourceError(f"{row.where}: {error}") from None
        return Entry(path, tuple(labels))

    def _labels(self, name: str, parse: Any, value: Any) -> tuple[str, ...]:
        if self.separator and isinstance(value, str) and listed_in(value) is None:
            value = [parse(part) for part in value.split(self.separator)]
        try:
            return labels_of(value if isinstance(value, list) else parse(value))
        except ValueError as error:
            raise ValueError(f"{name.strip()} {error}") from None


def layout_of(table: Table, columns: Columns) -> Layout:
    """Finds what the columns of a table hold. Where no column has labels by its name, all rows are read.

    Raises:
      SourceError: it is not clear; names the columns, and the option that makes it clear.
    """
    path = _path_column(table, columns)
    labels, classes = _label_columns(table, columns, path)
    if columns.separator is not None and classes:
        raise SourceError(f"--label-separator is for a column of labels; of {table} {_several(classes)} hold 0 and 1")
    boxes = [name for name in table.names if _key(name) in _BOXES]
    assumed = None
    if columns != NO_COLUMNS or boxes or not {_key(name) for name in (path, *labels, *classes)} <= _PLAIN:
        assumed = f"images from the column {path.strip()}, labels from {_plural(labels or tuple(classes))}"
        assumed += " (0 and 1)" if classes else ""
        assumed += f", separated by {columns.separator!r}" if columns.separator else ""
        assumed += f"; the boxes in {_several(boxes)} are not used" if boxes else ""
    return Layout(path, labels, classes, columns.separator, assumed)


def _path_column(table: Table, columns: Columns) -> str:
    found = columns.find_path(table.names)
    if len(found) == 1:
        return found[0]
    if found:
        raise SourceError(
            f"{table} has {_plural(found)}, each of which may hold the images' paths; name one: "
            f"--path-column {found[0].strip()}"
        )
    if columns.path is not None:
        raise SourceError(f"--path-column is {columns.path!r}; {table} has {_plural(table.names)}")
    if not table.names:
        raise SourceError(f"{table} has no columns; expected a path and labels in each row")
    error = f"{table} has {_plural(table.names)}, and none called path, filename, image or the like"
    if any(name.lower().endswith(tuple(IMAGE_SUFFIXES)) for name in table.names):
        raise SourceError(f"{error}; if this is its first row, write a line of names above it, such as path,label")
    raise SourceError(f"{error}; name the one with the images' paths: --path-column NAME")


def _label_columns(table: Table, columns: Columns, path: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The columns of labels, or those of classes."""
    if columns.label is not None:
        return _named_columns(table, columns.label)
    found: dict[str, list[str]] = {}
    for name in table.names:
        if name != path and _key(name) in _LABELS:
            found.setdefault(_LABELS[_key(name)], []).append(name)
    names = tuple(name for group in found.values() for name in group)
    if len(found) > 1 or len({*map(_key, names)}) < len(names):
        raise SourceError(
            f"{table} has {_plural(names)}, each of which may hold the labels; name one: "
            f"--label-column {names[0].strip()}"
        )
    return (names, {}) if names else ((), _flag_columns(table, path))


def _named_columns(table: Table, given: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The columns that a user names: one of labels, or several of classes."""
    one = _called(given, table.names)
    found = [one] if one else [_called(name, table.names) for name in given.split(",")]
    if not all(len(columns) == 1 for columns in found):
        raise SourceError(f"--label-column is {given!r}; {table} has {_plural(table.names)}")
    names = tuple(columns[0] for columns in found)
    return (names, {}) if len(names) == 1 else ((), {name: name.strip() for name in names})


def _flag_columns(table: Table, path: str) -> dict[str, str]:
    """The classes of a table in which all columns but the path hold 0 and 1.

    Raises:
      SourceError: a column holds something else; or there is no such column.
    """
    asked = [name for name in table.names if name != path and not _NO_CLASS.fullmatch(_key(name))]
    if len(asked) > len({*asked}):
        raise SourceError(f"{table} has a column twice; its columns are {_several(asked)}")
    others: dict[str, str] = {}
    rows = table.rows(asked) if asked else ()
    for row in rows:
        if isinstance(row, PassedOver):
            continue
        for name in asked:
            if name not in others and _flag(value := row.cells.get(name)) is None:
                others[name] = f"{value!r}"[:_SHOWN] + row.where.removeprefix(str(table))
        if len(others) == len(asked):
            break
    flags = [name for name in asked if name not in others]
    if not flags:
        name = asked[0].strip() if len(asked) == 1 else "NAME"
        raise SourceError(
            f"{table} has {_plural(table.names)}, and none called label, class, category or the like; name the one "
            f"with the labels: --label-column {name}"
        )
    if others:
        name, example = next(iter(others.items()))
        named = f"those of the classes: --label-column {','.join(map(str.strip, flags[:_NAMED]))}"
        raise SourceError(
            f"{table} has {_plural(flags)} of 0 and 1, and {_several(others)} of something else ({name.strip()} is "
            f"{example}); name the column of labels: --label-column NAME, or "
            f"{named if len(flags) > 1 else 'leave only columns of classes in the table'}"
        )
    return {name: name.strip() for name in flags}


def _flag(value: Any) -> bool | None:
    """Whether a cell says that the class is there; None if it is neither yes nor no. Empty means no."""
    if isinstance(value, str):
        return _FLAGS.get(value.strip().casefold())
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    return bool(value) if value in (0, 1) else None


def _is_so(name: str, value: Any) -> bool:
    found = _flag(value)
    if found is None:
        raise ValueError(f"{name.strip()} is {str(value)[:_SHOWN]!r}; expected 0 or 1")
    return found


def _called(given: str, names: Sequence[str]) -> list[str]:
    """The columns of this name; in other case, or with space around it, if there is none of exactly that name."""
    exact = [name for name in names if name == given]
    return exact or [name for name in names if name.strip().casefold() == given.strip().casefold()]


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _plural(names: Collection[str]) -> str:
    return f"the column{'s' if len(names) != 1 else ''} {_several(names)}"


def _several(names: Collection[str]) -> str:
    shown = [name.strip()[:_SHOWN] or "''" for name in [*names][:_NAMED]]
    return ", ".join(shown) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
