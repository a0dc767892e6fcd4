import shlex

import pytest

from camboxes.pipeline import cli, label_job
from camboxes.transforms import PlannedRun


@pytest.fixture
def refused(run, photographs, capsys, monkeypatch):
    """Calls label on the run's folder; the network must not be loaded. Returns what is told."""

    def fail(*_):
        raise AssertionError("the network is loaded before the call is refused")

    def call(*options, source=photographs):
        monkeypatch.setattr(label_job, "_localizer", fail)
        assert cli.main(["label", "--input", str(source), "--output", str(run), *map(str, options)]) == 2
        monkeypatch.undo()
        [line] = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" …")]
        return line

    return call


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--model resnet50 --size 96", "the call asks for network resnet50 instead of timm:tf_efficientnet_lite0."),
        ("--method cam", "the call asks for method cam instead of cam*layercam@32[-2]*layercam@16."),
        ("--size 192", "the call asks for scales 192,384 instead of 224,448, size 192 instead of 224."),
        ("--aspect squash --flip", "the call asks for flip on instead of off, aspect squash instead of keep."),
        ("--refine none", "refine none instead of affinity, threshold 0.25 instead of 1*otsu."),
        ("--max-bytes 99 --threshold 0.4", "max-bytes 99 instead of 268435456, threshold 0.4 instead of 1*otsu."),
    ],
)
def test_another_run_is_told_before_the_network_is_loaded(refused, options, words):
    line = refused(*options.split())
    assert words in line and "camboxes rebox" not in line and line.endswith("replace the run with --overwrite")


def test_another_input_is_told_before_the_network_is_loaded(refused, tmp_path):
    (tmp_path / "m.csv").write_text("path,label\na.jpg,tripod\n")
    line = refused("--threshold", 0.4, source=tmp_path / "m.csv")
    assert "threshold 0.4 instead of 1*otsu; the input's paths or labels changed (5 images then, 1 now). " in line
    assert "camboxes rebox" not in line


def test_where_only_the_rule_differs_the_call_of_rebox_is_told(refused, run, tmp_path, capsys):
    line = refused("--threshold", 0.4, "--min-area", 0.01, "--boxes", "all")
    assert "the call asks for threshold 0.4 instead of 1*otsu, min-area 0.01 instead of 0, boxes all instead" in line
    call = shlex.split(line.partition("in seconds: ")[2])
    assert call[call.index("--output") + 1] == f"{run}-reboxed"
    call[call.index("--output") + 1] = str(tmp_path / "again")
    assert cli.main(call[1:]) == 0
    rule = PlannedRun.load(str(tmp_path / "again")).settings["rule"]
    assert rule == {"threshold": 0.4, "min_area": 0.01, "boxes": "all", "thresholds": {}}


def test_what_the_call_leaves_open_is_no_difference(run, photographs, tmp_path):
    before = PlannedRun.load(str(run))
    call = ["label", "--input", str(photographs), "--output", str(run), "--shards", "2"]
    assert cli.main([*call, "--size", "224", "--model", "timm:tf_efficientnet_lite0"]) == 0
    assert PlannedRun.load(str(run)) == before
