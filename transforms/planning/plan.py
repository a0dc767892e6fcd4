"""The plan of a run: its images with their ids, categories and shards, fixed before inference.

A hash of an image's path chooses its shard. Images are sorted by path inside a shard; images in containers keep the
order in which they are read. Ids are counted from shard to shard. So ids and shards depend on the input alone, not on
the runner, the number of workers or the order of a listing. Each shard can be planned independently: in this process,
or on the workers of a large job (`plan_on_workers`).
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from camboxes.models.counts import counted
from camboxes.transforms import storage
from camboxes.transforms.contents.image_files import locate
from camboxes.transforms.contents.shard_contents import first_not_seen
from camboxes.transforms.planning.label_matching import Category, ClassNames, LabelMap, LabelMatcher
from camboxes.transforms.planning.listing import Listing, check_labels, read_source
from camboxes.transforms.records import PLANNED, REJECTED, Shard, table
from camboxes.transforms.settings import in_words, settings_that_differ
from camboxes.transforms.sources.background import check_background
from camboxes.transforms.sources.columns import NO_COLUMNS, Columns
from camboxes.transforms.sources.entries import Listed, SourceError, Split
from camboxes.transforms.sources.passed_over import Tally

_MISPLACED = ("missing", "outside_root")  # codes of rejections that may not hold below another root
_ON_DISK = pa.schema([PLANNED.field(name) for name in ("path", "labels", "background", "place")])


class PlanConflictError(ValueError):
    """The output folder holds another run, or files of another kind.

    Attributes:
      settings: what `settings_that_differ` gives for the run in the folder and the new one, if nothing else differs.
    """

    def __init__(self, message: str, settings: Mapping[str, tuple[Any, Any]] | None = None):
        super().__init__(message)
        self.settings = settings or {}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A plan as OUT/plan/plan.json holds it, and access to the shards of its run.

    Attributes:
      output: the run's folder.
      root: the folder that paths are relative to.
      images: number of planned images.
      repeated: number of (path, label) pairs that the input holds more than once.
      passed_over: counts of what the input holds besides images, and the class folders without images.
      categories: the data set's labels.
      shards: number of images by shard key, in the order of the images' ids.
      settings: everything besides the input that decides the result.
      splits, assumed: see `Listing`.
      background: the data set's labels that are no class, sorted; see `sources.background`.
      fingerprints: SHA-256 of the "input" (paths and labels) and of the "configuration" (settings, categories, shards).
    """

    output: str
    root: str
    images: int
    repeated: int
    passed_over: Tally
    categories: tuple[Category, ...]
    shards: Mapping[str, int]
    settings: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    splits: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    background: tuple[str, ...] = ()

    @classmethod
    def load(cls, output: str) -> "PlannedRun | None":
        """Reads the plan in a run's folder; None if there is none."""
        path = _plan_file(output)
        if not storage.exists(path):
            return None
        values = storage.read_json(path)
        values.pop("schema_version")
        values["categories"] = tuple(
            Category(item["id"], item["name"], tuple(item["class_indices"])) for item in values["categories"]
        )
        values["passed_over"] = Tally.from_json(values["passed_over"])
        values["assumed"] = tuple(values.get("assumed", ()))
        values["background"] = tuple(values.get("background", ()))
        return cls(output=output, **values)

    def save(self) -> None:
        """Writes plan.json, which marks the plan as finished."""
        values = dataclasses.asdict(self)
        del values["output"]
        values["passed_over"] = self.passed_over.to_json()
        storage.write_json(_plan_file(self.output), {"schema_version": 1} | values)

    def copy(self, output: str, settings: Mapping[str, Any]) -> "PlannedRun":
        """Writes the same plan with other settings to another run's folder.

        Raises:
          PlanConflictError: the other folder holds a different run.
        """
        configuration = _configuration(settings, self.categories, len(self.shards))
        fingerprints = {**self.fingerprints, "configuration": configuration}
        run = dataclasses.replace(self, output=output, settings=settings, fingerprints=fingerprints)
        before = PlannedRun.load(output)
        if before is not None:
            _check_same(before, run)
            if before.root != run.root:
                _check_same_images(before, self)
        for key in self.shards:
            storage.write_bytes(planned_file(output, key), storage.read_bytes(planned_file(self.output, key)))
        run.save()
        return run

    def missing(self) -> list[str]:
        """The keys of the shards that are not written yet, smallest shard first.

        So the workers of a local runner, which take shards in turn, get nearly equal numbers of images; and more than
        half of the shards can be written at half time.
        """
        written = set(self.written())
        return sorted((key for key in self.shards if key not in written), key=self.shards.__getitem__)

    def written(self) -> list[str]:
        """The keys of the finished shards, in the order of their images' ids."""
        files = set(storage.names(shards_folder(self.output), ".parquet"))
        return [key for key in self.shards if f"{key}.parquet" in files]

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
        """The key and the rows of each shard of a finished run, in the order of the images' ids.

        The columns are of the schema LABELED; None for all.
        """
        for key in self.shards:
            yield key, read_shard(self.output, key, columns).rows

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows of a finished run, one for each image, in the order of their ids. Argument: see `tables`."""
        for _, rows in self.tables(columns):
            yield from rows.to_pylist()

    def recorded_settings(self) -> dict[str, Any]:
        """The settings that are recorded in a finished run's first shard."""
        return read_shard(self.output, next(iter(self.shards)), []).settings

    def location(self, path: str) -> str | None:
        """The place to read an image from; None if its path leads outside the root."""
        return locate(self.root, path)

    def planned_rows(self, key: str) -> pa.Table:
        """The rows of a planned shard, in the schema PLANNED, with ids and locations."""
        rows = storage.read_table(planned_file(self.output, key)).to_pylist()
        for image_id, row in enumerate(rows, start=self._first_ids[key]):
            row["image_id"] = image_id
            row["location"] = self.location(row["path"])
        return table(rows, PLANNED, {})

    def set_aside(self, codes: Collection[str] | None = None) -> None:
        """Moves the finished shards that hold rejected images out of the run, so that these images are tried again.

        The shards move to `aside`, where `InferClassMaps(reuse=...)` finds their other rows. If codes are given, only
        rejections with one of them count.
        """
        found = False
        for key in self.written():
            rows = read_shard(self.output, key, ["status", "reason"]).rows.to_pylist()
            reasons = {row["reason"].partition(":")[0] for row in rows if row["status"] == REJECTED}
            if reasons & (reasons if codes is None else {*codes}):
                storage.write_bytes(shard_file(self.aside, key), storage.read_bytes(shard_file(self.output, key)))
                found = True
        if found:
            dataclasses.replace(self, output=self.aside).save()
            for name in storage.names(shards_folder(self.aside), ".parquet"):
                storage.delete(storage.join(shards_folder(self.output), name))

    @property
    def asked(self) -> dict[str, Any]:
        """The settings with the background: what a call to continue the run asks for, too."""
        return {**self.settings, "background": self.background or None}

    @property
    def aside(self) -> str:
        """The folder that `set_aside` moves shards to. It holds a run as long as there are any."""
        return storage.join(self.output, "plan", "retried")

    @functools.cached_property
    def _first_ids(self) -> dict[str, int]:
        before = itertools.accumulate(self.shards.values(), initial=1)
        return dict(zip(self.shards, before, strict=False))


class PlannedShard(NamedTuple):
    """The facts about one shard that the plan of the whole run needs.

    Attributes:
      key: names its file.
      images: number of its images.
      digest: sum of the SHA-256 of each image's path and labels. The sum over all shards does not depend on how the
        images are cut into shards.
    """

    key: str
    images: int
    digest: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """Makes the plan of a run, and keeps it in the run's folder.

    Attributes:
      output: the run's folder. The plan goes to its sub-folder plan/, finished shards go to shards/.
      class_names: the names of each of the network's classes, as in `Classifier.class_names`.
      label_map: see `LabelMatcher`; None to match labels by the names of the classes.
      root: see `root_of`.
      settings: everything else that decides the result; recorded, and compared when the run is continued.
      shards: number of shards; None for one per 64 to 256 images.
      columns: see `read_source`.
      background: labels that say that none of the classes is on an image. They are no categories. An image with such a
        label is skipped, without a pass of the network; with a class's label besides, it is rejected.
      known_background: likewise, but the data set need not have them, and the label map goes before: what the network
        was trained with.
    """

    output: str
    class_names: ClassNames
    label_map: LabelMap | None = None
    root: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shards: int | None = None
    columns: Columns = NO_COLUMNS
    background: Collection[str] = ()
    known_background: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.shards is not None and self.shards < 1:
            raise ValueError(f"shards is {self.shards}; expected at least 1")

    def draft(self, source: str | Listing) -> PlannedRun:
        """Plans a source, an input of `read_source` or its result, without writing anything.

        Raises:
          SourceError: the source cannot be read, or no image has a label that is no background, or one that is.
          UnmatchedLabelsError: labels without a class, all of them listed.
        """
        return self._plan(source, keep=lambda key, rows: None)

    def make(self, source: str | Listing) -> PlannedRun:
        """Plans a source and writes the plan, or returns the same plan from the output folder. Argument: see `draft`.

        Raises:
          PlanConflictError: the output folder holds a run with another input or configuration, or with other images
            below another root; says what differs.
          SourceError, UnmatchedLabelsError: see `draft`.
        """
        before = self.before()
        run = self._plan(source, keep=self.write if before is None else lambda key, rows: None)
        return self.settle(run, before)

    def before(self) -> PlannedRun | None:
        """The plan that is already in the output folder; None if there is none.

        Raises:
          PlanConflictError: the folder holds shards without a plan.
        """
        before = PlannedRun.load(self.output)
        if before is None and storage.names(shards_folder(self.output), ".parquet"):
            raise PlanConflictError(f"output {self.output!r} holds shards without a plan; choose another folder")
        return before

    def write(self, key: str, rows: pa.Table) -> None:
        """Writes a planned shard."""
        storage.write_table(planned_file(self.output, key), rows)

    def settle(self, run: PlannedRun, before: PlannedRun | None) -> PlannedRun:
        """Returns the earlier plan if it is for the same run; saves and returns the new plan if there was none.

        Raises:
          PlanConflictError: see `make`.
        """
        if before is None:
            run.save()
            return run
        _check_same(before, run)
        if before.root != run.root:
            moved = dataclasses.replace(before, root=run.root)
            _check_moved(before, moved)
            before.set_aside(_MISPLACED)  # first: a call that is killed here does it again
            moved.save()
            return moved
        return before

    def categories(self, labels: Collection[str], containers: Sequence[str] = ()) -> list[Category]:
        """The categories of a data set with these labels, and its background; for its containers see `Listing`.

        Raises:
          SourceError: the data set has no label, or see `check_background`; or the label map has a background label.
          UnmatchedLabelsError: labels without a class, all of them listed.
        """
        check_labels(labels, containers)
        check_background(self.background, labels)
        mapped = (self.label_map or {}).keys()
        if both := sorted(mapped & {*self.background}):
            raise SourceError(f"label {both[0]!r} is background and in the label map, too; leave it out of one of them")
        background = {*self.background} | ({*self.known_background} & {*labels}) - mapped
        check_background(background, labels)
        categories = self.matcher().categories({*labels} - background)
        return categories + [Category(0, label, ()) for label in sorted(background)]

    def matcher(self) -> LabelMatcher:
        """What matches labels. Raises an UnmatchedLabelsError where the label map is wrong."""
        return LabelMatcher(self.class_names, self.label_map)

    def run(
        self,
        root: str,
        shards: Sequence[PlannedShard],
        categories: Sequence[Category],
        *,
        repeated: int,
        passed_over: Tally,
        splits: Mapping[str, Split],
        assumed: Iterable[str],
    ) -> PlannedRun:
        """Puts the whole plan together from its shards, in the order of their keys, without saving it."""
        names = {category.name for category in categories}
        background = tuple(category.name for category in categories if not category.id)
        kept = tuple(category for category in categories if category.id)
        return PlannedRun(
            output=self.output,
            root=root,
            images=sum(shard.images for shard in shards),
            repeated=repeated,
            passed_over=passed_over.without(names),
            categories=kept,
            shards={shard.key: shard.images for shard in shards},
            settings=dict(self.settings),
            fingerprints={
                "input": _sum(shard.digest for shard in shards),
                "configuration": _configuration(self.settings, kept, len(shards)),
            },
            splits=dict(splits),
            assumed=tuple(sorted(assumed)),
            background=background,
        )

    def _plan(self, source: str | Listing, keep: Callable[[str, pa.Table], None]) -> PlannedRun:
        found = read_source(source, self.root, self.columns) if isinstance(source, str) else source
        categories = self.categories(found.labels(), found.containers)
        by_name = {category.name: category for category in categories}
        count = found.shards(self.shards)
        shards = []
        for number, images in enumerate(found.by_shard(count)):
            shard, rows = plan_shard(shard_key(number, count), images, by_name)
            keep(shard.key, rows)
            shards.append(shard)
        return self.run(
            found.root,
            shards,
            categories,
            repeated=found.repeated,
            passed_over=found.passed_over,
            splits=found.splits,
            assumed=found.assumed,
        )


def shards_folder(output: str) -> str:
    """The folder of a run's finished shards."""
    return storage.join(output, "shards")


def shard_file(output: str, key: str) -> str:
    """The path of a run's finished shard. A shard is finished when this file exists."""
    return storage.join(output, "shards", f"{key}.parquet")


def read_shard(output: str, key: str, columns: Sequence[str] | None = None) -> Shard:
    """Reads a finished shard of a run; the columns are of the schema LABELED, None for all."""
    return Shard(key, storage.read_table(shard_file(output, key), columns))


def shard_key(number: int, count: int) -> str:
    """The key of shard `number` of `count`. Sorted keys are in the order of the numbers."""
    width = max(5, len(str(count)))
    return f"{number:0{width}d}-of-{count:0{width}d}"


def plan_shard(key: str, images: Sequence[Listed], categories: Mapping[str, Category]) -> tuple[PlannedShard, pa.Table]:
    """Plans one shard, independently of all others, from its images in the order of their ids.

    Returns:
      The facts that the plan of the run needs, and the shard's rows.
    """
    planned = {
        name: {"label": name, "category_id": category.id, "class_indices": category.class_indices}
        for name, category in categories.items()
    }
    rows = [
        image._asdict()
        | {
            "labels": [planned[label] for label in image.labels if categories[label].id],
            "background": [label for label in image.labels if not categories[label].id],
        }
        for image in images
    ]
    return PlannedShard(key, len(rows), _sum(map(_fingerprint, images))), table(rows, _ON_DISK, {})


def _plan_file(output: str) -> str:
    return storage.join(output, "plan", "plan.json")


def planned_file(output: str, key: str) -> str:
    """The path of a planned shard."""
    return storage.join(output, "plan", "shards", f"{key}.parquet")


def _fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _sum(digests: Iterable[str]) -> str:
    """The sum of hexadecimal digests, modulo 2 ** 256."""
    return f"{sum(int(digest, 16) for digest in digests) % 2**256:064x}"


def _configuration(settings: Mapping[str, Any], categories: Iterable[Category], shards: int) -> str:
    return _fingerprint([dict(settings), [dataclasses.astuple(category) for category in categories], shards])


def _check_moved(before: PlannedRun, moved: PlannedRun) -> None:
    """Refuses another root if the images of finished shards there are not those that the run saw.

    Reads all of these images: a sample would miss a few that differ. Inference took many times as long.
    """
    for key in before.written():
        digests = read_shard(before.output, key, ["digest"]).rows.column("digest").to_pylist()
        if changed := first_not_seen(moved.planned_rows(key).to_pylist(), digests):
            path, reason = changed
            raise PlanConflictError(
                f"output {before.output!r} holds a run over the images below {before.root!r}; below {moved.root!r} "
                f"{path!r} is not the image that the run saw ({reason}). Give the root that the run was made with, "
                "choose another --output (--reuse takes over what is the same), or replace the run with --overwrite"
            )


def _check_same_images(before: PlannedRun, source: PlannedRun) -> None:
    """Refuses to replace a run by a run over other images that have the same paths below another root."""
    for key in set(before.written()) & set(source.written()):
        seen = (read_shard(run.output, key, ["path", "digest"]).rows.to_pylist() for run in (before, source))
        for then, now in zip(*seen, strict=True):
            if then["digest"] and now["digest"] and then["digest"] != now["digest"]:
                raise PlanConflictError(
                    f"output {before.output!r} holds a run over the images below {before.root!r}; {then['path']!r} of "
                    f"{source.output!r}, below {source.root!r}, is another image. Choose another --output, or replace "
                    "the run with --overwrite"
                )


def _check_same(before: PlannedRun, now: PlannedRun) -> None:
    same = [before.fingerprints[name] == now.fingerprints[name] for name in ("input", "configuration")]
    refuse_changes(before, now.asked, None if same[0] else now.images)
    if not same[1]:
        raise _conflict(before, "the label map or the number of shards changed")


def refuse_changes(before: PlannedRun, asked: Mapping[str, Any], images: int | None = None) -> None:
    """Refuses to continue a run with other settings or another input.

    Args:
      before: the run.
      asked: what `PlannedRun.asked` is for the call.
      images: the number of images, if the input is another one.

    Raises:
      PlanConflictError: something differs.
    """
    differing = settings_that_differ(before.asked, asked)
    differences = [f"the call asks for {in_words(differing)}"] if differing else []
    if images is not None:
        differences.append(
            f"the input's paths or labels changed ({counted(before.images, 'image')} then, {images:,} now)"
        )
    if differences:
        raise _conflict(before, "; ".join(differences), differing if images is None else None)


def _conflict(
    before: PlannedRun, text: str, differing: Mapping[str, tuple[Any, Any]] | None = None
) -> PlanConflictError:
    return PlanConflictError(
        f"output {before.output!r} holds another run: {text}. Choose another --output, or replace the run with "
        "--overwrite",
        differing,
    )
