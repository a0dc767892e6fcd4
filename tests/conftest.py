"""Real parts for the tests: five photographs that installed packages ship, a run over them, a browser, a database."""

import gc
import http.server
import itertools
import json
import logging
import runpy
import shutil
import socket
import subprocess
import threading
import uuid
from pathlib import Path

import hypothesis
import pytest

from camboxes.pipeline import cli
from camboxes.pipeline.commands import demo, doctor
from camboxes.transforms import PlannedRun

_CHROMIUM = "/usr/bin/chromium"
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


# Collecting the tests imports everything, and what is imported stays: it is looked through for garbage neither then nor
# ever again.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_addoption(parser):
    parser.addoption("--fault-rounds", type=int, default=6, metavar="N", help="jobs that test_faults.py kills")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What was measured on this machine before does not decide what tests see, and theirs is not kept."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def nothing_measured(own_cache):
    """What a test measures does not decide how the networks of the next one are executed."""
    from camboxes.models.execution import known

    yield
    shutil.rmtree(known.folder(), ignore_errors=True)


@pytest.fixture(scope="session")
def fault_rounds(request):
    """How many jobs to kill."""
    return request.config.getoption("--fault-rounds")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A data set of five class folders with one photograph each; nothing is written there."""
    folder = tmp_path_factory.mktemp("photographs")
    demo.gather(folder)
    return folder


@pytest.fixture
def own_photographs(photographs, tmp_path):
    """A copy of them, where a test may add files."""
    return shutil.copytree(photographs, tmp_path / "photographs")


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


@pytest.fixture(scope="module")
def one_core():
    """Threads that share a small forward pass wait for each other much longer than it takes, on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


class Requests:
    """A WSGI application that counts what is asked of another one, and answers 500 in its place when told to."""

    def __init__(self, application):
        self._application = application
        self._numbers = itertools.count(1)
        self.asked = self.failed = 0
        self.failing = 0

    def __call__(self, environment, start_response):
        """Answers a request; while `failing` is above 0, every request of a number that it divides fails."""
        self.asked = next(self._numbers)
        if self.failing and self.asked % self.failing == 0:
            self.failed += 1
            # Unread, a body would be taken for the next request on its connection.
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return self._application(environment, start_response)


@pytest.fixture(scope="module")
def s3_requests():
    """What is asked of a real S3 server of this machine, which S3's clients find in the environment."""
    import werkzeug.serving
    from moto.server import DomainDispatcherApplication, create_backend_app

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    requests = Requests(DomainDispatcherApplication(create_backend_app))
    server = werkzeug.serving.make_server("127.0.0.1", 0, requests, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "anyone")
        thread.start()
        yield requests
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def s3(s3_requests):
    """An empty bucket of it: its URL."""
    import boto3

    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="module")
def gs(free_port, tmp_path_factory):
    """The URL of an empty bucket on a real server of Google Cloud Storage's protocol on this machine."""
    from apache_beam.internal.gcp import auth
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from gcp_storage_emulator.server import create_server

    class Tokens(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"access_token": "anyone", "token_type": "Bearer", "expires_in": 36000}')

        def log_message(self, *_):
            pass

    tokens = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    threading.Thread(target=tokens.serve_forever, daemon=True).start()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # An account of nobody's: a process without one asks Google's machines for 20 s who it is.
    account = tmp_path_factory.mktemp("account") / "account.json"
    token_uri = f"http://127.0.0.1:{tokens.server_port}/token"
    account.write_text(
        json.dumps(
            {"type": "service_account", "project_id": "none", "private_key": key.decode(), "token_uri": token_uri}
            | {"client_email": "anyone@none", "client_id": "1", "private_key_id": "1"}
        )
    )
    port, bucket = free_port(), f"bucket-{uuid.uuid4().hex[:8]}"
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        environment.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        for name, value in (("_credentials_init", False), ("_credentials", None)):  # what another test has found out
            environment.setattr(auth._Credentials, name, value)
        server.start()
        yield f"gs://{bucket}"
        server.stop()
        tokens.shutdown()


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request):
    """Each of the two."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def rows():
    """Reads all rows of a run's shards."""

    def read(output):
        return list(PlannedRun.load(str(output)).rows())

    return read


@pytest.fixture(scope="session")
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
