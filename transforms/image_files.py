"""Finds the file of an image below the root of its data set, and reads it."""

from camboxes.transforms import storage
from camboxes.transforms.images import BadImageError


def locate(root: str, path: str) -> str | None:
    """Where to read an image; None where its path leads outside the root."""
    if path.startswith(("/", "../")) or path == ".." or "://" in path:
        return None
    return storage.join(root, path)


def read_image(location: str | None) -> bytes:
    """The encoded bytes at a place that `locate` gave.

    Raises:
      BadImageError: outside_root, missing or unreadable.
    """
    if location is None:
        raise BadImageError("outside_root", "the path leads outside the input root, where nothing is read")
    try:
        return storage.read_bytes(location)
    except FileNotFoundError:
        raise BadImageError("missing", "there is no file at this path") from None
    except Exception as error:  # a folder, no permission, a store's own errors
        raise BadImageError("unreadable", f"{type(error).__name__}: {error}") from error
