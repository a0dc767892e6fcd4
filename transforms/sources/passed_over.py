"""Counts the files of an input that are not images, by kind. The counts of parts add up to those of the whole."""

import dataclasses
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from camboxes.transforms.sources.entries import PassedOver

REST = "others"  # the ending under which those beyond _ENDINGS are counted
NOT_RECORDED = "no image by its name, or in no class folder"  # plans of camboxes 0.1 hold a number alone

_ENDINGS = 50  # of each reason: a folder may hold files with any endings
_ENDING = re.compile(r"\.[a-z0-9_-]{1,12}")


class Count(NamedTuple):
    """A number of files, and the first of their paths in sorted order."""

    files: int
    example: str


@dataclasses.dataclass
class Tally:
    """Counts of passed-over files; they do not depend on the order of the files or the number of workers.

    Attributes:
      kinds: for each reason, the count for each ending of a file's name (".heic"; "" for none). Endings beyond the
        first 50 in sorted order are counted as `REST`.
      labels: the count for each class folder with passed-over files; see `without`.
    """

    kinds: dict[str, dict[str, Count]] = dataclasses.field(default_factory=dict)
    labels: dict[str, Count] = dataclasses.field(default_factory=dict)

    @property
    def files(self) -> int:
        """The number of passed-over files."""
        return sum(count.files for _, _, count in self._counts())

    def add(self, item: PassedOver) -> None:
        """Counts a file."""
        one = Count(1, item.path)
        self._count(item.reason, ending_of(item.path), one)
        if item.label is not None:
            _add(self.labels, item.label, one)

    def without(self, labels: Collection[str]) -> "Tally":
        """The same counts, without the class folders `labels`: those that gave images."""
        return Tally(self.kinds, {label: count for label, count in self.labels.items() if label not in labels})

    def to_json(self) -> dict[str, Any]:
        """The counts as a JSON value, which `from_json` reads."""
        kinds = [{"reason": reason, "ending": ending} | count._asdict() for reason, ending, count in self._counts()]
        labels = {label: count._asdict() for label, count in sorted(self.labels.items())}
        return {"files": self.files, "kinds": kinds, "labels_without_images": labels}

    @classmethod
    def from_json(cls, value: int | Mapping[str, Any]) -> "Tally":
        """Reads what `to_json` returned, or the number of files that a plan of camboxes 0.1 holds."""
        tally = cls()
        if isinstance(value, int):
            if value:
                tally._count(NOT_RECORDED, "", Count(value, ""))
            return tally
        for kind in value["kinds"]:
            tally._count(kind["reason"], kind["ending"], Count(kind["files"], kind["example"]))
        tally.labels = {label: Count(**count) for label, count in value["labels_without_images"].items()}
        return tally

    @classmethod
    def total(cls, tallies: "Iterable[Tally]") -> "Tally":
        """The counts of all parts together."""
        total = cls()
        for tally in tallies:
            for kind in tally._counts():
                total._count(*kind)
            for label, count in tally.labels.items():
                _add(total.labels, label, count)
        return total

    def _counts(self) -> list[tuple[str, str, Count]]:
        """Each reason, ending and count, sorted."""
        return sorted((reason, ending, n) for reason, endings in self.kinds.items() for ending, n in endings.items())

    def _count(self, reason: str, ending: str, count: Count) -> None:
        endings = self.kinds.setdefault(reason, {})
        _add(endings, ending, count)
        while len(named := endings.keys() - {REST}) > _ENDINGS:
            # An ending that a part drops has 50 endings before it in the whole, too: sums of parts stay exact.
            _add(endings, REST, endings.pop(max(named)))


def ending_of(path: str) -> str:
    """The ending of a file's name, in small letters; "" if there is none, or none of the usual form."""
    ending = posixpath.splitext(path)[1].lower()
    return ending if _ENDING.fullmatch(ending) else ""


def _add(counts: dict[str, Count], key: str, count: Count) -> None:
    files, example = counts.get(key, (0, count.example))
    counts[key] = Count(files + count.files, min(example, count.example))
