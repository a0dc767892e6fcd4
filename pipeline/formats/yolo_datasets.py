"""Reads the true boxes of a YOLO data set on this machine. Images and labels are found as ultralytics finds them.

data.yaml names the classes and, for each split, its images: a folder, a text file with one path a line, or a list of
these. The labels of .../images/a.jpg are .../labels/a.txt; an image without that file holds no object.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from camboxes.pipeline.formats.ground_truth import GroundTruth, GroundTruthBuilder
from camboxes.pipeline.formats.yolo import class_names
from camboxes.transforms.images.bad_images import BadImageError
from camboxes.transforms.images.decoding import ACCEPTED, opened, orientation
from camboxes.transforms.sources.class_folders import IMAGE_SUFFIXES

_SPLITS = ("train", "val", "test")
_MARGIN = 0.01  # beyond the image's border that ultralytics accepts


def read(file: Path, source: str) -> GroundTruth:
    """Reads the data set that a data.yaml describes; errors name `source`.

    The path of an image begins below the folder that data.yaml names, or below the folder that holds all images of a
    text file. Images that would share a path have theirs from the data set's root on.

    Raises:
      ValueError: it describes no such data set, an image cannot be read, a line holds no box, or there is no box.
    """
    found = GroundTruthBuilder(source)
    source = f"ground truth {source!r}"
    data_set = _describe(file, source)
    found.categories.update(data_set.names.values())
    images = _images(data_set, source)
    if not any(_label_file(image).is_file() for image in images):
        first = next(iter(images))
        raise ValueError(
            f"{source} has {len(images)} images and no labels; expected those of {str(first)!r} in "
            f"{str(_label_file(first))!r}"
        )
    sharing = Counter(images.values())
    for image, path in images.items():
        unique = path if sharing[path] == 1 else _below(image, data_set.root)
        _read_image(image, unique, data_set, found)
    return found.build()


class _DataSet(NamedTuple):
    root: Path  # the folder that the places of images begin from
    images: list[str]  # folders and text files
    names: Mapping[int, str]  # of the classes
    is_pose: bool  # key points follow each box


def _describe(file: Path, source: str) -> _DataSet:
    """Reads a data.yaml."""
    try:
        data = yaml.safe_load(file.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not YAML ({' '.join(str(error).split()):.200})") from None
    names = class_names(data, source)
    images = []
    for split in _SPLITS:
        given = data.get(split) or []
        images += given if isinstance(given, list) else [given]
    if not images or not all(isinstance(place, str) for place in images):
        raise ValueError(f"{source}: train, val and test are {images!r:.80}; expected folders of images")
    # A data set may have been moved, and `path` be that of another machine.
    root = file.parent / str(data.get("path") or ".")
    root = root if root.is_dir() else file.parent
    return _DataSet(root.absolute(), images, names, "kpt_shape" in data)


def _images(data_set: _DataSet, source: str) -> dict[Path, str]:
    """The image files of all splits, and the path that each is known by."""
    found: dict[Path, str] = {}
    for place in data_set.images:
        # Roboflow writes ../train/images though train stands beside data.yaml. ultralytics reads that, too.
        options = [data_set.root / place, data_set.root / place.removeprefix("../")]
        if folder := next(filter(Path.is_dir, options), None):
            files = sorted(each for each in folder.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES)
        elif listed := next(filter(Path.is_file, options), None):
            files = [_listed(line, listed, data_set.root, where) for where, line in _lines(listed)]
            folder = Path(os.path.commonpath([each.parent for each in files])) if files else listed.parent
        else:
            raise ValueError(f"{source}: there is no {place!r} in {str(data_set.root)!r}; expected a folder of images")
        for each in files:
            found.setdefault(Path(os.path.normpath(each)), _below(each, folder))
    if not found:
        raise ValueError(f"{source}: no images in {', '.join(data_set.images)}; labels are read by their images")
    return found


def _listed(line: str, file: Path, root: Path, where: str) -> Path:
    """An image that a text file names."""
    for folder in (file.parent, root):
        if (folder / line).is_file():
            return folder / line
    raise ValueError(f"{where}: there is no image {line!r:.200}; expected its path from the folder of this file")


def _read_image(image: Path, path: str, data_set: _DataSet, found: GroundTruthBuilder) -> None:
    label_file = _label_file(image)
    lines = _lines(label_file) if label_file.is_file() else []
    if not lines:
        found.add_image(path, None, None, str(image))
        return
    width, height = _upright_size(image)
    found.add_image(path, width, height, str(image))
    for where, line in lines:
        number, (x, y, across, down) = _box(line.split(), data_set.is_pose, where)
        if number not in data_set.names:
            raise ValueError(f"{where}: there is no class {number} in data.yaml, which names {len(data_set.names)}")
        box = [(x - across / 2) * width, (y - down / 2) * height, across * width, down * height]
        found.add_box(path, data_set.names[number], box, False, where)


def _box(cells: Sequence[str], is_pose: bool, where: str) -> tuple[int, Sequence[float]]:
    """A line's class, and centre x, centre y, width and height as shares of the image; a polygon's are of its box."""
    try:
        number, shares = int(float(cells[0])), [float(cell) for cell in cells[1:]]
    except ValueError:
        raise ValueError(f"{where}: {' '.join(cells)!r:.80}; expected numbers alone") from None
    if is_pose:
        shares = shares[:4]
    is_polygon = len(shares) >= 6 and len(shares) % 2 == 0
    if not (len(shares) == 4 or is_polygon):
        raise ValueError(
            f"{where}: {len(cells)} numbers; expected a class and centre x, centre y, width and height, or a class and "
            "the corners of a polygon"
        )
    if not all(-_MARGIN <= share <= 1 + _MARGIN for share in shares):  # NaN is not
        raise ValueError(f"{where}: {' '.join(cells)!r:.80}; expected shares of the image's sides, from 0 to 1")
    if is_polygon:
        xs, ys = shares[::2], shares[1::2]
        shares = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]
    return number, shares


def _label_file(image: Path) -> Path:
    """Where an image's labels stand: the last folder called images is called labels."""
    return Path("/labels/".join(str(image).rsplit("/images/", 1))).with_suffix(".txt")


def _lines(file: Path) -> list[tuple[str, str]]:
    """The lines of a text file that are not blank, each with its place."""
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"ground truth {str(file)!r} is not UTF-8 ({error}); save it as UTF-8") from None
    return [(f"ground truth {str(file)!r}, line {n}", line.strip()) for n, line in enumerate(lines, 1) if line.strip()]


def _upright_size(image: Path) -> tuple[int, int]:
    """Width and height in pixels, after EXIF orientation."""
    try:
        with opened(image.read_bytes(), ACCEPTED) as header:
            width, height = header.size
            return (height, width) if orientation(header) > 4 else (width, height)
    except BadImageError as error:
        raise ValueError(f"ground truth: the size of {str(image)!r} cannot be read ({error})") from None


def _below(file: Path, folder: Path) -> str:
    return Path(os.path.relpath(file, folder)).as_posix()
