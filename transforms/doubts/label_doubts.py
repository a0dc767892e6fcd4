"""Counts images whose labels the network does not confirm, to find labels that stand for the wrong classes.

An image is in doubt if the network gives each of its labels less than chance. For a softmax over N classes chance is
1/N. For sigmoids, whose size depends on the training, it is 0.7 of the network's highest probability. Measured
(docs/how-to/own-networks.md): with right labels up to 8% of the images are in doubt, with labels of other classes 40%
or more.
"""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from camboxes.models.counts import counted

_OF_FIRST_GUESS = 0.7
_SHARE = 1 / 3  # of the images, above which there is a warning
_FEWEST = 10  # images, below which there is none
_NAMED, _LONGEST = 3, 30  # labels in a warning, and their characters, at most


@dataclasses.dataclass
class Doubts:
    """Counts the images in doubt.

    Attributes:
      classes: number of the network's classes; None if it is unknown, and then nothing is counted.
      multilabel: see `Classifier.multilabel`.
      images, of: number of images in doubt, and of images that have a label with a probability.
      labels: both numbers for each label.
    """

    classes: int | None = None
    multilabel: bool = False
    images: int = 0
    of: int = 0
    labels: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)

    @classmethod
    def about(cls, settings: Mapping[str, Any]) -> "Doubts":
        """Makes a counter for the network in a run's settings."""
        model = settings.get("model", {})
        return cls(model.get("classes"), model.get("multilabel", False))

    @property
    def columns(self) -> list[str]:
        """The columns that `add` reads besides the labels."""
        return ["top5"] if self.classes is not None and self.multilabel else []

    def add(self, row: Mapping[str, Any]) -> None:
        """Counts a row."""
        seen = {label["label"]: label["probability"] for label in row["labels"] if label.get("probability") is not None}
        if self.classes is None or not seen:
            return
        chance = _OF_FIRST_GUESS * row["top5"][0]["probability"] if self.multilabel else 1 / self.classes
        doubted = int(max(seen.values()) < chance)
        self.images += doubted
        self.of += 1
        for label in seen:
            self.labels.setdefault(label, collections.Counter()).update({"images": doubted, "of": 1})

    def to_json(self) -> dict[str, Any]:
        """The counts for summary.json; of the labels only those with an image in doubt."""
        labels = {label: dict(counts) for label, counts in sorted(self.labels.items()) if counts["images"]}
        return {"images": self.images, "of": self.of, "labels": labels}

    @property
    def warnings(self) -> list[str]:
        """A warning if so many images are in doubt that something is wrong; otherwise nothing."""
        if self.of < _FEWEST or self.images <= _SHARE * self.of:
            return []
        chance = f"{_OF_FIRST_GUESS} of its first guess" if self.multilabel else f"1 of {self.classes:,}"
        worst = sorted(self.to_json()["labels"].items(), key=lambda item: (-item[1]["images"], item[0]))[:_NAMED]
        often = ", ".join(f"{_short(label)} ({counts['images']} of {counts['of']})" for label, counts in worst)
        return [
            f"on {self.images:,} of {counted(self.of, 'image')} the network gives every label less than chance "
            f"({chance}), most often {often}. Either labels stand for the wrong classes (label map, or class names "
            f"in another order "
            "than the network's outputs), or the network was trained with another mean or std, or on other pictures, "
            "or the labels are of other images"
        ]


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[:_LONGEST]}…"
