"""Which of a data set's folders are its splits, not its labels: train/cat/1.jpg beside val/cat/2.jpg."""

import re
from collections.abc import Iterable, Mapping

from camboxes.transforms.sources.entries import SourceError, Split

# What Hugging Face's imagefolder, torchvision, timm and Ultralytics call them.
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
    """The split that a folder of this name usually holds: "train2017", "valid", "test_set"; None for other names."""
    return next((split for split, name in _NAMES.items() if name.fullmatch(folder)), None)


def splits_among(images: Iterable[str]) -> dict[str, Split]:
    """The folders at the top that are splits, and which; none where they are labels.

    They are splits where all are called so, and no image lies directly in one. One folder called "train" with images
    directly in it is a label, as is one beside folders of other names.

    Args:
      images: the paths of all images, relative to the data set, each in a folder. Not read on after the first folder
        that is not called like a split.

    Raises:
      SourceError: folders called like splits hold images directly, which have no label so; or hold splits again.
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
            "folder of class folders, or a manifest with path and label"
        )
    if not direct and labels and all(map(split_called, labels)):
        raise SourceError(
            f"the folders {', '.join(sorted(found))} are called like splits, and hold {', '.join(sorted(labels))}, "
            "which are, too; expected SPLIT/LABEL/IMAGE. Name the folder in which the folders of labels lie"
        )
    return {} if direct else found


def split_of(path: str, splits: Mapping[str, Split]) -> Split | None:
    """The split that an image belongs to; None where the data set has none.

    Args:
      path: the image's, as the listing or the plan has it.
      splits: `Listing.splits` or `PlannedRun.splits`.
    """
    return next((split for folder, split in splits.items() if path.startswith(f"{folder}/")), None)
