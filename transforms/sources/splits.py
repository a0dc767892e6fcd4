"""Tells a data set's splits from its labels: train/cat/1.jpg beside val/cat/2.jpg."""

import re
from collections.abc import Iterable, Mapping

from camboxes.transforms.sources.entries import SourceError, Split

# The names that Hugging Face's imagefolder, torchvision, timm and Ultralytics use.
_WORDS: dict[Split, str] = {
    "train": "train|training|trainval",
    "val": "val|valid|validation|dev",
    "test": "test|testing|eval|evaluation",
}
_NAMES: dict[Split, re.Pattern[str]] = {
    split: re.compile(rf"(?:{words})(?:[-_. ]?(?:set|data|split|images))?(?:[-_. ]?\d+)?", re.IGNORECASE)
    for split, words in _WORDS.items()
}


def split_called(folder: str) -> Split | None:
    """The split that a folder named "train2017", "valid", "test_set" or the like holds; None for other names."""
    return next((split for split, name in _NAMES.items() if name.fullmatch(folder)), None)


def splits_among(images: Iterable[str]) -> dict[str, Split]:
    """The split of each topmost folder; empty if these folders are labels.

    Folders are splits if all are named like splits, and no image lies directly in one. A folder "train" is a label if
    images lie directly in it and it is the only one, or if folders of other names are beside it.

    Args:
      images: the paths of all images, relative to the data set, each in a folder. They are read up to the first folder
        that is not named like a split.

    Raises:
      SourceError: folders named like splits hold images directly, which then have no label; or they hold splits again.
    """
    found: dict[str, Split] = {}
    direct: set[str] = set()
    labels: set[str] = set()
    for path in images:
        top, *below = path.split("/")
        split = split_called(top)
        if split is None:
            return {}
        found[top] = split
        if len(below) == 1:
            direct.add(top)
        else:
            labels.add(below[0] if len(below) > 2 else "")
    if direct and len(found) > 1:
        raise SourceError(
            f"the folders {', '.join(sorted(found))} are called like splits, and images without a label lie directly "
            f"in {', '.join(sorted(direct))}; expected SPLIT/LABEL/IMAGE. Sort them into folders of labels, or name a "
            "folder of class folders, or a table with path and label"
        )
    if not direct and labels and all(map(split_called, labels)):
        raise SourceError(
            f"the folders {', '.join(sorted(found))} are called like splits, and hold {', '.join(sorted(labels))}, "
            "which are, too; expected SPLIT/LABEL/IMAGE. Name the folder in which the folders of labels lie"
        )
    return {} if direct else found


def split_of(path: str, splits: Mapping[str, Split]) -> Split | None:
    """The split of an image, by its path in the plan and `PlannedRun.splits`; None if the data set has no splits."""
    return next((split for folder, split in splits.items() if path.startswith(f"{folder}/")), None)
