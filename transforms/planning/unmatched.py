"""Says why a name stands for no class, and what may be meant."""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from camboxes.models.counts import counted
from camboxes.transforms.planning.class_words import ClassWords, Match
from camboxes.transforms.planning.spelling import plain
from camboxes.transforms.planning.wordnet.nouns import Meaning
from camboxes.transforms.sources.splits import split_called

_LISTED = 12  # classes
_NEAR = 0.7  # of 1: how much alike the spelling of two names is


class UnmatchedNameError(ValueError):
    """A name stands for no class, or it is not clear for which.

    Attributes:
      candidates: what may be meant, as a label map has it.
    """

    def __init__(self, message: str, candidates: Sequence[int | str] = ()):
        super().__init__(message)
        self.candidates = candidates


def explained(name: str, match: Match | None, words: ClassWords) -> UnmatchedNameError:
    """The error for a name that `ClassWords.find` has no classes for."""
    if match is None:
        return _unknown(name, words)
    if match.meaning is not None:
        return _too_wide(name, match.meaning, words)
    if match.others:
        return _ambiguous(name, match.others, words)
    return _several(name, words)


def described(meaning: Meaning, words: ClassWords) -> str:
    """A meaning with its classes, for a person."""
    if not meaning.synset:
        return f"{meaning.gloss} (no class)"
    classes = f"{counted(len(meaning.classes), 'class')}: {words.shown(meaning.classes)}"
    return f"{meaning.synset}, {meaning.gloss} ({classes})"


def _ambiguous(name: str, meanings: Sequence[Meaning], words: ClassWords) -> UnmatchedNameError:
    ours = [meaning.synset for meaning in meanings if meaning.synset]
    in_order = sorted(meanings, key=lambda meaning: meaning.synset is None)
    listed = "; ".join(described(meaning, words) for meaning in in_order)
    several = f", or {_entry(name, ours)}" if len(ours) > 1 else ""
    return UnmatchedNameError(
        f"{name!r} may mean: {listed}. Say which in the label map: {_entry(name, ours[0])}{several}", ours
    )


def _too_wide(name: str, meaning: Meaning, words: ClassWords) -> UnmatchedNameError:
    if meaning.kinds is None:
        return UnmatchedNameError(
            f"{name!r} stands for {len(meaning.classes)} of {len(words.class_names)} classes; use a narrower word"
        )
    return UnmatchedNameError(
        f"{name!r} has {meaning.kinds:,} kinds in WordNet, and the network knows few of them: "
        f"{words.shown(meaning.classes)}. If these are enough, say so in the label map: {_entry(name, meaning.synset)}",
        [words.written(index) for index in meaning.classes[:_LISTED]],
    )


def _several(name: str, words: ClassWords) -> UnmatchedNameError:
    found = [index for index, names in enumerate(words.class_names) if plain(name) in map(plain, names)]
    listed = "; ".join(f"{index}: {', '.join(words.class_names[index])}" for index in found)
    return UnmatchedNameError(
        f"{name!r} is the name of {len(found)} classes: {listed}", [words.written(index) for index in found]
    )


def _unknown(name: str, words: ClassWords) -> UnmatchedNameError:
    if split_called(name):
        return UnmatchedNameError(
            f"{name!r} is no class but the name of a split; folders are read as splits if all of them have such "
            "names and hold folders of labels (docs/how-to/inputs.md)"
        )
    if name.strip().isdecimal():
        return UnmatchedNameError(
            f"{name!r} is not the name of a class; if it is a class index, write it into the label map as a number "
            f"without quotes: {json.dumps({name: int(name)})}"
        )
    if named := words.with_words(name):
        listed = ", ".join(f"{words.shown([index])} ({index})" for index in named[:_LISTED])
        more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
        return UnmatchedNameError(
            f"{name!r} is not the name of a class; classes with this word: {listed}{more}",
            [words.written(index) for index in named[:_LISTED]],
        )
    candidates: dict[tuple[int, ...], str] = {}
    for near in (*_last_words(plain(name)), *difflib.get_close_matches(plain(name), [*words], n=3, cutoff=_NEAR)):
        if (match := words.find(near)) and match.classes:
            candidates.setdefault(match.classes, near)
    listed = ", ".join(
        f"{near} ({classes[0] if len(classes) == 1 else f'{len(classes)} classes'})"
        for classes, near in candidates.items()
    )
    return UnmatchedNameError(
        f"{name!r} is not the name of a class; nearest: {listed or 'nothing near'}", [*candidates.values()]
    )


def _last_words(name: str) -> Iterator[str]:
    """What a plain name of several words says that something is: "glass" of "wine glass". The longest comes first."""
    parts = name.split()
    return (" ".join(parts[first:]) for first in range(1, len(parts)))


def _entry(name: str, value: Any) -> str:
    """An entry of a label map."""
    return json.dumps({name: value}, ensure_ascii=False)
