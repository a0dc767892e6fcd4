"""Matches a data set's labels with the classes of a network."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from camboxes.models.counts import counted
from camboxes.transforms.planning.class_words import ClassWords, Match
from camboxes.transforms.planning.unmatched import UnmatchedNameError, explained

ClassNames = Sequence[str | Sequence[str]]
LabelMap = Mapping[str, "int | str | Sequence[int | str] | None"]

_UNDECIDED = "?"  # in a list of a label map: somebody has to choose
_WRITTEN = 12  # classes of a label, at most, that a starter map has by their names


@dataclasses.dataclass(frozen=True)
class Category:
    """One of the data set's labels.

    Attributes:
      id: from 1, in the sorted order of the labels; 0 for a label that is background, which is no category.
      name: the label.
      class_indices: the network's classes that the label stands for; empty if the label map says so.
    """

    id: int
    name: str
    class_indices: tuple[int, ...]


class UnmatchedLabelsError(ValueError):
    """Labels match no class, or it is not clear which. The message lists each label with its candidates.

    Attributes:
      matched: the categories of the labels that match.
      starter: a label map of all labels for somebody to edit: see `LabelMatcher.starter`.
    """

    def __init__(self, message: str, matched: Sequence[Category] = (), starter: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.matched = matched
        self.starter = starter or {}


class UnnamedClassesError(UnmatchedLabelsError):
    """Labels cannot be matched because the network's classes have no names."""


@functools.lru_cache(maxsize=1)
def _words(class_names: tuple[str | tuple[str, ...], ...]) -> ClassWords:
    """Kept: a job makes several matchers for one network, and to read ImageNet's names takes 70 ms."""
    return ClassWords(class_names)


class LabelMatcher:
    """Finds the classes that a label stands for.

    The label map decides if it has the label. Otherwise the label is, in this order: the first name of a class; another
    of its names, such as a synonym or the id of a synset; if the classes are ImageNet's, a word for several of them,
    such as "dog", see `Nouns`. What is none of these is tried as a plural, and without spaces: "Dogs", "diningtable".
    Case, underscores, hyphens and the encoding of accents do not matter. A label is never read as a class index;
    indices are the numbers in a label map.
    """

    def __init__(self, class_names: ClassNames, label_map: LabelMap | None = None):
        """Takes the names of each class, and an optional map from labels to classes.

        Args:
          class_names: the names of each class, its own name first; empty for a class without a name.
          label_map: class indices, names and words as labels may be, lists of these, or an empty list or None for a
            label that stands for no class of the network.

        Raises:
          UnmatchedLabelsError: the label map names a class that the network does not have, holds something else, or
            leaves a label undecided.
        """
        self.words = _words(tuple(names if isinstance(names, str) else tuple(names) for names in class_names))
        self._label_map = label_map or {}
        self._mapped: dict[str, tuple[int, ...]] = {}
        problems = []
        for label, classes in self._label_map.items():
            try:
                self._mapped[label] = self._entry(classes)
            except (UnmatchedNameError, UnmatchedLabelsError) as error:
                problems.append(f"label map, {label!r}: {error}")
        if problems:
            raise UnmatchedLabelsError("\n".join(problems))

    def match(self, label: str) -> tuple[int, ...]:
        """The classes that a label stands for, in ascending order.

        Raises:
          UnmatchedLabelsError: no class answers to the label, or it is not clear which.
        """
        try:
            return self.read(label).classes
        except UnmatchedNameError as error:
            raise UnmatchedLabelsError(str(error)) from error

    def read(self, label: str) -> Match:
        """What a label is taken for.

        Raises:
          UnmatchedNameError: no class answers to the label, or it is not clear which.
          UnnamedClassesError: it cannot be said, for the classes have no names.
        """
        return Match(self._mapped[label]) if label in self._mapped else self._find(label)

    def categories(self, labels: Iterable[str]) -> list[Category]:
        """The data set's categories: its labels, sorted, with ids from 1.

        Raises:
          UnmatchedLabelsError: lists every label that does not match, each with its candidates; or the network's
            classes have no names.
        """
        categories: list[Category] = []
        problems: dict[str, UnmatchedNameError] = {}
        unnamed = []
        for number, label in enumerate(sorted(set(labels)), start=1):
            try:
                categories.append(Category(number, label, self.read(label).classes))
            except UnnamedClassesError:
                unnamed.append(label)
            except UnmatchedNameError as error:
                problems[label] = error
        if unnamed:
            raise UnnamedClassesError(self._unnamed(unnamed), categories)
        if problems:
            raise UnmatchedLabelsError(
                f"no single class of the network matches {len(problems)} of "
                f"{counted(len(problems) + len(categories), 'label')}; map them with --label-map FILE, a JSON object "
                "from label to class names or indices (an empty list: stands for none), or put your labels into words "
                "with --model open_clip:NAME --prompts FILE (docs/how-to/labels-in-words.md):\n"
                + "\n".join(f"  {error}" for error in problems.values()),
                categories,
                self._starter(problems, categories),
            )
        return categories

    def _starter(self, problems: Mapping[str, UnmatchedNameError], matched: Sequence[Category]) -> dict[str, Any]:
        """A label map for somebody to edit. It is refused until the labels that do not match are decided."""
        starter: dict[str, Any] = {label: [_UNDECIDED, *error.candidates] for label, error in problems.items()}
        for category in matched:
            label, classes = category.name, category.class_indices
            if label in self._mapped:
                starter[label] = self._label_map[label]
            elif len(classes) > _WRITTEN:
                starter[label] = label
            else:
                names = [self.words.written(index) for index in classes]
                starter[label] = names[0] if len(names) == 1 else names
        return starter

    def _entry(self, classes: Any) -> tuple[int, ...]:
        """The classes of an entry of the label map."""
        wanted = [] if classes is None else classes
        if not isinstance(wanted, Sequence) or isinstance(wanted, str):
            wanted = [wanted]
        if _UNDECIDED in wanted:
            rest = json.dumps([item for item in wanted if item != _UNDECIDED], ensure_ascii=False)
            raise UnmatchedLabelsError(
                f'not decided yet: remove "{_UNDECIDED}", and from {rest} what it does not stand for; an empty '
                "list stands for no class"
            )
        return tuple(sorted({index for item in wanted for index in self._item(item)}))

    def _item(self, item: Any) -> tuple[int, ...]:
        if isinstance(item, bool) or not isinstance(item, int | str):
            raise UnmatchedLabelsError(f"{item!r} is no class; expected an index, a name, or a list of them")
        if isinstance(item, str):
            return self._find(item).classes
        if not 0 <= item < len(self.words.class_names):
            raise UnmatchedLabelsError(f"class index {item} is not in 0 to {len(self.words.class_names) - 1}")
        return (item,)

    def _find(self, name: str) -> Match:
        if not self.words:
            raise UnnamedClassesError(self._unnamed([name]))
        match = self.words.find(name)
        if match is None or not match.classes:
            raise explained(name, match, self.words)
        return match

    def _unnamed(self, labels: Sequence[str]) -> str:
        some = ", ".join(map(repr, labels[:5])) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
        classes = counted(len(self.words.class_names), "class")
        return (
            f"the network has {classes} without names, so no label can be matched with one: {some}. Name them with "
            "--classes FILE, one name a line in the order of the network's outputs (torchvision's ImageFolder sorts "
            "its folders as text: 1, 10, 2); or map each label to a class index with --label-map FILE, as in "
            f"{json.dumps({labels[0]: 0}, ensure_ascii=False)} (docs/how-to/own-networks.md)"
        )
