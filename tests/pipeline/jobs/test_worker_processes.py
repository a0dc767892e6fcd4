"""Jobs in two processes of the local runner; what the commands do in them is tested with the commands."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import S3Options

from camboxes.pipeline import LabelJob, label
from camboxes.pipeline.jobs import worker_processes
from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.pipeline.jobs.job_log import job_log
from camboxes.pipeline.jobs.worker_processes import DeadWorkerError, supervised

TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


def _run(work, options):
    """Runs work on each of a hundred numbers; the peaks of the workers."""
    asked = beam_options(options)
    with job_log() as log, supervised(asked, log) as peaks, beam.Pipeline(options=asked) as p:
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

    with pytest.raises(Exception, match=r"ValueError: no \d+") as caught:
        _run(fail, TWO_PROCESSES)
    assert capfd.readouterr().err == ""
    assert "a worker's word" in _log(caught.value).read_text()
    _log(caught.value).unlink()


def _log(error):
    """The file that the note of a job's error names."""
    [note] = error.__notes__
    assert note.startswith("tracebacks are in ")
    return Path(note.split()[-1])


def test_an_interrupt_ends_the_workers_and_is_raised_as_such(tmp_path, capfd):
    """As a terminal sends it, to all processes; what a worker is in the middle of is not waited for."""

    def work(_):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    def interrupt():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        for worker in tmp_path.iterdir():
            os.kill(int(worker.name), signal.SIGINT)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        interrupted.append(time.monotonic())

    interrupted = []
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        _run(work, TWO_PROCESSES)
    assert time.monotonic() - interrupted[0] < 5
    assert not [path for path in tmp_path.iterdir() if _runs(int(path.name))]
    assert capfd.readouterr().err == ""


def _runs(pid):
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _dead(work):
    """The error of a job in two processes, one of which dies."""
    start = time.monotonic()
    with pytest.raises(DeadWorkerError, match=r"a worker process was killed \(exit code -9\)") as caught:
        _run(work, TWO_PROCESSES)
    assert time.monotonic() - start < 60
    _log(caught.value).unlink()


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
