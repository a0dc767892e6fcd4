"""The first step: shards of references to images, planned, made from a stream, or read back from a run."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam

from camboxes.transforms import storage
from camboxes.transforms.planning.listing import Listing
from camboxes.transforms.planning.plan import Plan, PlannedRun, read_shard, shards_folder
from camboxes.transforms.records import PLANNED, LabeledImage, Shard, table


@beam.typehints.with_output_types(Shard)
class ReadLabeledImages(beam.PTransform):
    """Plans a data set and emits its planned shards, but for those that the run's folder holds already.

    A shard holds references, never pixels. The plan is made when the transform is constructed.

    Attributes:
      planned: the run as planned.
    """

    def __init__(self, source: str | Listing, plan: Plan):
        """Takes what `read_source` reads, or what it made of it, and how to plan it.

        Raises:
          SourceError, UnmatchedLabelsError, PlanConflictError: see `Plan.make`.
        """
        super().__init__()
        self.planned = plan.make(source)
        self._read = PlannedShards(plan.output)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Shard]:
        """Applies the transform to a pipeline."""
        return pipeline | "MissingShards" >> beam.Create(self.planned.missing(), reshuffle=False) | self._read

    def with_resource_hints(self, **hints: Any) -> "ReadLabeledImages":
        """Gives the hints to the step that reads shards, which the network's step is fused with; planning has none."""
        self._read.with_resource_hints(**hints)
        return self


@beam.typehints.with_input_types(str)
@beam.typehints.with_output_types(Shard)
class PlannedShards(beam.PTransform):
    """Reads the planned shards of a run by their keys."""

    def __init__(self, output: str):
        """Takes the run's folder, which has a plan when the first key arrives."""
        super().__init__()
        self._output = output

    def expand(self, keys: beam.PCollection[str]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of keys."""
        # Keys are shuffled, pixels never: the steps that follow run fused, on any worker.
        return keys | "Spread" >> beam.Reshuffle() | "PlannedRows" >> beam.ParDo(_PlannedRows(self._output))


@beam.typehints.with_output_types(Shard)
class _PlannedRows(beam.DoFn):
    def __init__(self, output: str):
        self._output = output
        self._run: PlannedRun | None = None

    def process(self, key: str) -> Iterator[Shard]:
        if self._run is None:  # not at set-up: the plan may be made by an earlier step of the same job
            self._run = PlannedRun.load(self._output)
        assert self._run is not None, f"{self._output} has a plan before any of its shards is asked for"
        yield Shard(key, self._run.planned_rows(key))


@beam.typehints.with_output_types(Shard)
class ReadShards(beam.PTransform):
    """Emits the finished shards of a run: `p | ReadShards(run) | BoxesFromMaps(0.4) | WriteCoco(output)`."""

    def __init__(self, run: str, keys: Sequence[str] | None = None):
        """Takes the run's folder, and the keys of the shards that are wanted; None for all."""
        super().__init__()
        self._run = run
        self._keys = keys

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Shard]:
        """Applies the transform to a pipeline."""
        keys = self._keys
        if keys is None:
            keys = [name.removesuffix(".parquet") for name in storage.names(shards_folder(self._run), ".parquet")]
        return (
            pipeline
            | "Keys" >> beam.Create(keys, reshuffle=False)
            | "Spread" >> beam.Reshuffle().with_input_types(str)
            | "Rows" >> beam.Map(lambda key, run: read_shard(run, key), run=self._run).with_output_types(Shard)
        )


@beam.typehints.with_input_types(LabeledImage)
@beam.typehints.with_output_types(Shard)
class BatchImages(beam.PTransform):
    """Makes shards of images that arrive one by one in a pipeline of the user's own.

    Such shards are unplanned: their keys are hashes of their paths, images get their ids in the order of their paths
    when the run is merged, and there is no promise of resuming or of equal bytes. A bundle's last shard is shorter.
    """

    def __init__(self, n: int, categories: Sequence[str]):
        """Takes the number of images in a shard, and the data set's labels; ids are given in sorted order, from 1.

        A label that is not among the categories is no error of the job: its image is skipped, with the reason.
        """
        super().__init__()
        if n < 1:
            raise ValueError(f"n is {n}; expected the number of images in a shard, at least 1")
        self._n = n
        self._categories = sorted(set(categories))

    def expand(self, images: beam.PCollection[LabeledImage]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of images."""
        return images | beam.BatchElements(self._n, self._n) | beam.Map(_unplanned, categories=self._categories)


def _unplanned(images: Sequence[LabeledImage], categories: Sequence[str]) -> Shard:
    ids = {name: number for number, name in enumerate(categories, start=1)}
    rows = [
        {
            "path": image.path,
            "labels": [{"label": label, "category_id": ids.get(label)} for label in sorted(set(image.labels))],
            "location": image.path,
            "image": image.image,
        }
        for image in images
    ]
    key = hashlib.sha256("\n".join(sorted(image.path for image in images)).encode()).hexdigest()[:16]
    return Shard(key, table(rows, PLANNED, {"categories": list(categories)}))
