"""The plan of a run: which images there are, their ids, categories and shards, fixed before anything is inferred.

Images go to shards by a hash of their path and are sorted by path inside; ids follow by prefix sum over the shards.
So ids and shards depend on the input alone, not on a runner, a number of workers, or the order of a listing.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from camboxes.transforms import storage
from camboxes.transforms.image_files import locate
from camboxes.transforms.labels import Category, ClassNames, LabelMap, LabelMatcher
from camboxes.transforms.records import PLANNED, table
from camboxes.transforms.sources import Source, read_source

# A shard is the unit of progress, of resuming and of loss, so a run should have some twenty a worker; but its last
# batch is padded, so it should hold many batches.
_ROWS = (64, 256)
_SHARDS_WANTED = 20

_ON_DISK = pa.schema([PLANNED.field(name) for name in ("image_id", "path", "labels")])


class PlanConflictError(ValueError):
    """An output folder holds another run, or something that is no run."""


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A plan as it stands in OUT/plan/plan.json.

    Attributes:
      output: the run's folder.
      root: the folder that paths are relative to.
      images: how many were planned.
      repeated: (path, label) pairs that the input gave more than once.
      passed_over: files of the input that were no images by name or lay in no class folder.
      categories: the data set's labels.
      shards: for each shard's key how many images it holds, in the order of their ids.
      settings: what decides the result besides the input.
      fingerprints: SHA-256 of the "input" (paths and labels) and of the "configuration" (settings, categories, shards).
    """

    output: str
    root: str
    images: int
    repeated: int
    passed_over: int
    categories: tuple[Category, ...]
    shards: Mapping[str, int]
    settings: Mapping[str, Any]
    fingerprints: Mapping[str, str]

    @classmethod
    def load(cls, output: str) -> "PlannedRun | None":
        """The plan of a run's folder; None where there is none."""
        path = _plan_file(output)
        if not storage.exists(path):
            return None
        values = storage.read_json(path)
        values.pop("schema_version")
        values["categories"] = tuple(
            Category(item["id"], item["name"], tuple(item["class_indices"])) for item in values["categories"]
        )
        return cls(output=output, **values)

    def save(self) -> None:
        """Writes plan.json: the mark of a finished plan."""
        values = dataclasses.asdict(self)
        del values["output"]
        storage.write_json(_plan_file(self.output), {"schema_version": 1} | values)

    def copy(self, output: str, settings: Mapping[str, Any]) -> "PlannedRun":
        """The same plan with other settings, written to another run's folder.

        Raises:
          PlanConflictError: the other folder holds a different run.
        """
        configuration = _configuration(settings, self.categories, len(self.shards))
        fingerprints = {**self.fingerprints, "configuration": configuration}
        run = dataclasses.replace(self, output=output, settings=settings, fingerprints=fingerprints)
        before = PlannedRun.load(output)
        if before is not None:
            _check_same(before, run)
        for key in self.shards:
            storage.write_bytes(_planned_file(output, key), storage.read_bytes(_planned_file(self.output, key)))
        run.save()
        return run

    def missing(self) -> list[str]:
        """The keys of the shards that are not written yet."""
        written = set(storage.names(shards_folder(self.output), ".parquet"))
        return [key for key in self.shards if f"{key}.parquet" not in written]

    def location(self, path: str) -> str | None:
        """Where to read an image; None where its path leads outside the root."""
        return locate(self.root, path)

    def planned_rows(self, key: str) -> pa.Table:
        """A shard as planned, in the schema PLANNED, with the locations of its images."""
        rows = storage.read_table(_planned_file(self.output, key)).to_pylist()
        for row in rows:
            row["location"] = self.location(row["path"])
        return table(rows, PLANNED, {})


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to plan a run, and where to keep the plan.

    Attributes:
      output: the run's folder; the plan is kept in its sub-folder plan/, the shards go to its sub-folder shards/.
      class_names: for each of the network's classes its names, as `Classifier.class_names` has them.
      label_map: see `LabelMatcher`; None to match labels by the names of the classes.
      root: see `read_source`.
      settings: what else decides the result, to be recorded and compared when the run is taken up again.
      shards: how many; None for one per 64 to 256 images.
    """

    output: str
    class_names: ClassNames
    label_map: LabelMap | None = None
    root: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shards: int | None = None

    def __post_init__(self) -> None:
        if self.shards is not None and self.shards < 1:
            raise ValueError(f"shards is {self.shards}; expected at least 1")

    def draft(self, source: str | Source) -> tuple[PlannedRun, dict[str, list[dict[str, Any]]]]:
        """The plan for a source, and the rows of each of its shards; nothing is written.

        Args:
          source: what `read_source` reads, or what it made of it.

        Raises:
          SourceError: the source cannot be read.
          UnmatchedLabelsError: labels without a class, all of them listed.
        """
        found = read_source(source, self.root) if isinstance(source, str) else source
        matcher = LabelMatcher(self.class_names, self.label_map)
        categories = matcher.categories(label for labels in found.labels.values() for label in labels)
        count = self.shards or _shard_count(len(found.labels))
        rows = _rows_by_shard(found, {category.name: category for category in categories}, count)
        listing = sorted((path, sorted(labels)) for path, labels in found.labels.items())
        configuration = _configuration(self.settings, categories, count)
        run = PlannedRun(
            output=self.output,
            root=found.root,
            images=len(found.labels),
            repeated=found.repeated,
            passed_over=found.passed_over,
            categories=tuple(categories),
            shards={key: len(shard) for key, shard in rows.items()},
            settings=dict(self.settings),
            fingerprints={"input": _fingerprint(listing), "configuration": configuration},
        )
        return run, rows

    def make(self, source: str | Source) -> PlannedRun:
        """Makes the plan and writes it, or finds the same plan written before. Argument: see `draft`.

        Raises:
          PlanConflictError: the output folder holds a run of another input or configuration; says what differs.
          SourceError, UnmatchedLabelsError: see `draft`.
        """
        run, rows = self.draft(source)
        before = PlannedRun.load(self.output)
        if before is not None:
            _check_same(before, run)
            if before.root != run.root:  # the data set was moved
                before = dataclasses.replace(before, root=run.root)
                before.save()
            return before
        if storage.names(shards_folder(self.output), ".parquet"):
            raise PlanConflictError(f"output {self.output!r} holds shards without a plan; choose another folder")
        for key, shard in rows.items():
            storage.write_table(_planned_file(self.output, key), table(shard, _ON_DISK, {}))
        run.save()
        return run


def shards_folder(output: str) -> str:
    """Where a run's shards are written."""
    return storage.join(output, "shards")


def shard_file(output: str, key: str) -> str:
    """Where a run's shard is written; a file under this name is a finished shard."""
    return storage.join(output, "shards", f"{key}.parquet")


def _plan_file(output: str) -> str:
    return storage.join(output, "plan", "plan.json")


def _planned_file(output: str, key: str) -> str:
    return storage.join(output, "plan", "shards", f"{key}.parquet")


def _shard_count(images: int) -> int:
    fewest, most = _ROWS
    rows = min(max(images // _SHARDS_WANTED, fewest), most)
    return max(1, round(images / rows))


def _rows_by_shard(source: Source, categories: Mapping[str, Category], count: int) -> dict[str, list[dict[str, Any]]]:
    paths: list[list[str]] = [[] for _ in range(count)]
    for path in source.labels:
        paths[_bucket(path, count)].append(path)
    shards, image_id = {}, 0
    for number, members in enumerate(paths):
        rows = []
        for path in sorted(members):
            image_id += 1
            labels = [_planned_label(categories[label]) for label in sorted(source.labels[path])]
            rows.append({"image_id": image_id, "path": path, "labels": labels})
        shards[f"{number:05d}-of-{count:05d}"] = rows
    return shards


def _planned_label(category: Category) -> dict[str, Any]:
    return {"label": category.name, "category_id": category.id, "class_indices": category.class_indices}


def _bucket(path: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % count


def _fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _configuration(settings: Mapping[str, Any], categories: Iterable[Category], shards: int) -> str:
    return _fingerprint([dict(settings), [dataclasses.astuple(category) for category in categories], shards])


def _check_same(before: PlannedRun, now: PlannedRun) -> None:
    differences = [
        f"{name} was {json.dumps(before.settings.get(name))}, is {json.dumps(now.settings.get(name))}"
        for name in sorted({*before.settings, *now.settings})
        if json.loads(json.dumps(before.settings.get(name))) != json.loads(json.dumps(now.settings.get(name)))
    ]
    if before.fingerprints["input"] != now.fingerprints["input"]:
        differences.append(f"the input's paths or labels changed ({before.images} images then, {now.images} now)")
    elif before.fingerprints["configuration"] != now.fingerprints["configuration"] and not differences:
        differences.append("the label map or the number of shards changed")
    if differences:
        raise PlanConflictError(
            f"output {before.output!r} holds another run: {'; '.join(differences)}. "
            "Choose another --output, or replace the run with --overwrite"
        )
