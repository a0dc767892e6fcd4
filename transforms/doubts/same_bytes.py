"""Counts images with the same bytes in a data set, without holding the data set in memory."""

import sqlite3
from typing import NamedTuple

_CACHE_KIBIBYTES = 16 * 1024  # SQLite's; the rest is in a temporary file


class Found(NamedTuple):
    """The copies among the images.

    Attributes:
      images: number of images that have the same bytes as an earlier one.
      example: the paths of two images with the same bytes; None if there are none.
      differing: number of these images whose text differs from that of the first one.
      differing_example: path and text of two such images; None if there are none.
    """

    images: int
    example: tuple[str, str] | None
    differing: int
    differing_example: tuple[tuple[str, str], tuple[str, str]] | None


class SameBytes:
    """Counts images with the same bytes, and those of them that come with different texts, such as their labels."""

    def __init__(self) -> None:
        # A database without a name is in memory; as it grows it moves to a temporary file.
        self._images = sqlite3.connect("", isolation_level=None)
        self._images.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        self._images.execute("PRAGMA journal_mode = OFF")
        self._images.execute("CREATE TABLE images (digest BLOB, path TEXT, said TEXT)")
        self._images.execute("BEGIN")

    def add(self, digest: str, path: str, said: str) -> None:
        """Adds an image: the SHA-256 of its bytes, hexadecimal, its path, and a text about it."""
        self._images.execute("INSERT INTO images VALUES (?, ?, ?)", (bytes.fromhex(digest), path, said))

    def found(self) -> Found:
        """Finds the copies among the images that were added. The first one is the first by path."""
        ask = self._images.execute
        ask("CREATE INDEX IF NOT EXISTS by_digest ON images (digest, path, said)")
        # Pairs of an image and the first one of the same bytes. SQLite takes `said` from the row of min(path).
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
        return Found(images, example and (example[0], example[2]), differing, other and (other[:2], other[2:]))
