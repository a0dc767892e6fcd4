"""Reads image-level labels of Open Images: a CSV with a row for each image and label, from a person or a machine."""

import csv
import posixpath
from collections.abc import Iterator

from camboxes.transforms import storage
from camboxes.transforms.sources.entries import Entry, SourceError
from camboxes.transforms.sources.tables import text_lines

COLUMNS = ("ImageID", "LabelName", "Confidence")  # every such CSV has them
MIN_CONFIDENCE = 0.5  # the lowest of a machine's guesses in the published files; a person's yes is 1

_DESCRIPTIONS = "class-descriptions"


def is_open_images(path: str) -> bool:
    """Whether a CSV is one of Open Images, by its header."""
    _, header = next(_rows(path), (0, []))
    return set(COLUMNS) <= set(header)


def read_open_images(path: str) -> Iterator[Entry]:
    """Lists a CSV with the columns ImageID, LabelName and Confidence, one row after the other.

    A label is given from `MIN_CONFIDENCE` on and denied at 0; a row in between states the image alone. LabelName is an
    id such as /m/01yrx. It is replaced by its name if a file named like class-descriptions.csv lies beside this one.
    Ids that share a name are one label.

    Raises:
      SourceError: the file cannot be understood; names the line.
    """
    names = _names(path)
    rows = _rows(path)
    _, header = next(rows, (0, []))
    if not set(COLUMNS) <= set(header):
        raise SourceError(f"table {path!r} begins with {','.join(header)!r}; expected {', '.join(COLUMNS)}")
    image, label, confidence = map(header.index, COLUMNS)
    for line, row in rows:
        try:
            sure = float(row[confidence])
            name = names.get(row[label], row[label])
            file = f"{row[image]}.jpg"
        except (IndexError, ValueError):
            sure = -1.0
        if not 0 <= sure <= 1 or not row[image] or not row[label]:
            raise SourceError(
                f"table {path!r}, line {line}: expected an ImageID, a LabelName and a Confidence from 0 to 1, "
                f"got {','.join(row)!r:.80}"
            )
        yield Entry(file, (name,) if sure >= MIN_CONFIDENCE else (), (name,) if sure == 0 else ())


def _names(path: str) -> dict[str, str]:
    """The names of labels by their ids, from all class-descriptions files beside the manifest."""
    folder = posixpath.dirname(path) or "."
    names: dict[str, str] = {}
    for file in storage.names(folder, ".csv"):
        if _DESCRIPTIONS in file:
            # A header, LabelName and DisplayName, names an id that no row has.
            names |= {row[0]: row[1] for _, row in _rows(storage.join(folder, file)) if len(row) >= 2}
    return names


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, each with the number of its line."""
    reader = csv.reader(text_lines(path))
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise SourceError(f"{path!r}, line {reader.line_num + 1}: not CSV ({error})") from None
