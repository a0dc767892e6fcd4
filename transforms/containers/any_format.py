"""Finds, lists and reads containers of images, whatever their format.

A plan gives such an image the path of its container and its own name: train-0001.tar/cat.jpg. A container is listed
once (`members`), with the place of each image. Then images are read by their places (`images`), in runs of neighbours,
each run in one pass. The formats: `tar_files`, `tfrecords`, `parquet_images`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import braceexpand

from camboxes.transforms import storage
from camboxes.transforms.containers import parquet_images, tar_files, tfrecords
from camboxes.transforms.containers.members import PARQUET, TAR, TFRECORD, Image, Member, one_for_each
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.sources.class_folders import why_ignored
from camboxes.transforms.sources.entries import Listed, PassedOver, SourceError

# A run is read in one pass and is a shard. In Parquet it ends where a row group begins, unless it gets too long.
_RUN, _LONGEST_RUN = 128, 1024


# Each has members, described and images, which do what those of this module do.
_FORMATS: dict[re.Pattern[str], ModuleType] = {TAR: tar_files, TFRECORD: tfrecords, PARQUET: parquet_images}


def is_container(path: str) -> bool:
    """Whether a file holds images, by its name; a Parquet file is opened, as it may be a manifest.

    Raises:
      ContainerError: its name ends in .parquet, and it is not Parquet.
    """
    return bool(TAR.search(path) or TFRECORD.search(path)) or (
        PARQUET.search(path) is not None and parquet_images.holds_images(path)
    )


def containers_of(path: str) -> list[str]:
    """The containers that a data set consists of, sorted; an empty list for any other data set.

    Args:
      path: a container; a pattern of containers, such as train-*.tar or train-{000..007}.tar; or a local folder of
        containers that holds no folders, which would be class folders.

    Raises:
      ContainerError: see `is_container`.
      SourceError: a container that the braces name does not exist.
    """
    found: list[str] = []
    if storage.is_local(path) and Path(path).is_dir():
        inside = [file for file in Path(path).iterdir() if not why_ignored(file.name)]
        if not any(file.is_dir() for file in inside):
            found = [file.as_posix() for file in inside]
    elif storage.exists(path):
        found = [path]
    elif re.search(r"[*?\[{]", path):
        found = [file for pattern in _patterns(path) for file in storage.matching(pattern)]
    return sorted({file for file in found if is_container(file)})


def _patterns(path: str) -> list[str]:
    """Expands braces, as in train-{000..007}.tar, to patterns, each of which must match; else the path itself."""
    try:
        patterns = list(braceexpand.braceexpand(path, escape=False))
    except ValueError:  # a brace is not closed
        return [path]
    missing = [pattern for pattern in patterns if not any(storage.matching(pattern))] if len(patterns) > 1 else []
    if missing:
        raise SourceError(
            f"not there: {len(missing)} of the {len(patterns)} files that {path!r} stands for, the first of them "
            f"{missing[0]!r}"
        )
    return patterns


def runs(container: str, root: str) -> Iterator[list[Listed] | PassedOver]:
    """Lists a container's images, with paths relative to `root`, in runs, each of which is read in one pass.

    Yields:
      Runs of images; PassedOver for other contents of the container, and for the container itself if it is empty.

    Raises:
      ContainerError: see `members`.
    """
    # Reading a row of Parquet costs the rows before it in its group; in the other formats nothing of those before.
    beginnings = parquet_images.beginnings(container) if PARQUET.search(container) else None
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
    """Lists the images of a file for which `is_container` is true, without holding their bytes.

    Yields:
      Images; PassedOver, whose path is a name inside the container, for its other contents.

    Raises:
      ContainerError: it cannot be read to its end; what was yielded before is not all.
    """
    return _format(container).members(container)


def described(container: str) -> str:
    """Says what a container without labels holds, and what was expected. Errors: see `members`."""
    return f"container {container!r} {_format(container).described(container)}"


def images(container: str, wanted: Sequence[Member]) -> Iterator[Image]:
    """Reads the encoded bytes of members, in the order in which they were listed, in one pass, holding one at a time.

    What is found at a member's place is compared with what was listed there: the name or, where names are numbers, the
    labels. If the container was rewritten since, a member gives an error (`changed`), never another member's image.

    Yields:
      For each member its bytes or a BadImageError.
    """
    return one_for_each(len(wanted), _format(container).images(container, wanted))


def image(container: str, name: str) -> bytes:
    """Reads the encoded bytes of one member; the container is listed up to it.

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


def _format(container: str) -> ModuleType:
    for ending, kind in _FORMATS.items():
        if ending.search(container):
            return kind
    raise ValueError(f"{container!r} is no container by its name; expected .tar, .tfrecord or .parquet")
