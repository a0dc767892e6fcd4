"""Finds the file of an image below the root of its data set, and reads it."""

import os
import re
import stat
import sys
from pathlib import Path

from camboxes.transforms import storage
from camboxes.transforms.containers import any_format, members
from camboxes.transforms.images.decoding import DEFAULT_LIMITS, BadImageError, Limits

_NOT_UTF_8 = re.compile(r"\\udc[89a-f][0-9a-f]")  # how a listing spells a byte of a name that is not UTF-8


def locate(root: str, path: str) -> str | None:
    """The place of an image's file below the root; None if its path, or a link on it, leads outside the root."""
    if path.startswith(("/", "../")) or path == ".." or "://" in path:
        return None
    location = storage.join(root, path)
    if not storage.is_local(root):  # a store has no links
        return location
    real_root = os.path.realpath(root)
    try:
        return location if os.path.commonpath([real_root, os.path.realpath(location)]) == real_root else None
    except ValueError:  # a name with NUL: no such file exists, which reading it will tell
        return location


def read_image(location: str | None, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Reads an image's encoded bytes from a place that `locate` returned.

    Raises:
      BadImageError: outside_root, missing, too_large or unreadable.
    """
    if location is None:
        raise BadImageError(
            "outside_root", "the path, or a link on it, leads outside the input root; --root may be wider"
        )
    try:
        data = _read(location, limits)
        limits.check_bytes(len(data))
        return data
    except BadImageError:
        raise
    except FileNotFoundError:
        if _NOT_UTF_8.search(location):
            raise BadImageError("unreadable", "the file's name is not UTF-8; rename it") from None
        raise BadImageError("missing", "there is no file at this path") from None
    except OSError as error:  # its message names this machine's path, which must not get into a run's results
        raise BadImageError("unreadable", f"{type(error).__name__}: {error.strerror or error}") from error
    except Exception as error:  # a name with NUL, a store's own errors
        raise BadImageError("unreadable", f"{type(error).__name__}: {error}") from error


def _read(location: str, limits: Limits) -> bytes:
    inside = members.split(location)
    local = storage.is_local(location)
    if inside and not (local and Path(inside[0]).is_dir()):
        return any_format.image(*inside)
    if local:
        _check_file(location, limits)
        return storage.read_bytes(location)
    unlimited = limits.max_bytes == sys.maxsize
    return storage.read_bytes(location, -1 if unlimited else limits.max_bytes + 1)  # one more shows a larger file


def _check_file(location: str, limits: Limits) -> None:
    """Refuses what is no regular file, without opening it: a pipe waits for a writer, a device has no end."""
    status = Path(location).stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device"
        raise BadImageError("unreadable", f"a {kind} stands at this path; expected a file")
    limits.check_bytes(status.st_size)
