"""Lists the images of a data set with their labels, and cuts them into shards. The list is kept on disk."""

import hashlib
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from camboxes.transforms.containers.any_format import containers_of, described, runs
from camboxes.transforms.sources.columns import NO_COLUMNS, Columns
from camboxes.transforms.sources.datasets import entries, root_of
from camboxes.transforms.sources.entries import (
    Assumption,
    Listed,
    PassedOver,
    SourceError,
    Split,
    SplitFolder,
    Statement,
)
from camboxes.transforms.sources.passed_over import Tally

# A shard is the unit of progress, of resuming and of loss, so a worker should have some twenty of them. The last batch
# of a shard is padded, so a shard should hold many batches.
_ROWS = (64, 256)
_SHARDS_WANTED = 20

_CACHE_KIBIBYTES = 64 * 1024  # SQLite's; the rest is in a temporary file
_BITS = 63  # of a place, as many as SQLite's integers hold


class Listing(Protocol):
    """The images of a data set, each once, with all of its labels. Memory does not grow with their number.

    Attributes:
      root: see `root_of`.
      images: number of images.
      repeated: number of (path, label) pairs that were repeated and dropped.
      passed_over: counts of what the input holds besides images; its class folders include those with images.
      containers: the files that contain the images; empty if every image is a file.
      splits: the split of each folder that holds one, see `split_of`; empty if the data set is not split.
      assumed: what was assumed of the data set, in words for a person.
    """

    root: str
    images: int
    repeated: int
    passed_over: Tally
    containers: Sequence[str]
    splits: Mapping[str, Split]
    assumed: Sequence[str]

    def labels(self) -> Collection[str]:
        """All labels, each once."""

    def shards(self, asked: int | None) -> int:
        """The number of shards, if `asked` were asked for; None leaves it to the data set."""

    def by_shard(self, count: int) -> Iterator[Sequence[Listed]]:
        """The images of each shard, if there are `count` shards."""

    def __iter__(self) -> Iterator[Listed]:
        """All images."""


def read_source(path: str, root: str | None = None, columns: Columns = NO_COLUMNS) -> Listing:
    """Lists a data set. Arguments and errors: see `entries`, `containers_of` and `root_of`."""
    if containers := containers_of(path):
        columns.check_unused(path)
        return ContainerListing(root_of(path, root), containers)
    return FileListing(root_of(path, root), entries(path, root, columns))


def check_labels(labels: Collection[str], containers: Sequence[str]) -> None:
    """Raises a SourceError if a data set has no label; says what its first container holds, if it has containers."""
    if not labels:
        expected = "expected LABEL/IMAGE.jpg in folders, or labels in a table (docs/how-to/inputs.md has all forms)"
        raise SourceError(f"no image of the input has a label; {described(containers[0]) if containers else expected}")


class FileListing(Listing):
    """Images that are files, in the order of `place_of`."""

    def __init__(self, root: str, found: Iterable[Statement]):
        """Reads what `entries` yields."""
        self.root = root
        self.passed_over = Tally()
        self.containers = ()
        self.splits: dict[str, Split] = {}
        self.assumed: list[str] = []
        # A database without a name is in memory; as it grows it moves to a temporary file.
        self._entries = sqlite3.connect("", isolation_level=None)
        self._entries.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        self._entries.execute("PRAGMA journal_mode = OFF")
        self._entries.execute("CREATE TABLE entries (place INTEGER, path TEXT, label TEXT, denied INTEGER)")
        self._entries.execute("BEGIN")
        self._entries.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", self._rows(found))
        self._entries.execute("CREATE INDEX in_order ON entries (place, path, label, denied)")
        self._entries.execute("COMMIT")
        self.images = self._number("SELECT count(*) FROM (SELECT DISTINCT place, path FROM entries)")
        given = self._number("SELECT count(label) FROM entries WHERE NOT denied")
        distinct = self._number("SELECT count(label) FROM (SELECT DISTINCT * FROM entries) WHERE NOT denied")
        self.repeated = given - distinct

    def _rows(self, found: Iterable[Statement]) -> Iterator[tuple[int, str, str | None, bool]]:
        for entry in found:
            if isinstance(entry, PassedOver):
                self.passed_over.add(entry)
                continue
            if isinstance(entry, SplitFolder):
                self.splits[entry.path] = entry.split
                continue
            if isinstance(entry, Assumption):
                self.assumed.append(entry.text)
                continue
            place = place_of(entry.path)
            for label in entry.labels or (None,):
                yield place, entry.path, label, False
            for label in entry.denied:
                yield place, entry.path, label, True

    def labels(self) -> Collection[str]:
        """All labels, each once; also those that are denied for every image that has them."""
        found = self._entries.execute("SELECT DISTINCT label FROM entries WHERE NOT denied")
        return [label for (label,) in found if label is not None]

    def shards(self, asked: int | None) -> int:
        """The number that was asked for, or `shard_count`."""
        return asked or shard_count(self.images)

    def by_shard(self, count: int) -> Iterator[Sequence[Listed]]:
        """The images of each shard, sorted by their paths: see `shard_of`."""
        done = 0
        for number, members in itertools.groupby(self, key=lambda image: shard_of(image.path, count)):
            yield from ([] for _ in range(done, number))
            yield sorted(members)
            done = number + 1
        yield from ([] for _ in range(done, count))

    def __iter__(self) -> Iterator[Listed]:
        """All images, in the order of `place_of`."""
        rows = self._entries.execute("SELECT DISTINCT * FROM entries ORDER BY place, path, label")
        for (_, path), of_image in itertools.groupby(rows, key=lambda row: row[:2]):
            yield listed(path, ((label, denied) for _, _, label, denied in of_image if label is not None))

    def _number(self, query: str) -> int:
        return self._entries.execute(query).fetchone()[0]


class ContainerListing(Listing):
    """Images inside containers. Each run of images that is read in one pass is a shard."""

    def __init__(self, root: str, containers: Sequence[str]):
        """Lists containers in the order given; see `containers_of`.

        Raises:
          ContainerError: one cannot be read.
        """
        self.root = root
        self.images = self.repeated = 0
        self.passed_over = Tally()
        self.containers = containers
        self.splits = {}
        self.assumed = ()
        self._labels: dict[str, None] = {}
        self._runs = 0
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (open as long as the listing)
        for container in containers:
            for run in runs(container, root):
                if isinstance(run, PassedOver):
                    self.passed_over.add(run)
                    continue
                self.images += len(run)
                self._runs += 1
                self._labels |= dict.fromkeys(label for image in run for label in image.labels)
                self._file.write(json.dumps(run) + "\n")

    def labels(self) -> Collection[str]:
        """All labels, each once."""
        return self._labels

    def shards(self, asked: int | None) -> int:
        """The number of runs.

        Raises:
          ValueError: another number was asked for.
        """
        if asked not in (None, self._runs):
            raise ValueError(
                f"--shards {asked} was asked for; images inside containers are cut into runs of neighbours, here "
                f"{self._runs}: leave --shards out"
            )
        return self._runs

    def by_shard(self, count: int) -> Iterator[Sequence[Listed]]:
        """The images of each run, in the order in which they are read."""
        self._file.seek(0)
        for line in itertools.islice(self._file, count):
            yield [Listed(path, tuple(labels), place) for path, labels, place in json.loads(line)]

    def __iter__(self) -> Iterator[Listed]:
        """All images, in the order of their containers."""
        return itertools.chain.from_iterable(self.by_shard(self._runs))


def listed(path: str, statements: Iterable[tuple[str, bool]]) -> Listed:
    """Puts an image's statements together: its labels, each with whether it is denied."""
    given = {True: set(), False: set()}  # type: dict[bool, set[str]]
    for label, denied in statements:
        given[bool(denied)].add(label)
    return Listed(path, tuple(sorted(given[False] - given[True])))


def shard_count(images: int) -> int:
    """The number of shards for so many images that are files."""
    fewest, most = _ROWS
    rows = min(max(images // _SHARDS_WANTED, fewest), most)
    return max(1, round(images / rows))


def place_of(path: str) -> int:
    """The place of an image among all images, 0 to 2**63 - 1: a hash of its path."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> (64 - _BITS)


def shard_of(path: str, shards: int) -> int:
    """The number of the shard, of `shards`, that an image belongs to. Each shard has an equal share of the places."""
    return place_of(path) * shards >> _BITS
