"""Writes the nouns of WordNet 3.0 that stand for classes of ImageNet: labels are matched by them.

python docs/make_nouns.py /usr/share/wordnet    # of Debian's package wordnet-base

It reads data.noun, index.noun, noun.exc and cntlist.rev, and writes transforms/planning/wordnet/nouns.json.gz: the
synsets of ImageNet's 1,000 classes with all of their hypernyms, and the words with several meanings.
docs/how-to/labels.md says what is decided here, and why.
"""

import collections
import gzip
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from camboxes.models.networks.class_names import known_names
from camboxes.transforms.planning.spelling import plain

WRITTEN = Path(__file__).parent.parent / "transforms" / "planning" / "wordnet" / "nouns.json.gz"
SHOWN = {"05", "06", "08", "17"}  # WordNet's files of animals, artifacts, parts of bodies, natural objects
KNOWN = 0.01  # a hypernym is marked where a smaller share of its hyponyms are classes, or stand above one
USES, TIMES = 10, 10  # a main meaning occurs so often in WordNet's texts, and so many times as often as the others
GLOSS = 90  # characters
LISTED = 2  # meanings without a class


class Synset(NamedTuple):
    """A line of data.noun."""

    names: list[str]
    parents: list[str]
    gloss: str
    uses: dict[str, int]  # in WordNet's texts, of each name in lower case
    is_shown: bool  # it may be what a picture shows, and is no single thing with a name of its own, as a star is


def read_synsets(folder: Path) -> dict[str, Synset]:
    """The synsets by their ids, such as n02084071."""
    counts = {key: int(uses) for key, _, uses in map(str.split, (folder / "cntlist.rev").read_text().splitlines())}
    synsets = {}
    for line in _lines(folder / "data.noun"):
        head, _, text = line.partition(" | ")
        offset, file, _, count, *fields = head.split()
        end = 2 * int(count, 16)
        names = list(zip(fields[:end:2], fields[1:end:2], strict=True))
        pointers = list(zip(fields[end + 1 :: 4], fields[end + 2 :: 4], strict=False))
        synsets[f"n{offset}"] = Synset(
            [name.replace("_", " ") for name, _ in names],
            [f"n{target}" for symbol, target in pointers if symbol in ("@", "@i")],
            _short(text),
            {name.lower(): counts.get(f"{name.lower()}%1:{file}:{int(n, 16):02}::", 0) for name, n in names},
            file in SHOWN and all(symbol != "@i" for symbol, _ in pointers),
        )
    return synsets


def read_senses(folder: Path, synsets: Mapping[str, Synset]) -> dict[str, dict[str, int]]:
    """The synsets of each word in WordNet's order, each with its uses."""
    senses: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for line in _lines(folder / "index.noun"):
        word, _, count, *fields = line.split()
        for offset in fields[-int(count) :]:
            senses[plain(word)][f"n{offset}"] = synsets[f"n{offset}"].uses.get(word, 0)
    return senses


class Meanings:
    """Decides what words mean."""

    def __init__(self, synsets: Mapping[str, Synset], classes: list[str]):
        """Takes WordNet's synsets, and the ids of those that are classes."""
        self._synsets = synsets
        self._classes = {*classes}
        self.below: dict[str, set[str]] = collections.defaultdict(set)  # the classes at and below a synset
        for synset in classes:
            for above in with_hypernyms(synset, synsets):
                self.below[above].add(synset)
        first_names = collections.Counter(plain(synsets[synset].names[0]) for synset in classes)
        self._first = {plain(synsets[synset].names[0]): synset for synset in classes}
        self._first = {name: synset for name, synset in self._first.items() if first_names[name] == 1}

    def of(self, word: str, senses: Mapping[str, int]) -> list[str | None]:
        """The meanings of a plain word.

        Returns:
          First the synset that is meant, None where that is not clear; then what else may be meant: a synset, or the
          gloss of something that is no class.
        """
        found = self._without_narrower([synset for synset in senses if synset in self.below])
        meant = self._first.get(word) or found[0]
        before = list(senses)[: list(senses).index(meant)]
        earlier = [synset for synset in before if synset not in self.below and self._synsets[synset].is_shown]
        others = [synset for synset in found if synset != meant]
        if word in self._first or (meant in self._classes and not others):
            clear = True
        else:
            uses = sum(senses[synset] for synset in others)
            main = not others or senses[meant] >= max(USES, TIMES * uses)
            clear = not earlier and main and self._classes.isdisjoint(others)
        glosses = [self._synsets[synset].gloss for synset in earlier[:LISTED]]
        return [meant, *glosses, *others] if clear else [None, *glosses, meant, *others]

    def _without_narrower(self, found: list[str]) -> list[str]:
        """Leaves synsets out that another one stands above, or that stand for the same classes."""
        sets = [self.below[synset] for synset in found]
        return [
            synset
            for number, synset in enumerate(found)
            if not any(sets[number] < other for other in sets) and sets[number] not in sets[:number]
        ]


def table(folder: Path) -> dict[str, dict[str, Any]]:
    """What the file holds."""
    synsets = read_synsets(folder)
    senses = read_senses(folder, synsets)
    classes = [names[-1] for names in known_names(1000)]
    meanings = Meanings(synsets, classes)
    spoken = sorted({plain(name) for synset in meanings.below for name in synsets[synset].names})
    words = {word: meanings.of(word, senses[word]) for word in spoken}
    words = {
        word: found for word, found in words.items() if len(found) > 1 or len(meanings.below.keys() & senses[word]) > 1
    }
    told = {*meanings.below} - {*classes} | {synset for found in words.values() for synset in found if synset}
    kinds = collections.Counter(above for synset in synsets for above in with_hypernyms(synset, synsets))
    known: dict[str, dict[str, Any]] = {}
    for synset, below in sorted(meanings.below.items()):
        known[synset] = {"names": ", ".join(synsets[synset].names), "below": synsets[synset].parents}
        if synset in classes:
            known[synset]["class"] = True
        if synset in told:
            known[synset]["gloss"] = synsets[synset].gloss
        if len(below) < KNOWN * kinds[synset]:
            known[synset]["kinds"] = kinds[synset] - 1
    singulars = dict(line.split()[:2] for line in _lines(folder / "noun.exc")) | {"people": "person"}
    singulars = {plain(word): plain(singular) for word, singular in singulars.items()}
    singulars = {word: singular for word, singular in singulars.items() if singular in {*spoken}}
    return {"synsets": known, "words": words, "singulars": singulars}


def with_hypernyms(synset: str, synsets: Mapping[str, Synset]) -> set[str]:
    """A synset and all of its hypernyms."""
    return {synset}.union(*(with_hypernyms(parent, synsets) for parent in synsets[synset].parents))


def _short(gloss: str) -> str:
    gloss = gloss.strip().split('; "')[0].split(': "')[0]
    if len(gloss) > GLOSS:
        gloss = gloss.split(";")[0]
    return gloss if len(gloss) <= GLOSS else gloss[:GLOSS].rpartition(" ")[0] + " ..."


def _lines(path: Path) -> Iterator[str]:
    return (line for line in path.read_text().splitlines() if not line.startswith(" "))  # a licence stands first


def main(folder: str) -> None:
    """Writes the file, a line for each entry."""
    parts = []
    for name, entries in table(Path(folder)).items():
        lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
        parts.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    WRITTEN.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
