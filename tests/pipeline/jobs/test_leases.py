"""One job at a time on a folder of a store."""

import re
import subprocess
import sys
import threading
import time

import pytest

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.jobs import leases, run_folder
from camboxes.pipeline.reporter import LOG, TERMINAL
from camboxes.transforms import storage

ANOTHER = {"owner": "0" * 32, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00", "renewed": 7}


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Fractions of a second, but for the validity: who loses a lease by a slow machine would end the tests."""
    for name, seconds in {"_RENEWED_EVERY": 0.2, "_LOOKED_AT_EVERY": 0.05, "_SETTLES_IN": 0.1}.items():
        monkeypatch.setattr(leases, name, seconds)


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def test_while_a_job_holds_a_folder_another_is_refused(store):
    folder = f"{store}/held"
    with leases.held(folder):
        renewed = storage.read_json(f"{folder}/.lease")["renewed"]
        host = re.escape(storage.read_json(f"{folder}/.lease")["host"])
        with (
            pytest.raises(CallError, match=rf"another job, of {host}, begun 20.*, is writing to '{folder}'; wait for"),
            run_folder.locked(folder),
        ):
            pytest.fail("two jobs hold one folder")
        _until(lambda: storage.read_json(f"{folder}/.lease")["renewed"] > renewed + 1)
    assert not storage.exists(f"{folder}/.lease")
    with leases.held(folder):
        pass


def test_a_dead_jobs_lease_is_taken_over(store, capsys, monkeypatch):
    monkeypatch.setattr(leases, "_VALID_FOR", 1.0)
    folder = f"{store}/dead"
    storage.write_json(f"{folder}/.lease", ANOTHER)
    unfinished = f"{folder}/annotations.json.{'a' * 32}.tmp"
    storage.write_bytes(unfinished, b"[")
    with run_folder.locked(folder, TERMINAL):
        assert storage.read_json(f"{folder}/.lease")["owner"] != ANOTHER["owner"]
        assert not storage.exists(unfinished)
    said = capsys.readouterr().err
    assert f"{folder} belongs to a job of elsewhere, begun 2026-01-01T00:00:00+00:00; if that one was killed" in said


def test_a_lease_that_is_given_back_meanwhile_is_free(s3):
    folder = f"{s3}/given-back"
    storage.write_json(f"{folder}/.lease", ANOTHER)
    threading.Timer(0.3, storage.delete, [f"{folder}/.lease"]).start()
    with leases.held(folder):
        assert storage.read_json(f"{folder}/.lease")["owner"] != ANOTHER["owner"]


def test_of_two_that_begin_at_once_one_goes_on(store, monkeypatch):
    """Neither finds a lease; both write one; the one that wrote last has it."""
    monkeypatch.setattr(leases, "_SETTLES_IN", 2.0)
    folder, ended, both_read = f"{store}/at-once", [], threading.Barrier(2)

    class Lease(leases._Lease):
        def _read(self):
            found = super()._read()
            if found is None:
                both_read.wait()
            return found

    def take():
        try:
            lease = Lease(folder, LOG)
            lease.take()
            ended.append(lease._mine)
        except CallError as error:
            ended.append(str(error))

    jobs = [threading.Thread(target=take) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    [refused] = [end for end in ended if isinstance(end, str)]
    [holder] = [end for end in ended if isinstance(end, dict)]
    assert refused.startswith("another job, of ")
    assert storage.read_json(f"{folder}/.lease") == holder


def test_a_job_that_finds_its_lease_taken_over_ends(s3):
    folder = f"{s3}/lost"
    code = (
        "import time; from camboxes.pipeline.jobs import leases, run_folder\n"
        "leases._SETTLES_IN = leases._RENEWED_EVERY = 0.1\n"
        f"with run_folder.locked('{folder}'): print('held', flush=True); time.sleep(600)"
    )
    call = [sys.executable, "-c", code]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        assert job.stdout.readline() == "held\n"
        for _ in range(100):  # it may itself be just writing, and write over it
            storage.write_json(f"{folder}/.lease", ANOTHER)
            if job.poll() is not None:
                break
            time.sleep(0.1)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 1
    assert f"{folder} was taken over by a job of elsewhere, begun 2026-01-01T00:00:00+00:00" in said
    assert storage.read_json(f"{folder}/.lease") == ANOTHER


def test_a_store_that_does_not_answer_for_a_while_costs_no_lease(s3, s3_requests, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    folder = f"{s3}/unsteady"
    with leases.held(folder):
        failed, s3_requests.failing = s3_requests.failed, 1
        _until(lambda: s3_requests.failed > failed)
        s3_requests.failing = 0
        renewed = storage.read_json(f"{folder}/.lease")["renewed"]
        _until(lambda: storage.read_json(f"{folder}/.lease")["renewed"] > renewed)
