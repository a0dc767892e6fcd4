"""Constructing a step does nothing; a data set is listed, and a plan is written, when the step is applied."""

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from camboxes.transforms import Plan, PlannedRun, PlanOnWorkers, ReadLabeledImages
from camboxes.transforms.planning.plan import PlanConflictError
from camboxes.transforms.sources.entries import SourceError

NAMES = [("cat",), ("dog",)]
RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
READERS = [ReadLabeledImages, PlanOnWorkers]


@pytest.fixture
def plan(tmp_path):
    """A plan for a folder that is not there."""
    return Plan(str(tmp_path / "out"), NAMES)


@pytest.fixture
def manifest(tmp_path):
    """Where a manifest may be written."""
    return tmp_path / "m.csv"


@pytest.mark.parametrize("reader", READERS)
def test_constructing_reads_and_writes_nothing(reader, manifest, plan, tmp_path):
    step = reader(str(manifest), plan)
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(SourceError, match="does not exist"):
        _ = beam.Pipeline(runner=RUNNER) | step
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("reader", READERS)
def test_the_input_is_read_when_the_step_is_applied(reader, manifest, plan):
    step = reader(str(manifest), plan)
    manifest.write_text("path,label\nb.jpg,dog\na.jpg,cat\n")
    with beam.Pipeline(runner=RUNNER) as p:
        paths = p | step | beam.FlatMap(lambda shard: shard.rows.column("path").to_pylist())
        assert_that(paths, equal_to(["a.jpg", "b.jpg"]))
    assert PlannedRun.load(plan.output).images == 2


@pytest.mark.parametrize("reader", READERS)
def test_the_run_s_folder_is_looked_up_when_the_step_is_applied(reader, manifest, plan, tmp_path):
    manifest.write_text("path,label\na.jpg,cat\n")
    step = reader(str(manifest), plan)
    (tmp_path / "out" / "shards").mkdir(parents=True)
    (tmp_path / "out" / "shards" / "00000-of-00001.parquet").touch()
    with pytest.raises(PlanConflictError, match="holds shards without a plan"):
        _ = beam.Pipeline(runner=RUNNER) | step


def test_checking_early(manifest, plan):
    with pytest.raises(SourceError, match="does not exist"):
        PlanOnWorkers(str(manifest), plan).check()
    manifest.write_text("path,label\na.jpg,cat\n")
    PlanOnWorkers(str(manifest), plan).check()
    assert PlannedRun.load(plan.output) is None


def test_a_plan_that_is_made_already(manifest, tmp_path):
    manifest.write_text("path,label\n" + "".join(f"{number}.jpg,cat\n" for number in range(20)))
    step = ReadLabeledImages(str(manifest), Plan(str(tmp_path / "out"), NAMES, shards=2))
    planned = step.check()
    manifest.unlink()
    (tmp_path / "out" / "shards").mkdir()
    (tmp_path / "out" / "shards" / "00001-of-00002.parquet").touch()
    with beam.Pipeline(runner=RUNNER) as p:
        shards = p | step | beam.Map(lambda shard: (shard.key, shard.rows.to_pylist()))
        assert_that(shards, equal_to([("00000-of-00002", planned.planned_rows("00000-of-00002").to_pylist())]))


@pytest.mark.parametrize("reader", READERS)
def test_hints_are_for_the_step_that_reads_shards(reader, manifest, plan):
    manifest.write_text("path,label\na.jpg,cat\n")
    p = beam.Pipeline(runner=RUNNER)
    _ = p | reader(str(manifest), plan).with_resource_hints(min_ram="1GB")
    graph, _ = p.to_runner_api(return_context=True)
    hinted = {
        transform.unique_name.rpartition("/")[2]
        for transform in graph.components.transforms.values()
        if graph.components.environments[transform.environment_id].resource_hints and not transform.subtransforms
    }
    assert "PlannedRows" in hinted
    assert not hinted & {"MissingShards", "List", "PlanShard", "Settle"}
