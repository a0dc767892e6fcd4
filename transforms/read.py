"""The first step: emits shards of references to images, from a plan, from a stream, or from a finished run."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

import apache_beam as beam

from camboxes.transforms import storage
from camboxes.transforms.planning.listing import Listing
from camboxes.transforms.planning.plan import Plan, PlannedRun, read_shard, shards_folder
from camboxes.transforms.records import PLANNED, LabeledImage, Shard, check_labels, table
from camboxes.transforms.sources.background import parted


@beam.typehints.with_input_types(str)
@beam.typehints.with_output_types(Shard)
class ReadByKey(beam.PTransform):
    """Reads the planned shards of a run by their keys."""

    def __init__(self, output: str):
        """Takes the run's folder. It must hold a plan when the first key arrives."""
        super().__init__()
        self._output = output

    def expand(self, keys: beam.PCollection[str]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of keys."""
        # Keys are shuffled, pixels never: the steps that follow run fused, on any worker.
        return keys | "Spread" >> beam.Reshuffle() | "PlannedRows" >> beam.ParDo(_PlannedRows(self._output))


class PlansThenReads(beam.PTransform):
    """A transform that finds the keys of planned shards, and then applies `_read` to them."""

    def __init__(self, output: str):
        """Takes the run's folder."""
        super().__init__()
        self._read = ReadByKey(output)

    def with_resource_hints(self, **hints: Any) -> Self:
        """Gives the hints to the step that reads shards. It is fused with the network's step; planning needs none."""
        self._read.with_resource_hints(**hints)
        return self


@beam.typehints.with_output_types(Shard)
class ReadLabeledImages(PlansThenReads):
    """Plans a data set, and emits its planned shards that the run's folder does not hold yet.

    A shard holds references to images, never pixels. The data set is listed and the plan is written when the transform
    is applied to a pipeline, or by `check`.

    Raises, when it is applied: see `check`.
    """

    def __init__(self, source: str | Listing, plan: Plan):
        """Takes the data set, as `read_source` reads or returns it, and how it is planned."""
        super().__init__(plan.output)
        self._source = source
        self._plan = plan
        self._planned: PlannedRun | None = None

    def check(self) -> PlannedRun:
        """Makes the plan that `expand` then uses; call it to learn of errors earlier.

        Raises:
          SourceError, UnmatchedLabelsError, PlanConflictError: see `Plan.make`.
        """
        self._planned = self._plan.make(self._source)
        return self._planned

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Shard]:
        """Applies the transform to a pipeline."""
        keys = (self._planned or self.check()).missing()
        return pipeline | "MissingShards" >> beam.Create(keys, reshuffle=False) | self._read


@beam.typehints.with_output_types(Shard)
class _PlannedRows(beam.DoFn):
    def __init__(self, output: str):
        self._output = output
        self._run: PlannedRun | None = None

    def process(self, key: str) -> Iterator[Shard]:
        if self._run is None:  # not in setup: an earlier step of the same job may make the plan
            self._run = PlannedRun.load(self._output)
        assert self._run is not None, f"{self._output} must hold a plan before its shards are read"
        yield Shard(key, self._run.planned_rows(key))


@beam.typehints.with_output_types(Shard)
class ReadShards(beam.PTransform):
    """Emits the finished shards of a run: `p | ReadShards(run) | BoxesFromMaps(0.4) | WriteCoco(output)`."""

    def __init__(self, run: str, keys: Sequence[str] | None = None):
        """Takes the run's folder, and the keys of the shards to read; None for all."""
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
    """Groups the images of a stream into shards, in a pipeline of the user's own.

    Such shards are unplanned: a shard's key is a hash of its paths, and images get their ids when the run is merged, in
    the order of their paths. A run cannot be resumed, and its bytes may differ from another's. A bundle's last shard is
    shorter.
    """

    def __init__(self, n: int, categories: Sequence[str], background: Sequence[str] = ()):
        """Takes the number of images in a shard, at least 1, the data set's labels, and those that are background.

        Labels get ids from 1 in sorted order. An image without any of them is skipped, with the reason. Background: see
        `Plan`.
        """
        super().__init__()
        check_labels(categories)
        if n < 1:
            raise ValueError(f"n is {n}; expected the number of images in a shard, at least 1")
        self._n = n
        self._background = frozenset(background)
        self._categories = sorted(set(categories) - self._background)

    def expand(self, images: beam.PCollection[LabeledImage]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of images."""
        return (
            images
            | beam.BatchElements(self._n, self._n)
            | beam.Map(_unplanned, categories=self._categories, background=self._background)
        )


def _unplanned(images: Sequence[LabeledImage], categories: Sequence[str], background: Collection[str]) -> Shard:
    ids = {name: number for number, name in enumerate(categories, start=1)}
    rows = []
    for image in images:
        check_labels(image.labels)
        classes, of_background = parted(sorted(set(image.labels)), background)
        rows.append(
            {
                "path": image.path,
                "labels": [{"label": label, "category_id": ids.get(label)} for label in classes],
                "background": of_background,
                "location": image.path,
                "image": image.image,
            }
        )
    key = hashlib.sha256("\n".join(sorted(image.path for image in images)).encode()).hexdigest()[:16]
    return Shard(key, table(rows, PLANNED, {"categories": list(categories)}))
