"""Members of containers: their names, and their errors. Whatever is found, each member gets one image or one error.

The path of a member is the container's path and the member's name, as in train-0001.tar/cat.jpg. Such a path is split
by names alone. Names of members are changed where they would mislead.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from typing import IO, NamedTuple

from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.sources.entries import SourceError

# Compressed containers are included, so that they can be refused with a reason.
TAR = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz)$", re.IGNORECASE)
TFRECORD = re.compile(r"\.tfrec(?:ords?)?(?:-\d+-of-\d+)?(?:\.gz)?$", re.IGNORECASE)
PARQUET = re.compile(r"\.parquet$", re.IGNORECASE)

# An encoded image, or the error in its place.
Image = bytes | BadImageError

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """An image inside a container.

    Attributes:
      name: stable, and unique in its container: a relative path with forward slashes (see `safe`).
      labels: image-level labels, without repetitions, in the order given.
      place: where it is read: the byte at which its tar header or its TFRecord's record begins, or the number of its
        row in Parquet, from 0.
    """

    name: str
    labels: tuple[str, ...]
    place: int


class ContainerError(SourceError):
    """A container that cannot be read to its end. `detail` says why, without the container's path."""

    def __init__(self, container: str, detail: str):
        super().__init__(f"container {container!r} {detail}")
        self.detail = detail


def broken(container: str, place: int, what: str) -> ContainerError:
    """The error of a container that cannot be read from the byte `place` on."""
    return ContainerError(container, f"is broken or cut short at byte {place}: {what}; copy or write it again")


def split(path: str) -> tuple[str, str] | None:
    """Splits "root/train-0001.tar/cat.jpg" into "root/train-0001.tar" and "cat.jpg"; nothing is opened.

    The last part of the path that is named like a container counts: folders of Parquet files often are, too.

    Returns:
      The container's path and the member's name; None if no part before the last one is named like a container.
    """
    parts = path.split("/")
    for end in range(len(parts) - 1, 0, -1):
        if _is_called_like_a_container(parts[end - 1]):
            return "/".join(parts[:end]), "/".join(parts[end:])
    return None


def safe(name: str) -> str:
    """Makes a name from inside a container a relative path that stays inside, and that JSON can hold.

    Slashes become forward ones; "." and empty parts are dropped, ".." becomes "_". A folder that is named like a
    container gets an underscore at its end, so that `split` finds the real container.
    """
    text = name.replace("\\", "/").replace("\0", "_").encode("utf-8", "backslashreplace").decode()
    *folders, last = [part for part in text.split("/") if part not in ("", ".")] or [""]
    folders = [f"{folder}_" if _is_called_like_a_container(folder) else folder for folder in folders]
    return "/".join("_" if part == ".." else part for part in (*folders, last))


def _is_called_like_a_container(part: str) -> bool:
    return any(ending.search(part) for ending in (TAR, TFRECORD, PARQUET))


def distinct(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels without repetitions, in the order given."""
    return tuple(dict.fromkeys(labels))


def beginning(file: IO[bytes], expected: str) -> str:
    """Says why a file does not begin as its name promises, and what to do."""
    file.seek(0)
    head = file.read(8)
    for magic, tool in _COMPRESSIONS.items():
        if head.startswith(magic):
            return f"is compressed ({tool}), so images in it cannot be read one by one: decompress it"
    return f"begins with {head!r}; expected {expected}: check how the file was made and copied"


def changed(what: str) -> BadImageError:
    """The error of an image whose container is not the one that was listed."""
    return BadImageError("changed", f"the container changed since it was planned: {what}")


def one_for_each(count: int, found: Generator[Image]) -> Iterator[Image]:
    """Yields `found`, and then the same error for each further one of `count` members.

    The error does not depend on where the container lies.
    """
    left = count
    try:
        for image in found:
            left -= 1
            yield image
        problem = changed("it ends before this image")
    except FileNotFoundError:
        problem = BadImageError("missing", "there is no container at this path")
    except ContainerError as error:  # its listing came to its end
        problem = changed(f"it {error.detail}")
    except Exception as error:  # no permission, a store's own errors, a decompressor's
        problem = BadImageError("unreadable", f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}")
    finally:
        found.close()
    for _ in range(left):
        yield problem
