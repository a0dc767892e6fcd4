"""Real parts for the tests: five photographs that installed packages ship, and a run over them."""

import json
from pathlib import Path

import pytest

from camboxes.pipeline import cli, demo
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.plan import shard_file


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A data set of five class folders with one photograph each."""
    folder = tmp_path_factory.mktemp("photographs")
    demo.gather(folder)
    return folder


@pytest.fixture(scope="session")
def run(photographs, tmp_path_factory):
    """The folder of a finished run over the photographs, with the default settings but two shards."""
    output = tmp_path_factory.mktemp("run") / "boxes"
    assert cli.main(["label", "--input", str(photographs), "--output", str(output), "--shards", "2"]) == 0
    return output


@pytest.fixture(scope="session")
def classifier():
    """EfficientNet-Lite0 with its packaged weights."""
    from camboxes.models import load_classifier

    return load_classifier("efficientnet_lite0")


@pytest.fixture
def rows():
    """Reads all rows of a run's shards."""

    def read(output):
        planned = PlannedRun.load(str(output))
        return [row for key in planned.shards for row in storage.read_table(shard_file(str(output), key)).to_pylist()]

    return read


@pytest.fixture
def results():
    """The files that are promised to be byte-equal, by name."""

    def read(output):
        output = Path(output)
        files = [*(output / "shards").glob("*.parquet"), output / "annotations.json", output / "results.json"]
        return {path.name: path.read_bytes() for path in files}

    return read


@pytest.fixture
def annotations():
    """A run's annotations.json."""
    return lambda output: json.loads(Path(output, "annotations.json").read_text())
