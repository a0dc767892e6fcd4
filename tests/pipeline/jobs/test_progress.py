import contextlib
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from camboxes.pipeline.jobs import progress
from camboxes.pipeline.label_job import LabelJob, label
from camboxes.pipeline.reporter import Reporter
from camboxes.transforms import Plan, storage
from camboxes.transforms.counters import IMAGES_DONE, images_done
from camboxes.transforms.planning.plan import shard_file

TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
FAST = {"method": "cam", "scales": (64,), "refine": "none", "batch_size": 2, "device": "cpu", "compile": "off"}


class Watcher(Reporter):
    """Keeps what was shown: the names of steps, and how far each bar came."""

    shows_progress = True

    def __init__(self):
        self.steps, self.bars, self.done = [], [], []

    @contextlib.contextmanager
    def step(self, what):
        self.steps.append(what)
        yield

    @contextlib.contextmanager
    def progress(self, total, unit, what):
        self.bars.append((total, unit, what))
        yield lambda more: self.done.append((self.done[-1] if self.done else 0) + more)

    def wait_for(self, done):
        end = time.monotonic() + 10
        while self.done[-1:] != [done]:
            assert time.monotonic() < end, f"shown: {self.done}, expected {done}"
            time.sleep(0.01)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(progress, "_LOOK", 0.02)


@pytest.fixture
def planned(tmp_path):
    """The plan of a run of three shards, with 11, 12 and 17 images."""
    manifest = tmp_path / "labels.csv"
    manifest.write_text("path,label\n" + "".join(f"{number}.jpg,cat\n" for number in range(40)))
    run = Plan(str(tmp_path / "out"), [("cat",)], shards=3).make(str(manifest))
    assert [*run.shards.values()] == [11, 12, 17]
    return run


def _finish(run, number):
    key = [*run.shards][number]
    storage.write_table(shard_file(run.output, key), pa.table({"image_id": range(run.shards[key])}))


def test_images_count_while_their_shard_is_in_work_and_once(planned, often):
    _finish(planned, 0)  # by an earlier job
    watcher = Watcher()
    with progress.image_progress(planned.output, "starting", watcher):
        images_done(2)
        watcher.wait_for(2)
        images_done(2)
        watcher.wait_for(4)
        images_done(8)
        _finish(planned, 1)
        watcher.wait_for(12)
        _finish(planned, 2)  # by a worker elsewhere, whose images are not told
        watcher.wait_for(29)
    assert watcher.bars == [(29, "image", "drawing boxes")], "those that are missing"
    assert watcher.steps[0] == "starting"


def test_a_job_that_continues_begins_at_what_is_saved(planned, often):
    first, second = Watcher(), Watcher()
    with contextlib.suppress(KeyboardInterrupt), progress.image_progress(planned.output, "starting", first):
        images_done(11)
        first.wait_for(11)
        _finish(planned, 0)
        images_done(4)  # in a shard that is not finished
        first.wait_for(15)
        raise KeyboardInterrupt
    images_done(3)  # nobody asks now
    with progress.image_progress(planned.output, "starting", second):
        images_done(3)
        second.wait_for(3)
        images_done(26)
        _finish(planned, 1)
        _finish(planned, 2)
        second.wait_for(29)
    assert first.bars == [(40, "image", "drawing boxes")] and second.bars == [(29, "image", "drawing boxes")]


def test_more_signs_than_images_do_not_pass_the_end(planned, often):
    watcher = Watcher()  # a runner may do a bundle twice
    with progress.image_progress(planned.output, "starting", watcher):
        images_done(60)
        watcher.wait_for(40)
    assert max(watcher.done) == 40


def test_nothing_is_left_and_a_job_that_is_over_is_not_disturbed(planned, often, monkeypatch):
    with progress.image_progress(planned.output, "starting", Watcher()):
        path = os.environ[IMAGES_DONE]
        assert Path(path).exists() and not Path(path).is_relative_to(planned.output)
    assert IMAGES_DONE not in os.environ and not Path(path).exists()
    monkeypatch.setenv(IMAGES_DONE, path)
    images_done(1)  # of a thread that still works
    assert not Path(path).exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "images"]


def test_callers_in_python_start_no_thread(planned):
    with progress.image_progress(planned.output, "starting", Reporter()):
        assert IMAGES_DONE not in os.environ


@pytest.mark.parametrize("processes", [[], TWO_PROCESSES], ids=["in this process", "in two"])
def test_every_image_of_a_job_is_told_also_a_rejected_one(photographs, tmp_path, processes, monkeypatch):
    told = tmp_path / "told"
    told.touch()
    monkeypatch.setenv(IMAGES_DONE, str(told))
    rows = [(path, path.parent.name) for path in sorted(photographs.glob("*/*.*"))]
    manifest = tmp_path / "labels.csv"
    lines = [f"{path.relative_to(photographs)},{name}" for path, name in rows]
    manifest.write_text("\n".join(["path,label", *lines, "gone.jpg,tripod"]))
    job = LabelJob(input=str(manifest), root=str(photographs), output=str(tmp_path / "out"), shards=2, **FAST)
    assert label(job, processes).counts.planned == len(rows) + 1 == told.stat().st_size
