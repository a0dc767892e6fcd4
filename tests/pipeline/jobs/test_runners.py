"""Jobs through Beam's job service, with workers in processes that the command knows nothing of."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from camboxes.pipeline.cli import main
from camboxes.transforms import PlannedRun

PLAIN = [
    "--method",
    "cam",
    "--scales",
    "224",
    "--aspect",
    "squash",
    "--refine",
    "none",
    "--boxes",
    "largest",
    "--shards",
    "2",
]
FIXED = ["--precision", "fp32", "--compile", "off", "--device", "cpu"]


@pytest.fixture(scope="module")
def serve(free_port):
    """Starts a program of Beam's that listens on a port, and gives its address."""
    processes = []

    def start(module, option):
        port = free_port()
        call = [sys.executable, "-m", module, f"{option}={port}"]
        # The pool starts its workers with whatever `python` is.
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        processes.append(subprocess.Popen(call, stderr=subprocess.DEVNULL, env=environment))
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
        return f"localhost:{port}"

    yield start
    for process in processes:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def job_service(serve):
    address = serve("apache_beam.runners.portability.local_job_service_main", "--port")
    return ["--runner=PortableRunner", f"--job_endpoint={address}"]


@pytest.fixture(scope="module")
def elsewhere(serve, job_service):
    address = serve("apache_beam.runners.worker.worker_pool_main", "--service_port")
    return [*job_service, "--environment_type=EXTERNAL", f"--environment_config={address}"]


def _label(photographs, output, *options):
    return main(["label", "--input", str(photographs), "--output", str(output), *PLAIN, *options])


@pytest.fixture(scope="module")
def here(photographs, tmp_path_factory):
    output = tmp_path_factory.mktemp("here") / "boxes"
    assert _label(photographs, output, *FIXED) == 0
    return output


def test_workers_in_the_calling_process(photographs, job_service, tmp_path, results, plain_run):
    assert _label(photographs, tmp_path / "out", *job_service, "--environment_type=LOOPBACK") == 0
    assert results(tmp_path / "out") == results(plain_run)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["run"]["runner"] == "PortableRunner"


def test_workers_plan_for_themselves_and_give_the_same_bytes(photographs, here, elsewhere, tmp_path, results, capfd):
    assert _label(photographs, tmp_path / "there", *FIXED, *elsewhere) == 0
    assert "images are listed and planned on the workers" in capfd.readouterr().err
    assert results(tmp_path / "there") == results(here)
    planned, there = (PlannedRun.load(str(output)) for output in (here, tmp_path / "there"))
    assert (there.shards, there.fingerprints) == (planned.shards, planned.fingerprints)
    next((tmp_path / "there" / "shards").iterdir()).unlink()
    assert _label(photographs, tmp_path / "there", *FIXED, *elsewhere) == 0
    assert results(tmp_path / "there") == results(here)
    summary = json.loads((tmp_path / "there" / "summary.json").read_text())
    assert 0 < summary["run"]["counters"]["decoded"] < 5


def test_a_job_that_fails_says_once_what_went_wrong_and_what_is_done(photographs, here, elsewhere, tmp_path, capfd):
    output = tmp_path / "out"
    shutil.copytree(here, output)
    (output / "annotations.json").unlink()
    (output / "annotations.json").mkdir()  # no file can be renamed to it
    for options in ([], elsewhere):
        assert _label(photographs, output, *FIXED, *options) == 1
        *_, failed, done = said = capfd.readouterr().err.splitlines()
        assert failed.startswith("camboxes label: the job failed: ") and "Is a directory" in failed
        assert "Errno" not in failed and "while running" not in failed
        assert not any("Traceback" in line or "Is a directory" in line for line in said if line != failed)
        log = re.fullmatch(r"2 of 2 shards done; tracebacks are in (\S+); the same command continues", done)[1]
        assert "Is a directory" in Path(log).read_text()
        Path(log).unlink()
