"""Jobs in two processes of the local runner; what the commands do in them is tested with the commands."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import S3Options

from camboxes.pipeline import LabelJob, label
from camboxes.pipeline.jobs import worker_processes
from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.pipeline.jobs.worker_processes import DeadWorkerError, supervised
from camboxes.pipeline.reporter import TERMINAL

TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


def _run(work, options):
    """Runs work on each of a hundred numbers; the peaks of the workers."""
    asked = beam_options(options)
    with supervised(asked, TERMINAL) as peaks, beam.Pipeline(options=asked) as p:
        p | beam.Create(range(100)) | beam.Reshuffle() | beam.Map(work)
    return peaks


def test_workers_share_the_cores_and_get_beams_options(tmp_path, monkeypatch, capfd):
    """They are other processes than this one; nothing that they say reaches the terminal."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setenv("CAMBOXES_TEST", "yes")

    def look(_):
        endpoint = FileSystems._pipeline_options.view_as(S3Options).s3_endpoint_url
        said = [os.environ["OMP_NUM_THREADS"], os.environ["CAMBOXES_TEST"], endpoint]
        os.write(2, b"a worker's word\n")
        (tmp_path / str(os.getpid())).write_text(" ".join(said))

    peaks = _run(look, [*TWO_PROCESSES, "--s3_endpoint_url=http://localhost:1"])
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert str(os.getpid()) not in found
    assert set(found.values()) == {"3 yes http://localhost:1"}
    assert len(peaks) == 2 and min(peaks) > 20 << 10  # KiB; Python and Beam alone are more
    assert "OMP_NUM_THREADS" not in os.environ
    assert capfd.readouterr().err == ""


def test_a_job_in_this_process(tmp_path):
    assert _run(lambda _: (tmp_path / str(os.getpid())).touch(), []) == []
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]


def test_one_worker_process_and_one_for_each_core(tmp_path):
    for asked, processes in [("1", 1), ("0", os.cpu_count())]:
        options = [f"--direct_num_workers={asked}", "--direct_running_mode=multi_processing"]
        assert len(_run(lambda _: (tmp_path / str(os.getpid())).touch(), options)) == processes
    assert str(os.getpid()) not in {path.name for path in tmp_path.iterdir()}


def test_what_a_worker_raises_fails_the_job_and_its_log_is_kept(capfd):
    def fail(number):
        os.write(2, b"a worker's word\n")
        raise ValueError(f"no {number}")

    with pytest.raises(Exception, match=r"ValueError: no \d+"):
        _run(fail, TWO_PROCESSES)
    said = capfd.readouterr().err
    assert said.startswith("camboxes: the workers' log is ") and said.count("\n") == 1
    log = Path(said.split()[-1])
    assert "a worker's word" in log.read_text()
    log.unlink()


def _dead(work):
    """The error of a job in two processes, one of which dies."""
    start = time.monotonic()
    with pytest.raises(DeadWorkerError, match=r"a worker process died \(exit code -9\)") as caught:
        _run(work, TWO_PROCESSES)
    assert time.monotonic() - start < 60
    Path(caught.value.log).unlink()


def test_a_worker_that_dies_fails_the_job_and_the_next_job_in_this_process_runs():
    def die(number):
        if number == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)

    _dead(die)
    assert len(_run(lambda _: None, TWO_PROCESSES)) == 2


def test_workers_that_die_as_soon_as_they_start(monkeypatch):
    start = worker_processes._ForkedWorker.start_worker

    def start_and_kill(worker):
        start(worker)
        worker._process.kill()

    monkeypatch.setattr(worker_processes._ForkedWorker, "start_worker", start_and_kill)
    _dead(lambda _: None)


def test_where_processes_cannot_be_forked_so_beam_s_own_do_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_processes, "_FORKS", False)
    worker_processes.import_ahead("no_such_module")  # does nothing
    assert _run(lambda _: (tmp_path / str(os.getpid())).touch(), TWO_PROCESSES) == []
    assert str(os.getpid()) not in {path.name for path in tmp_path.iterdir()} != set()


def test_beam_s_own_workers_give_the_same_bytes(photographs, run, tmp_path, monkeypatch, results):
    monkeypatch.setattr(worker_processes, "_FORKS", False)
    label(LabelJob(input=photographs, output=tmp_path / "out", shards=2), TWO_PROCESSES)
    assert results(tmp_path / "out") == results(run)


def test_a_script_that_calls_a_command_is_not_run_again_by_its_workers(run, tmp_path):
    """It has no `if __name__ == "__main__"`: Beam's own workers ask for none."""
    call = ["rebox", "--run", str(run), "--output", str(tmp_path / "again"), "--threshold", "0.4", *TWO_PROCESSES]
    script = tmp_path / "script.py"
    script.write_text(
        f"print('begun')\nfrom camboxes.pipeline.cli import main\nassert main({call!r}) == 0\nprint('ended')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.count("begun") == 1 and done.stdout.count("ended") == 1
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["run"]["processes"] == 2
