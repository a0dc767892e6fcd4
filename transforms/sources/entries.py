"""What a data set says of its images, one statement after the other."""

from typing import Literal, NamedTuple

Split = Literal["train", "val", "test"]


class SourceError(ValueError):
    """The input as a whole cannot be read: what was given, what was expected, what to do."""


class Entry(NamedTuple):
    """What one row of a manifest, or one file, says of an image; others, anywhere, may say more, or the contrary.

    An image's labels are all that any entry gives but those that some entry denies.

    Attributes:
      path: relative to the root where it lies inside it, with forward slashes; others as they were given.
      labels: none for an image that is known to be there and nothing else.
      denied: labels that it is known not to have.
    """

    path: str
    labels: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()


class PassedOver(NamedTuple):
    """A file of the input, or what stands in a container, that is not among the images.

    Attributes:
      path: see `Entry`; inside a container its own name, behind the container's path.
      reason: why, in words that are the same for all of a kind: files are counted by it. It says nothing of one file.
      label: the class folder that it lies in; None where there are no class folders.
    """

    path: str
    reason: str
    label: str | None = None


class SplitFolder(NamedTuple):
    """A folder that holds one of the splits in which a data set comes.

    Attributes:
      path: see `Entry`.
      split: which one.
    """

    path: str
    split: Split


# What a folder or a manifest says, one after the other.
Statement = Entry | PassedOver | SplitFolder


class Listed(NamedTuple):
    """An image with all that is known of it.

    Attributes:
      path: its identity; see `Entry`.
      labels: each once, sorted.
      place: of an image inside a container where it is found there (see `members`); None for a file of its own.
    """

    path: str
    labels: tuple[str, ...]
    place: int | None = None
