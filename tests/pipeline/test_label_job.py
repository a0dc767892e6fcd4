"""What `label` does from Python, and that it is what the command does."""

import subprocess
import sys

import pytest

from camboxes.pipeline import LabelJob, Run, label
from camboxes.pipeline.errors import CallError
from camboxes.transforms.write import TooManyRejectedError


def test_in_a_process_of_its_own_it_gives_the_command_s_bytes_and_says_nothing(photographs, run, tmp_path, results):
    code = (
        "import sys\n"
        "from camboxes.pipeline import LabelJob, Run, label\n"
        f"done = label(LabelJob(input={str(photographs)!r}, output={str(tmp_path / 'boxes')!r}, shards=2))\n"
        "sys.stdout.write(repr(tuple(done.counts)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(5, 5, 0, 0, 0, 5)", "")
    assert results(tmp_path / "boxes") == results(run)


def test_wrong_values_are_value_errors(photographs, tmp_path):
    job = {"input": photographs, "output": tmp_path / "out"}
    with pytest.raises(ValueError, match="refine is 'afinity'; expected one of none, affinity"):
        LabelJob(**job, refine="afinity")
    with pytest.raises(ValueError, match="retry_rejected and reuse were both given; leave one out"):
        LabelJob(**job, retry_rejected=True, reuse="other")
    with pytest.raises(CallError, match=r"threshold is 2\.0; expected a share from 0 to 1"):
        label(LabelJob(**job, threshold=2))
    with pytest.raises(CallError, match="unknown option --nothing"):
        label(LabelJob(**job), ["--nothing"])
    assert not (tmp_path / "out").exists()


def test_a_label_map_may_be_given_as_it_is(photographs, tmp_path):
    names = {path.name for path in photographs.iterdir()}
    job = LabelJob(
        input=photographs,
        output=tmp_path / "out",
        label_map={name: name for name in names} | {"espresso": []},
        method="cam",
        scales=[64],
        refine="none",
    )
    done = label(job)
    assert done.counts == (5, 4, 0, 1, 0, 4)
    assert [image.labels for image in done.images() if image.status == "skipped"] == [("espresso",)]


def test_too_many_rejected_images_are_an_error_and_the_run_is_there(tmp_path):
    (tmp_path / "photos" / "tripod").mkdir(parents=True)
    (tmp_path / "photos" / "tripod" / "a.jpg").write_bytes(b"no image")
    job = LabelJob(input=tmp_path / "photos", output=tmp_path / "out", method="cam", scales=(64,), refine="none")
    with pytest.raises(TooManyRejectedError, match="rejected: 1 of 1 image,"):
        label(job)
    [image] = Run.open(str(tmp_path / "out")).images()
    assert (image.status, image.boxes) == ("rejected", ()) and image.reason.startswith("not_an_image")


def test_what_a_person_should_know_is_logged(own_photographs, tmp_path, caplog):
    (own_photographs / "twins.csv").write_text(
        "path,label\nespresso/coffee.png,espresso\nmoped/motorcycle_left.png,Espresso"
    )
    job = LabelJob(
        input=own_photographs / "twins.csv",
        output=tmp_path / "out",
        label_map={"espresso": [967], "Espresso": [967]},
        method="cam",
        scales=(64,),
        refine="none",
    )
    with caplog.at_level("INFO", "camboxes"):
        label(job)
    assert any(
        record.getMessage().startswith("2 images, 2 labels, 1 shard; one scale, CAM") for record in caplog.records
    )
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("'Espresso' and 'espresso' are different labels")
