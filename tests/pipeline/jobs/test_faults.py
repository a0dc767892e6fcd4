"""What happens to a job while it runs, and what it leaves: nothing lost, nothing doubled, the same bytes in the end.

`make test-faults` runs more rounds than `make test` does: pytest tests/pipeline/jobs/test_faults.py --fault-rounds 60
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

IMAGES = 40
PLAIN = ["--method", "cam", "--scales", "64", "--aspect", "squash", "--refine", "none", "--shards", "4"]
PLAIN += ["--precision", "fp32", "--compile", "off"]  # none of the many jobs has to find out what is fast


@pytest.fixture(scope="module")
def call():
    """Runs camboxes in a process to which something happens: see faulty_jobs.py."""
    runner = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("faulty_jobs.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def answer(*arguments, **what_happens):
        runner.stdin.write(json.dumps({"arguments": list(map(str, arguments)), **what_happens}) + "\n")
        runner.stdin.flush()
        return json.loads(runner.stdout.readline())

    yield answer
    runner.stdin.close()
    runner.wait(60)


@pytest.fixture(scope="module")
def data(photographs, tmp_path_factory):
    """Crops of the photographs, 96 pixels a side, and one file that is no image."""
    folder = tmp_path_factory.mktemp("crops")
    for label in sorted(path.parent for path in photographs.glob("*/*")):
        (folder / label.name).mkdir()
        with Image.open(next(label.iterdir())) as photograph:
            for number in range(IMAGES // 5):
                place = (20 * number, 10 * number)
                crop = photograph.convert("RGB").crop((*place, place[0] + 96, place[1] + 96))
                crop.save(folder / label.name / f"{number}.jpg")
    (folder / label.name / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def undisturbed(call, data, results, tmp_path_factory):
    """How such a job ends when nothing happens: how many file operations it makes, its seconds, its files."""
    output = tmp_path_factory.mktemp("undisturbed") / "boxes"
    answer = call("label", "--input", data, "--output", output, *PLAIN, watched=str(output))
    assert answer["code"] == 0, answer["stderr"]
    return answer, results(output)


def _check(output, expected, results):
    """Every image has one row, ids are dense, and all is as in a job that nothing happened to."""
    assert results(output) == expected
    counts = json.loads((output / "summary.json").read_text())["images"]
    assert counts["planned"] == IMAGES + 1 == sum(counts[name] for name in ("ok", "no_box", "skipped", "rejected"))
    assert counts["rejected"] == 1
    dataset = json.loads((output / "annotations.json").read_text())
    assert [box["id"] for box in dataset["annotations"]] == list(range(1, len(dataset["annotations"]) + 1))
    assert not [*output.rglob("*.tmp")]


def test_a_job_killed_at_any_of_its_file_operations_and_at_any_time(
    call, data, undisturbed, results, tmp_path, fault_rounds
):
    """From the first look at the folder to the last byte of the report; then the same command finishes it."""
    (answer, expected), chosen = undisturbed, random.Random(0)
    for number in range(fault_rounds):
        output = tmp_path / str(number)
        job = ["label", "--input", data, "--output", output, *PLAIN]
        if number % 2:
            fault = {"kill_after": chosen.uniform(0, answer["seconds"])}
        else:
            fault = {"kill_at": 1 + number * answer["operations"] // fault_rounds}
        killed = call(*job, watched=str(output), **fault)
        assert killed["code"] == -9 or "kill_after" in fault, (fault, killed)
        finished = call(*job)
        assert finished["code"] == 0, (fault, finished["stderr"])
        _check(output, expected, results)


def test_a_job_killed_again_and_again(call, data, undisturbed, results, tmp_path):
    """Each time a few file operations later; it gets on every time."""
    job = ["label", "--input", data, "--output", tmp_path / "boxes", *PLAIN]
    for kill_at in range(10, 1000, 15):
        if call(*job, watched=str(tmp_path), kill_at=kill_at)["code"] == 0:
            break
    _check(tmp_path / "boxes", undisturbed[1], results)


@pytest.mark.parametrize(
    ("most_bytes", "there", "lacking"),
    [
        (1_000, [], "plan/plan.json"),
        (12_000, ["plan"], "shards/00000-of-00004.parquet"),
        (5_000, ["plan", "shards"], "annotations.json"),
        (50_000, ["plan"], "report.html"),
    ],
)
def test_a_full_disk(call, data, undisturbed, results, tmp_path, most_bytes, there, lacking):
    """No file grows beyond so many bytes: what was written before is kept, and nothing else stands there by half."""
    job = ["label", "--input", data, "--output", tmp_path / "boxes", *PLAIN]
    if there:
        assert call(*job)["code"] == 0
    for path in [path for path in (tmp_path / "boxes").rglob("*.*") if path.is_file()]:
        if path.relative_to(tmp_path / "boxes").parts[0] not in there:
            path.unlink()
    failed = call(*job, most_bytes=most_bytes)
    assert failed["code"] in (1, 2)
    assert not (tmp_path / "boxes" / lacking).exists()
    assert "File too large" in failed["stderr"]
    assert not [*tmp_path.rglob("*.tmp")]
    finished = call(*job)
    assert finished["code"] == 0, finished["stderr"]
    _check(tmp_path / "boxes", undisturbed[1], results)


def test_a_place_where_nothing_can_be_written(call, data):
    answer = call("label", "--input", data, "--output", "/sys/boxes", *PLAIN)
    assert answer["code"] == 2
    assert "/sys/boxes" in answer["stderr"]
    assert "Traceback" not in answer["stderr"]


def test_a_clock_that_goes_backwards(call, data, undisturbed, results, tmp_path):
    answer = call("label", "--input", data, "--output", tmp_path / "boxes", *PLAIN, clock=60)
    assert answer["code"] == 0, answer["stderr"]
    _check(tmp_path / "boxes", undisturbed[1], results)


def test_rebox_killed_and_called_again(call, data, undisturbed, results, tmp_path, fault_rounds):
    source, job = tmp_path / "boxes", ["rebox", "--run", tmp_path / "boxes", "--threshold", "0.4", "--output"]
    assert call("label", "--input", data, "--output", source, *PLAIN)["code"] == 0
    whole = call(*job, tmp_path / "whole", watched=str(tmp_path / "whole"))
    assert whole["code"] == 0, whole["stderr"]
    rounds = max(2, fault_rounds // 4)
    for number in range(rounds):
        output = tmp_path / str(number)
        killed = call(*job, output, watched=str(output), kill_at=1 + number * whole["operations"] // rounds)
        assert killed["code"] == -9
        finished = call(*job, output)
        assert finished["code"] == 0, finished["stderr"]
        assert results(output) == results(tmp_path / "whole")
