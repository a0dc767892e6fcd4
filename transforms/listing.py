"""All images of a data set with their labels, in the order in which they are planned, on disk where they are many."""

import functools
import hashlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator

from camboxes.transforms.sources import Entry, entries, root_of

_CACHE_KIBIBYTES = 64 * 1024  # of SQLite's; what is beyond lies in a temporary file
_BITS = 63  # of a place: what SQLite's integers hold


class Listing:
    """A data set's images, each once, with all the labels that it was given.

    Attributes:
      root: see `root_of`.
      passed_over: how many files were no images by their name, or lay in no class folder.
    """

    def __init__(self, root: str, found: Iterable[Entry | None]):
        """Takes in what `entries` yields; memory does not grow with it."""
        self.root = root
        self.passed_over = 0
        # A database without a name lies in memory, and goes to a temporary file of its own when it grows.
        self._entries = sqlite3.connect("", isolation_level=None)
        self._entries.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        self._entries.execute("PRAGMA journal_mode = OFF")
        self._entries.execute("CREATE TABLE entries (place INTEGER, path TEXT, label TEXT)")
        self._entries.execute("BEGIN")
        self._entries.executemany("INSERT INTO entries VALUES (?, ?, ?)", self._rows(found))
        self._entries.execute("CREATE INDEX in_order ON entries (place, path, label)")
        self._entries.execute("COMMIT")

    def _rows(self, found: Iterable[Entry | None]) -> Iterator[tuple[int, str, str | None]]:
        for entry in found:
            if entry is None:
                self.passed_over += 1
                continue
            place = place_of(entry.path)
            for label in entry.labels or (None,):
                yield place, entry.path, label

    @functools.cached_property
    def images(self) -> int:
        """How many there are."""
        return self._number("SELECT count(*) FROM (SELECT DISTINCT place, path FROM entries)")

    @functools.cached_property
    def repeated(self) -> int:
        """How many (path, label) pairs were given more than once and dropped."""
        given = self._number("SELECT count(label) FROM entries")
        return given - self._number("SELECT count(label) FROM (SELECT DISTINCT place, path, label FROM entries)")

    def labels(self) -> list[str]:
        """All labels, each once."""
        return [label for (label,) in self._entries.execute("SELECT DISTINCT label FROM entries") if label is not None]

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each image's path and sorted labels, in the order of `place_of`."""
        rows = self._entries.execute("SELECT DISTINCT place, path, label FROM entries ORDER BY place, path, label")
        for (_, path), of_image in itertools.groupby(rows, key=lambda row: row[:2]):
            yield path, tuple(label for _, _, label in of_image if label is not None)

    def _number(self, query: str) -> int:
        return self._entries.execute(query).fetchone()[0]


def read_source(path: str, root: str | None = None) -> Listing:
    """Lists a data set. Arguments and errors: see `entries` and `root_of`."""
    return Listing(root_of(path, root), entries(path, root))


def place_of(path: str) -> int:
    """Where a hash of an image's path puts it among all images, from 0 to 2**63 - 1."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> (64 - _BITS)


def shard_of(path: str, shards: int) -> int:
    """The number of the shard that an image belongs to, of so many: each has an equal share of the places."""
    return place_of(path) * shards >> _BITS
