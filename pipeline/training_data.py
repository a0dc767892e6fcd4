"""A data set to train on: what its images show, and which of them the classifier is judged by."""

import collections
import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camboxes.transforms.listing import Listing


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Images with the labels that they are known to have.

    Attributes:
      root: see `Listing`.
      labels: for each image's path its labels, in the order of the paths.
      multilabel: whether an image may have another number of labels than one.
    """

    root: str
    labels: Mapping[str, tuple[str, ...]]
    multilabel: bool

    @classmethod
    def of(cls, source: "Listing") -> "TrainingData":
        """All images of a source."""
        labels = {image.path: image.labels for image in sorted(source)}
        return cls(source.root, labels, any(len(of_image) != 1 for of_image in labels.values()))

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({label for of_image in self.labels.values() for label in of_image}))

    def without(self, paths: Collection[str]) -> "TrainingData":
        """The rest of the images, and the labels that these have."""
        return dataclasses.replace(self, labels={path: self.labels[path] for path in self.labels if path not in paths})

    def check(self) -> None:
        """Raises a ValueError where there is nothing to learn."""
        if not self.classes:
            raise ValueError("no image that can be used has a label")
        if len(self.classes) == 1 and all(self.labels.values()):
            raise ValueError(
                f"all images are labelled {self.classes[0]!r}, so there is nothing to tell it from; add images of a "
                "background class, or, in a manifest, images with an empty label"
            )

    def fingerprint(self) -> str:
        """SHA-256 of paths and labels."""
        return hashlib.sha256(json.dumps([*self.labels.items()], ensure_ascii=False).encode()).hexdigest()

    def counts(self, paths: Collection[str]) -> collections.Counter[str]:
        """How many of these images each label has."""
        return collections.Counter(label for path in paths for label in self.labels[path])

    def split(self, share: float, seed: int) -> tuple[list[str], list[str]]:
        """Paths to train on, and to validate on: a share of each label's images, at least one where there are two.

        An image with several labels goes by the rarest of them. The seed and the paths decide.
        """
        counts = self.counts(self.labels)
        strata: dict[str, list[str]] = collections.defaultdict(list)
        for path, of_image in self.labels.items():
            strata[min(of_image, key=lambda label: (counts[label], label), default="")].append(path)
        validation: set[str] = set()
        for paths in strata.values():
            wanted = min(max(1, round(share * len(paths))), len(paths) - 1) if share else 0
            validation.update(sorted(paths, key=lambda path: number_of(f"{seed}:{path}"))[:wanted])
        trained = self.counts(self.labels.keys() - validation)
        validation = {path for path in validation if trained.keys() >= {*self.labels[path]}}
        if not any(self.labels[path] for path in validation):  # nothing but images without a label
            validation.clear()
        sides: tuple[list[str], list[str]] = ([], [])
        for path in self.labels:
            sides[path in validation].append(path)
        return sides


def number_of(text: str) -> int:
    """A number that looks random and that the text alone decides, below 2 ** 56."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
