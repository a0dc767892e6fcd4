import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to

from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.transforms import BoxesFromMaps, InferClassMaps, LabeledImage, ReadShards, Shard, WriteCoco
from camboxes.transforms.read import BatchImages
from camboxes.transforms.records import LABELED, MAPPED, PLANNED, ShardCoder, score_of, table


def _shard():
    rows = [
        {"image_id": 1, "path": "ü.jpg", "labels": [{"label": "cat", "category_id": 1, "class_indices": [281, 285]}]}
    ]
    return Shard("00000-of-00001", table(rows, PLANNED, {"b": 1, "a": [2]}))


def test_the_coder_is_deterministic_and_loses_nothing():
    coder = beam.coders.registry.get_coder(Shard)
    assert isinstance(coder, ShardCoder)
    assert coder.is_deterministic()
    again = coder.decode(coder.encode(_shard()))
    assert again == _shard()
    assert again.settings == {"a": [2], "b": 1, "schema_version": 3}
    assert coder.encode(again) == coder.encode(_shard())
    chunked = Shard("k", pa.concat_tables([_shard().rows.slice(0, 1), _shard().rows.slice(1)]))
    assert coder.encode(chunked) == coder.encode(Shard("k", _shard().rows))


def test_every_step_hands_over_shards_by_this_coder(tmp_path):
    pipeline = beam.Pipeline(options=beam_options([]))
    shards = pipeline | ReadShards(str(tmp_path)) | InferClassMaps() | BoxesFromMaps()
    proto, context = pipeline.to_runner_api(return_context=True)
    assert shards.element_type is Shard
    found = {
        name: context.coders.get_by_id(collection.coder_id)
        for name, collection in proto.components.pcollections.items()
        if any(step in collection.unique_name for step in ("Rows", "ParDo", "_draw_shard"))
    }
    assert len(found) >= 3
    assert {type(coder) for coder in found.values()} == {ShardCoder}
    assert (shards | WriteCoco(str(tmp_path))).element_type == beam.typehints.Dict[str, beam.typehints.Any]


def test_batches_are_shards_with_stable_keys():
    images = [LabeledImage(f"{number}.jpg", ("dog", "cat", "dog"), b"bytes") for number in range(5)]
    with beam.Pipeline(options=beam_options([])) as pipeline:
        shards = pipeline | beam.Create(images) | BatchImages(2, ["dog", "cat"])
        assert shards.element_type is Shard
        assert_that(shards | beam.Map(lambda shard: shard.rows.num_rows), equal_to([2, 2, 1]))
        assert_that(shards | beam.FlatMap(lambda shard: [row["labels"] for row in shard.rows.to_pylist()]), equal_to(
            [[{"label": "cat", "category_id": 1, "class_indices": None},
              {"label": "dog", "category_id": 2, "class_indices": None}]] * 5), label="labels")  # fmt: skip


def test_a_batch_of_nothing():
    with pytest.raises(ValueError, match="n is 0; expected the number of images in a shard"):
        BatchImages(0, [])


def test_the_score_that_counts():
    assert score_of({"score": 0.9, "calibrated_score": None}) == 0.9
    assert score_of({"score": 0.9, "calibrated_score": 0.0}) == 0.0


def test_each_schema_extends_the_one_before():
    assert LABELED.names == [*MAPPED.names, "boxes", "review"]
    assert set(PLANNED.names) - set(MAPPED.names) == {"location", "image", "place", "background"}
