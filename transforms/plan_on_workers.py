"""The plan of a data set that is too large to be listed where the job is started: made on workers, by the same rule."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsSingleton

from camboxes.transforms.labels import Category
from camboxes.transforms.listing import shard_of
from camboxes.transforms.plan import Image, Plan, PlannedShard, plan_shard, shard_key
from camboxes.transforms.read import PlannedShards
from camboxes.transforms.records import Shard
from camboxes.transforms.sources import entries, root_of

_LABELS, _PASSED_OVER, _REPEATED = "labels", "passed_over", "repeated"


@beam.typehints.with_output_types(Shard)
class PlanOnWorkers(beam.PTransform):
    """Plans a data set in the pipeline itself, and emits what `ReadLabeledImages` emits: the same shards and ids.

        p | PlanOnWorkers(path, plan) | InferClassMaps(model) | BoxesFromMaps(threshold) | WriteCoco(output)

    One worker lists the input and holds nothing of it; paths are shuffled, images never. A plan that the run's folder
    holds already is compared with what the input gives now.

    Raises, in the job:
      SourceError, UnmatchedLabelsError, PlanConflictError: see `Plan.make`.
    """

    def __init__(self, path: str, plan: Plan):
        """Takes what `entries` reads, and how to plan it.

        Raises:
          PlanConflictError: see `Plan.before`.
        """
        super().__init__()
        self._path = path
        self._plan = plan
        self._before = plan.before()

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Shard]:
        """Applies the transform to a pipeline."""
        plan, root = self._plan, root_of(self._path, self._plan.root)
        listed = (
            pipeline
            | "Input" >> beam.Create([self._path], reshuffle=False)
            | "List" >> beam.ParDo(_List(), plan.root).with_outputs(_PASSED_OVER, main="entries")
        )
        merged = (
            listed.entries
            | "ByPath" >> beam.GroupByKey()
            | "OneImage" >> beam.ParDo(_OneImage()).with_outputs(_REPEATED, _LABELS, main="images")
        )
        images = merged.images | "Count" >> beam.combiners.Count.Globally()
        categories = (
            merged[_LABELS]
            | "Labels" >> beam.Distinct()
            | "AllLabels" >> beam.combiners.ToList()
            | "Categories" >> beam.Map(plan.categories)
        )
        # Every shard of the plan, also one that no image falls to.
        numbers = images | "Numbers" >> beam.FlatMap(lambda count: ((n, None) for n in range(plan.shard_count(count))))
        members = merged.images | "Number" >> beam.Map(
            lambda image, count: (shard_of(image[0], plan.shard_count(count)), image), count=AsSingleton(images)
        )
        shards = (
            (numbers, members)
            | "AllMembers" >> beam.Flatten()
            | "ByShard" >> beam.GroupByKey()
            | "PlanShard"
            >> beam.Map(
                _plan_shard,
                plan=plan,
                keep=self._before is None,
                count=AsSingleton(images),
                categories=AsSingleton(categories),
            )
        )
        missing = (
            pipeline
            | "Once" >> beam.Create([root], reshuffle=False)
            | "Settle"
            >> beam.FlatMap(
                _settle,
                plan=plan,
                shards=AsIter(shards),
                categories=AsSingleton(categories),
                repeated=_total(merged[_REPEATED], "Repeated"),
                passed_over=_total(listed[_PASSED_OVER], "PassedOver"),
            )
        )
        return missing | PlannedShards(plan.output)


class _List(beam.DoFn):
    """Yields (path, labels) for each entry, and one for each file that is passed over."""

    def process(self, path: str, root: str | None) -> Iterator[Any]:
        for entry in entries(path, root):
            if entry is None:
                yield beam.pvalue.TaggedOutput(_PASSED_OVER, 1)
            else:
                yield entry.path, entry.labels


class _OneImage(beam.DoFn):
    """Yields an image with all the labels that it was given; its labels; how many it was given more than once."""

    def process(self, given: tuple[str, Iterable[Sequence[str]]]) -> Iterator[Any]:
        path, of_entries = given
        labels = [label for labels in of_entries for label in labels]
        distinct = sorted(set(labels))
        yield path, tuple(distinct)
        yield from (beam.pvalue.TaggedOutput(_LABELS, label) for label in distinct)
        if len(labels) > len(distinct):
            yield beam.pvalue.TaggedOutput(_REPEATED, len(labels) - len(distinct))


def _total(numbers: beam.PCollection, name: str) -> AsSingleton:
    return AsSingleton(numbers | name >> beam.CombineGlobally(sum))


def _plan_shard(
    group: tuple[int, Iterable[Image | None]], *, plan: Plan, keep: bool, count: int, categories: list[Category]
) -> PlannedShard:
    number, members = group
    images = [image for image in members if image is not None]
    shard, rows = plan_shard(shard_key(number, plan.shard_count(count)), images, categories)
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
    passed_over: int,
) -> list[str]:
    """Saves the plan, which makes it one, or finds it to be the one there was; the shards that are still to be done."""
    run = plan.run(root, sorted(shards), categories, repeated=repeated, passed_over=passed_over)
    return plan.settle(run, plan.before()).missing()
