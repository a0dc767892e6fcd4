"""Whole runs from and to real servers of S3's and Google Cloud Storage's protocols."""

import subprocess
import sys

import pytest

from camboxes.pipeline.cli import main
from camboxes.pipeline.jobs import leases
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.planning.plan import shard_file

# Those of the fixture `plain_run`.
PLAIN = ["--method", "cam", "--scales", "224", "--aspect", "squash", "--refine", "none", "--boxes", "largest"]
PLAIN += ["--shards", "2"]
TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(leases, "_SETTLES_IN", 0.1)


@pytest.fixture(scope="module")
def data(store, photographs):
    """The photographs on a store, by class."""
    for path in photographs.glob("*/*"):
        storage.write_bytes(f"{store}/photographs/{path.relative_to(photographs).as_posix()}", path.read_bytes())
    return f"{store}/photographs/"


@pytest.fixture(scope="module")
def stored_run(store, data):
    """A finished run from the store and to it."""
    output = f"{store}/boxes"
    assert _label(data, output) == 0
    return output


def _label(source, output, *options):
    return main(["label", "--input", source, "--output", output, *PLAIN, *options])


def _results(output):
    names = [f"shards/{name}" for name in storage.names(f"{output}/shards", "")] + ["annotations.json", "results.json"]
    return {name.removeprefix("shards/"): storage.read_bytes(f"{output}/{name}") for name in names}


def _inferred(output):
    return storage.read_json(f"{output}/summary.json")["run"]["counters"].get("decoded", 0)


def test_a_run_on_a_store_has_the_same_bytes(stored_run, plain_run, results):
    assert _results(stored_run) == results(plain_run)
    assert b"data:image/jpeg" in storage.read_bytes(f"{stored_run}/report.html")
    assert not storage.exists(f"{stored_run}/.lease")


def test_what_is_missing_is_inferred_and_nothing_else(data, stored_run, capsys):
    before = _results(stored_run)
    run = PlannedRun.load(stored_run)
    lost = next(iter(run.shards))
    storage.delete(shard_file(stored_run, lost))
    storage.delete(f"{stored_run}/annotations.json")
    assert _label(data, stored_run) == 0
    assert "1 shard done already" in capsys.readouterr().err
    assert _inferred(stored_run) == run.shards[lost] < run.images
    assert _results(stored_run) == before


def test_a_manifest_whose_images_are_tried_again_and_a_run_that_is_replaced(gs, photographs, plain_run, results):
    output, images = f"{gs}/by-manifest", sorted(photographs.glob("*/*"))
    for path in images:
        data = path.read_bytes()
        whole = data if path.name != "chelsea.png" else data[:5000]
        storage.write_bytes(f"{gs}/data/{path.relative_to(photographs).as_posix()}", whole)
    rows = [f"{path.relative_to(photographs).as_posix()},{path.parent.name}\n" for path in images]
    storage.write_bytes(f"{gs}/data/manifest.csv", ("path,label\n" + "".join(rows)).encode())
    assert _label(f"{gs}/data/manifest.csv", output) == 0
    assert storage.read_json(f"{output}/summary.json")["rejected"] == {"unreadable": 1}

    storage.write_bytes(f"{gs}/data/Egyptian cat/chelsea.png", (photographs / "Egyptian cat/chelsea.png").read_bytes())
    assert _label(f"{gs}/data/manifest.csv", output, "--retry-rejected") == 0
    assert _inferred(output) == 1
    assert _results(output) == results(plain_run)
    assert storage.names(f"{output}/plan/retried/shards", "") == []

    storage.write_bytes(f"{output}/mine.txt", b"mine")
    assert _label(f"{gs}/data/manifest.csv", output, "--shards", "1") == 2
    assert _label(f"{gs}/data/manifest.csv", output, "--shards", "1", "--overwrite") == 0
    assert storage.names(f"{output}/shards", ".parquet") == ["00000-of-00001.parquet"]
    assert storage.read_bytes(f"{output}/mine.txt") == b"mine"


def test_the_commands_that_follow(store, data, stored_run, plain_run, tmp_path, results):
    again, truth = f"{store}/again", f"{store}/truth.json"
    storage.write_bytes(truth, storage.read_bytes(f"{stored_run}/annotations.json"))
    # Worker processes know of a store what stands in the environment.
    call = ["rebox", "--run", stored_run, "--output", again, "--threshold", "0.4", *TWO_PROCESSES]
    subprocess.run([sys.executable, "-m", "camboxes.pipeline.cli", *call], check=True, capture_output=True)
    local = str(tmp_path / "again")
    assert main(["rebox", "--run", str(plain_run), "--output", local, "--threshold", "0.4"]) == 0
    assert _results(again) == results(local)
    assert main(["evaluate", "--run", again, "--ground-truth", truth]) == 0
    assert storage.read_json(f"{again}/evaluation.json")["figures"]
    assert main(["tune", "--run", again, "--ground-truth", truth]) == 0
    tuned = ["rebox", "--run", again, "--output", f"{store}/tuned", "--thresholds", f"{again}/tuning.json"]
    assert main(tuned) == 0
    assert main(["compare", again, f"{store}/tuned", "--ground-truth", truth]) == 0
    assert main(["export", "--run", again, "--output", str(tmp_path / "coco"), "--format", "coco"]) == 0
    assert len(list((tmp_path / "coco").rglob("*.png"))) == 4


def test_a_store_that_fails_one_request_in_five(s3, s3_requests, photographs, plain_run, results):
    for path in photographs.glob("*/*"):
        storage.write_bytes(f"{s3}/unsteady/{path.relative_to(photographs).as_posix()}", path.read_bytes())
    asked, s3_requests.failing = s3_requests.asked, 5
    try:
        assert _label(f"{s3}/unsteady/", f"{s3}/unsteady-boxes") == 0
    finally:
        s3_requests.failing = 0
    assert s3_requests.failed >= (s3_requests.asked - asked) // 5 > 10
    assert _results(f"{s3}/unsteady-boxes") == results(plain_run)
