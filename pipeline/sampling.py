"""Samples that names alone decide: the same names give the same sample, in whatever order they come.

The rule: names are ordered by the SHA-256 of "SEED:NAME", or of "NAME" where there is no seed, and the first are taken.
A name is an image's path, or the digest of its content where copies shall stay together.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def number_of(name: str, seed: object = None) -> int:
    """The number that a name is ordered by: it looks random, evenly spread from 0 to less than 2 ** 256."""
    text = name if seed is None else f"{seed}:{name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def first(items: Iterable[T], most: int, name: Callable[[T], str], seed: int | None = None) -> list[T]:
    """At most `most` items of a stream: the first in the order of their names. Only these are held in memory."""
    return heapq.nsmallest(most, items, key=lambda item: number_of(name(item), seed))


def in_share(name: str, share: float, seed: int) -> bool:
    """Whether a name belongs to a share of all names, 0 to 1; other names never change that."""
    return number_of(name, seed) < share * 2**256
