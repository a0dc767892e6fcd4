"""What an image without a file of its own is called: "train-0001.tar/cat.jpg", its container's path and its own name.

Where the container ends in such a path is told by names alone; a member's name is made so that it cannot mislead.
"""

import re

# Compressed ones are known by name, too, so that they can be refused with a reason.
TAR = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz)$", re.IGNORECASE)
TFRECORD = re.compile(r"\.tfrec(?:ords?)?(?:-\d+-of-\d+)?(?:\.gz)?$", re.IGNORECASE)
PARQUET = re.compile(r"\.parquet$", re.IGNORECASE)


def split(path: str) -> tuple[str, str] | None:
    """Takes "root/train-0001.tar/cat.jpg" apart into "root/train-0001.tar" and "cat.jpg"; nothing is opened.

    The last part of the path that is called like a container counts, for folders of Parquet files often are, too.

    Returns:
      The container's path and the member's name; None where no part but the last one is called like a container.
    """
    parts = path.split("/")
    for end in range(len(parts) - 1, 0, -1):
        if _is_called_like_a_container(parts[end - 1]):
            return "/".join(parts[:end]), "/".join(parts[end:])
    return None


def safe(name: str) -> str:
    """A name from inside a container as a path that leads nowhere else, and that can stand in JSON.

    It is relative, with forward slashes; "." and empty parts are dropped, ".." becomes "_". A folder that is called
    like a container gets an underscore at its end, so that `split` finds the real one.
    """
    text = name.replace("\\", "/").replace("\0", "_").encode("utf-8", "backslashreplace").decode()
    *folders, last = [part for part in text.split("/") if part not in ("", ".")] or [""]
    folders = [f"{folder}_" if _is_called_like_a_container(folder) else folder for folder in folders]
    return "/".join("_" if part == ".." else part for part in (*folders, last))


def _is_called_like_a_container(part: str) -> bool:
    return any(ending.search(part) for ending in (TAR, TFRECORD, PARQUET))
