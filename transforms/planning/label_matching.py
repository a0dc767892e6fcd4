"""Matches a data set's labels with the classes of a network."""

import dataclasses
import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from camboxes.models.counts import counted
from camboxes.transforms.sources.splits import split_called

ClassNames = Sequence[str | Sequence[str]]
LabelMap = Mapping[str, "int | str | Sequence[int | str] | None"]


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
    """Labels match no class, or more than one. The message lists each label with its candidates.

    Attributes:
      matched: the categories of the labels that match.
    """

    def __init__(self, message: str, matched: Sequence[Category] = ()):
        super().__init__(message)
        self.matched = matched


class UnnamedClassesError(UnmatchedLabelsError):
    """Labels cannot be matched because the network's classes have no names."""


class LabelMatcher:
    """Finds the classes that a label stands for.

    The label map decides if it has the label. Otherwise the label is compared with the first name of each class, then
    with all names (synonyms, synset ids). Case, underscores, hyphens and the encoding of accents do not matter. A label
    is never read as a class index; indices are the numbers in a label map.
    """

    def __init__(self, class_names: ClassNames, label_map: LabelMap | None = None):
        """Takes the names of each class, and an optional map from labels to classes.

        Args:
          class_names: the names of each class, its own name first; empty for a class without a name.
          label_map: class indices, class names, lists of either, or an empty list or None for a label that stands for
            no class of the network.

        Raises:
          UnmatchedLabelsError: the label map names a class that the network does not have, or holds something else.
        """
        self._class_names = [(names,) if isinstance(names, str) else names for names in class_names]
        self._own: dict[str, list[int]] = {}
        self._any: dict[str, list[int]] = {}
        for index, names in enumerate(self._class_names):
            for found, of_class in ((self._own, names[:1]), (self._any, names)):
                for name in {_plain(name) for name in of_class}:
                    found.setdefault(name, []).append(index)
        self._mapped: dict[str, tuple[int, ...]] = {}
        problems = []
        for label, classes in (label_map or {}).items():
            wanted = [] if classes is None else classes
            if not isinstance(wanted, Sequence) or isinstance(wanted, str):
                wanted = [wanted]
            try:
                self._mapped[label] = tuple(sorted({self._index(item) for item in wanted}))
            except UnmatchedLabelsError as error:
                problems.append(f"label map, {label!r}: {error}")
        if problems:
            raise UnmatchedLabelsError("\n".join(problems))

    def match(self, label: str) -> tuple[int, ...]:
        """The classes that a label stands for, in ascending order.

        Raises:
          UnmatchedLabelsError: no class or more than one answers to the label.
        """
        return self._mapped[label] if label in self._mapped else (self._index(label),)

    def categories(self, labels: Iterable[str]) -> list[Category]:
        """The data set's categories: its labels, sorted, with ids from 1.

        Raises:
          UnmatchedLabelsError: lists every label that does not match, each with its candidates; or the network's
            classes have no names.
        """
        categories: list[Category] = []
        problems, unnamed = [], []
        for number, label in enumerate(sorted(set(labels)), start=1):
            try:
                categories.append(Category(number, label, self.match(label)))
            except UnnamedClassesError:
                unnamed.append(label)
            except UnmatchedLabelsError as error:
                problems.append(f"  {error}")
        if unnamed:
            raise UnnamedClassesError(self._unnamed(unnamed), categories)
        if problems:
            raise UnmatchedLabelsError(
                f"{len(problems)} of {len(problems) + len(categories)} labels match no single class of the network; "
                "map them with --label-map FILE, a JSON object from label to class names or indices "
                "(an empty list: stands for none), or put your labels into words with --model open_clip:NAME --prompts "
                "FILE (docs/prompts.md):\n" + "\n".join(problems),
                categories,
            )
        return categories

    def _index(self, name: int | str) -> int:
        if isinstance(name, bool) or not isinstance(name, int | str):
            raise UnmatchedLabelsError(f"{name!r} is no class; expected an index, a name, or a list of them")
        if isinstance(name, int):
            if not 0 <= name < len(self._class_names):
                raise UnmatchedLabelsError(f"class index {name} is not in 0 to {len(self._class_names) - 1}")
            return name
        if not self._any:
            raise UnnamedClassesError(self._unnamed([name]))
        found = self._own.get(_plain(name)) or self._any.get(_plain(name)) or []
        if len(found) == 1:
            return found[0]
        if found:
            candidates = "; ".join(f"{index}: {', '.join(self._class_names[index])}" for index in found)
            raise UnmatchedLabelsError(f"{name!r} is the name of {len(found)} classes: {candidates}")
        if split_called(name):
            raise UnmatchedLabelsError(
                f"{name!r} is the name of no class, but of a split; splits are taken for such where all folders are "
                "called so, and hold folders of labels (docs/data.md)"
            )
        if name.strip().isdecimal():
            raise UnmatchedLabelsError(
                f"{name!r} is the name of no class; if it is meant as a class index, the label map says so by a number "
                f"without quotes: {json.dumps({name: int(name)})}"
            )
        near = difflib.get_close_matches(_plain(name), self._any, n=3, cutoff=0.5)
        candidates = ", ".join(f"{key} ({self._any[key][0]})" for key in near) or "nothing near"
        raise UnmatchedLabelsError(f"{name!r} is the name of no class; nearest: {candidates}")

    def _unnamed(self, labels: Sequence[str]) -> str:
        some = ", ".join(map(repr, labels[:5])) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
        return (
            f"the network has {counted(len(self._class_names), 'class')} without names, so no label can be matched "
            f"with one: {some}. Name them with --classes FILE, one name a line in the order of the network's outputs "
            "(torchvision's ImageFolder sorts its folders as text: 1, 10, 2); or map each label to a class index with "
            f"--label-map FILE, as in {json.dumps({labels[0]: 0}, ensure_ascii=False)} (docs/own_networks.md)"
        )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()
