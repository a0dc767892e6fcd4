"""What stands for the classes of a network: their names, and words for several of them."""

import dataclasses
from collections.abc import Iterator, Sequence

from camboxes.transforms.planning.spelling import joined, plain, singulars
from camboxes.transforms.planning.wordnet.nouns import Meaning, Nouns


@dataclasses.dataclass(frozen=True)
class Match:
    """What a name is taken for.

    Attributes:
      classes: the classes that it stands for, in ascending order; empty if it is not clear what is meant.
      name: what it was read as, if it is written otherwise: "dog" for "Dogs"; else None.
      meaning: what it means in WordNet, if it is a word for classes that have other names; else None.
      others: what else it may mean.
    """

    classes: tuple[int, ...]
    name: str | None = None
    meaning: Meaning | None = None
    others: tuple[Meaning, ...] = ()


class ClassWords:
    """The names of a network's classes, and the words that stand for several of them if they are ImageNet's.

    Attributes:
      class_names: the names of each class, its own name first; empty for a class without a name.
    """

    def __init__(self, class_names: Sequence[str | Sequence[str]]):
        """Takes the names of each class."""
        self.class_names = [(names,) if isinstance(names, str) else tuple(names) for names in class_names]
        self._own: dict[str, list[int]] = {}
        self._any: dict[str, list[int]] = {}
        for index, names in enumerate(self.class_names):
            for found, of_class in ((self._own, names[:1]), (self._any, names)):
                for name in {plain(name) for name in of_class}:
                    found.setdefault(name, []).append(index)
        self._nouns = Nouns(self.class_names)
        self._joined = {joined(name): name for name in self}

    def __bool__(self) -> bool:
        """Whether any class has a name."""
        return bool(self._any)

    def __iter__(self) -> Iterator[str]:
        """All plain names and words."""
        yield from dict.fromkeys([*self._any, *self._nouns.words()])

    def find(self, name: str) -> Match | None:
        """What a name is taken for, None if it is not known; see `LabelMatcher` for the order."""
        word = plain(name)
        irregular = self._nouns.singular(word)
        forms = [word, *([irregular] if irregular else singulars(word)), f"{word}s"]
        forms += [self._joined[key] for key in map(joined, forms) if key in self._joined]
        for form in forms:
            if match := self._of_word(form):
                return match if form == word else dataclasses.replace(match, name=form)
        return None

    def with_words(self, name: str) -> list[int]:
        """The classes that have a name with these words in it, in ascending order."""
        wanted = f" {plain(name)} "
        return sorted({index for name, found in self._any.items() if wanted in f" {name} " for index in found})

    def written(self, index: int) -> str | int:
        """A name that stands for a class alone, else its index."""
        return next((name for name in self.class_names[index] if self._stands_for(name, index)), index)

    def shown(self, classes: Sequence[int], most: int = 3) -> str:
        """Some classes by name, and how many more there are."""
        names = [self.class_names[index][0] if self.class_names[index] else f"class {index}" for index in classes]
        return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

    def _stands_for(self, name: str, index: int) -> bool:
        match = self.find(name)
        return match is not None and match.classes == (index,)

    def _of_word(self, word: str) -> Match | None:
        own, found = self._own.get(word, []), self._nouns.find(word)
        if own:
            return Match(tuple(own) if len(own) == 1 else (), others=found.others if found and len(own) == 1 else ())
        if found is None:
            classes = self._any.get(word)
            return Match(tuple(classes) if len(classes) == 1 else ()) if classes else None
        meant = found.meant
        if meant is None:
            return Match((), others=found.others)
        if word in self._any and len(meant.classes) == 1:
            return Match(meant.classes, others=found.others)
        usable = meant.is_usable or word == meant.synset
        return Match(meant.classes if usable else (), meaning=meant, others=found.others)
