"""A data set to train on: what its images show, and which of them the classifier is judged by."""

import collections
import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from camboxes.pipeline import sampling

if TYPE_CHECKING:
    from camboxes.pipeline.training.copies import Copies
    from camboxes.transforms.planning.listing import Listing
    from camboxes.transforms.sources.entries import Split


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Images with the labels that they are known to have.

    Attributes:
      root: see `Listing`.
      labels: for each image's path its labels, in the order of the paths.
      multilabel: whether an image may have another number of labels than one.
      splits: the folders of a split that the data set comes with; see `Listing`. None of "test" is among the images.
    """

    root: str
    labels: Mapping[str, tuple[str, ...]]
    multilabel: bool
    splits: Mapping[str, "Split"] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, source: "Listing") -> "TrainingData":
        """The images of a source but those of a test split.

        Raises:
          ValueError: it comes with splits, and none of them is to train on.
        """
        from camboxes.transforms.sources.splits import split_of

        if source.splits and "train" not in source.splits.values():
            folders = ", ".join(sorted(source.splits))
            raise ValueError(
                f"the input has the splits {folders}, and none to train on; expected a folder train, or, to train on "
                "all images of such a folder, its own path"
            )
        labels = {image.path: image.labels for image in sorted(source) if split_of(image.path, source.splits) != "test"}
        multilabel = any(len(of_image) != 1 for of_image in labels.values())
        return cls(source.root, labels, multilabel, source.splits)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({label for of_image in self.labels.values() for label in of_image}))

    @property
    def is_split(self) -> bool:
        """Whether the data set comes with images to validate on."""
        return "val" in self.splits.values()

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

    def joined(self, copies: "Copies") -> "TrainingData":
        """Gives all images of the same bytes the labels of each of them."""
        of_digest: dict[str, set[str]] = collections.defaultdict(set)
        for path, of_image in self.labels.items():
            of_digest[copies.digests[path]].update(of_image)
        labels = {path: tuple(sorted(of_digest[copies.digests[path]])) for path in self.labels}
        return dataclasses.replace(self, labels=labels)

    def split(self, share: float, seed: int, first: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Paths to train on, and to validate on: a share of each label's pictures, at least one where there are two.

        A picture with several labels goes by the rarest of them. The seed and the paths decide.

        Args:
          share: from 0 to less than 1.
          seed: another one splits otherwise.
          first: for each path the first one that shows the same picture: copies stay on one side.
        """
        pictures: dict[str, set[str]] = collections.defaultdict(set)
        for path, of_image in self.labels.items():
            pictures[first[path]].update(of_image)
        counts = collections.Counter(label for of_picture in pictures.values() for label in of_picture)
        strata: dict[str, list[str]] = collections.defaultdict(list)
        for picture, of_picture in pictures.items():
            strata[min(of_picture, key=lambda label: (counts[label], label), default="")].append(picture)
        chosen: set[str] = set()
        for of_stratum in strata.values():
            wanted = min(max(1, round(share * len(of_stratum))), len(of_stratum) - 1) if share else 0
            chosen.update(sampling.first(of_stratum, wanted, str, seed))
        trained = set().union(*(pictures[picture] for picture in pictures.keys() - chosen))
        chosen = {picture for picture in chosen if pictures[picture] <= trained}
        if not any(pictures[picture] for picture in chosen):  # nothing but images without a label
            chosen.clear()
        sides: tuple[list[str], list[str]] = ([], [])
        for path in self.labels:
            sides[first[path] in chosen].append(path)
        return sides

    def given_split(self, first: Mapping[str, str]) -> tuple[list[str], list[str], list[tuple[str, str]]]:
        """Paths to train on, and to validate on, as the data set comes split.

        Returns:
          Both, and the images that are to validate on and show the picture of one to train on: pairs of both paths.
          They are in neither, for they would flatter the figures.
        """
        from camboxes.transforms.sources.splits import split_of

        sides: dict[str | None, list[str]] = {"train": [], "val": []}
        for path in self.labels:
            sides[split_of(path, self.splits)].append(path)
        trained = {first[path]: path for path in reversed(sides["train"])}
        known = [(path, trained[first[path]]) for path in sides["val"] if first[path] in trained]
        left_out = {path for path, _ in known}
        return sides["train"], [path for path in sides["val"] if path not in left_out], known
