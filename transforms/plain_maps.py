"""Replaces refined maps by the maps before refinement, so that one run gives boxes from both."""

import apache_beam as beam

from camboxes.transforms.records import MAPPED, Shard

PLAIN = {"refine": "none", "keep_plain": False}  # the settings of such maps


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class PlainMaps(beam.PTransform):
    """Replaces each row's maps by its plain maps, in shards for which `InferClassMaps` kept these."""

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of shards."""
        return shards | beam.Map(_plain).with_output_types(Shard)


def _plain(shard: Shard) -> Shard:
    rows = [row | {"maps": row["plain_maps"], "plain_maps": []} for row in shard.rows.to_pylist()]
    return shard.extended(rows, MAPPED, PLAIN)
