"""Reads the classes of a data set in the order of their numbers: classes.txt, or YOLO's data.yaml."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from camboxes.pipeline.formats.yolo import class_names


def read(path: str) -> list[str]:
    """Reads a list of class names: a text with one a line, or the names of a .yaml file.

    Raises:
      ValueError: the file is neither, or a name is missing or stands twice.
    """
    source, file = f"classes {path!r}", Path(path)
    try:
        text = file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{source}: there is no file at this path") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not UTF-8 ({error}); save it as UTF-8") from None
    if file.suffix.lower() in (".yaml", ".yml"):
        try:
            names = class_names(yaml.safe_load(text), source)
        except yaml.YAMLError as error:
            raise ValueError(f"{source} is not YAML ({' '.join(str(error).split()):.200})") from None
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"{source}: the names have the numbers {sorted(names)}; expected each from 0 on")
        found = [names[number] for number in sorted(names)]
    else:
        found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise ValueError(f"{source} names no class; expected one a line")
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise ValueError(f"{source} names {', '.join(map(repr, twice))} twice; expected each class once")
    return found


def check_complete(classes: Sequence[str], labels: Sequence[str], path: str) -> None:
    """Raises a ValueError where a list of classes lacks a label."""
    if lacking := [label for label in labels if label not in classes]:
        raise ValueError(
            f"classes {path!r} has no {', '.join(map(repr, lacking))}, as the run's labels do; add what is missing "
            "at the end of the file, so that no number changes, or leave a label out with --background"
        )
