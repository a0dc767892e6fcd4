"""Images of the same bytes in a data set, counted without holding the data set in memory."""

import sqlite3
from typing import NamedTuple

_CACHE_KIBIBYTES = 16 * 1024  # of SQLite's; what is beyond lies in a temporary file


class Found(NamedTuple):
    """What was found.

    Attributes:
      images: how many have the bytes of another one that was added with the same bytes; the first one does not count.
      example: the paths of two images of the same bytes; None where there are none.
      differing: how many of them differ from the first one in what is said of them.
      differing_example: for two such images the path and what is said of it; None where there are none.
    """

    images: int
    example: tuple[str, str] | None
    differing: int
    differing_example: tuple[tuple[str, str], tuple[str, str]] | None


class SameBytes:
    """Counts images that have the same bytes, and those among them of which different things are said."""

    def __init__(self) -> None:
        # A database without a name lies in memory, and goes to a temporary file of its own when it grows.
        self._images = sqlite3.connect("", isolation_level=None)
        self._images.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        self._images.execute("PRAGMA journal_mode = OFF")
        self._images.execute("CREATE TABLE images (digest BLOB, path TEXT, said TEXT)")
        self._images.execute("BEGIN")

    def add(self, digest: str, path: str, said: str) -> None:
        """Adds an image: the SHA-256 of its bytes, hexadecimal, its path, and what is said of it."""
        self._images.execute("INSERT INTO images VALUES (?, ?, ?)", (bytes.fromhex(digest), path, said))

    def found(self) -> Found:
        """What there is among the images that were added. "First" is meant by path."""
        ask = self._images.execute
        ask("CREATE INDEX IF NOT EXISTS by_digest ON images (digest, path, said)")
        # Of each image the first one of the same bytes: SQLite takes `said` from the row that min(path) comes from.
        pairs = (
            "SELECT other.path, other.said, first.path, first.said FROM "
            "(SELECT digest, min(path) AS path, said FROM images GROUP BY digest HAVING count(*) > 1) AS first "
            "JOIN images AS other ON other.digest = first.digest AND other.path != first.path"
        )
        [images], [differing] = (
            ask(f"SELECT count(*) FROM ({pairs} {where})").fetchone()
            for where in ("", "WHERE other.said != first.said")
        )
        example = ask(f"{pairs} ORDER BY other.path LIMIT 1").fetchone()
        other = ask(f"{pairs} WHERE other.said != first.said ORDER BY other.path LIMIT 1").fetchone()
        return Found(
            images,
            example and (example[0], example[2]),
            differing,
            other and (other[:2], other[2:]),
        )
