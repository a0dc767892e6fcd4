"""Images that have no file of their own, in WebDataset's tar files, TFRecords, and Parquet files that hold their bytes.

In a plan such an image's path is its container's with its own name behind it: train-0001.tar/cat.jpg. A container is
listed once (`members`), which gives the place of each image, and images are then read by their places in runs of
neighbours (`images`), each in one pass. The formats: `tar_files`, `tfrecords`, `parquet_images`.
"""

import re
from collections.abc import Container, Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import braceexpand

from camboxes.transforms import storage
from camboxes.transforms.containers import parquet_images, tar_files, tfrecords
from camboxes.transforms.containers.member_names import PARQUET, TAR, TFRECORD, split
from camboxes.transforms.containers.members import ContainerError, Image, Member, one_for_each
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.sources.class_folders import why_ignored
from camboxes.transforms.sources.entries import Listed, PassedOver, SourceError

__all__ = [
    "ContainerError",
    "Image",
    "Member",
    "containers_of",
    "described",
    "image",
    "images",
    "members",
    "runs",
    "split",
]

# A run is read in one pass and is a shard; in Parquet it ends where a group of rows begins, unless that is far.
_RUN, _LONGEST_RUN = 128, 1024


class _Format(Protocol):
    def members(self, container: str) -> Iterator[Member | PassedOver]: ...

    def described(self, container: str) -> str: ...

    def images(self, container: str, wanted: Sequence[Member]) -> Generator[Image]: ...

    def beginnings(self, container: str) -> Container[int] | None: ...


_FORMATS: dict[re.Pattern[str], _Format] = {TAR: tar_files, TFRECORD: tfrecords, PARQUET: parquet_images}


def is_container(path: str) -> bool:
    """Whether a file holds images, by its name; a Parquet file is opened, for it may be a mere manifest.

    Raises:
      ContainerError: it is called like a Parquet file and is none.
    """
    return bool(TAR.search(path) or TFRECORD.search(path)) or (
        PARQUET.search(path) is not None and parquet_images.holds_images(path)
    )


def containers_of(path: str) -> list[str]:
    """The containers that a data set consists of, sorted; none where it is something else.

    Args:
      path: a container; a pattern such as train-*.tar or train-{000..007}.tar that gives nothing else; or a local
        folder of containers, without folders, which would be those of classes.

    Raises:
      ContainerError: see `is_container`.
      SourceError: a container among those that braces name is not there.
    """
    if storage.is_local(path) and Path(path).is_dir():
        inside = [file for file in Path(path).iterdir() if not why_ignored(file.name)]
        found = [] if any(file.is_dir() for file in inside) else [file.as_posix() for file in inside]
    elif storage.exists(path):
        found = [path]
    elif re.search(r"[*?\[{]", path):
        found = [file for pattern in _patterns(path) for file in storage.matching(pattern)]
    else:
        found = []
    return sorted({file for file in found if is_container(file)})


def _patterns(path: str) -> list[str]:
    """The patterns that braces stand for, as in train-{000..007}.tar, each of which gives a file; else the path."""
    try:
        patterns = list(braceexpand.braceexpand(path, escape=False))
    except ValueError:  # braces that are not closed
        return [path]
    missing = [pattern for pattern in patterns if not any(storage.matching(pattern))] if len(patterns) > 1 else []
    if missing:
        raise SourceError(
            f"{len(missing)} of the {len(patterns)} files that {path!r} stands for are not there, the first of them "
            f"{missing[0]!r}"
        )
    return patterns


def runs(container: str, root: str) -> Iterator[list[Listed] | PassedOver]:
    """Lists a container's images in runs that are read in one pass each.

    Args:
      container: see `members`.
      root: the folder that paths are relative to.

    Yields:
      PassedOver for what is in the container and is no image of it; for the container itself where it is empty.

    Raises:
      ContainerError: see `members`.
    """
    beginnings = _format(container).beginnings(container)
    prefix = storage.absolute(container).removeprefix(root.rstrip("/") + "/")
    run: list[Listed] = []
    empty = True
    for member in members(container):
        empty = False
        if isinstance(member, PassedOver):
            yield member._replace(path=f"{prefix}/{member.path}")
            continue
        enough = len(run) >= _RUN and (beginnings is None or member.place in beginnings)
        if enough or len(run) == _LONGEST_RUN:
            yield run
            run = []
        run.append(Listed(f"{prefix}/{member.name}", tuple(sorted(member.labels)), member.place))
    if run:
        yield run
    if empty:
        yield PassedOver(prefix, "an empty container")


def members(container: str) -> Iterator[Member | PassedOver]:
    """Lists a container's images, one after the other; their bytes are not held.

    Args:
      container: a file for which `is_container` is true, local or on any Beam filesystem.

    Yields:
      PassedOver for what is in it and is no image; its path is its name alone.

    Raises:
      ContainerError: it cannot be read, or not to its end; what was yielded before is not all.
    """
    return _format(container).members(container)


def described(container: str) -> str:
    """What a container holds, for somebody who misses labels in it, and what was expected. Errors: see `members`."""
    return f"container {container!r} {_format(container).described(container)}"


def images(container: str, wanted: Sequence[Member]) -> Iterator[Image]:
    """The encoded bytes of members, in one pass; one at a time is held.

    What is found at a member's place is compared with what was listed there: its name, or, where names are numbers, its
    labels. A container that was rewritten since so gives a reason (`changed`), and never another member's image.

    Args:
      container: see `members`.
      wanted: members of it, in the order in which they were listed.

    Yields:
      For each member its bytes, or a BadImageError where there are none.
    """
    return one_for_each(len(wanted), _format(container).images(container, wanted))


def image(container: str, name: str) -> bytes:
    """The encoded bytes of one member, for which the container is listed up to it.

    Raises:
      BadImageError: there is no such member, or it is damaged.
      ContainerError: see `members`.
    """
    for member in members(container):
        if isinstance(member, Member) and member.name == name:
            [found] = images(container, [member])
            if isinstance(found, BadImageError):
                raise found
            return found
    raise BadImageError("missing", f"the container has no member {name!r}")


def _format(container: str) -> _Format:
    for ending, kind in _FORMATS.items():
        if ending.search(container):
            return kind
    raise ValueError(f"{container!r} is no container by its name; expected .tar, .tfrecord or .parquet")
