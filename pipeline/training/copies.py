"""Finds copies among a data set's images: files with the same bytes, and re-encoded or resized pictures."""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Recorded in the settings of a training, because another rule gives another split.
RULE = "equal SHA-256; of the same labels, imagehash.phash that differs in two bits at most"

_FLAT = 2.0  # standard deviation of the grey values, of 255, below which pictures cannot be told apart

Labels = Mapping[str, Sequence[str]]


class Print(NamedTuple):
    """The hashes of a picture: the SHA-256 of the file's bytes, hexadecimal, and a perceptual hash of 64 bits.

    The second stays nearly the same when the picture is re-encoded or resized; a picture without contrast has none.
    """

    digest: str
    look: int | None


def print_of(data: bytes, image: np.ndarray) -> Print:
    """Hashes a file and its decoded picture, uint8 [height, width, 3], of any size."""
    grey = Image.fromarray(image).convert("L")
    flat = np.asarray(grey).std() < _FLAT
    look = None if flat else int.from_bytes(np.packbits(imagehash.phash(grey).hash).tobytes(), "big")
    return Print(hashlib.sha256(data).hexdigest(), look)


@dataclasses.dataclass(frozen=True)
class Copies:
    """The images that show the same picture, with the labels and the digest of each image.

    Attributes:
      first: the first image with the same picture, in the order of `labels`, for each image; that may be itself.
    """

    labels: Labels
    digests: Mapping[str, str]
    first: Mapping[str, str]

    @classmethod
    def among(cls, labels: Labels, prints: Mapping[str, Print]) -> "Copies":
        """Finds copies, in time linear in the number of images.

        Pictures that look alike count as copies if they have the same labels. Pictures with other labels would not
        flatter a figure, and different things before one background may look alike.
        """
        paths = [*labels]
        by_digest: dict[str, list[int]] = collections.defaultdict(list)
        by_labels: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
        for number, path in enumerate(paths):
            by_digest[prints[path].digest].append(number)
            if prints[path].look is not None:
                by_labels[tuple(labels[path])].append(number)
        pairs = [(number, numbers[0]) for numbers in by_digest.values() for number in numbers]
        for numbers in by_labels.values():
            looks = np.array([prints[paths[number]].look for number in numbers], dtype=np.uint64)
            pairs += [(numbers[one], numbers[other]) for one, other in enumerate(_first_alike(looks))]
        first = _first_connected(np.array(pairs).reshape(-1, 2), len(paths))
        return cls(
            labels,
            {path: prints[path].digest for path in paths},
            {path: paths[number] for path, number in zip(paths, first, strict=True)},
        )

    @functools.cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Each copy with the first image of its picture."""
        return [(path, first) for path, first in self.first.items() if path != first]

    @functools.cached_property
    def contradictions(self) -> list[tuple[str, str]]:
        """Each image whose labels differ from those of the first image with the same bytes, with that image."""
        first: dict[str, str] = {}
        pairs = [(path, first.setdefault(digest, path)) for path, digest in self.digests.items()]
        return [(path, other) for path, other in pairs if self.labels[path] != self.labels[other]]

    def kind(self, path: str, first: str) -> str:
        """The kind of copy that an image is of the first image of its picture."""
        if self.digests[path] != self.digests[first]:
            return "looks alike"
        return "same bytes" if self.labels[path] == self.labels[first] else "same bytes, other labels"


def _first_alike(looks: np.ndarray) -> np.ndarray:
    """The index of the first hash that each hash, uint64 [n], is connected with by steps of at most two bits.

    The keys of a hash are the hash itself and the hash without one of its set bits. Hashes that share a key differ in
    at most two bits. Nearly all hashes have 32 bits set, so two hashes that differ in two bits share a key.
    """
    bits = np.uint64(1) << np.arange(64, dtype=np.uint64)
    image, place = np.nonzero(looks[:, None] & bits)
    keys = np.concatenate([looks, looks[image] & ~bits[place]])
    image = np.concatenate([np.arange(len(looks)), image])
    _, first, key = np.unique(keys, return_index=True, return_inverse=True)
    return _first_connected(np.stack([image, image[first[key]]], axis=1), len(looks))


def _first_connected(pairs: np.ndarray, count: int) -> np.ndarray:
    """The first node that each of `count` nodes is connected with, by pairs, int [m, 2]."""
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    _, first, number = np.unique(component, return_index=True, return_inverse=True)
    return first[number]
