"""Paths of images inside containers: the container's path and the member's name, as in train-0001.tar/cat.jpg.

Such a path is split by names alone. Names of members are changed where they would mislead.
"""

import re

# Compressed containers are included, so that they can be refused with a reason.
TAR = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz)$", re.IGNORECASE)
TFRECORD = re.compile(r"\.tfrec(?:ords?)?(?:-\d+-of-\d+)?(?:\.gz)?$", re.IGNORECASE)
PARQUET = re.compile(r"\.parquet$", re.IGNORECASE)


def split(path: str) -> tuple[str, str] | None:
    """Splits "root/train-0001.tar/cat.jpg" into "root/train-0001.tar" and "cat.jpg"; nothing is opened.

    The last part of the path that is named like a container counts: folders of Parquet files often are, too.

    Returns:
      The container's path and the member's name; None if no part before the last one is named like a container.
    """
    parts = path.split("/")
    for end in range(len(parts) - 1, 0, -1):
        if _is_called_like_a_container(parts[end - 1]):
            return "/".join(parts[:end]), "/".join(parts[end:])
    return None


def safe(name: str) -> str:
    """Makes a name from inside a container a relative path that stays inside, and that JSON can hold.

    Slashes become forward ones; "." and empty parts are dropped, ".." becomes "_". A folder that is named like a
    container gets an underscore at its end, so that `split` finds the real container.
    """
    text = name.replace("\\", "/").replace("\0", "_").encode("utf-8", "backslashreplace").decode()
    *folders, last = [part for part in text.split("/") if part not in ("", ".")] or [""]
    folders = [f"{folder}_" if _is_called_like_a_container(folder) else folder for folder in folders]
    return "/".join("_" if part == ".." else part for part in (*folders, last))


def _is_called_like_a_container(part: str) -> bool:
    return any(ending.search(part) for ending in (TAR, TFRECORD, PARQUET))
