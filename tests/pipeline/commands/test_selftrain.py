import dataclasses
import hashlib
import json
import shutil

import pytest
from PIL import Image

from camboxes.models.training import selftraining
from camboxes.pipeline.cli import main
from camboxes.pipeline.selftraining import rounds
from camboxes.pipeline.selftraining.rounds import Standing
from camboxes.transforms import PlannedRun
from camboxes.transforms.review.decisions import DecidedBox, Decision, append_decision

OWN = Standing(coherence=0.5, agreement=0.9, score=0.3, boxes=1.0, spread=0.5, iou=1.0)


def _selftrain(run, output, *options):
    return main(["selftrain", "--run", str(run), "--output", str(output), *options])


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """A run with the maps of a second round, which five photographs are too few to be judged better for."""
    output = tmp_path_factory.mktemp("selftrain") / "better"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selftraining, "_EPOCHS", (2, 2))
        patch.setattr(Standing, "worse_because", lambda *_: None)
        assert _selftrain(run, output, "--rounds", "2") == 0
    return output


def _record(output):
    return json.loads((output / "plan" / "selftraining.json").read_text())


def test_all_but_maps_and_boxes_is_as_in_the_run(run, trained, rows):
    for before, after in zip(rows(run), rows(trained), strict=True):
        for name in ("image_id", "path", "digest", "width", "height", "labels", "top5"):
            assert after[name] == before[name]
        [old], [new] = before["maps"], after["maps"]
        assert new["method"] == f"selftrained({old['method']})"
        assert (new["height"], new["width"]) == (28, 28), "448 pixels, 16 a cell"
        assert 0 <= new["raw_min"] < new["raw_max"] <= 1
        assert new["coherence"] != old["coherence"]
        for name in ("category_id", "rectangle", "scales"):
            assert new[name] == old[name]
    before, after = (PlannedRun.load(str(output)) for output in (run, trained))
    assert (after.shards, after.categories, after.root) == (before.shards, before.categories, before.root)
    assert after.settings["method"] == f"selftrained({before.settings['method']})"
    assert after.settings["rule"] == before.settings["rule"] | {"threshold": 0.2}
    weights = (trained / "plan" / "regressor.safetensors").read_bytes()
    assert after.settings["selftraining"] == {
        "kept": 2,
        "size": 448,
        "regressor_sha256": hashlib.sha256(weights).hexdigest(),
    }
    assert [found["round"] for found in _record(trained)["history"]] == [0, 1, 2]
    assert (trained / "report.html").exists()


def test_the_new_run_can_be_drawn_again_exported_and_evaluated(run, trained, tmp_path, results):
    again, data = tmp_path / "again", tmp_path / "data"
    assert main(["rebox", "--run", str(trained), "--output", str(again), "--threshold", "0.2"]) == 0
    assert results(again) == results(trained)
    assert main(["export", "--run", str(trained), "--output", str(data), "--format", "coco"]) == 0
    truth = ["--ground-truth", str(run / "annotations.json")]
    assert main(["evaluate", "--run", str(trained), *truth]) == 0
    (trained / "evaluation.json").unlink()
    assert main(["compare", str(run), str(trained), *truth]) == 0


def test_a_job_cut_short_ends_with_the_same_bytes(run, trained, tmp_path, results, capsys, monkeypatch):
    shutil.copytree(trained, tmp_path / "cut")
    next((tmp_path / "cut" / "shards").iterdir()).unlink()
    (tmp_path / "cut" / "annotations.json").unlink()
    monkeypatch.setattr(rounds, "train_rounds", None)  # nothing is learnt twice
    assert _selftrain(run, tmp_path / "cut", "--rounds", "2") == 0
    assert "1 shard done already" in capsys.readouterr().err
    assert results(tmp_path / "cut") == results(trained)
    assert _selftrain(run, tmp_path / "cut", "--rounds", "1") == 2
    assert "holds another run, or one of this that was made with other options" in capsys.readouterr().err


def test_the_same_call_gives_the_same_bytes(run, trained, tmp_path, results, monkeypatch):
    monkeypatch.setattr(selftraining, "_EPOCHS", (2, 2))
    monkeypatch.setattr(Standing, "worse_because", lambda *_: None)
    assert _selftrain(run, tmp_path / "same", "--rounds", "2") == 0
    assert results(tmp_path / "same") == results(trained)
    for name in ("regressor.safetensors", "selftraining.json"):
        assert (tmp_path / "same" / "plan" / name).read_bytes() == (trained / "plan" / name).read_bytes()


def test_where_no_round_is_better_the_run_stays_as_it_is(run, tmp_path, results, capsys, monkeypatch):
    monkeypatch.setattr(selftraining, "_EPOCHS", (1, 1))
    monkeypatch.setattr(Standing, "worse_because", lambda *_: "it is worse")
    assert _selftrain(run, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "it is worse" in said and "kept: the run's own maps, because no round gave better ones" in said
    assert results(tmp_path / "out") == results(run)
    assert [found["verdict"] for found in _record(tmp_path / "out")["history"]] == ["the run's own maps", "it is worse"]


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"agreement": 0.95, "coherence": 0.6, "score": 0.4}, None),
        ({"agreement": 0.95, "coherence": 0.6, "score": 0.25}, None),
        (
            {"agreement": 0.95, "coherence": 0.6, "score": 0.2},
            "collapsed: its boxes' mean score is 0.200",
        ),
        ({"agreement": 0.85, "coherence": 0.6}, "agreement is not above 0.9000"),
        ({"agreement": 0.95, "coherence": 0.5}, "coherence is not above 0.5000"),
        ({"agreement": 0.99, "coherence": 0.9, "score": 0.9, "spread": 0.2}, "collapsed: its boxes are of one size"),
        ({"agreement": 0.99, "coherence": 0.9, "score": 0.9, "boxes": 0.8}, "collapsed: only 80% of the maps give"),
    ],
)
def test_better_is_better_in_both_and_no_collapse(change, because):
    found = OWN._replace(**change).worse_because(OWN, OWN)
    assert found is None if because is None else because in found


@pytest.fixture
def moved(run, photographs, tmp_path):
    """A copy of the run over a copy of its photographs."""
    shutil.copytree(run, tmp_path / "moved")
    shutil.copytree(photographs, tmp_path / "photographs")
    planned = PlannedRun.load(str(tmp_path / "moved"))
    dataclasses.replace(planned, root=str(tmp_path / "photographs")).save()
    return tmp_path / "moved"


def test_images_that_changed_are_rejected_and_others_keep_their_decisions(moved, tmp_path, rows, monkeypatch):
    monkeypatch.setattr(selftraining, "_EPOCHS", (1, 1))
    monkeypatch.setattr(Standing, "worse_because", lambda *_: None)
    first, second, kept, *_ = rows(moved)
    Image.new("RGB", (64, 48)).save(tmp_path / "photographs" / first["path"], format="PNG")
    (tmp_path / "photographs" / second["path"]).unlink()
    label = kept["labels"][0]
    box = DecidedBox(label["label"], label["category_id"], (1, 2, 30, 40))
    append_decision(str(moved), Decision(kept["path"], kept["image_id"], "accepted", boxes=(box,)))
    assert _selftrain(moved, tmp_path / "out", "--rounds", "1") == 0
    changed, gone, decided, *others = rows(tmp_path / "out")
    assert changed["status"] == gone["status"] == "rejected"
    assert changed["reason"] == "changed: the file is not the one that the run saw"
    assert gone["reason"].startswith("missing: ")
    assert changed["maps"] == changed["boxes"] == [] and changed["image_id"] == first["image_id"]
    assert [box["bbox"] for box in decided["boxes"]] == [[1, 2, 30, 40]]
    assert {row["status"] for row in others} == {"ok"}
    assert sorted(_record(tmp_path / "out")["unread"]) == sorted([first["path"], second["path"]])


def test_most_images_gone(moved, tmp_path, capsys):
    shutil.rmtree(tmp_path / "photographs")
    assert _selftrain(moved, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert ": 5 of 5," in said and f"expected them below {str(tmp_path / 'photographs')!r}, unchanged" in said
    assert not (tmp_path / "out").exists()


def test_wrong_calls(run, moved, tmp_path, capsys):
    def fails(source, *options):
        assert _selftrain(source, tmp_path / "out", *options) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "holds no run; expected the --output of camboxes label" in fails(tmp_path)
    assert "--rounds is 0; expected at least 1" in fails(run, "--rounds", "0")
    assert "--run 'gs://bucket/run' is on a store; expected a local folder" in fails("gs://bucket/run")
    assert _selftrain(run, run) == 2
    assert "is the input itself" in capsys.readouterr().err


def test_the_network_is_gone(moved, tmp_path, capsys):
    (moved / "plan" / "classifier.json").unlink()  # as in a run of rebox; the library has it
    planned = PlannedRun.load(str(moved))
    for changed, expected in [
        ({"name": "gap:timm:tf_efficientnet_lite0"}, "cannot be loaded: "),
        ({"weights_sha256": "0" * 64}, "had weights 0000000000000000, "),
    ]:
        dataclasses.replace(planned, settings={**planned.settings, "model": planned.settings["model"] | changed}).save()
        assert _selftrain(moved, tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert expected in said and "run camboxes label once more" in said


def test_a_run_without_maps(tmp_path, capsys):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "m.csv").write_text("path,label\nphotographs/broken.jpg,tripod\n")
    options = ["--output", str(tmp_path / "run"), "--max-reject-rate", "1"]
    assert main(["label", "--input", str(tmp_path / "m.csv"), *options]) == 0
    assert _selftrain(tmp_path / "run", tmp_path / "out") == 2
    assert "holds no map that a box can come from" in capsys.readouterr().err
