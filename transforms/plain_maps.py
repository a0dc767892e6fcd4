"""The maps as they were before refinement, in the place of the refined ones: boxes from both without a second run."""

from collections.abc import Iterator

import apache_beam as beam

from camboxes.transforms.records import MAPPED, Shard

PLAIN = {"refine": "none", "keep_plain": False}  # the settings of such maps


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class PlainMaps(beam.PTransform):
    """Puts each row's plain maps in the place of its maps; for shards that `InferClassMaps` kept them in."""

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of shards."""
        return shards | beam.ParDo(_PlainMaps())


@beam.typehints.with_output_types(Shard)
class _PlainMaps(beam.DoFn):
    def process(self, shard: Shard) -> Iterator[Shard]:
        rows = [row | {"maps": row["plain_maps"], "plain_maps": []} for row in shard.rows.to_pylist()]
        yield shard.extended(rows, MAPPED, PLAIN)
