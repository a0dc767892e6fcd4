"""Finds the photographs of a run as local files for FiftyOne, or copies them from a store."""

import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.contents.shard_contents import seen
from camboxes.transforms.images.decoding import ACCEPTED, BadImageError
from camboxes.transforms.ordered_threads import batched
from camboxes.transforms.records import REJECTED

_AT_ONCE = 10  # files that are read concurrently: a store's client keeps as many connections
_ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".avif"))


def places(
    planned: PlannedRun, rows: Iterable[Mapping[str, Any]], advance: Callable[[int], Any] = lambda done: None
) -> dict[str, str]:
    """The file of each photograph of a local data set, by its path.

    Each photograph is read, so that no reviewer sees a run's boxes on another picture. A rejected image has a path too;
    there may be no file. If the image's path leads outside the root, that is a path below the run's folder without a
    file: nothing outside the root is ever shown.

    The rows need path, digest and status. `advance` gets the number of photographs that are done.

    Raises:
      ValueError: photographs are gone, or are not those that the run saw.
    """
    found, wrong = {}, {}
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in batched(rows, _AT_ONCE):
            locations = [planned.location(row["path"]) for row in some]
            for row, location, reason in zip(some, locations, pool.map(_not_seen, some, locations), strict=True):
                place = location or storage.join(planned.output, "outside_root", _name(row))
                found[row["path"]] = storage.absolute(place)
                if reason:
                    wrong[row["path"]] = reason
            advance(len(some))
    if wrong:
        path, reason = next(iter(wrong.items()))
        raise ValueError(
            f"photographs below {planned.root!r} that are gone, or are not those that the run saw: {len(wrong):,} of "
            f"{len(found):,}, the first of them {path!r} ({reason}); put them back, or label them into another "
            f"--output (camboxes label --reuse {planned.output} takes over what is the same)"
        )
    return found


def _not_seen(row: Mapping[str, Any], location: str | None) -> str | None:
    """The reason why a photograph must not be shown with a row's boxes; None if it may be."""
    if row["status"] == REJECTED:
        return None
    try:
        seen(read_image(location, ACCEPTED), row["digest"])
    except BadImageError as error:
        return str(error)
    return None


def fetched(
    planned: PlannedRun,
    rows: Iterable[Mapping[str, Any]],
    cache: Path,
    limit: int,
    advance: Callable[[int], Any] = lambda done: None,
) -> tuple[dict[str, str], int]:
    """Copies a store's photographs to a cache on this machine, by descending review priority, within a limit of bytes.

    Present copies are not fetched again. The rows need path, digest, status and review.

    Returns:
      The file of each photograph, by its path, and the number of photographs left out because of the limit. Rejected
      images are not fetched; their paths in the cache have no file.

    Raises:
      OSError: a photograph cannot be read, or is not the one that the run saw.
    """
    order = sorted(rows, key=lambda row: (-((row["review"] or {}).get("priority") or 0.0), row["path"]))
    folder = cache / hashlib.sha256(planned.root.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    found = {row["path"]: str(folder / _name(row)) for row in order}
    wanted = [row for row in order if row["status"] != REJECTED]
    advance(len(order) - len(wanted))
    taken, full = 0, False

    def fetch(row: Mapping[str, Any]) -> int:
        return _fetch(planned.location(row["path"]), row["digest"], found[row["path"]])

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in batched(wanted, _AT_ONCE):
            sizes = [0] * len(some) if full else [*pool.map(fetch, some)]
            for row, size in zip(some, sizes, strict=True):
                full = full or taken + size > limit
                if full:  # an earlier call with a higher limit may have left it there
                    Path(found.pop(row["path"])).unlink(missing_ok=True)
                else:
                    taken += size
            advance(len(some))
    return found, len(order) - len(found)


def _fetch(location: str | None, digest: str, place: str) -> int:
    """Copies a photograph unless it is there; returns its size in bytes."""
    if not Path(place).is_file():
        try:
            storage.write_bytes(place, seen(read_image(location, ACCEPTED), digest))
        except BadImageError as error:
            raise OSError(f"{location} cannot be fetched ({error}); put it back, or take it out of the run") from error
    return os.stat(place).st_size  # noqa: PTH116


def _name(row: Mapping[str, Any]) -> str:
    """A file's name in the cache: a hash of path and content, with the path's ending if it is a known one."""
    key = f"{row['path']}\0{row['digest']}".encode("utf-8", "surrogatepass")
    ending = Path(row["path"]).suffix.lower()
    return hashlib.sha256(key).hexdigest()[:32] + (ending if ending in _ENDINGS else "")
