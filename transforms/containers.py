"""Images that have no file of their own, in WebDataset's tar files, TFRecords, and Parquet files that hold their bytes.

In a plan such an image's path is its container's with its own name behind it: train-0001.tar/cat.jpg. A container is
listed once (`members`), which gives the places where reading can begin, and its images are then read in runs of
neighbours (`images`), each in one pass. The formats: `tar_files`, `tfrecords`, `parquet_images`.
"""

import re
from collections.abc import Generator, Iterator
from typing import Protocol

from camboxes.transforms import parquet_images, tar_files, tfrecords
from camboxes.transforms.images import BadImageError
from camboxes.transforms.member_names import PARQUET, TAR, TFRECORD, split
from camboxes.transforms.members import ContainerError, Image, Member, exactly

__all__ = ["ContainerError", "Image", "Member", "image", "images", "is_container", "members", "split"]


class _Format(Protocol):
    def members(self, container: str) -> Iterator[Member | None]: ...

    def images(self, container: str, place: int) -> Generator[Image]: ...


_FORMATS: dict[re.Pattern[str], _Format] = {TAR: tar_files, TFRECORD: tfrecords, PARQUET: parquet_images}


def is_container(path: str) -> bool:
    """Whether a file holds images, by its name; a Parquet file is opened, for it may be a mere manifest.

    Raises:
      ContainerError: it is called like a Parquet file and is none.
    """
    return bool(TAR.search(path) or TFRECORD.search(path)) or (
        PARQUET.search(path) is not None and parquet_images.holds_images(path)
    )


def members(container: str) -> Iterator[Member | None]:
    """Lists a container's images, one after the other; their bytes are not held.

    Args:
      container: a file for which `is_container` is true, local or on any Beam filesystem.

    Yields:
      None for what is in it and is no image.

    Raises:
      ContainerError: it cannot be read, or not to its end; what was yielded before is not all.
    """
    return _format(container).members(container)


def images(container: str, place: int, count: int) -> Iterator[Image]:
    """The encoded bytes of consecutive members, in one pass; one at a time is held.

    Args:
      container: see `members`.
      place: the first one's.
      count: how many.

    Yields:
      `count` times bytes, or a BadImageError where there are none: one for a member that is damaged, and for all that
      remain where the container cannot be read on.
    """
    return exactly(count, _format(container).images(container, place))


def image(container: str, name: str) -> bytes:
    """The encoded bytes of one member, for which the container is listed up to it.

    Raises:
      BadImageError: there is no such member, or it is damaged.
      ContainerError: see `members`.
    """
    for member in members(container):
        if member is not None and member.name == name:
            [found] = images(container, member.place, 1)
            if isinstance(found, BadImageError):
                raise found
            return found
    raise BadImageError("missing", f"the container has no member {name!r}")


def _format(container: str) -> _Format:
    for ending, kind in _FORMATS.items():
        if ending.search(container):
            return kind
    raise ValueError(f"{container!r} is no container by its name; expected .tar, .tfrecord or .parquet")
