"""What an input holds besides its images, counted by kind. The counts of parts add up to those of the whole."""

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
    """How many files, and the first of their paths in sorted order."""

    files: int
    example: str

    def plus(self, other: "Count") -> "Count":
        """Both together."""
        return Count(self.files + other.files, min(self.example, other.example))


@dataclasses.dataclass
class Tally:
    """Counts of what was passed over. The order in which it was found, and by how many workers, makes no difference.

    Attributes:
      kinds: for each reason, for each ending of a file's name (".heic"; "" for none), how many there are. Endings
        beyond the first 50 in sorted order are counted as `REST`.
      labels: for each class folder in which something was passed over, how many files; see `without`.
    """

    kinds: dict[str, dict[str, Count]] = dataclasses.field(default_factory=dict)
    labels: dict[str, Count] = dataclasses.field(default_factory=dict)

    @property
    def files(self) -> int:
        """How many files were passed over."""
        return sum(count.files for endings in self.kinds.values() for count in endings.values())

    def add(self, item: PassedOver) -> None:
        """Counts a file."""
        one = Count(1, item.path)
        self._count(item.reason, ending_of(item.path), one)
        if item.label is not None:
            _add(self.labels, item.label, one)

    def without(self, labels: Collection[str]) -> "Tally":
        """The same counts, with only those class folders that gave no image: all but `labels`."""
        return Tally(self.kinds, {label: count for label, count in self.labels.items() if label not in labels})

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        kinds = [
            {"reason": reason, "ending": ending} | count._asdict()
            for reason, endings in sorted(self.kinds.items())
            for ending, count in sorted(endings.items())
        ]
        labels = {label: count._asdict() for label, count in sorted(self.labels.items())}
        return {"files": self.files, "kinds": kinds, "labels_without_images": labels}

    @classmethod
    def from_json(cls, value: int | Mapping[str, Any]) -> "Tally":
        """The counts that `to_json` gave, or the number of files that a plan of camboxes 0.1 holds."""
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
            for reason, endings in tally.kinds.items():
                for ending, count in endings.items():
                    total._count(reason, ending, count)
            for label, count in tally.labels.items():
                _add(total.labels, label, count)
        return total

    def _count(self, reason: str, ending: str, count: Count) -> None:
        endings = self.kinds.setdefault(reason, {})
        _add(endings, ending, count)
        while len(named := endings.keys() - {REST}) > _ENDINGS:
            # An ending that leaves a part here has as many before it in the whole: sums of parts stay exact.
            last = max(named)
            _add(endings, REST, endings.pop(last))


def ending_of(path: str) -> str:
    """The ending of a file's name, in small letters; "" where there is none, or one that says nothing to anybody."""
    ending = posixpath.splitext(path)[1].lower()
    return ending if _ENDING.fullmatch(ending) else ""


def _add(counts: dict[str, Count], key: str, count: Count) -> None:
    counts[key] = counts[key].plus(count) if key in counts else count
