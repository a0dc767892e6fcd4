"""Plans a data set on the workers, by the same rule, where it is too large for the process that starts the job."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsIter, AsSingleton

from camboxes.transforms.containers.any_format import containers_of, runs
from camboxes.transforms.planning.label_matching import Category
from camboxes.transforms.planning.listing import listed, shard_count, shard_of
from camboxes.transforms.planning.plan import Plan, PlannedRun, PlannedShard, plan_shard, shard_key
from camboxes.transforms.read import PlansThenReads
from camboxes.transforms.records import Shard
from camboxes.transforms.sources.columns import Columns
from camboxes.transforms.sources.datasets import entries, root_of
from camboxes.transforms.sources.entries import Assumption, Listed, PassedOver, Split, SplitFolder
from camboxes.transforms.sources.passed_over import Tally

_LABELS, _PASSED_OVER, _REPEATED, _RUNS, _SPLITS = "labels", "passed_over", "repeated", "runs", "splits"
_ASSUMED = "assumed"

_Run = tuple[tuple[int, int], list[Listed]]  # the number of its container, its number in that; its images
_Statement = tuple[str, bool]  # a label, and whether it is denied


@beam.typehints.with_output_types(Shard)
class PlanOnWorkers(PlansThenReads):
    """Plans a data set on the workers, and emits what `ReadLabeledImages` does: the same shards with the same ids.

        p | PlanOnWorkers(path, plan) | InferClassMaps(model) | BoxesFromMaps(threshold) | WriteCoco(output)

    A worker that lists the input, or one of its containers, does not hold the listing. Paths are shuffled, images
    never. A plan that the run's folder holds already is compared with the input as it is now.

    Raises, when it is applied: see `check`.

    Raises, in the job:
      SourceError, UnmatchedLabelsError, PlanConflictError: see `Plan.make`.
    """

    def __init__(self, path: str, plan: Plan):
        """Takes what `read_source` reads, and how the data set is planned."""
        super().__init__(plan.output)
        self._path = path
        self._plan = plan

    def check(self) -> tuple[PlannedRun | None, list[str]]:
        """Looks up the input and the run's folder. `expand` does so, too; call it to learn of errors earlier.

        Returns:
          The plan that the run's folder holds, and the containers that the input consists of, if any.

        Raises:
          SourceError: there is no such input.
          PlanConflictError: see `Plan.before`.
          ValueError: a number of shards was asked for, and the images lie in containers.
        """
        before = self._plan.before()
        containers = containers_of(self._path)
        if containers:
            self._plan.columns.check_unused(self._path)
        if containers and self._plan.shards is not None:
            raise ValueError("images inside containers are cut into runs of neighbours: leave --shards out")
        if not containers:
            entries(
                self._path, self._plan.root, self._plan.columns
            )  # checks that the input is there; a worker lists it
        return before, containers

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Shard]:
        """Applies the transform to a pipeline."""
        before, containers = self.check()
        found = self._in_containers(pipeline, containers) if containers else self._in_files(pipeline)
        categories = (
            found.labels
            | "Labels" >> beam.Distinct()
            | "AllLabels" >> beam.combiners.ToList()
            | "Categories" >> beam.Map(self._plan.categories, containers=containers)
        )
        shards = found.members | "PlanShard" >> beam.Map(
            _plan_shard, plan=self._plan, keep=before is None, categories=AsSingleton(categories)
        )
        return (
            pipeline
            | "Once" >> beam.Create([root_of(self._path, self._plan.root)], reshuffle=False)
            | "Settle"
            >> beam.FlatMap(
                _settle,
                plan=self._plan,
                shards=AsIter(shards),
                categories=AsSingleton(categories),
                repeated=_total(found.repeated, "Repeated", sum),
                passed_over=_total(found.passed_over, "PassedOver", Tally.total),
                splits=AsDict(found.splits),
                assumed=AsIter(found.assumed),
            )
            | self._read
        )

    def _in_files(self, pipeline: beam.Pipeline) -> "_Found":
        given = (
            pipeline
            | "Input" >> beam.Create([self._path], reshuffle=False)
            | "List"
            >> beam.FlatMap(_list, self._plan.root, self._plan.columns).with_outputs(
                _PASSED_OVER, _SPLITS, _ASSUMED, main="statements"
            )
        )
        images = (
            given.statements
            | "ByPath" >> beam.GroupByKey()
            | "OneImage" >> beam.FlatMap(_one_image).with_outputs(_REPEATED, _LABELS, main="listed")
        )
        asked = self._plan.shards
        count = images.listed | "Count" >> beam.combiners.Count.Globally() | beam.Map(lambda n: asked or shard_count(n))
        # Every shard of the plan, also those without images.
        empty = count | "Numbers" >> beam.FlatMap(lambda count: (((n, count), None) for n in range(count)))
        numbered = images.listed | "Number" >> beam.Map(
            lambda image, count: ((shard_of(image.path, count), count), image), count=AsSingleton(count)
        )
        members = (
            (empty, numbered)
            | "AllMembers" >> beam.Flatten()
            | "ByShard" >> beam.GroupByKey()
            | "Sorted" >> beam.MapTuple(lambda number, found: (shard_key(*number), sorted(filter(None, found))))
        )
        return _Found(members, images[_LABELS], images[_REPEATED], given[_PASSED_OVER], given[_SPLITS], given[_ASSUMED])

    def _in_containers(self, pipeline: beam.Pipeline, containers: Sequence[str]) -> "_Found":
        given = (
            pipeline
            | "Containers" >> beam.Create(list(enumerate(containers)))
            | "List"
            >> beam.FlatMap(_list_container, root_of(self._path, self._plan.root)).with_outputs(
                _PASSED_OVER, _LABELS, _RUNS, main="images"
            )
        )
        order = given[_RUNS] | "Order" >> beam.combiners.ToList() | beam.Map(_first_shards)
        members = given.images | "Key" >> beam.Map(_keyed, order=AsSingleton(order))
        none = pipeline | "None" >> beam.Create([], reshuffle=False)  # repeated, no splits, nothing assumed
        return _Found(members, given[_LABELS], none, given[_PASSED_OVER], none, none)


class _Found(NamedTuple):
    """The parts of a plan, each a collection.

    Attributes:
      members: the key of each shard, and its images in the order of their ids.
      labels: those of all images, each any number of times.
      repeated, passed_over: parts whose sums are those of `Listing`.
      splits: the folder of each split, and its split.
      assumed: see `Listing`.
    """

    members: "beam.PCollection[tuple[str, list[Listed]]]"
    labels: "beam.PCollection[str]"
    repeated: "beam.PCollection[int]"
    passed_over: "beam.PCollection[Tally]"
    splits: "beam.PCollection[tuple[str, Split]]"
    assumed: "beam.PCollection[str]"


def _list(path: str, root: str | None, columns: Columns) -> Iterator[Any]:
    """Yields for each entry its path and statements; splits and assumptions; and a tally of what is passed over."""
    passed_over = Tally()
    for entry in entries(path, root, columns):
        if isinstance(entry, PassedOver):
            passed_over.add(entry)
        elif isinstance(entry, SplitFolder):
            yield beam.pvalue.TaggedOutput(_SPLITS, tuple(entry))
        elif isinstance(entry, Assumption):
            yield beam.pvalue.TaggedOutput(_ASSUMED, entry.text)
        else:
            yield entry.path, [(name, False) for name in entry.labels] + [(name, True) for name in entry.denied]
    yield beam.pvalue.TaggedOutput(_PASSED_OVER, passed_over)


def _one_image(given: tuple[str, Iterable[Sequence[_Statement]]]) -> Iterator[Any]:
    """Yields an image; each of its labels; the number of its labels that were given more than once."""
    path, of_entries = given
    statements = [statement for of_entry in of_entries for statement in of_entry]
    labels = [label for label, denied in statements if not denied]
    yield listed(path, statements)
    yield from (beam.pvalue.TaggedOutput(_LABELS, label) for label in set(labels))
    yield beam.pvalue.TaggedOutput(_REPEATED, len(labels) - len(set(labels)))


def _list_container(numbered: tuple[int, str], root: str) -> Iterator[Any]:
    """Yields each run of a container; its labels; the number of runs; a tally of what is passed over."""
    (number, container), count, passed_over = numbered, 0, Tally()
    for run in runs(container, root):
        if isinstance(run, PassedOver):
            passed_over.add(run)
            continue
        yield (number, count), run
        count += 1
        labels = {label for image in run for label in image.labels}
        yield from (beam.pvalue.TaggedOutput(_LABELS, label) for label in labels)
    yield beam.pvalue.TaggedOutput(_RUNS, (number, count))
    yield beam.pvalue.TaggedOutput(_PASSED_OVER, passed_over)


def _first_shards(runs_of: Iterable[tuple[int, int]]) -> tuple[dict[int, int], int]:
    """The number of each container's first shard, and the number of all shards."""
    first, total = {}, 0
    for container, count in sorted(runs_of):
        first[container] = total
        total += count
    return first, total


def _keyed(run: _Run, order: tuple[dict[int, int], int]) -> tuple[str, list[Listed]]:
    ((container, number), images), (first, total) = run, order
    return shard_key(first[container] + number, total), images


def _total(parts: beam.PCollection, name: str, add: Callable[[Iterable[Any]], Any]) -> AsSingleton:
    return AsSingleton(parts | name >> beam.CombineGlobally(add))


def _plan_shard(
    members: tuple[str, list[Listed]], *, plan: Plan, keep: bool, categories: list[Category]
) -> PlannedShard:
    shard, rows = plan_shard(*members, {category.name: category for category in categories})
    if keep:
        plan.write(shard.key, rows)
    return shard


def _settle(
    root: str,
    *,
    plan: Plan,
    shards: Iterable[PlannedShard],
    categories: list[Category],
    repeated: int,
    passed_over: Tally,
    splits: Mapping[str, Split],
    assumed: Iterable[str],
) -> list[str]:
    """Saves the plan, or finds that it equals the plan there was; returns the keys of the shards to be done."""
    run = plan.run(
        root,
        sorted(shards),
        categories,
        repeated=repeated,
        passed_over=passed_over,
        splits=splits,
        assumed=assumed,
    )
    return plan.settle(run, plan.before()).missing()
