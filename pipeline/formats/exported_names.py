"""Names of exported images: trainers want plain ones, and each tells which image of the run it was."""

import hashlib
import posixpath
import re


def stem(path: str) -> str:
    """The name of an exported image and of its labels, without a suffix: ASCII letters, digits, "_" and "-".

    It ends with the first 16 hex digits of the path's SHA-256. So no two images share a name, and an image keeps its
    name when others are added.
    """
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", posixpath.splitext(path)[0])[-80:].strip("_-")
    return f"{readable or 'image'}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
