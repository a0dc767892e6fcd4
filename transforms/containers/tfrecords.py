"""Reads images from TFRecords of tf.train.Example, without TensorFlow.

An Example's image is its feature image/encoded or, as TensorFlow Datasets names it, image. Its labels are those of the
first of these features that has any: image/class/text, image/object/class/text, image/class/label,
image/object/class/label, label. A number is its own name ("7"); a number below 0 means no label (see `labels_of`). An
image whose record has none of these features is passed over. A member is named by the number of its record, from 0, and
the suffix that image/format implies.
"""

import functools
import os
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from camboxes.transforms import storage
from camboxes.transforms.containers.members import ContainerError, Image, Member, beginning, broken, changed, distinct
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.sources.class_folders import IMAGE_SUFFIXES
from camboxes.transforms.sources.entries import PassedOver
from camboxes.transforms.sources.label_values import labels_of

_IMAGES = ("image/encoded", "image")
_LABELS = ("image/class/text", "image/object/class/text", "image/class/label", "image/object/class/label", "label")
_SUFFIX = ".jpg"  # of images without image/format; decoders look at the bytes
_SHOWN = 10  # names of features in an error
# A record is its length, that one's checksum, its bytes, and their checksum.
_LENGTH = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


class _Example(NamedTuple):
    image: Image
    labels: tuple[str, ...] | None  # None where there is no feature for them
    suffix: str


def members(container: str) -> Iterator[Member | PassedOver]:
    """Lists a TFRecord file's records, holding one at a time; see `any_format.members`.

    A record that is damaged or has no image is a member, too; reading it gives the error. An image without a feature of
    labels is passed over. A file without any image is an error.
    """
    reason, found = None, False
    with storage.open_binary(container) as file:
        for number, (place, record) in enumerate(_records(container, file, file.seek(0, os.SEEK_END))):
            try:
                image, labels, suffix = _example(record)
            except ValueError as error:
                raise ContainerError(container, f"cannot be understood in record {number}: a label {error}") from None
            if isinstance(image, bytes):
                found = True
            elif image.code == "missing":
                reason = reason or image
            name = f"{number:08d}{suffix}"
            if isinstance(image, bytes) and labels is None:
                yield PassedOver(name, "its record has no label")
            else:
                yield Member(name, labels or (), place)
    if reason and not found:
        raise ContainerError(container, f"holds no image ({reason}); take it out of the input, or write it again")


def described(container: str) -> str:
    """Says what a file without labels holds, and what was expected; see `any_format.described`."""
    with storage.open_binary(container) as file:
        _, record = next(_records(container, file, file.seek(0, os.SEEK_END)), (0, None))
    if record is None:
        return "is empty, or its first record is damaged"
    try:
        features = _named(_features(record))
    except DecodeError:
        return "has records that are no tf.train.Example"
    return f"has records with the features {features}; expected labels in one of {', '.join(_LABELS)}"


def images(container: str, wanted: Sequence[Member]) -> Generator[Image]:
    """Reads the records that begin at the places given, if they have the labels and the format that were listed."""
    with storage.open_binary(container) as file:
        end = file.seek(0, os.SEEK_END)
        for member in wanted:
            try:
                _, record = next(_records(container, file, end, member.place), (end, b""))
            except ContainerError as error:
                yield changed(f"it {error.detail}")
                continue
            image, labels, suffix = _example(record)
            if record is None or (sorted(labels or ()) == sorted(member.labels) and member.name.endswith(suffix)):
                yield image
            else:
                now = ", ".join(labels or ()) or "none"
                yield changed(f"at byte {member.place} is another record, with the labels {now}")


def _records(container: str, file: IO[bytes], end: int, place: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """The place of each record and its bytes; None if their checksum is wrong."""
    file.seek(place)
    while place < end:
        head = file.read(_LENGTH.size).ljust(_LENGTH.size, b"\0")
        length, checksum = _LENGTH.unpack(head)
        if _masked_crc(head[:8]) != checksum:
            if place:
                raise broken(container, place, "no record begins there")
            raise ContainerError(container, beginning(file, "a TFRecord"))
        beyond = place + _LENGTH.size + length + _CHECKSUM.size
        if beyond > end:
            raise broken(container, place, f"{length} bytes should follow, and the file has {end}")
        record = file.read(length)
        (checksum,) = _CHECKSUM.unpack(file.read(_CHECKSUM.size))
        yield place, record if _masked_crc(record) == checksum else None
        place = beyond


def _masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _example(record: bytes | None) -> _Example:
    if record is None:
        return _without_image("unreadable", "the record's checksum is not that of its bytes")
    try:
        features = _features(record)
    except DecodeError:
        return _without_image("unreadable", "the record is no tf.train.Example")
    given = [_labels(features[name]) for name in _LABELS if name in features]
    labels = next(filter(None, given), given[0] if given else None)
    for name in _IMAGES:
        if name in features and features[name].bytes_list.value:
            return _Example(features[name].bytes_list.value[0], labels, _suffix(features))
    detail = f"the Example has no bytes in {' or '.join(_IMAGES)}; its features: {_named(features)}"
    return _without_image("missing", detail)


def _features(record: bytes) -> dict[str, Any]:
    """The features of an Example by their names. Raises DecodeError for other records."""
    example = _message_class()()
    example.ParseFromString(record)
    return {feature.key: feature.value for feature in example.features.feature}


def _named(features: Mapping[str, Any]) -> str:
    return ", ".join(sorted(features)[:_SHOWN]) or "none"


def _without_image(code: str, detail: str) -> _Example:
    return _Example(BadImageError(code, detail), (), _SUFFIX)


def _labels(feature: Any) -> tuple[str, ...]:
    return distinct(labels_of([*feature.bytes_list.value, *feature.int64_list.value]))


def _suffix(features: Mapping[str, Any]) -> str:
    formats = features["image/format"].bytes_list.value if "image/format" in features else ()
    suffix = f".{formats[0].decode(errors='replace').lower()}" if formats else _SUFFIX
    return suffix if suffix in IMAGE_SUFFIXES else _SUFFIX


# The part of tf.train.Example that is read. On the wire its map of features is a list of keys and values.
_SCHEMA = """
name: "example.proto" package: "camboxes" syntax: "proto3"
message_type { name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".camboxes.Features" } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".camboxes.Entry" } }
message_type { name: "Entry"
  field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".camboxes.Feature" } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".camboxes.BytesList" }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".camboxes.Int64List" } }
message_type { name: "BytesList" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Int64List" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
"""


@functools.cache
def _message_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("camboxes.Example"))
