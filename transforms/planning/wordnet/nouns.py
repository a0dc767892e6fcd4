"""The classes that a word stands for by its meaning: those of its synset, and of all synsets below it."""

import functools
import gzip
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from camboxes.models.networks.class_names import Names
from camboxes.transforms.planning.spelling import plain

_ID = re.compile(r"n\d{8}")
_GENERAL = 500  # classes; a word for more of them, such as "object", says too little
_ALIKE = 0.95  # of ImageNet's names, for classes without the ids of synsets


class Meaning(NamedTuple):
    """Something that a word may mean.

    Attributes:
      gloss: WordNet's explanation.
      synset: its id, such as "n02084071"; None if the network has no class of it.
      names: the synset's words, the usual one first.
      classes: the indices of the network's classes that it stands for.
      kinds: number of its hyponyms in WordNet, if nearly all of them are missing from ImageNet's classes; else None.
    """

    gloss: str
    synset: str | None = None
    names: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    kinds: int | None = None

    @property
    def is_usable(self) -> bool:
        """Whether its classes are a fair part of what it means, and not nearly everything."""
        return self.kinds is None and len(self.classes) <= _GENERAL


class Word(NamedTuple):
    """The meanings of a word that have classes, and others that WordNet's texts have more often.

    Attributes:
      meant: the main one; None if it is not clear.
      others: the rest.
    """

    meant: Meaning | None
    others: tuple[Meaning, ...]


class Nouns:
    """The nouns that stand for classes of a network, if its classes are of ImageNet's 1,000; else none.

    A class is ImageNet's if one of its names is the id of a synset, and all 1,000 are if they have ImageNet's names.
    There are no nouns for a network that has other synsets, too, such as those of ImageNet-21k: a noun would stand for
    a part of its classes.
    """

    def __init__(self, class_names: Sequence[Sequence[str]]):
        """Takes the names of each class, its own name first."""
        self._below: dict[str, list[int]] = {}
        for index, synset in enumerate(_synsets_of(class_names)):
            for above in _table().with_hypernyms(synset) if synset else ():
                self._below.setdefault(above, []).append(index)

    def words(self) -> Iterator[str]:
        """All plain words of which `find` has a meaning."""
        return filter(self.find, _table().synset_of if self._below else ())

    def find(self, word: str) -> Word | None:
        """The meanings of a plain word or of a synset's id; None if none of them has a class."""
        if not self._below:
            return None
        table = _table()
        one = word if word in table.synsets else table.synset_of.get(word)
        meant, *rest = map(self._meaning, table.words.get(word, [one]))
        others = tuple(other for other in rest if other and (other.classes or not other.synset))
        if meant and meant.classes:
            return Word(meant, others)
        return Word(None, others) if any(other.classes for other in others) else None

    def singular(self, word: str) -> str | None:
        """The singular of an irregular plural, such as "mice", whose meanings have classes."""
        return _table().singulars.get(word) if self._below else None

    def _meaning(self, synset: str | None) -> Meaning | None:
        """The meaning of a synset, or of a gloss."""
        if synset is None:
            return None
        if (entry := _table().synsets.get(synset)) is None:
            return Meaning(gloss=synset)
        classes = tuple(self._below.get(synset, ()))
        return Meaning(entry.get("gloss", ""), synset, _names(entry), classes, entry.get("kinds"))


class _Table(NamedTuple):
    """What nouns.json.gz holds: see docs/make_nouns.py.

    Attributes:
      synsets: the entries of ImageNet's synsets and of those above them, by their ids.
      words: what words with several meanings mean: see `Word`. Each is a synset or a gloss; the first may be None.
      singulars: those of irregular plurals.
      synset_of: a synset of each word; the only one unless the word is one of `words`.
      classes: the synsets that are ImageNet's classes, in their order.
    """

    synsets: Mapping[str, Mapping[str, Any]]
    words: Mapping[str, Sequence[str | None]]
    singulars: Mapping[str, str]
    synset_of: Mapping[str, str]
    classes: Sequence[str]

    def with_hypernyms(self, synset: str) -> set[str]:
        return {synset}.union(*map(self.with_hypernyms, self.synsets[synset]["below"]))


@functools.cache
def _table() -> _Table:
    content = importlib.resources.files(__package__).joinpath("nouns.json.gz").read_bytes()
    values = json.loads(gzip.decompress(content))
    synsets = values["synsets"]
    synset_of = {plain(name): synset for synset, entry in synsets.items() for name in _names(entry)}
    classes = [synset for synset, entry in synsets.items() if entry.get("class")]
    return _Table(synsets, values["words"], values["singulars"], synset_of, classes)


def imagenet_names() -> Names:
    """The names of ImageNet's 1,000 classes, as `known_names` has them: read without timm, which loads torch."""
    table = _table()
    return tuple((*_names(table.synsets[synset]), synset) for synset in table.classes)


def _names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(entry["names"].split(", "))


def _synsets_of(class_names: Sequence[Sequence[str]]) -> list[str | None]:
    """The synset of each class, None for classes of other data sets."""
    ids = _table().classes
    if len(class_names) == len(ids):
        own_names = [plain(names[0]) for names in imagenet_names()]
        same = sum(plain(names[0]) == own for names, own in zip(class_names, own_names, strict=True) if names)
        if same > _ALIKE * len(ids):
            return [*ids]
    found = [next(filter(_ID.fullmatch, names), None) for names in class_names]
    return found if {*found} <= {*ids, None} else [None] * len(found)
