"""The last step: writes shard files, and merges a whole run into COCO files."""

import contextlib
import importlib.metadata
import itertools
import json
import math
import platform
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam

from camboxes.models.counts import counted
from camboxes.transforms import coco, storage
from camboxes.transforms.counters import count, milliseconds
from camboxes.transforms.doubts.label_doubts import Doubts
from camboxes.transforms.doubts.same_bytes import SameBytes
from camboxes.transforms.planning.plan import PlannedRun, read_shard, shard_file
from camboxes.transforms.records import REJECTED, Shard
from camboxes.transforms.settings import in_words, settings_that_differ

# The libraries whose versions can change a result.
_LIBRARIES = "camboxes torch torchvision timm apache-beam pyarrow numpy opencv-python-headless pillow".split()  # noqa: SIM905

MAX_REJECT_RATE = 0.5

# Each part of annotations.json is a COCO data set that pycocotools can still load on a laptop.
_IMAGES_PER_PART = 500_000

_FOR_JSON = ["image_id", "path", "digest", "width", "height", "status", "reason", "labels", "boxes", "review"]


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(dict[str, Any])
class WriteCoco(beam.PTransform):
    """Writes each shard as OUT/shards/KEY.parquet, then annotations.json, results.json and summary.json of the run.

    A shard's file is written as soon as the shard arrives, and gets its name when it is complete. The merge covers all
    shards of the plan in OUT/plan, also those that interrupted jobs wrote; without a plan, the shards that arrived.
    Past 500,000 images the JSON files are written in parts, annotations-00001-of-00003.json and so on. Each part is a
    data set; ids continue from part to part. Counters: written, milliseconds_write.

    The result is a collection of one element: the content of summary.json.
    """

    def __init__(self, output: str, max_reject_rate: float = MAX_REJECT_RATE):
        """Takes the run's folder, and the share of its images that may be rejected, 0 to 1.

        Above this share the job fails after all files are written; with 1 it never fails.

        Raises:
          ValueError: max_reject_rate is not from 0 to 1.

        Raises, in the job:
          IncompleteRunError: planned images are missing from the shards.
          TooManyRejectedError: more images were rejected than max_reject_rate allows.
        """
        super().__init__()
        if not 0 <= max_reject_rate <= 1:
            raise ValueError(f"max_reject_rate is {max_reject_rate}; expected a share from 0 to 1")
        self._output = output
        self._max_reject_rate = max_reject_rate
        self._write = beam.Map(_write_shard, output=output).with_output_types(str)

    def with_resource_hints(self, **hints: Any) -> "WriteCoco":
        """Gives the hints to the step that writes shards, where they are made. The merge runs on any worker."""
        self._write.with_resource_hints(**hints)
        return self

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[dict[str, Any]]:
        """Applies the transform to a collection of shards."""
        merged = beam.Map(merge, output=self._output, max_reject_rate=self._max_reject_rate)
        written = shards | "WriteShards" >> self._write | "AllWritten" >> beam.combiners.ToList()
        return written | "Merge" >> merged.with_output_types(dict[str, Any])


class IncompleteRunError(RuntimeError):
    """A planned image has no row. This is never expected; the job fails rather than lose an image silently."""


class TooManyRejectedError(RuntimeError):
    """More images were rejected than allowed. All files of the run are written, and summary.json says so."""


def _write_shard(shard: Shard, output: str) -> str:
    with milliseconds("write"):
        storage.write_table(shard_file(output, shard.key), shard.rows)
    count("written", shard.rows.num_rows)
    return shard.key


def merge(written: Iterable[str], output: str, max_reject_rate: float = MAX_REJECT_RATE) -> dict[str, Any]:
    """Writes the JSON files of a run from its shard files, and returns the summary.

    The keys of the written shards count only if the run has no plan.

    Raises:
      IncompleteRunError: a planned shard has no file, or fewer or more rows than planned.
      TooManyRejectedError: see `WriteCoco`; the summary's `failure` is its message.
      ValueError: the shards were not made with the same settings.
    """
    run = PlannedRun.load(output)
    if run is not None:
        if missing := run.missing():
            raise IncompleteRunError(f"{len(missing)} of {len(run.shards)} planned shards are missing in {output!r}")
        settings = _settings(output, run.shards)
        names = [category.name for category in run.categories]
        parts = [_rows(output, keys, settings) for keys in _parts(run.shards)]
    else:
        keys = sorted(written)
        settings = _settings(output, keys)
        parts = _numbered_by_path(output, keys, dict(settings))
        names = settings.pop("categories", [])
    info = {"description": coco.DESCRIPTION, "version": _version("camboxes"), "settings": settings}
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    counts, same = coco.Counts(doubts=Doubts.about(settings)), SameBytes()
    with contextlib.ExitStack() as files:
        for number, rows in enumerate(parts, start=1):
            part = f"-{number:05d}-of-{len(parts):05d}" if len(parts) > 1 else ""
            dataset, results = (
                files.enter_context(storage.replacing(storage.join(output, f"{name}{part}.json")))
                for name in ("annotations", "results")
            )
            coco.write_coco(
                dataset, results, rows=_compared(rows, same), categories=categories, info=info, counts=counts
            )
        if run is not None and (found := counts.images["planned"]) != run.images:
            raise IncompleteRunError(f"{run.images} images were planned, and {found} have a row in {output!r}")
    summary = {
        "images": counts.images,
        "annotations": counts.annotations,
        "by_person": counts.by_person,
        "rejected": dict(sorted(counts.rejected.items())),
        "skipped": dict(sorted(counts.skipped.items())),
        "failure": _failure(counts, max_reject_rate),
        "warnings": counts.doubts.warnings,
        "categories": dict(sorted(counts.categories.items())),
        "copies": _copies(same),
        "in_doubt": counts.doubts.to_json(),
        "input": {}
        if run is None
        else {
            "root": run.root,
            "repeated": run.repeated,
            "passed_over": run.passed_over.to_json(),
            "splits": dict(run.splits),
            "background": list(run.background),
        },
        "settings": settings,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _LIBRARIES},
    }
    storage.write_json(storage.join(output, "summary.json"), summary)
    if summary["failure"]:
        raise TooManyRejectedError(summary["failure"])
    return summary


def _compared(rows: Iterable[Mapping[str, Any]], same: SameBytes) -> Iterator[Mapping[str, Any]]:
    """Yields the rows, and adds those of readable images to the images to compare."""
    for row in rows:
        if row["digest"] is not None:
            same.add(row["digest"], row["path"], json.dumps([label["label"] for label in row["labels"]]))
        yield row


def _copies(same: SameBytes) -> dict[str, Any]:
    """Counts the images that have the bytes of another, and those of them with other labels; gives an example."""
    found = same.found()
    example = [{"path": path, "labels": json.loads(said)} for path, said in found.differing_example or ()]
    return {"images": found.images, "with_other_labels": found.differing, "example": example}


def _failure(counts: coco.Counts, max_reject_rate: float) -> str | None:
    """The reason why a complete run fails; None if it does not."""
    rejected, planned = (counts.images[name] for name in (REJECTED, "planned"))
    if not planned or rejected / planned <= max_reject_rate:  # not a product, for rounding: 29 > 0.29 * 100
        return None
    reasons = sorted(counts.rejected.items(), key=lambda reason: (-reason[1], reason[0]))
    return (
        f"rejected: {rejected:,} of {counted(planned, 'image')}, more than the share of {max_reject_rate:g} that "
        f"max_reject_rate allows: {', '.join(f'{code} {number}' for code, number in reasons)}"
    )


def _parts(shards: Mapping[str, int]) -> list[list[str]]:
    """Cuts the keys of the shards into parts of at most _IMAGES_PER_PART images; gives at least one part."""
    parts: list[list[str]] = [[]]
    images = 0
    for key, rows in shards.items():
        if images + rows > _IMAGES_PER_PART and parts[-1]:
            parts.append([])
            images = 0
        parts[-1].append(key)
        images += rows
    return parts


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _rows(output: str, keys: Iterable[str], settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of shards. Raises a ValueError if a shard has other settings."""
    columns = [*_FOR_JSON, *Doubts.about(settings).columns]
    for key in keys:
        shard = read_shard(output, key, columns)
        if shard.settings != settings:
            raise ValueError(
                f"shard {key} of {output!r} was made with other settings than the ones before it: "
                f"{in_words(settings_that_differ(settings, shard.settings))}"
            )
        yield from shard.rows.to_pylist()


def _numbered_by_path(output: str, keys: Iterable[str], settings: Mapping[str, Any]) -> list[Iterator[dict[str, Any]]]:
    """The rows of shards without a plan, sorted by path on disk and numbered; in parts that are read in turn."""
    # A database without a name is in memory; as it grows it moves to a temporary file.
    waiting = sqlite3.connect("", isolation_level=None)
    waiting.execute("PRAGMA journal_mode = OFF")
    waiting.execute("CREATE TABLE rows (path TEXT, content TEXT)")
    waiting.execute("BEGIN")
    rows = ((row["path"], json.dumps(row)) for row in _rows(output, keys, settings))
    waiting.executemany("INSERT INTO rows VALUES (?, ?)", rows)
    waiting.execute("COMMIT")
    [(images,)] = waiting.execute("SELECT count(*) FROM rows")
    in_order = waiting.execute("SELECT content FROM rows ORDER BY path, rowid")
    numbered = (json.loads(content) | {"image_id": number} for number, (content,) in enumerate(in_order, start=1))
    return [itertools.islice(numbered, _IMAGES_PER_PART) for _ in range(max(1, math.ceil(images / _IMAGES_PER_PART)))]


def _settings(output: str, keys: Iterable[str]) -> dict[str, Any]:
    """The settings of the first shard."""
    return next((read_shard(output, key, []).settings for key in keys), {})
