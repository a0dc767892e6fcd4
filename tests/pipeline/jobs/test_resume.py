"""Jobs that are cut short, started again, or kept off each other."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from camboxes.models.localization import measured
from camboxes.pipeline.cli import main
from camboxes.transforms import PlannedRun
from camboxes.transforms.storage import files

TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
# Those of the fixture `plain_run`.
PLAIN = ["--method", "cam", "--scales", "224", "--aspect", "squash", "--refine", "none", "--boxes", "largest"]


def _label(source, output, *options):
    return main(["label", "--input", str(source), "--output", str(output), *PLAIN, *options])


def _many(folder, count):
    """Photographs enough for a job of many seconds."""
    for number in range(count):
        Image.effect_noise((300, 200), number + 1).convert("RGB").save(folder / f"{number}.jpg")
    (folder / "m.csv").write_text("path,label\n" + "".join(f"{number}.jpg,tripod\n" for number in range(count)))
    return folder / "m.csv"


def _until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


def _workers_of(pid):
    """They are forked by a child of the command: its grandchildren."""
    return [worker for child in _children(pid) for worker in _children(child)]


def _children(pid):
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def test_a_worker_that_dies_ends_the_job_and_the_same_command_finishes_it(tmp_path, results):
    manifest = _many(tmp_path, 100)
    call = [sys.executable, "-m", "camboxes.pipeline.cli", "label", "--input", str(manifest), "--shards", "50"]
    killed = [*call, *PLAIN, "--output", str(tmp_path / "killed"), *TWO_PROCESSES]
    shards = tmp_path / "killed" / "shards"
    job = subprocess.Popen(killed, stderr=subprocess.PIPE, text=True)
    _until(lambda: len(list(shards.glob("*.parquet"))) >= 2)
    os.kill(_workers_of(job.pid)[0], signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    *_, failure, done = errors.splitlines()
    assert failure.startswith("camboxes label: the job failed: a worker process was killed (exit code -9), perhaps")
    log = re.fullmatch(r"\d+ of 50 shards done; tracebacks are in (\S+); the same command continues", done)[1]
    Path(log).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.parquet")}
    assert 2 <= len(before) < 50
    assert main(killed[3:-2]) == 0
    assert _label(manifest, tmp_path / "undisturbed", "--shards", "50") == 0
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")
    assert all((shards / name).stat().st_mtime_ns == time for name, time in before.items()), "a shard was done twice"


def test_a_second_call_does_nothing_again(photographs, tmp_path, capsys, results):
    assert _label(photographs, tmp_path / "out") == 0
    first = results(tmp_path / "out")
    assert _label(photographs, tmp_path / "out") == 0
    assert "1 shard done already" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["run"]["images"] == 0
    assert results(tmp_path / "out") == first


def test_overwrite(photographs, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    assert _label(photographs, tmp_path / "out") == 0
    assert _label(photographs, tmp_path / "out", "--threshold", "0.4") == 2
    assert "holds another run: the call asks for threshold 0.4 instead of " in capsys.readouterr().err
    assert _label(photographs, tmp_path / "out", "--threshold", "0.4", "--overwrite") == 0
    assert PlannedRun.load(str(tmp_path / "out")).settings["rule"]["threshold"] == 0.4
    assert (tmp_path / "out" / "mine.txt").exists()
    assert _label(tmp_path / "nowhere.csv", tmp_path / "out", "--overwrite") == 2
    assert (tmp_path / "out" / "annotations.json").exists(), "a wrong call must not cost the run that it would replace"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return _many(tmp_path_factory.mktemp("many"), 160)


@pytest.fixture(scope="module")
def undisturbed(manifest, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert _label(manifest, output, "--shards", "40") == 0
    return output


def _command(manifest, output, *options):
    call = [sys.executable, "-m", "camboxes.pipeline.cli", "label", "--input", str(manifest), "--shards", "40"]
    return [*call, *PLAIN, "--output", str(output), *options]


def _times(output):
    return {path.name: path.stat().st_mtime_ns for path in (output / "shards").glob("*.parquet")}


def test_a_driver_killed_again_and_again_ends_with_the_same_bytes(manifest, undisturbed, tmp_path, results):
    output, seed = tmp_path / "killed", random.Random(0)
    for _ in range(3):
        before = _times(output)
        job = subprocess.Popen(_command(manifest, output), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wanted = len(before) + seed.randint(1, 8)
        _until(lambda wanted=wanted: len(_times(output)) >= wanted)
        time.sleep(seed.random() / 5)
        job.kill()
        job.wait()
        after = _times(output)
        assert len(before) < len(after) < 40
        assert {name: after[name] for name in before} == before, "a shard was done twice"
    before = _times(output)
    assert main(_command(manifest, output)[3:]) == 0
    assert {name: stamp for name, stamp in _times(output).items() if name in before} == before
    assert json.loads((output / "summary.json").read_text())["run"]["images"] < 160
    assert results(output) == results(undisturbed)
    assert not list(output.rglob("*.tmp"))


@pytest.mark.parametrize(("number", "options"), [(signal.SIGINT, TWO_PROCESSES), (signal.SIGTERM, [])])
def test_an_interrupted_command(manifest, undisturbed, tmp_path, results, number, options):
    """Sent to all of its processes, as a terminal and Slurm do: one line, no process is left, the same bytes."""
    output = tmp_path / "out"
    job = subprocess.Popen(
        _command(manifest, output, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    _until(lambda: _times(output))
    workers = [*_children(job.pid), *_workers_of(job.pid)]
    start = time.monotonic()
    os.killpg(job.pid, number)
    said, errors = job.communicate(timeout=60)  # until the last of its processes has closed its end
    assert time.monotonic() - start < 5
    assert job.returncode == -number and said == ""
    assert len(workers) == (4 if options else 0), "the server and its resources, and two workers"
    before = _times(output)
    line = r"camboxes label: interrupted: (\d+) of 40 shards done; the same command continues"
    done = re.fullmatch(line, errors.splitlines()[-1])
    assert done and 1 <= int(done[1]) <= len(before), "a worker may have written another one since"
    assert "Traceback" not in errors
    assert main(_command(manifest, output)[3:]) == 0
    assert {name: _times(output)[name] for name in before} == before, "a shard was done twice"
    assert results(output) == results(undisturbed)


def test_two_jobs_on_one_output(manifest, undisturbed, tmp_path, capsys, results):
    output = tmp_path / "out"
    first = subprocess.Popen(_command(manifest, output), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _until(lambda: _times(output))
    assert main(_command(manifest, output)[3:]) == 2
    assert "another job is writing to" in capsys.readouterr().err
    assert main(["rebox", "--run", str(undisturbed), "--output", str(output), "--overwrite"]) == 2
    assert first.wait(timeout=120) == 0
    assert results(output) == results(undisturbed)


def test_rejected_images_are_tried_again_alone(photographs, tmp_path, results, plain_run):
    data = tmp_path / "data"
    shutil.copytree(photographs, data)
    cat = data / "Egyptian cat" / "chelsea.png"
    whole = cat.read_bytes()
    cat.write_bytes(whole[:5000])
    assert _label(data, tmp_path / "out", "--shards", "2") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["images"]["rejected"] == 1
    cat.write_bytes(whole)
    assert _label(data, tmp_path / "out", "--shards", "2", "--retry-rejected") == 0
    assert results(tmp_path / "out") == results(plain_run)
    counters = json.loads((tmp_path / "out" / "summary.json").read_text())["run"]["counters"]
    assert counters["decoded"] == 1
    assert counters["reused"] == counters["written"] - 1
    assert not (tmp_path / "out" / "plan" / "retried").exists()


def test_the_same_data_set_below_another_root(photographs, tmp_path, capsys, results):
    """What was not there is tried again, what was is compared; other pictures of the same names are refused."""
    cat, coffee, moped = (next((photographs / name).iterdir()) for name in ("Egyptian cat", "espresso", "moped"))
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        for name, source in (("a.png", cat), ("b.png", coffee), ("c.png", moped)):
            shutil.copy(source, tmp_path / folder / name)
    (tmp_path / "one" / "a.png").unlink()
    (tmp_path / "one" / "b.png").unlink()
    (tmp_path / "one" / "b.png").symlink_to(coffee)  # outside of the root
    shutil.copy(cat, tmp_path / "three" / "c.png")
    (tmp_path / "m.csv").write_text("path,label\na.png,Egyptian cat\nb.png,espresso\nc.png,moped\n")
    output, options = tmp_path / "out", ["--shards", "1", "--max-reject-rate", "1", "--root"]

    def codes():
        return json.loads((output / "summary.json").read_text())["rejected"]

    assert _label(tmp_path / "m.csv", output, *options, str(tmp_path / "one")) == 0
    assert codes() == {"missing": 1, "outside_root": 1}
    before = results(output)
    capsys.readouterr()
    assert _label(tmp_path / "m.csv", output, *options, str(tmp_path / "three")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"below '{tmp_path}/three' 'c.png' is not the image that the run saw" in line and "--overwrite" in line
    assert results(output) == before and PlannedRun.load(str(output)).root == str(tmp_path / "one")
    assert _label(tmp_path / "m.csv", output, *options, str(tmp_path / "two")) == 0
    assert codes() == {}
    counters = json.loads((output / "summary.json").read_text())["run"]["counters"]
    assert (counters["decoded"], counters["reused"]) == (2, 1)
    assert _label(tmp_path / "m.csv", tmp_path / "afresh", *options, str(tmp_path / "two")) == 0
    assert results(output) == results(tmp_path / "afresh")
    assert not (output / "plan" / "retried").exists()


def test_files_that_were_replaced_since_a_run_are_told(photographs, tmp_path, capsys):
    (tmp_path / "data" / "espresso").mkdir(parents=True)
    shutil.copy(next((photographs / "espresso").iterdir()), tmp_path / "data" / "espresso" / "a.png")
    assert _label(tmp_path / "data", tmp_path / "out") == 0
    assert "replaced since" not in capsys.readouterr().err
    shutil.copy(next((photographs / "moped").iterdir()), tmp_path / "data" / "espresso" / "a.png")
    assert _label(tmp_path / "data", tmp_path / "out") == 0
    assert "1 of the photographs in report.html are gone, or their files were replaced since" in capsys.readouterr().err
    assert main(["export", "--run", str(tmp_path / "out"), "--output", str(tmp_path / "export")]) == 1
    assert "'espresso/a.png' (changed: the file is not the one that the run saw)" in capsys.readouterr().err


def test_images_added_to_a_data_set(photographs, tmp_path, results, plain_run):
    data = tmp_path / "data"
    shutil.copytree(photographs, data)
    shutil.move(data / "tripod" / "camera.png", data / "tripod" / "renamed.png")
    Image.effect_noise((300, 200), 9).convert("RGB").save(data / "espresso" / "new.jpg")
    (data / "drill").mkdir()
    shutil.copy(data / "espresso" / "coffee.png", data / "drill" / "coffee.png")  # known pixels, another label
    (tmp_path / "map.json").write_text(json.dumps({"drill": "power drill"}))
    options = ["--label-map", str(tmp_path / "map.json")]
    assert _label(data, tmp_path / "more", "--reuse", str(plain_run), *options) == 0
    counters = json.loads((tmp_path / "more" / "summary.json").read_text())["run"]["counters"]
    assert (counters["reused"], counters["decoded"]) == (5, 2)
    assert _label(data, tmp_path / "afresh", *options) == 0
    assert results(tmp_path / "more") == results(tmp_path / "afresh")


def test_rows_of_another_network_are_not_taken_over(photographs, tmp_path, capsys, plain_run):
    assert _label(photographs, tmp_path / "out", "--reuse", str(plain_run), "--scales", "192") == 2
    assert "cannot be taken over: the call asks for scales 192 instead of 224" in capsys.readouterr().err
    assert _label(photographs, tmp_path / "out", "--reuse", str(tmp_path)) == 2
    assert "holds no run to take rows from" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_too_many_rejected_images_fail_the_job_and_keep_what_it_has(photographs, tmp_path, capsys, workers):
    rows = "no.jpg,tripod\nnowhere.jpg,tripod\nespresso/coffee.png,espresso\n"
    (tmp_path / "few.csv").write_text("path,label\n" + rows)
    options = TWO_PROCESSES if workers == 2 else []
    assert _label(tmp_path / "few.csv", tmp_path / "out", "--root", str(photographs), *options) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" …")]  # but for slow steps
    _, _, warning, said = told  # the job's announcement, and no traceback
    assert warning.startswith("WARNING: not there: 2 of 3 images that were looked up, such as no")
    failure = "rejected: 2 of 3 images, more than the share of 0.5 that max_reject_rate allows: missing 2"
    assert said == (
        f"camboxes label: the job failed: {failure}; each has its reason in {tmp_path / 'out' / 'report.html'}, "
        "--retry-rejected tries them again, and --max-reject-rate allows for more"
    )
    assert len(json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]) == 1
    assert "missing 2" in (tmp_path / "out" / "report.html").read_text()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["failure"] == failure
    assert summary["run"]["processes"] == workers and summary["run"]["seconds"] > 0
    assert _label(tmp_path / "few.csv", tmp_path / "out", "--root", str(photographs), "--max-reject-rate", "0.7") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["failure"] is None


def test_a_job_that_fails_otherwise_is_not_said_to_reject_too_much(photographs, tmp_path, capsys, monkeypatch):
    """Although the summary of the job before says that of that one."""
    (tmp_path / "few.csv").write_text("path,label\nno.jpg,tripod\nespresso/coffee.png,espresso\n")
    assert _label(tmp_path / "few.csv", tmp_path / "out", "--root", str(photographs), "--max-reject-rate", "0.4") == 1
    assert "rejected: 1 of 2 images" in capsys.readouterr().err

    def fail(*_arguments, **_keywords):
        raise OSError("the disk is full")

    monkeypatch.setattr(files, "replacing", fail)
    assert _label(tmp_path / "few.csv", tmp_path / "out", "--root", str(photographs), "--max-reject-rate", "0.4") == 1
    said = capsys.readouterr().err
    assert "the job failed: the disk is full" in said and "rejected:" not in said


def test_an_empty_data_set(tmp_path, capsys):
    (tmp_path / "m.csv").write_text("path,label\n")
    assert _label(tmp_path / "m.csv", tmp_path / "out") == 2
    assert "no image of the input has a label" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(photographs, tmp_path, capsys):
    assert _label(photographs, tmp_path / "out", "--dry-run", "--threshold", "0.4") == 0
    said = capsys.readouterr().out
    expected_lines = [
        "5 images below",
        "1 shard of 5",
        "timm:tf_efficientnet_lite0 at 224 (squash) on cpu",
        "threshold 0.4",
        "runner    apache_beam.runners",
        "labels    5 matched\n          all by name; --verbose prints them\n",
    ]
    for expected in expected_lines:
        assert expected in said
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_matched_and_unmatched_labels(tmp_path, capsys):
    (tmp_path / "mixed.csv").write_text("path,label\na.jpg,tripod\nb.jpg,tripot\n")
    assert _label(tmp_path / "mixed.csv", tmp_path / "out", "--dry-run") == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == ["labels    1 matched", "          all by name; --verbose prints them"]
    assert "no single class of the network matches 1 of 2 labels" in said.err
    assert "'tripot' is not the name of a class; nearest: tripod (872)" in said.err


def test_at_half_time_two_fifths_of_the_shards_are_on_disk(manifest, tmp_path, monkeypatch):
    """Counted in forward passes, not in seconds: nothing waits for the end to be written."""
    from camboxes.models import Localizer

    written, localize = [], Localizer.localize

    def watched(*arguments):
        written.append(len(_times(tmp_path / "out")))
        return localize(*arguments)

    monkeypatch.setattr(Localizer, "localize", watched)
    assert _label(manifest, tmp_path / "out", "--shards", "40") == 0
    assert len(written) >= 40
    assert written[len(written) // 2] >= 0.4 * 40


def test_a_run_goes_on_in_the_precision_that_it_was_begun_in(photographs, tmp_path, results):
    """Also on a processor for which another one would be chosen."""
    output = tmp_path / "boxes"
    assert _label(photographs, output, "--precision", "fp32", "--compile", "off", "--shards", "2") == 0
    before = results(output)
    next((output / "shards").glob("*.parquet")).unlink()
    assert _label(photographs, output, "--shards", "2") == 0
    assert results(output) == before
    model = PlannedRun.load(str(output)).settings["model"]
    assert (model["precision"], model["compile"]) == ("fp32", "off")


def test_another_precision_is_another_run(photographs, tmp_path, capsys):
    output = tmp_path / "boxes"
    assert _label(photographs, output, "--precision", "fp32") == 0
    assert _label(photographs, output, "--precision", "bf16") == 2
    assert "the call asks for precision bf16 instead of fp32" in capsys.readouterr().err


@pytest.fixture
def times(tmp_path, monkeypatch):
    """What passes take here, in milliseconds, as if they had been timed, even for a few photographs."""
    found = {"fp32": 10.0, "fp32, fused": 20.0}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(measured, "_IMAGES_WORTH_MEASURING", 1)
    monkeypatch.setattr(measured, "half_precision", lambda device: None)
    monkeypatch.setattr(measured, "time_passes", lambda passes, *_: {way: found[str(way)] for way in passes})
    return found


def test_what_is_measured_decides_and_is_told(photographs, tmp_path, results, times, capsys):
    first, second = tmp_path / "boxes", tmp_path / "second"
    assert _label(photographs, first, "--shards", "2") == 0
    assert "on cpu in fp32 (measured now: fp32: 10 ms; fp32, fused: 20 ms), processes: 1" in capsys.readouterr().err
    assert _measured(first) == {"now": True, "milliseconds": {"fp32": 10, "fp32, fused": 20}}
    model = PlannedRun.load(str(first)).settings["model"]
    assert (model["precision"], model["compile"]) == ("fp32", "off")
    times.update({"fp32": 40.0})
    assert _label(photographs, second, "--shards", "2", *TWO_PROCESSES) == 0  # workers are told
    assert "(measured before: fp32: 10 ms; fp32, fused: 20 ms), processes: 2" in capsys.readouterr().err
    assert _measured(second) == {"now": False, "milliseconds": {"fp32": 10, "fp32, fused": 20}}
    assert results(second) == results(first)


def test_a_run_goes_on_whatever_would_be_measured_now(photographs, tmp_path, results, times):
    output, other = tmp_path / "boxes", tmp_path / "other"
    assert _label(photographs, output, "--shards", "2") == 0
    before = results(output)
    next((output / "shards").glob("*.parquet")).unlink()
    shutil.rmtree(tmp_path / "cache")
    times.update({"fp32": 40.0})
    assert _label(photographs, output, "--shards", "2") == 0
    assert results(output) == before and _measured(output) is None
    assert _label(photographs, other, "--shards", "2", "--reuse", str(output)) == 0
    assert json.loads((other / "summary.json").read_text())["run"]["counters"]["reused"] == 5
    assert results(other) == before and not (tmp_path / "cache").exists()


def _measured(output):
    return json.loads((output / "summary.json").read_text())["run"].get("measured")
