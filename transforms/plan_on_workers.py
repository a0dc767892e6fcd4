"""The plan of a data set that is too large to be listed where the job is started: made on workers, by the same rule."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsIter, AsSingleton

from camboxes.transforms.containers.any_format import containers_of, runs
from camboxes.transforms.planning.label_matching import Category
from camboxes.transforms.planning.listing import listed, shard_count, shard_of
from camboxes.transforms.planning.plan import Plan, PlannedShard, plan_shard, shard_key
from camboxes.transforms.read import PlannedShards
from camboxes.transforms.records import Shard
from camboxes.transforms.sources.datasets import entries, root_of
from camboxes.transforms.sources.entries import Listed, PassedOver, Split, SplitFolder
from camboxes.transforms.sources.passed_over import Tally

_LABELS, _PASSED_OVER, _REPEATED, _RUNS, _SPLITS = "labels", "passed_over", "repeated", "runs", "splits"

_Run = tuple[tuple[int, int], list[Listed]]  # the numbers of its container, and of itself therein; its images
_Statement = tuple[str, bool]  # a label, and whether it is denied


@beam.typehints.with_output_types(Shard)
class PlanOnWorkers(beam.PTransform):
    """Plans a data set in the pipeline itself, and emits what `ReadLabeledImages` does: the same shards and ids.

        p | PlanOnWorkers(path, plan) | InferClassMaps(model) | BoxesFromMaps(threshold) | WriteCoco(output)

    A worker that lists the input, or one of its containers, holds nothing of it; paths are shuffled, images never. A
    plan that the run's folder holds already is compared with what the input gives now.

    Raises, in the job:
      SourceError, UnmatchedLabelsError, PlanConflictError: see `Plan.make`.
    """

    def __init__(self, path: str, plan: Plan):
        """Takes what `read_source` reads, and how to plan it.

        Raises:
          SourceError: there is no such input.
          PlanConflictError: see `Plan.before`.
          ValueError: a number of shards was asked for, and the images lie in containers.
        """
        super().__init__()
        self._path = path
        self._plan = plan
        self._read = PlannedShards(plan.output)
        self._containers = containers_of(path)
        self._keep = plan.before() is None
        if self._containers and plan.shards is not None:
            raise ValueError("images inside containers are cut into runs of neighbours: leave --shards out")
        if not self._containers:
            entries(path, plan.root)  # listed by a worker; that it is there at all is told at once

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Shard]:
        """Applies the transform to a pipeline."""
        found = self._in_containers(pipeline) if self._containers else self._in_files(pipeline)
        categories = (
            found.labels
            | "Labels" >> beam.Distinct()
            | "AllLabels" >> beam.combiners.ToList()
            | "Categories" >> beam.Map(self._plan.categories, containers=self._containers)
        )
        shards = found.members | "PlanShard" >> beam.Map(
            _plan_shard, plan=self._plan, keep=self._keep, categories=AsSingleton(categories)
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
            )
            | self._read
        )

    def with_resource_hints(self, **hints: Any) -> "PlanOnWorkers":
        """Gives the hints to the step that reads shards, which the network's step is fused with; planning has none."""
        self._read.with_resource_hints(**hints)
        return self

    def _in_files(self, pipeline: beam.Pipeline) -> "_Found":
        given = (
            pipeline
            | "Input" >> beam.Create([self._path], reshuffle=False)
            | "List" >> beam.ParDo(_List(), self._plan.root).with_outputs(_PASSED_OVER, _SPLITS, main="statements")
        )
        images = (
            given.statements
            | "ByPath" >> beam.GroupByKey()
            | "OneImage" >> beam.ParDo(_OneImage()).with_outputs(_REPEATED, _LABELS, main="listed")
        )
        asked = self._plan.shards
        count = images.listed | "Count" >> beam.combiners.Count.Globally() | beam.Map(lambda n: asked or shard_count(n))
        # Every shard of the plan, also one that no image falls to.
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
        return _Found(members, images[_LABELS], images[_REPEATED], given[_PASSED_OVER], given[_SPLITS])

    def _in_containers(self, pipeline: beam.Pipeline) -> "_Found":
        given = (
            pipeline
            | "Containers" >> beam.Create(list(enumerate(self._containers)))
            | "List"
            >> beam.ParDo(_ListContainer(), root_of(self._path, self._plan.root)).with_outputs(
                _PASSED_OVER, _LABELS, _RUNS, main="images"
            )
        )
        order = given[_RUNS] | "Order" >> beam.combiners.ToList() | beam.Map(_first_shards)
        members = given.images | "Key" >> beam.Map(_keyed, order=AsSingleton(order))
        none = pipeline | "None" >> beam.Create([], reshuffle=False)  # repeated, and no splits
        return _Found(members, given[_LABELS], none, given[_PASSED_OVER], none)


class _Found(NamedTuple):
    """What the plan is made of.

    Attributes:
      members: the key of each shard, and its images in the order of their ids.
      labels: of all images, in any number.
      repeated, passed_over: numbers and tallies whose sums are those of `Listing`.
      splits: the folders of splits, and which.
    """

    members: "beam.PCollection[tuple[str, list[Listed]]]"
    labels: "beam.PCollection[str]"
    repeated: "beam.PCollection[int]"
    passed_over: "beam.PCollection[Tally]"
    splits: "beam.PCollection[tuple[str, Split]]"


class _List(beam.DoFn):
    """Yields for each entry its path and statements, each folder of a split, and a tally of what is passed over."""

    def process(self, path: str, root: str | None) -> Iterator[Any]:
        passed_over = Tally()
        for entry in entries(path, root):
            if isinstance(entry, PassedOver):
                passed_over.add(entry)
            elif isinstance(entry, SplitFolder):
                yield beam.pvalue.TaggedOutput(_SPLITS, tuple(entry))
            else:
                yield entry.path, [(name, False) for name in entry.labels] + [(name, True) for name in entry.denied]
        yield beam.pvalue.TaggedOutput(_PASSED_OVER, passed_over)


class _OneImage(beam.DoFn):
    """Yields an image; each of its labels; how many it was given more than once."""

    def process(self, given: tuple[str, Iterable[Sequence[_Statement]]]) -> Iterator[Any]:
        path, of_entries = given
        statements = [statement for of_entry in of_entries for statement in of_entry]
        labels = [label for label, denied in statements if not denied]
        yield listed(path, statements)
        yield from (beam.pvalue.TaggedOutput(_LABELS, label) for label in set(labels))
        yield beam.pvalue.TaggedOutput(_REPEATED, len(labels) - len(set(labels)))


class _ListContainer(beam.DoFn):
    """Yields each run of a container; its labels; how many runs there are; a tally of what is passed over."""

    def process(self, numbered: tuple[int, str], root: str) -> Iterator[Any]:
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
    """The number of each container's first shard, and how many shards there are."""
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
) -> list[str]:
    """Saves the plan, which makes it one, or finds it to be the one there was; the shards that are still to be done."""
    run = plan.run(root, sorted(shards), categories, repeated=repeated, passed_over=passed_over, splits=splits)
    return plan.settle(run, plan.before()).missing()
