"""Real parts for the tests: five photographs that installed packages ship, a run over them, a browser, a database."""

import json
import runpy
import socket
import subprocess
from pathlib import Path

import pytest

from camboxes.pipeline import cli, demo, doctor
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.plan import shard_file

_CHROMIUM = "/usr/bin/chromium"
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A data set of five class folders with one photograph each."""
    folder = tmp_path_factory.mktemp("photographs")
    demo.gather(folder)
    return folder


@pytest.fixture(scope="session")
def hostile_images(photographs, tmp_path_factory):
    """A folder of some 700 broken and odd image files: see hostile_images.py."""
    folder = tmp_path_factory.mktemp("hostile_images") / "files"
    runpy.run_path(str(Path(__file__).parent / "hostile_images.py"))["write"](photographs, folder)
    return folder


@pytest.fixture(scope="session")
def run(photographs, tmp_path_factory):
    """The folder of a finished run over the photographs, with the default settings but two shards."""
    output = tmp_path_factory.mktemp("run") / "boxes"
    assert cli.main(["label", "--input", str(photographs), "--output", str(output), "--shards", "2"]) == 0
    return output


@pytest.fixture(scope="session")
def plain_run(photographs, tmp_path_factory):
    """The same with the maps of Zhou et al.: of the whole image squashed to 224 x 224, as they are."""
    output = tmp_path_factory.mktemp("plain_run") / "boxes"
    options = ["--method", "cam", "--scales", "224", "--aspect", "squash", "--refine", "none"]
    options += ["--boxes", "largest", "--shards", "2"]
    assert cli.main(["label", "--input", str(photographs), "--output", str(output), *options]) == 0
    return output


@pytest.fixture(scope="session")
def classifier():
    """EfficientNet-Lite0 with its packaged weights, in a precision in which values can be told."""
    from camboxes.models import ModelSpec, load_classifier

    return load_classifier(ModelSpec(precision="fp32"))


@pytest.fixture(scope="module")
def chromium():
    """A browser that fails the test where it is absent: the page's safety is not taken on trust."""
    from playwright.sync_api import sync_playwright

    if not Path(_CHROMIUM).exists():
        pytest.fail(f"the report is tested in {_CHROMIUM}, which does not exist; apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def free_port():
    """Finds a port of this machine's own that nothing listens on."""

    def find():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return free.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def database(free_port, tmp_path_factory):
    """The address of a mongod of our own: FiftyOne itself would join the database of any session of the same user."""
    import pymongo

    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("FIFTYONE_DATABASE_URI", raising=False)
        [check] = [check for check in doctor.CHECKS if check.name == "mongod"]
        mark, text = check.line()
    assert mark == doctor.OK, text
    folder, port = tmp_path_factory.mktemp("database"), free_port()
    call = [doctor._folder("fiftyone") / "db/bin/mongod", "--dbpath", folder, "--logpath", folder / "log"]
    mongod = subprocess.Popen([*call, "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"])
    address = f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=30000"
    try:
        with pymongo.MongoClient(address) as client:
            client.admin.command("ping")  # waits until it answers
        yield address
    finally:
        mongod.terminate()
        mongod.wait(30)


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
