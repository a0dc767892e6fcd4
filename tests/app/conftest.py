"""The App as a reviewer has it: processes of its own beside a real mongod, and pages in a real browser."""

import contextlib
import os
import signal
import subprocess
import sys

import pymongo
import pytest
from playwright.sync_api import expect

SECONDS = 60  # for the App to answer, on a machine that is busy


@pytest.fixture(scope="module")
def environment(database, tmp_path_factory):
    """What a process of FiftyOne's is told: the database, and a home where nobody has anything yet."""
    home = tmp_path_factory.mktemp("home")
    told = os.environ | {"FIFTYONE_DATABASE_URI": database, "HOME": str(home)}
    told.pop("FIFTYONE_PLUGINS_DIR", None)
    return told


@pytest.fixture(scope="module")
def review(environment, free_port):
    """Runs `camboxes review` over a run; gives the process, and where the App is.

    It is ended as a person ends it, and has to say what was decided.
    """

    @contextlib.contextmanager
    def reviewing(output):
        call = ["review", "--run", str(output), "--remote", "--port", str(free_port())]
        with subprocess.Popen(
            [sys.executable, "-m", "camboxes.pipeline.cli", *call],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as server:  # fmt: skip
            try:
                said = [server.stdout.readline()]
                while said[-1] and not said[-1].startswith("from another machine"):
                    said.append(server.stdout.readline())
                assert said[-1], "".join(said)
                assert said[-1].startswith(f"from another machine: ssh -N -L {call[-1]}:127.0.0.1:{call[-1]} USER@HOST")
                yield server, said[-2].removeprefix("the App is at ").partition(";")[0]
            finally:
                server.send_signal(signal.SIGINT)
                rest, _ = server.communicate(timeout=SECONDS)
        assert server.returncode == 0, rest
        assert f"images; decisions stand in {output}/review.jsonl" in rest

    return reviewing


@pytest.fixture(scope="module")
def new_page(chromium):
    """Opens an empty page; gives it, and the list of its scripts' errors."""
    expect.set_options(timeout=1000 * SECONDS)

    def opened():
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(1000 * SECONDS)
        troubles = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
        return page, troubles

    return opened


@pytest.fixture(scope="module")
def samples_of(database):
    """Reads a dataset's samples as the database has them, by path."""
    with pymongo.MongoClient(database) as client:
        held = client["fiftyone"]

        def read(name):
            dataset = held["datasets"].find_one({"name": name})
            return {sample["path"]: sample for sample in held[dataset["sample_collection_name"]].find()}

        yield read
