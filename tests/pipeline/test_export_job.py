import collections
import dataclasses
import shutil
from pathlib import Path

import pytest

from camboxes.pipeline import ExportJob, export
from camboxes.pipeline.errors import CallError
from camboxes.transforms import PlannedRun, storage


@pytest.fixture
def moved(run, photographs, tmp_path):
    """The run over photographs of its own: its folder, and theirs."""
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(photographs, tmp_path / "photographs")
    planned = PlannedRun.load(str(tmp_path / "run"))
    dataclasses.replace(planned, root=str(tmp_path / "photographs")).save()
    return tmp_path / "run", tmp_path / "photographs"


def test_what_was_exported_can_be_read(run, tmp_path, capsys):
    exported = export(ExportJob(run=str(run), output=str(tmp_path / "data"), format="parquet", val=0.5))
    assert exported.files == [str(tmp_path / "data" / name) for name in ("boxes.parquet", "export.json")]
    rows = storage.read_table(exported.files[0]).to_pylist()
    assert exported.boxes == {"train": 0, "val": 0} | collections.Counter(row["split"] for row in rows)
    assert exported.images == exported.boxes, "one box on each image"
    assert (exported.planned, sum(exported.images.values())) == (5, 5)
    assert (exported.left_out, exported.unreadable, exported.partial, exported.empty) == ({}, {}, 0, 0)
    assert (exported.copies.images, exported.kept) == (0, [])
    assert capsys.readouterr() == ("", "")


def test_images_that_are_gone_are_named(moved, tmp_path):
    run, photographs = moved
    gone = sorted(photographs.rglob("*.png"))[0]
    gone.unlink()
    exported = export(ExportJob(run=str(run), output=str(tmp_path / "data")))
    assert exported.unreadable == {gone.relative_to(photographs).as_posix(): "missing: there is no file at this path"}
    assert sum(exported.images.values()) == len(list(Path(tmp_path / "data" / "images").iterdir())) == 4


def test_all_images_left_out(run, tmp_path):
    exported = export(ExportJob(run=str(run), output=str(tmp_path / "data"), include="reviewed"))
    assert exported.left_out == {"not reviewed": 5}
    assert exported.images == exported.boxes == {"train": 0, "val": 0}


def test_what_cannot_be_done_writes_nothing(run, tmp_path):
    with pytest.raises(CallError, match="holds no run"):
        export(ExportJob(run=str(tmp_path), output=str(tmp_path / "data")))
    with pytest.raises(CallError, match=r"val is 1; expected a share from 0"):
        export(ExportJob(run=str(run), output=str(tmp_path / "data"), val=1))
    assert not (tmp_path / "data").exists()
