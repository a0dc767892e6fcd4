"""The statements of a data set about its images, and the images that they add up to."""

from typing import Literal, NamedTuple

Split = Literal["train", "val", "test"]


class SourceError(ValueError):
    """An input that cannot be read: says what was given, what was expected, and what to do."""


class Entry(NamedTuple):
    """What one row of a manifest, or one file, says of an image; other entries may add to it or contradict it.

    An image has the labels that some entry gives and no entry denies.

    Attributes:
      path: relative to the root if it lies below it, with forward slashes; else as given.
      labels: those that the entry gives; may be empty.
      denied: labels that the image is known not to have.
    """

    path: str
    labels: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()


class PassedOver(NamedTuple):
    """A file of the input, or a member of a container, that is not among the images.

    Attributes:
      path: see `Entry`; for a member its name behind the container's path.
      reason: why. Files are counted by it, so it says nothing about a single file.
      label: its class folder; None if there are none.
    """

    path: str
    reason: str
    label: str | None = None


class SplitFolder(NamedTuple):
    """A folder that holds one of a data set's splits; for its path see `Entry`."""

    path: str
    split: Split


class Assumption(NamedTuple):
    """Something that was assumed of the data set, in words for a person."""

    text: str


# What listing a folder or a manifest yields.
Statement = Entry | PassedOver | SplitFolder | Assumption


class Listed(NamedTuple):
    """An image, with what all entries together say of it.

    Attributes:
      path: its identity; see `Entry`.
      labels: each once, sorted.
      place: see `Member`; None for an image that is a file.
    """

    path: str
    labels: tuple[str, ...]
    place: int | None = None
