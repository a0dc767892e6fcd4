"""Loads a finished run into a FiftyOne data set."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import fiftyone as fo

    from camboxes.transforms import PlannedRun

CACHE_LIMIT_GB = 20.0


def load_dataset(run: str, name: str | None = None, *, cache_limit: float = CACHE_LIMIT_GB) -> "fo.Dataset":
    """Loads a finished run into a persistent FiftyOne dataset, or updates that dataset.

    People's work in the dataset is never deleted. If the folder held another run before, that run's dataset is renamed,
    and the new name is printed.

    `camboxes.pipeline.review.fiftyone_samples` describes the fields. `dataset.info["categories"]` holds the run's
    categories for FiftyOne's COCO exporter: export with these categories and `coco_id="coco_id"`, and every id stays.

    Args:
      run: the run's folder, on this machine.
      name: the dataset's name; None for the folder's name and a few digits of a hash.
      cache_limit: the most that copies of photographs on a store may take, in GB.

    Raises:
      ValueError: the folder holds no finished run, photographs are gone or replaced, or a dataset of this name holds
        another run or none.
    """
    from tqdm import tqdm

    from camboxes.pipeline.review import fiftyone_dataset, local_photographs
    from camboxes.transforms import storage
    from camboxes.transforms.containers.members import split

    planned = finished_run(run)
    if not storage.is_local(run):
        raise ValueError(f"run {run!r} is on a store, where decisions cannot be kept; review a local copy of it")
    rows = list(planned.rows(["path", "digest", "status", "review"]))
    in_containers = any(split(row["path"]) for row in rows)
    if storage.is_local(planned.root) and not in_containers:
        with tqdm(total=planned.images, unit="photograph", desc="comparing", disable=None) as bar:
            photographs = local_photographs.places(planned, rows, bar)
    else:
        with tqdm(total=planned.images, unit="photograph", desc="fetching", disable=None) as bar:
            photographs, left = local_photographs.fetched(planned, rows, _cache(), int(cache_limit * 1e9), bar)
        if left:
            print(
                f"{left} of {planned.images} images are left out: --cache-limit {cache_limit:g} was reached",
                file=sys.stderr,
            )
    with tqdm(total=planned.images, unit="image", desc="loading", disable=None) as bar:
        dataset = fiftyone_dataset.load(planned, name or fiftyone_dataset.dataset_name(run), photographs, bar)
    print(f"{len(dataset)} images in FiftyOne's dataset {dataset.name!r}", file=sys.stderr)
    return dataset


def finished_run(run: str) -> "PlannedRun":
    """The plan of a finished run.

    Raises:
      ValueError: there is none in the folder.
    """
    from camboxes.pipeline.errors import CallError
    from camboxes.pipeline.jobs import run_folder

    try:
        return run_folder.finished(run)
    except CallError as error:  # whoever calls load_dataset gave no --run
        raise ValueError(str(error)) from error


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "camboxes", "photographs")
