"""Reads the encoded bytes of a shard's images: from files, from containers, or from the rows themselves."""

import concurrent.futures
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from camboxes.transforms.containers.any_format import images
from camboxes.transforms.containers.members import Image, Member, split
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.images.decoding import ACCEPTED, BadImageError, Limits
from camboxes.transforms.ordered_threads import batched

_Row = Mapping[str, Any]

_AT_ONCE = 10  # files that are read side by side: a store's client keeps as many connections


def contents(rows: Iterable[_Row]) -> Iterator[Image | None]:
    """The bytes of each planned row's image if the row or a container holds them; None for an image that is a file."""
    for container, of_container in itertools.groupby(rows, key=lambda row: _inside(row)[0]):
        if container is None:
            yield from (row["image"] for row in of_container)
        else:
            members = [
                Member(_inside(row)[1], tuple(label["label"] for label in row["labels"]), row["place"])
                for row in of_container
            ]
            yield from images(container, members)


def image_bytes(row: _Row, content: Image | None, limits: Limits) -> bytes:
    """The bytes of a row's image; `content` is what `contents` yielded for the row.

    Raises:
      BadImageError: see `read_image`; or `content` itself.
    """
    if content is None:
        return read_image(row["location"], limits)
    if isinstance(content, BadImageError):
        raise content
    limits.check_bytes(len(content))
    return content


def seen(data: bytes, digest: str) -> bytes:
    """Checks that an image's bytes are those that a run saw, and returns them.

    Raises:
      BadImageError: changed.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise BadImageError("changed", "the file is not the one that the run saw")
    return data


def first_not_seen(rows: Sequence[_Row], digests: Sequence[str | None]) -> tuple[str, BadImageError] | None:
    """The path of a shard's first image that is not what a run saw, and the reason; None if all are the same.

    For each planned row, `digests` holds that of the bytes that the run read; None where it could not read any.
    """
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in batched(zip(rows, contents(rows), digests, strict=True), _AT_ONCE):
            for found in pool.map(_not_seen, some):
                if found is not None:
                    return found
    return None


def _not_seen(image: tuple[_Row, Image | None, str | None]) -> tuple[str, BadImageError] | None:
    row, content, digest = image
    if digest is None:
        return None
    try:
        seen(image_bytes(row, content, ACCEPTED), digest)
    except BadImageError as error:
        return row["path"], error
    return None


def _inside(row: _Row) -> tuple[str | None, str]:
    """The container that holds a row's image, and the image's name in it; (None, "") for an image that is a file."""
    return (row["place"] is not None and split(row["location"] or "")) or (None, "")
