"""Lists data sets of class folders: LABEL/IMAGE.jpg, or SPLIT/LABEL/IMAGE.jpg."""

import fnmatch
import functools
import glob
import itertools
import os
import posixpath
import re
from collections.abc import Iterator

from camboxes.models.counts import counted
from camboxes.transforms import storage
from camboxes.transforms.sources.entries import Entry, PassedOver, SourceError, SplitFolder, Statement
from camboxes.transforms.sources.label_values import plain_text
from camboxes.transforms.sources.passed_over import Tally
from camboxes.transforms.sources.splits import splits_among

# Files with other endings in a class folder are counted and passed over; a manifest may name any file.
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jpe .jpeg .jpg .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)

# What file managers, cameras, NAS and tools leave among photographs: thumbnails, deleted files, copies.
# Names that begin with a dot are ignored, too. A pattern matches the whole name of a folder or a file; case is ignored.
SYSTEM_NAMES = {
    "Synology": ("@eaDir", "#recycle", "#snapshot", "@tmp", "@SynoResource", "@sharesnap"),
    "QNAP": ("@Recycle", "@Recently-Snapshot", "@Transcode"),
    "NetApp, Samba": ("~snapshot",),
    "macOS": ("__MACOSX", "Icon\r", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder"),
    "Windows": ("$RECYCLE.BIN", "RECYCLER", "System Volume Information", "Thumbs.db", "ehthumbs*.db", "desktop.ini"),
    "Linux": ("lost+found",),
    "cameras": ("THMBNL", "CANONMSC"),
    "iTunes, Lightroom, Capture One": ("iPod Photo Cache", "*.lrdata", "CaptureOne"),
    "Syncthing": ("~syncthing~*",),
    "developers' tools": ("__pycache__", "node_modules"),
}
_SYSTEM = re.compile("|".join(fnmatch.translate(name) for of in SYSTEM_NAMES.values() for name in of), re.IGNORECASE)

NO_IMAGE = "no image by its name"
NO_FOLDER = "lies in no class folder"
HIDDEN = "hidden: a name on its path begins with a dot"
SYSTEM = "made by the system: a name on its path is one of a file manager's, a camera's or a NAS's"
EMPTY = "an empty folder"


def read_class_folders(folder: str) -> Iterator[Statement]:
    """Lists all files below a folder; an image's label is its topmost folder, or the one below its split.

    Args:
      folder: absolute, local or on any Beam filesystem. It is listed twice if its folders are named like splits.

    Yields:
      First each split, then images and passed-over files; all with whole paths.

    Raises:
      SourceError: there is no image in a class folder; or see `splits_among`.
    """
    prefix = folder.rstrip("/") + "/"
    try:
        splits = splits_among(path for path in _files_below(folder) if _why_not(path, 1) is None)
    except SourceError as error:
        raise SourceError(f"input {folder!r}: {error}") from None
    yield from (SplitFolder(prefix + top, split) for top, split in splits.items())
    empty, depth, passed_over = True, 2 if splits else 1, Tally()
    for path in _files_below(folder):
        above = path.split("/")[:-1]
        label = above[depth - 1] if len(above) >= depth else None
        reason = _why_not(path, depth)
        if reason is None and label is not None:
            empty = False
            yield Entry(prefix + path, (label,))
        elif reason is not None:
            ignored = any(map(why_ignored, above[:depth]))
            item = PassedOver(prefix + path, reason, None if ignored else label)
            passed_over.add(item)
            yield item
    if empty:
        found = "; ".join(
            f"{f'{count.files} {ending}' if ending else counted(count.files, 'file')} "
            f"({count.example.removeprefix(prefix)[:80]}): {reason}"
            for reason, endings in passed_over.kinds.items()
            for ending, count in itertools.islice(endings.items(), 3)
        )
        raise SourceError(
            f"input {folder!r} holds no class folders with images{found and f', but {found}'}; expected "
            f"{posixpath.join(folder, 'LABEL', 'IMAGE.jpg')}, or name a table, or containers: *.tar"
        )


def _why_not(path: str, depth: int) -> str | None:
    """Why a file is not among the images; None for an image at least `depth` folders down."""
    *above, name = path.split("/")
    if reason := next(filter(None, map(why_ignored, (*above, name))), None):
        return reason
    if not name:
        return EMPTY
    if len(above) < depth:
        return NO_FOLDER
    return None if posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES else NO_IMAGE


@functools.lru_cache(maxsize=1024)
def why_ignored(name: str) -> str | None:
    """Why a file or folder of this name, and all below it, is ignored; None if it is not."""
    if name.startswith("."):
        return HIDDEN
    return SYSTEM if _SYSTEM.fullmatch(name) else None


def _files_below(folder: str) -> Iterator[str]:
    """Paths relative to the folder, with forward slashes; a path that ends in a slash is an empty folder."""
    if storage.is_local(folder):
        return map(plain_text, _local_files(folder))
    prefix = folder.rstrip("/") + "/"
    return (plain_text(path.removeprefix(prefix)) for path in storage.matching(f"{glob.escape(prefix)}**"))


def _local_files(folder: str) -> Iterator[str]:
    # Not FileSystems.match: it does not follow linked folders, and data sets of links are common.
    real_folder, listed = os.path.realpath(folder), set()
    for root, folders, files in os.walk(folder, onerror=_not_listed, followlinks=True):
        below, real = posixpath.relpath(root, folder), os.path.realpath(root)
        above = below != "." and os.path.commonpath([real, real_folder]) == real
        if above or (below.split("/")[0], real) in listed:  # links can form cycles
            folders.clear()
            continue
        listed.add((below.split("/")[0], real))
        folders.sort()
        if below != "." and not folders and not files:
            yield f"{below}/"
        yield from (posixpath.normpath(posixpath.join(below, name)) for name in files)


def _not_listed(error: OSError) -> None:
    """Raises for a folder that cannot be listed, as it may be a class; ignored folders often cannot be listed."""
    if not why_ignored(posixpath.basename(error.filename)):
        raise SourceError(
            f"{error.filename!r} cannot be listed ({error.strerror}); allow it, or take it out of the input"
        )
