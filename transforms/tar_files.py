"""Images in tar files, as WebDataset writes them: entries that follow each other and share a key are one sample.

The key is a name up to the first dot after its folders, the rest names a field: of cat/7.jpg and cat/7.cls the key is
cat/7, the fields are jpg and cls. A sample's image is the first field that is called like an image's suffix; its labels
are those of the fields cls (a text, each line a label) and json ("label" or "labels"), together. Indices stay texts:
a label map says what they stand for. Nothing is ever unpacked; links, devices and sparse files are no images.
"""

import functools
import json
import os
import re
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import IO, NamedTuple

from camboxes.transforms.class_folders import IMAGE_SUFFIXES
from camboxes.transforms.entries import PassedOver
from camboxes.transforms.label_values import cell_value, labels_in, labels_of
from camboxes.transforms.member_names import safe
from camboxes.transforms.members import ContainerError, Image, Member, beginning, changed, distinct, opened

_FIELD = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")
_BROKEN = (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError)  # what tarfile raises of headers
_LARGEST_LABEL = 1 << 24  # bytes: what of a label's field is held


class _Entry(NamedTuple):
    """An entry of the file.

    Attributes:
      key: of its sample; that of the sample before it where it belongs to none, for it must not take one apart.
      field: in small letters; empty where it belongs to no sample.
      name: see `Member`.
      size: in bytes.
      place: see `Member`.
      read: gives its bytes.
    """

    key: str
    field: str
    name: str
    size: int
    place: int
    read: Callable[[], bytes]

    @property
    def is_image(self) -> bool:
        return f".{self.field}" in IMAGE_SUFFIXES


def members(container: str) -> Iterator[Member | PassedOver]:
    """Lists a tar file's images; of their bytes none is read.

    Yields:
      PassedOver for a sample without an image, for each further image of a sample, and for what belongs to no sample.

    Raises:
      ContainerError: the file is compressed, broken or cut short; a label cannot be understood.
    """
    with opened(container) as file:
        entries = _entries(container, file, file.seek(0, os.SEEK_END))
        for sample in _samples(entries):
            yield from _members_of(sample, container)


def beginnings(container: str) -> None:
    """Reading can begin at a sample anywhere, and costs nothing that lies before it."""


def images(container: str, wanted: Sequence[Member]) -> Generator[Image]:
    """The bytes of the member whose header begins at each one's place, if it is called as the one that was listed."""
    with opened(container) as file:
        end = file.seek(0, os.SEEK_END)
        for member in wanted:
            try:
                entry = next(_entries(container, file, end, member.place), None)
            except ContainerError as error:
                yield changed(f"it {error.detail}")
                continue
            if entry is not None and entry.field and (entry.name, entry.place) == (member.name, member.place):
                yield entry.read()
            else:
                yield changed(f"at byte {member.place} was {member.name!r}, and now is {_named(entry, member.place)}")


def _named(entry: "_Entry | None", place: int) -> str:
    return repr(entry.name) if entry is not None and entry.place == place else "no image"


def _samples(entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    """Neighbours that share a key; where a field comes again, another sample of the same key begins."""
    sample, fields = list[_Entry](), set[str]()
    for entry in entries:
        if sample and (entry.key != sample[0].key or entry.field in fields):
            yield sample
            sample, fields = [], set()
        sample.append(entry)
        fields |= {entry.field} - {""}
    if sample:
        yield sample


def _members_of(sample: Iterable[_Entry], container: str) -> Iterator[Member | PassedOver]:
    image, labels, first = None, list[str](), None
    for entry in sample:
        first = first or (entry if entry.field else None)
        if entry.is_image and image is None:
            image = entry
        elif entry.field in _LABELS:
            labels += _labels(entry, container)
        elif entry.is_image:
            yield PassedOver(entry.name, "a further image of its sample")
        elif not entry.field:
            yield PassedOver(entry.name, "belongs to no sample")
    if image is not None:
        yield Member(image.name, distinct(labels), image.place)
    elif first is not None:
        yield PassedOver(first.name, "its sample has no image")


def _labels(entry: _Entry, container: str) -> Iterable[str]:
    """The labels of a field.

    Raises:
      ContainerError: it is too large or cannot be understood.
    """
    if entry.size > _LARGEST_LABEL:
        problem = f"has {entry.size} bytes; a label has at most {_LARGEST_LABEL}"
    else:
        try:
            return _LABELS[entry.field](entry.read())
        except (ValueError, RecursionError) as error:
            problem = f"cannot be understood ({error})"
    raise ContainerError(container, f"has the label {entry.name!r} (byte {entry.place}), which {problem}; correct it")


def _labels_of_text(content: bytes) -> Iterable[str]:
    return labels_of([cell_value(line) for line in content.decode().splitlines()])


def _labels_of_json(content: bytes) -> Iterable[str]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}; expected an object")
    return labels_in(value)


_LABELS = {"cls": _labels_of_text, "json": _labels_of_json}


def _entries(container: str, file: IO[bytes], end: int, place: int = 0) -> Iterator[_Entry]:
    key = ""
    for tar, info in _headers(container, file, end, place):
        name = safe(info.name)
        if info.isdir() or any(part.startswith(".") for part in name.split("/")):
            continue
        parts = _FIELD.fullmatch(name) if info.isreg() and not info.issparse() else None
        key, field = (parts[1], parts[2].lower()) if parts else (key, "")
        yield _Entry(key, field, name, info.size, info.offset, functools.partial(_read, tar, info))


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(info)
    assert content is not None, "only regular files have fields"
    return content.read()


def _headers(
    container: str, file: IO[bytes], end: int, place: int
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """All headers from a place on. Not `TarFile.next`: to it a broken or missing header is the end."""
    file.seek(place)
    try:
        tar = tarfile.TarFile(fileobj=file, encoding="utf-8")
    except _BROKEN as error:
        problem = _broken(place, str(error)) if place else beginning(file, "a tar file")
        raise ContainerError(container, problem) from None
    while not _is_end(file, place):
        try:
            info = tarfile.TarInfo.fromtarfile(tar)
        except _BROKEN as error:
            raise ContainerError(container, _broken(place, f"there is no header ({error})")) from None
        if info.size < 0 or not place < tar.offset <= end:
            raise ContainerError(container, _broken(place, f"{info.name!r} does not end within the file's {end} bytes"))
        yield tar, info
        place = tar.offset


def _is_end(file: IO[bytes], place: int) -> bool:
    """Whether the archive says at a place that it ends; if not, the file stands there again."""
    file.seek(place)
    block = file.read(tarfile.BLOCKSIZE)
    file.seek(place)
    return block == bytes(tarfile.BLOCKSIZE)


def _broken(place: int, what: str) -> str:
    return f"is broken or cut short at byte {place}: {what}; copy or write it again"
