"""YOLO labels, as ultralytics reads them: a text file for each image, data.yaml for the data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml


def write(row: Mapping[str, Any]) -> str:
    """The labels of an image: a line for each box.

    A line has the class (from 0), and the centre x, centre y, width and height as shares of the upright image. Eight
    digits bring boxes of images up to 100,000 pixels back to 0.01.
    """
    lines, across, down = [], row["width"], row["height"]
    for box in row["boxes"]:
        x, y, width, height = box["bbox"]
        shares = ((x + width / 2) / across, (y + height / 2) / down, width / across, height / down)
        lines.append(" ".join([str(box["category_id"] - 1), *(f"{share:.8f}" for share in shares)]) + "\n")
    return "".join(lines)


def data_yaml(folders: Mapping[str, str], categories: Sequence[str]) -> str:
    """The description of a data set: for each split the folder of its images, and the names of the classes."""
    # Without `path`, ultralytics looks folders up relative to the file, wherever the data set is moved.
    data = {**folders, "names": dict(enumerate(categories))}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def class_names(data: Any, source: str) -> dict[int, str]:
    """The names of the classes in the contents of a data.yaml, by their numbers.

    Raises:
      ValueError: there are none; names `source`.
    """
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        raise ValueError(f"{source}: names are {names!r:.80}; expected the names of classes, as a list or by number")
    return {number: str(name) for number, name in names.items()}
