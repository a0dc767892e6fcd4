"""The photographs of a run as local files, which is what FiftyOne shows: where they lie, or copies of a store's."""

import concurrent.futures
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.image_files import read_image
from camboxes.transforms.images import ACCEPTED, BadImageError
from camboxes.transforms.overlap import batched
from camboxes.transforms.records import REJECTED

_AT_ONCE = 10  # requests to a store: as many connections as a client keeps
_ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".avif"))


def places(planned: PlannedRun, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Where each photograph of a local data set lies, by its path.

    A rejected image has a place too, be it empty; one whose path leads outside the root has one below the run's folder,
    where nothing lies: nothing outside the root is ever shown.

    Args:
      planned: the run.
      rows: path, digest and status of its images.

    Raises:
      ValueError: photographs are gone.
    """
    found, missing = {}, []
    for row in rows:
        location = planned.location(row["path"])
        found[row["path"]] = storage.absolute(location or storage.join(planned.output, "outside_root", _name(row)))
        if row["status"] != REJECTED and not Path(found[row["path"]]).is_file():
            missing.append(row["path"])
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(found)} photographs are no longer below {planned.root!r}, the first of them "
            f"{missing[0]!r}; put them back, or start where the run was started if that folder is a relative path"
        )
    return found


def fetched(
    planned: PlannedRun, rows: Iterable[Mapping[str, Any]], cache: Path, limit: int, progress: Any = None
) -> tuple[dict[str, str], int]:
    """Copies a store's photographs to a cache on this machine, those most worth reviewing first.

    Args:
      planned: the run.
      rows: path, digest, status and review of its images.
      cache: the folder of the copies; what it holds already is not fetched again.
      limit: the most bytes that this run's copies may take.
      progress: is told the number of photographs that are done, by `update`.

    Returns:
      Where each photograph lies, by its path, and how many are left out because the limit was reached. Rejected images
      are not fetched, and have a place in the cache where nothing lies.

    Raises:
      OSError: a photograph cannot be read, or is not the one that the run saw.
    """
    order = sorted(rows, key=lambda row: (-((row["review"] or {}).get("priority") or 0.0), row["path"]))
    folder = cache / hashlib.sha256(planned.root.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    found = {row["path"]: str(folder / _name(row)) for row in order}
    wanted = [row for row in order if row["status"] != REJECTED]
    if progress is not None:
        progress.update(len(order) - len(wanted))
    taken, full = 0, False
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in batched(wanted, _AT_ONCE):
            paths, digests = ([row[name] for row in some] for name in ("path", "digest"))
            copies = [found[path] for path in paths]
            sizes = [0] * len(some) if full else [*pool.map(_fetch, map(planned.location, paths), copies, digests)]
            for path, copy, size in zip(paths, copies, sizes, strict=True):
                full = full or taken + size > limit
                if full:  # also what an earlier call, with another limit, has left there
                    Path(copy).unlink(missing_ok=True)
                    del found[path]
                else:
                    taken += size
            if progress is not None:
                progress.update(len(some))
    return found, len(order) - len(found)


def _fetch(location: str | None, place: str, digest: str) -> int:
    """Copies a photograph unless it is there; returns its size in bytes."""
    if not Path(place).is_file():
        try:
            data = read_image(location, ACCEPTED)
        except BadImageError as error:
            raise OSError(f"{location} cannot be fetched ({error}); put it back, or take it out of the run") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise OSError(f"{location} is not the photograph that was labelled; put that one back, or label again")
        storage.write_bytes(place, data)
    return os.stat(place).st_size  # noqa: PTH116


def _name(row: Mapping[str, Any]) -> str:
    """A file's name in the cache, of a path and a content; of the path's own letters it has a known ending alone."""
    key = f"{row['path']}\0{row['digest']}".encode("utf-8", "surrogatepass")
    ending = Path(row["path"]).suffix.lower()
    return hashlib.sha256(key).hexdigest()[:32] + (ending if ending in _ENDINGS else "")
