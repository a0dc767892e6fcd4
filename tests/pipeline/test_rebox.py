import json

from camboxes.pipeline.cli import main
from camboxes.transforms import PlannedRun


def _rebox(run, output, *options):
    return main(["rebox", "--run", str(run), "--output", str(output), *options])


def test_the_same_threshold_gives_the_same_bytes(run, tmp_path, results):
    assert _rebox(run, tmp_path / "same") == 0
    assert results(tmp_path / "same") == results(run)
    assert (tmp_path / "same" / "plan" / "plan.json").read_bytes() == (run / "plan" / "plan.json").read_bytes()
    assert (tmp_path / "same" / "report.html").exists()


def test_a_second_call_draws_all_boxes_anew(run, tmp_path, results, capsys):
    for _ in range(2):
        assert _rebox(run, tmp_path / "same") == 0
        assert "done already" not in capsys.readouterr().err
        assert results(tmp_path / "same") == results(run)


def test_another_threshold_gives_what_label_gives_at_it(photographs, run, tmp_path, results, annotations):
    assert _rebox(run, tmp_path / "again", "--threshold", "0.5", "--boxes", "all") == 0
    options = ["--shards", "2", "--threshold", "0.5", "--boxes", "all"]
    assert main(["label", "--input", str(photographs), "--output", str(tmp_path / "label"), *options]) == 0
    assert results(tmp_path / "again") == results(tmp_path / "label")
    assert (
        PlannedRun.load(str(tmp_path / "again")).fingerprints == PlannedRun.load(str(tmp_path / "label")).fingerprints
    )
    before = {a["box_uid"]: a["bbox"] for a in annotations(run)["annotations"]}
    after = {a["box_uid"]: a["bbox"] for a in annotations(tmp_path / "again")["annotations"]}
    assert set(before) <= set(after), "every box of one component keeps its name"
    assert all(after[uid] != before[uid] for uid in before)
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["settings"]["rule"]["threshold"] == 0.5


def test_boxes_come_and_go(run, tmp_path, annotations):
    assert _rebox(run, tmp_path / "none", "--threshold", "1", "--min-area", "0.5") == 0
    assert annotations(tmp_path / "none")["annotations"] == []
    assert json.loads((tmp_path / "none" / "results.json").read_text()) == []
    assert json.loads((tmp_path / "none" / "summary.json").read_text())["images"]["no_box"] == 5
    assert _rebox(tmp_path / "none", tmp_path / "back", "--threshold", "0.25", "--min-area", "0") == 0
    assert (tmp_path / "back" / "annotations.json").read_bytes() == (run / "annotations.json").read_bytes()


def test_wrong_calls(run, tmp_path, capsys):
    assert _rebox(tmp_path, tmp_path / "out") == 2
    assert "holds no run; expected the --output of camboxes label" in capsys.readouterr().err
    assert _rebox(run, run) == 2
    assert "is the input itself" in capsys.readouterr().err
    assert _rebox(run, tmp_path / "out", "--threshold", "1.5") == 2
    assert "threshold is 1.5; expected a share from 0 to 1" in capsys.readouterr().err


def test_an_unfinished_run(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run, tmp_path / "part")
    next((tmp_path / "part" / "shards").iterdir()).unlink()
    assert _rebox(tmp_path / "part", tmp_path / "out") == 2
    assert "is not finished: 1 of 2 shards are missing" in capsys.readouterr().err
