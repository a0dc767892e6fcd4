"""Background: labels that say that none of a data set's classes is on an image. Such a label is no class."""

import difflib
from collections.abc import Collection, Sequence

from camboxes.transforms.sources.entries import SourceError

BACKGROUND, CONTRADICTION = "background", "contradiction"  # codes of reasons: of skipped and of rejected images

_NEAREST = 3  # labels that an error names


def check_background(background: Collection[str], labels: Collection[str]) -> None:
    """Checks that each background label is among the labels of a data set, and that others are, too.

    Raises:
      SourceError: one is not, with the nearest labels; or there is no other label.
    """
    if isinstance(background, str):
        raise SourceError(f"the background is the text {background!r}; expected a list of labels: [{background!r}]")
    for label in sorted({*background} - {*labels}):
        near = difflib.get_close_matches(label, sorted(labels), n=_NEAREST, cutoff=0.3) or sorted(labels)[:_NEAREST]
        raise SourceError(
            f"background {label!r} is the label of no image; expected one of the input's {len(labels)} labels, such as "
            f"{', '.join(map(repr, near))}"
        )
    if background and not {*labels} - {*background}:
        raise SourceError(
            f"all labels are background ({', '.join(map(repr, sorted(background)))}); expected images of a class, too"
        )


def parted(labels: Sequence[str], background: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An image's labels that are classes, and those that are background; at most one of them can be right."""
    classes = tuple(label for label in labels if label not in background)
    return classes, tuple(label for label in labels if label in background)


def contradiction(classes: Sequence[str], background: Sequence[str]) -> str:
    """What is wrong with an image that has labels of both kinds; without the code."""
    return f"labelled {', '.join(classes)} and also background ({', '.join(background)}); keep what is right"
