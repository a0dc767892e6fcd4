import json
import shutil

import pytest

from camboxes.pipeline.cli import main
from camboxes.pipeline.commands.compare import _print_classes
from camboxes.pipeline.evaluation.comparison import Comparison, Difference
from camboxes.pipeline.evaluation.resampling import Estimate


@pytest.fixture(scope="module")
def high(run, tmp_path_factory):
    """The run drawn again at a threshold of 0.5."""
    output = tmp_path_factory.mktemp("high") / "boxes"
    assert main(["rebox", "--run", str(run), "--output", str(output), "--threshold", "0.5"]) == 0
    return output


def _compare(*arguments):
    return main(["compare", *map(str, arguments)])


def test_the_command(run, high, tmp_path, capsys):
    truth = run / "annotations.json"
    assert _compare(run, high, "--ground-truth", truth, "--output", tmp_path / "new" / "c.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "they differ in rule.threshold 1*otsu and 0.5"
    assert lines[3] == "judged: 5 images, 5 categories, 5 pairs of an image and a label that both runs have"
    [mean] = [line.split() for line in lines if line.startswith("mean IoU")]
    assert mean[2] == "100.0"
    assert mean[-2:] == ["*", "0.001"], "judged by its own boxes, the first run is better on every image"
    assert lines[-1] == f"wrote {tmp_path / 'new' / 'c.json'}"
    record = json.loads((tmp_path / "new" / "c.json").read_text())
    assert record["runs"] == [str(run), str(high)]
    assert [settings["rule"]["threshold"] for settings in record["settings"]] == ["1*otsu", 0.5]
    assert (record["judged"]["images"], record["judged"]["pairs"]) == (5, 5)
    assert record["left_out_of_each_run"] == [{"images": 0, "categories": 0, "pairs": 0}] * 2
    figure = record["figures"]["mean_iou"]
    assert figure["first"] == 100
    assert figure["difference"] == pytest.approx(figure["second"] - 100)
    assert figure["low"] <= figure["difference"] <= figure["high"] < 0
    assert figure["p"] == 0.001
    assert sum(record["pairs_at_iou_50"].values()) == 5
    assert record["pairs_at_iou_50"]["only_second_right"] == 0


def test_names_of_strangers_are_short_in_the_terminal(capsys):
    of = Difference(50.0, 75.0, Estimate(25.0, 5.0, 45.0), 0.01)
    names = ["\x1b[2J", "line\nbreak", "x" * 100_000]
    _print_classes(Comparison(None, {}, dict.fromkeys(names, (9, of)), 0, 0, 0, 0))
    *_, escape, line, long = capsys.readouterr().out.splitlines()
    assert escape.startswith(r"\x1b[2J  ") and line.startswith(r"line\nbreak  ") and long.startswith("x" * 22 + "…  ")
    assert len({len(row) for row in (escape, line, long)}) == 1


def test_the_same_settings_and_no_file(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "copy")
    assert _compare(run, tmp_path / "copy", "--ground-truth", run / "annotations.json") == 0
    said = capsys.readouterr().out
    assert said.startswith("they differ in no setting\n")
    assert "right at IoU 0.5: 5 pairs in both runs, 0 in run 1 only, 0 in run 2 only, 0 in neither" in said
    assert "wrote" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_wrong_calls_get_one_line(run, high, tmp_path, capsys):
    truth = ("--ground-truth", run / "annotations.json")

    def fails(*call):
        assert _compare(*call) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        [line] = captured.err.splitlines()
        return line

    assert "are one run; expected two" in fails(run, f"{run.parent}/./{run.name}", *truth)
    assert "holds no run; expected the --output of camboxes label" in fails(run, tmp_path, *truth)
    assert "compare: unknown option --iou 1; see camboxes compare --help" in fails(run, high, *truth, "--iou", "1")
    assert "is a folder; expected a file" in fails(run, high, *truth, "--output", tmp_path)
    assert "truth.json' does not exist" in fails(run, high, "--ground-truth", tmp_path / "truth.json")
