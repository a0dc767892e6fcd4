"""Reads images from tar files as WebDataset writes them: an image and its labels have one name and different endings.

Labels are those of NAME.cls (text, a label on each line) and of NAME.json (under "label" or "labels"), together.
`tar_samples` says which files belong together. Indices stay texts; a label map says what they stand for. Nothing is
unpacked to disk. Links, devices and sparse files are not read.
"""

import itertools
import json
import os
import re
import tarfile
from collections.abc import Generator, Iterator, Sequence
from typing import IO

from camboxes.transforms import storage
from camboxes.transforms.containers.members import ContainerError, Image, Member, beginning, broken, changed, safe
from camboxes.transforms.containers.tar_samples import Samples, TarEntry
from camboxes.transforms.sources.class_folders import IMAGE_SUFFIXES, why_ignored
from camboxes.transforms.sources.entries import PassedOver
from camboxes.transforms.sources.label_values import cell_value, labels_in, labels_of

_NAME = re.compile(r"(?P<stem>(?P<key>(?:.*/)?[^./]+)(?:\.[^/]*)?)\.[^./]*")
_BROKEN = (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError)  # tarfile's, of broken headers
_LARGEST_LABEL = 1 << 24  # bytes of a file of labels
_LOOKED_AT, _SHOWN = 1000, 4  # names, to describe a file by, and in the description

_Header = tuple[tarfile.TarFile, tarfile.TarInfo]


def members(container: str) -> Iterator[Member | PassedOver]:
    """Lists a tar file's images, mostly in their order, without reading their bytes; see `any_format.members`.

    A file that belongs to no sample is passed over, see `tar_samples`.
    """
    samples = Samples()
    with storage.open_binary(container) as file:
        for header in _headers(container, file, file.seek(0, os.SEEK_END)):
            info = header[1]
            name = safe(info.name)
            if info.isdir():
                continue
            if ignored := next(filter(None, map(why_ignored, name.split("/"))), None):
                yield PassedOver(name, ignored)
                continue
            parts = _NAME.fullmatch(name) if _is_file(info) else None
            if parts is None:
                yield PassedOver(name, "belongs to no sample")
                continue
            ending = _ending(name)
            labels = _labels(container, header, ending) if ending in _LABELS else None
            is_image = f".{ending}" in IMAGE_SUFFIXES
            yield from samples.put(TarEntry(name, parts["key"], parts["stem"], is_image, labels, info.offset))
        yield from samples.rest()


def described(container: str) -> str:
    """Says what a file without labels holds, what was expected, and the remedy; see `any_format.described`."""
    with storage.open_binary(container) as file:
        headers = itertools.islice(_headers(container, file, file.seek(0, os.SEEK_END)), _LOOKED_AT)
        names = [safe(info.name) for _, info in headers if _is_file(info)]
    if not names:
        return "is empty"
    images = [name for name in names if f".{_ending(name)}" in IMAGE_SUFFIXES]
    more = ", …" if len(names) > _SHOWN else ""
    text = f"holds {', '.join(names[:_SHOWN])}{more}; expected beside NAME.jpg its labels, in NAME.cls (a text) or in "
    text += "NAME.json (under label or labels)"
    if images and all("/" in name for name in images):
        text += f"; if its folders are the labels, unpack it and give that folder: tar -xf {container} -C FOLDER"
    return text


def images(container: str, wanted: Sequence[Member]) -> Generator[Image]:
    """Reads the members whose headers begin at the places given, if they have the names that were listed."""
    with storage.open_binary(container) as file:
        end = file.seek(0, os.SEEK_END)
        for member in wanted:
            try:
                header = next(_headers(container, file, end, member.place), None)
            except ContainerError as error:
                yield changed(f"it {error.detail}")
                continue
            name = safe(header[1].name) if header and _is_file(header[1]) else None
            if header and name == member.name:
                yield _content(header)
            else:
                now = "no file" if name is None else repr(name)
                yield changed(f"at byte {member.place} was {member.name!r}, and now is {now}")


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _is_file(info: tarfile.TarInfo) -> bool:
    return info.isreg() and not info.issparse()


def _content(header: _Header) -> bytes:
    tar, info = header
    content = tar.extractfile(info)
    assert content is not None, "a regular file has content"
    return content.read()


def _labels(container: str, header: _Header, ending: str) -> tuple[str, ...] | ContainerError | None:
    """The labels that a file gives its sample: see `TarEntry.labels`."""
    _, info = header
    if info.size > _LARGEST_LABEL:
        problem = f"has {info.size} bytes; a label has at most {_LARGEST_LABEL}"
    else:
        try:
            return _LABELS[ending](_content(header))
        except (ValueError, RecursionError) as error:
            problem = f"cannot be understood ({error})"
    name = safe(info.name)
    return ContainerError(container, f"has the label {name!r} (byte {info.offset}), which {problem}; correct it")


def _labels_of_text(content: bytes) -> tuple[str, ...]:
    return labels_of([cell_value(line) for line in content.decode().splitlines()])


def _labels_of_json(content: bytes) -> tuple[str, ...] | None:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}; expected an object")
    return tuple(labels_in(value)) if {"label", "labels"} & value.keys() else None


_LABELS = {"cls": _labels_of_text, "json": _labels_of_json}


def _headers(container: str, file: IO[bytes], end: int, place: int = 0) -> Iterator[_Header]:
    """Reads all headers from a place on. `TarFile.next` would take a broken or missing header for the end."""
    file.seek(place)
    try:
        tar = tarfile.TarFile(fileobj=file, encoding="utf-8")
    except _BROKEN as error:
        if place:
            raise broken(container, place, str(error)) from None
        raise ContainerError(container, beginning(file, "a tar file")) from None
    while not _is_end(file, place):
        try:
            info = tarfile.TarInfo.fromtarfile(tar)
        except _BROKEN as error:
            raise broken(container, place, f"there is no header ({error})") from None
        if info.size < 0 or not place < tar.offset <= end:
            raise broken(container, place, f"{info.name!r} does not end within the file's {end} bytes")
        yield tar, info
        place = tar.offset


def _is_end(file: IO[bytes], place: int) -> bool:
    """Whether the archive's end is marked at a place; the file's position is set back to it."""
    file.seek(place)
    block = file.read(tarfile.BLOCKSIZE)
    file.seek(place)
    return block == bytes(tarfile.BLOCKSIZE)
