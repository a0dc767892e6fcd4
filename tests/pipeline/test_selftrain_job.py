import pytest

from camboxes.models.training import selftraining
from camboxes.pipeline import Run, SelftrainJob, selftrain
from camboxes.pipeline.errors import CallError


def test_a_self_training_from_python(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(selftraining, "_EPOCHS", (1, 1))
    found = selftrain(SelftrainJob(run=run, output=tmp_path / "better", rounds=1))
    before = Run.open(str(run))
    assert (found.path, found.counts.planned) == (str(tmp_path / "better"), before.counts.planned)
    assert found.counts.boxes == sum(len(image.boxes) for image in found.images()) > 0
    for image, then in zip(found.images(), before.images(), strict=True):
        assert (image.path, image.labels) == (then.path, then.labels)
    assert capsys.readouterr().out == "", "only the command prints"


def test_jobs_that_cannot_be_done(run, tmp_path):
    with pytest.raises(CallError, match="rounds is 0; expected at least 1"):
        selftrain(SelftrainJob(run=run, output=tmp_path / "better", rounds=0))
    with pytest.raises(CallError, match="'s3://bucket/run' is on a store"):
        selftrain(SelftrainJob(run="s3://bucket/run", output=tmp_path / "better"))
    with pytest.raises(CallError, match="holds no run"):
        selftrain(SelftrainJob(run=tmp_path, output=tmp_path / "better"))
