"""The names of a network's classes: from a file, ImageNet's, or none.

Each class has a tuple of names, the first of which is shown; the tuple is empty for a class without a name. An index is
never used as a name: libraries number the folders "1" to "12" in the order of text, 1, 10, 11, 12, 2, so that class 1
is folder "10".
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

Names = tuple[tuple[str, ...], ...]

_EXPECTED = (
    'expected a list of names (or of lists of names), an object from name to index, as {"cat": 0}, or one from index '
    'to name, as {"0": "cat"}'
)


@functools.cache
def known_names(count: int) -> Names:
    """Guesses class names from the number of classes.

    They are ImageNet's where one of its versions has as many classes (1,000; 11,821; 21,841 and so on): the names of
    the synset, and last its id. Otherwise they are empty.
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return ((),) * count
    info = ImageNetInfo(subset)
    return tuple(
        (*info.index_to_description(index).split(", "), info.index_to_label_name(index)) for index in range(count)
    )


def shown(names: Sequence[Sequence[str]], index: int) -> str:
    """Gives the name of a class for people to read."""
    return names[index][0] if names[index] else f"class {index}"


def names_from_lines(text: str) -> Names:
    """Parses a text with one class a line, in the order of outputs. Raises a ValueError for an empty line inside."""
    return _checked([line] for line in text.rstrip().splitlines())


def names_from_json(values: Any) -> Names:
    """Parses class names from a JSON value.

    Args:
      values: a list with a name or a list of names for each output; an object from name to index, such as the
        `class_to_idx` of torchvision's ImageFolder; or one from index to a name or a list of names.

    Raises:
      ValueError: the value is none of these, a name is empty, or the indices are not 0, 1, 2 and so on.
    """
    if isinstance(values, Mapping):
        values = _by_index(values)
    if not isinstance(values, list | tuple):
        raise ValueError(f"{type(values).__name__} {str(values)[:60]!r}; {_EXPECTED}")
    return _checked([names] if isinstance(names, str) else names for names in values)


def _by_index(values: Mapping[str, Any]) -> list[Any]:
    """Sorts the names of an object by index."""
    if all(type(index) is int for index in values.values()):
        found: dict[int, Any] = {}
        for name, index in values.items():
            found.setdefault(index, []).append(name)
    elif all(name.isascii() and name.isdigit() for name in values):
        found = {int(index): names for index, names in values.items()}
    else:
        raise ValueError(f"an object of other things; {_EXPECTED}")
    if sorted(found) != list(range(len(found))):
        some = ", ".join(map(str, sorted(found)[:8])) + (" and so on" if len(found) > 8 else "")
        raise ValueError(f"the indices are {some}; expected each from 0 to {len(found) - 1} once")
    return [found[index] for index in range(len(found))]


def _checked(classes: Any) -> Names:
    names = []
    for index, of_class in enumerate(classes):
        if not isinstance(of_class, list | tuple) or not all(isinstance(name, str) for name in of_class):
            raise ValueError(f"class {index} is {of_class!r}; {_EXPECTED}")
        names.append(tuple(name.strip() for name in of_class))
        if "" in names[-1]:
            raise ValueError(f"class {index} has an empty name; expected a name for each output, in their order")
    return tuple(names)
