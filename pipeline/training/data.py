"""A data set to train on: its images with labels, and the split into training and validation images."""

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
    """Images with their labels.

    Attributes:
      root: see `Listing`.
      labels: the labels of each image by path, in the order of the paths. An image of the background has none where
        images may have any number of labels; else it has the first of `background`, which is then one of `classes`.
      multilabel: whether an image may have no label or several.
      splits: the folders of the data set's splits, see `Listing`. The images of a test split are left out.
      background: the labels of images that show none of the classes, sorted.
      rejected: why an image cannot be trained on, by path: those with labels that contradict each other.
    """

    root: str
    labels: Mapping[str, tuple[str, ...]]
    multilabel: bool
    splits: Mapping[str, "Split"] = dataclasses.field(default_factory=dict)
    background: tuple[str, ...] = ()
    rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, source: "Listing", background: Collection[str] = ()) -> "TrainingData":
        """Takes the images of a source, except those of a test split; see `sources.background`.

        Raises:
          ValueError: the source has splits, but no training split.
        """
        from camboxes.transforms.sources.background import CONTRADICTION, contradiction, parted
        from camboxes.transforms.sources.splits import split_of

        if source.splits and "train" not in source.splits.values():
            folders = ", ".join(sorted(source.splits))
            raise ValueError(
                f"the input has the splits {folders}, and none to train on; expected a folder train, or, to train on "
                "all images of such a folder, its own path"
            )
        named = tuple(sorted(background))
        labels: dict[str, tuple[str, ...]] = {}
        rejected: dict[str, str] = {}
        for image in sorted(source):
            if split_of(image.path, source.splits) == "test":
                continue
            classes, of_background = parted(image.labels, named)
            if classes and of_background:
                rejected[image.path] = f"{CONTRADICTION}: {contradiction(classes, of_background)}"
            else:
                labels[image.path] = named[:1] if of_background else classes
        multilabel = any(len(of_image) != 1 for of_image in labels.values())
        if multilabel:
            labels = {path: () if of_image == named[:1] else of_image for path, of_image in labels.items()}
        return cls(source.root, labels, multilabel, source.splits, named, rejected)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({label for of_image in self.labels.values() for label in of_image}))

    @property
    def class_names(self) -> list[tuple[str, ...]]:
        """The names of each output of a network that tells the labels: an output for background has all of its."""
        return [self.background if label in self.background else (label,) for label in self.classes]

    def without(self, paths: Collection[str]) -> "TrainingData":
        """The data set without some images, and without labels that only these have."""
        return dataclasses.replace(self, labels={path: self.labels[path] for path in self.labels if path not in paths})

    def check(self) -> None:
        """Raises a ValueError if there is nothing to learn."""
        if not {*self.classes} - {*self.background}:
            raise ValueError("no image that can be used has a label of a class")
        if len(self.classes) == 1 and all(self.labels.values()):
            raise ValueError(
                f"all images are labelled {self.classes[0]!r}, so there is nothing to compare it with; add photographs "
                "of other things, in a folder of their own such as other/, and name that with --background other"
            )

    def fingerprint(self) -> str:
        """SHA-256 of paths and labels."""
        return hashlib.sha256(json.dumps([*self.labels.items()], ensure_ascii=False).encode()).hexdigest()

    def counts(self, paths: Collection[str]) -> collections.Counter[str]:
        """The number of these images that have each label."""
        return collections.Counter(label for path in paths for label in self.labels[path])

    def joined(self, copies: "Copies") -> "TrainingData":
        """Gives images with the same bytes the labels of all of them."""
        of_digest: dict[str, set[str]] = collections.defaultdict(set)
        for path, of_image in self.labels.items():
            of_digest[copies.digests[path]].update(of_image)
        labels = {path: tuple(sorted(of_digest[copies.digests[path]])) for path in self.labels}
        return dataclasses.replace(self, labels=labels)

    def split(self, share: float, seed: int, first: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Splits the paths into training and validation: a share of each label's pictures, at least one of two.

        A picture with several labels counts for the rarest one. Which pictures are validated on depends on the seed and
        the paths alone: see `pipeline.sampling`. Copies stay on one side: `first` is the first path with the same
        picture, for each path.
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
        if not any(pictures[picture] for picture in chosen):  # only images without a label
            chosen.clear()
        sides: tuple[list[str], list[str]] = ([], [])
        for path in self.labels:
            sides[first[path] in chosen].append(path)
        return sides

    def given_split(self, first: Mapping[str, str]) -> tuple[list[str], list[str], list[tuple[str, str]]]:
        """Splits the paths by the data set's own splits.

        Returns:
          Paths to train on, paths to validate on, and pairs of a validation image and a training image with the same
          picture. The validation image of a pair is in neither list, because it would flatter the figures.
        """
        from camboxes.transforms.sources.splits import split_of

        sides: dict[str | None, list[str]] = {"train": [], "val": []}
        for path in self.labels:
            sides[split_of(path, self.splits)].append(path)
        trained = {first[path]: path for path in reversed(sides["train"])}
        known = [(path, trained[first[path]]) for path in sides["val"] if first[path] in trained]
        left_out = {path for path, _ in known}
        return sides["train"], [path for path in sides["val"] if path not in left_out], known
