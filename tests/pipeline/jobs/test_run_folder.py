"""A run's folder: what a call may delete there, and that one job at a time has it."""

import contextlib
import errno
import re
import threading
import time

import pytest

from camboxes.pipeline.cli import main
from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.jobs import run_folder


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [[], ["a"], ["a", "a/b"], ["a", "a/b", "a/b/mine.txt"]])
def test_a_call_that_fails_removes_what_it_made_and_nothing_else(tmp_path, there):
    for name in there:
        (tmp_path / name).touch() if name.endswith(".txt") else (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="the first error"), run_folder.locked(str(tmp_path / "a" / "b")):
        assert (tmp_path / "a" / "b").is_dir()
        raise ValueError("the first error")
    assert _files(tmp_path) == there


def test_a_failed_call_on_the_current_folder(tmp_path, monkeypatch, capsys):
    """It leaves nothing but a label map to edit, beside the folder of the run."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "m.csv").write_text("path,label\na.jpg,tripot\n")
    monkeypatch.chdir(here)
    for output, label_map in ((".", "here-label-map.json"), ("../new", "new-label-map.json")):
        assert main(["label", "--input", "m.csv", "--output", output]) == 2
        assert "'tripot' is not the name of a class; nearest: tripod" in capsys.readouterr().err
        assert _files(tmp_path) == sorted(["here", "here/m.csv", label_map])
        (tmp_path / label_map).unlink()


def test_what_was_written_stays(tmp_path):
    with contextlib.suppress(ValueError), run_folder.locked(str(tmp_path / "out")):
        (tmp_path / "out" / "plan").mkdir()
        raise ValueError
    assert _files(tmp_path) == ["out", "out/plan"]


def test_calls_that_come_to_nothing_on_one_new_folder(tmp_path):
    """Each makes the folder and removes it again, while others come for it: at no time do two have it."""
    folder, inside, entered, refused, wrong = str(tmp_path / "a" / "b"), [], [], [], []

    def call(number):
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            try:
                with run_folder.locked(folder):
                    inside.append(number)
                    if inside != [number]:
                        wrong.append(list(inside))
                    entered.append(number)
                    time.sleep(0.0005)
                    inside.remove(number)
            except CallError as error:
                (refused if "another job is writing to" in str(error) else wrong).append(str(error))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(set(entered)) > 1 and refused
    # One that finds the folder of another one in use leaves it there; it is empty.
    assert _files(tmp_path) in ([], ["a"], ["a", "a/b"])


def test_a_lock_that_a_killed_job_left(tmp_path):
    (tmp_path / ".lock").touch()
    with run_folder.locked(str(tmp_path)):
        pass
    assert _files(tmp_path) == []


@pytest.mark.parametrize("output", ["file", "file/below", "link", "/proc/boxes", "x" * 300])
def test_a_folder_that_cannot_be_made(tmp_path, output):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    folder = output if output.startswith("/") else str(tmp_path / output)
    said = rf"--output '{folder}' cannot be written to \(.*\); choose"
    with pytest.raises(OSError, match=said), run_folder.locked(folder):
        pytest.fail("there is no such folder")
    assert _files(tmp_path) == ["file", "link"]


def test_a_full_disk_is_no_wrong_call(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with pytest.raises(OSError, match=r"cannot be written to .*No space left"), blaming_the_call():  # noqa: SIM117
        with run_folder.locked(str(tmp_path / "out")):
            pytest.fail("there is no such folder")


@pytest.mark.parametrize("mine", ["shards/train-000.tar", "annotations.json", "plan/ground floor.png", "results.json"])
@pytest.mark.parametrize("command", ["label", "rebox", "selftrain"])
def test_files_of_somebody_elses_that_are_called_as_a_runs(photographs, run, tmp_path, capsys, mine, command):
    own = tmp_path / mine
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    source = ["--input", str(photographs)] if command == "label" else ["--run", str(run)]
    for options in ([], ["--overwrite"]):
        assert main([command, *source, "--output", str(tmp_path), *options]) == 2
        name = re.escape(mine.split("/")[0])
        assert re.search(rf"holds {name}, which are not from a run", capsys.readouterr().err)
        assert own.read_text() == "mine"


@pytest.mark.parametrize("left", ["plan", "plan/shards", "plan/weights.safetensors"])
def test_what_a_killed_call_left_is_no_obstacle(tmp_path, left):
    (tmp_path / left).mkdir(parents=True)
    run_folder.check_contents(str(tmp_path))


def test_a_run_is_not_replaced_by_what_is_read_from_it(run, tmp_path, capsys):
    before = (run / "annotations.json").read_bytes()
    for options in (["--input", run / "annotations.json"], ["--input", tmp_path, "--reuse", run]):
        assert main(["label", "--output", str(run), "--overwrite", *map(str, options)]) == 2
        assert re.search("lies where --output .* is written|is the input itself", capsys.readouterr().err)
    assert (run / "annotations.json").read_bytes() == before


def test_overwrite_replaces_the_parts_of_a_large_run(tmp_path):
    (tmp_path / "plan").mkdir()
    parts = ["annotations-00001-of-00002.json", "annotations-00002-of-00002.json", "results-00001-of-00002.json"]
    for name in (*parts, "annotations-mine.json", "plan/plan.json"):
        (tmp_path / name).touch()
    run_folder.remove(str(tmp_path))
    assert _files(tmp_path) == ["annotations-mine.json"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CallError, match=r"file' is a file; expected a folder"):
        run_folder.check_folder(str(tmp_path / "file"))
    with pytest.raises(CallError, match=r"file/out' cannot be made: '.*/file' is a file; expected a folder"):
        run_folder.check_folder(str(tmp_path / "file" / "out"))
    run_folder.check_folder(str(tmp_path / "new" / "out"))
    assert not (tmp_path / "new").exists()
