import argparse
import importlib
import os
import subprocess
import sys

import pytest

from camboxes.pipeline import cli
from camboxes.pipeline.cli import main
from camboxes.pipeline.jobs.beam_options import beam_options, fit_processes, local_processes, processes_for
from camboxes.pipeline.options.fields import add_arguments


def _fails(capsys, *arguments):
    """The one line that a wrong call gets."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    [line] = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" …")]  # but for slow steps
    assert code == 2
    return line


def test_wrong_calls_get_one_line(photographs, tmp_path, capsys):
    label = ("label", "--input", photographs, "--output", tmp_path / "out")
    assert "unknown option --treshold 0.3" in _fails(capsys, *label, "--treshold", "0.3")
    assert "unknown option --thresh=0.3" in _fails(capsys, *label, "--thresh=0.3")
    assert (
        "unexpected b.tar, c.tar, d.tar and 1 more: if the shell made them of a pattern, put it in quotes, as --input "
        in _fails(capsys, "label", "--input", "a.tar", "b.tar", "c.tar", "d.tar", "e.tar", "--output", tmp_path / "out")
    )
    assert "unexpected b.tar: if the shell" in _fails(
        capsys, "train", "--input", "a.tar", "b.tar", "--output", tmp_path / "out"
    )
    assert "threshold is 2.0; expected a share" in _fails(capsys, *label, "--threshold", "2")
    assert (
        "nowhere' does not exist; expected a folder of class folders, a table ending in .csv, .json, .jsonl,"
        in _fails(capsys, "label", "--input", tmp_path / "nowhere", "--output", tmp_path / "out")
    )
    assert "'resnte50' is not known to torchvision or timm; nearest names: " in _fails(
        capsys, *label, "--model", "resnte50"
    )
    assert "there is no such file" in _fails(capsys, *label, "--weights", tmp_path / "w.pth")
    assert "DaskRunner is refused: it drops" in _fails(capsys, *label, "--runner", "DaskRunner")
    assert "map.json': there is no file at this path" in _fails(capsys, *label, "--label-map", tmp_path / "map.json")
    assert "size is 0; expected a positive number" in _fails(capsys, *label, "--size", "0")
    assert "'smoothcam' is not understood; expected" in _fails(capsys, *label, "--method", "smoothcam")
    assert "no layer at stride 5; this network has layers at 2, 4" in _fails(capsys, *label, "--method", "layercam@5")
    assert "expected positive numbers, each once" in _fails(capsys, *label, "--scales", "224,224")
    assert "argument --scales: invalid" in _fails(capsys, *label, "--scales", "224;448")
    assert "--size 64 and --scales were both given" in _fails(capsys, *label, "--size", "64", "--scales", "64,96")
    assert "map_stride is 3; expected a power of 2" in _fails(capsys, *label, "--map-stride", "3")
    assert "is the input itself" in _fails(capsys, "label", "--input", photographs, "--output", photographs)
    assert "required: --output; see camboxes label --help" in _fails(capsys, "label", "--input", photographs)
    assert not (tmp_path / "out").exists()


def _options(command):
    module, parser = importlib.import_module(f"camboxes.pipeline.commands.{command}"), argparse.ArgumentParser()
    add_arguments(parser, module.JOB)
    helps = {"/".join(action.option_strings) or action.dest: action for action in parser._actions if action.help}
    return {name: (action, action.help % vars(action)) for name, action in helps.items()}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_default_that_is_stated_is_the_commands_own(command):
    for name, (action, text) in _options(command).items():
        stated = text.partition("default: ")[2].rstrip(")")
        if action.default not in (None, argparse.SUPPRESS, "auto", ()) and action.nargs != 0:
            same = (
                float(stated) == action.default if isinstance(action.default, float) else stated == str(action.default)
            )
            assert same, (command, name, stated)
        others = [other for other in cli.COMMANDS if other != command and f"{other}:" in stated]
        assert not others, f"{name} of {command} tells of {others}"


def test_what_rebox_leaves_as_it_is():
    options = _options("rebox")
    for name in ("--threshold", "--min-area", "--boxes"):
        action, text = options[name]
        assert action.default is None and text.endswith("(default: the run's own)")


def test_the_defaults_of_explain_and_label():
    of_explain, of_label = _options("explain"), _options("label")
    for name in ("scales", "fine-scales/--no-fine-scales", "compete/--no-compete", "refine", "threshold", "aspect"):
        action, text = of_label[f"--{name}"]
        assert of_explain[f"--{name}"][0].default == action.default and of_explain[f"--{name}"][1] == text


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("labell", "camboxes: there is no command 'labell'; did you mean label?"),
        ("--verson", "camboxes: unknown option --verson; did you mean --version?"),
        ("label --inptu a --output b", "camboxes label: unknown option --inptu; did you mean --input?"),
        ("label --input a --output b --min_area 0", "unknown option --min_area 0; did you mean --min-area?"),
        (
            "label --input a --output b --no-compet",
            "unknown option --no-compet; did you mean --no-compete or --compete?",
        ),
        ("label --input a --output b --job_nam=x", "unknown option --job_nam=x; did you mean --job_name"),
        (
            "rebox --run a --output b --thresold 1",
            "unknown option --thresold 1; did you mean --threshold or --thresholds?",
        ),
        ("compare a b --ground-truth c --ouput d", "unknown option --ouput d; did you mean --output?"),
        ("label --input a --output b --foo", "unknown option --foo; see --help for camboxes' own, and Beam's"),
        ("evaluate --run a --ground-truth b --foo", "unknown option --foo; see camboxes evaluate --help"),
        (
            "rebox --run a --output b --direct_num_workers=x",
            "argument --direct_num_workers: invalid int value: 'x' (an",
        ),
    ],
)
def test_what_may_have_been_meant(capsys, call, line):
    assert line in _fails(capsys, *call.split())


def test_a_command_that_resembles_none(capsys):
    assert _fails(capsys, "frobnicate").startswith(
        "camboxes: there is no command 'frobnicate'; expected one of label, "
    )


def test_true_boxes_are_not_written_over(tmp_path, capsys):
    truth = tmp_path / "boxes.json"
    truth.write_text("{}")
    options = ("--ground-truth", truth, "--output", truth)
    for call in (("tune", "--run", tmp_path), ("compare", tmp_path, tmp_path / "other")):
        assert "is the input itself; choose another" in _fails(capsys, *call, *options)
    assert truth.read_text() == "{}"


def test_an_absent_gpu_that_was_asked_for(photographs, tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    line = _fails(capsys, "label", "--input", photographs, "--output", tmp_path / "out", "--device", "cuda")
    assert "device cuda was asked for, but PyTorch finds no GPU here" in line


def test_labels_without_a_class_are_told_before_anything_runs(tmp_path, capsys):
    (tmp_path / "odd.csv").write_text("path,label\na.jpg,crane\nb.jpg,egyptain cat\nc.jpg,tripod\n")
    assert main(["label", "--input", str(tmp_path / "odd.csv"), "--output", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("camboxes label: no single class of the network matches 2 of 3 labels")
    assert lines[1] == "  'crane' is the name of 2 classes: 134: crane, n02012849; 517: crane, n03126707"
    assert (
        lines[2] == "  'egyptain cat' is not the name of a class; nearest: egyptian cat (285)"
        or "egyptian cat (285)" in lines[2]
    )
    assert not (tmp_path / "out").exists()


def test_a_missing_command_or_version(capsys):
    assert "required: COMMAND" in _fails(capsys)
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("camboxes 0.")


def test_no_option_of_ours_hides_one_of_beams():
    import argparse

    from camboxes.pipeline.commands import demo, label, rebox
    from camboxes.pipeline.jobs.beam_options import _parser

    beams = {option for action in _parser()._actions for option in action.option_strings}
    for command in (label, rebox, demo):
        parser = argparse.ArgumentParser(add_help=False)
        add_arguments(parser, command.JOB)
        assert not beams & {option for action in parser._actions for option in action.option_strings}


def test_a_job_that_fails_says_so(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run, tmp_path / "broken")
    shard = next((tmp_path / "broken" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:100])
    assert main(["rebox", "--run", str(tmp_path / "broken"), "--output", str(tmp_path / "out")]) == 1
    assert "camboxes rebox: the job failed: " in capsys.readouterr().err


def test_the_demo(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "5 images: 5 with boxes, 0 without, 0 skipped, 0 rejected; 5 boxes" in said
    assert f"look at {tmp_path}/boxes/report.html" in said
    assert (tmp_path / "boxes" / "report.html").read_text().count("<figure>") == 5


@pytest.mark.parametrize(
    ("images", "mebibytes", "cores", "gibibytes", "processes"),
    [
        (10**6, 20, 2, 24, 2),
        (10**6, 98, 16, 64, 16),
        (10**6, 20, 16, 13, 6),
        (3_000, 20, 16, 64, 16),
        (2_999, 20, 16, 64, 1),
        (10**6, 20, 1, 64, 1),
        (10**6, 20, 8, 2, 1),
        (10**6, 330, 16, 64, 1),
    ],
)
def test_processes_that_suit_a_machine(images, mebibytes, cores, gibibytes, processes):
    """2 GiB and a core each; one where more take longer to start than they save, or would each hold a large network."""
    assert processes_for(images, mebibytes << 20, cores, gibibytes << 30) == processes


def test_processes_are_fitted_only_where_the_call_leaves_them_open(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5, 7})
    for arguments, expected in [
        ([], 4),
        (["--direct_num_workers=3", "--direct_running_mode=multi_processing"], 3),
        (["--direct_num_workers=0", "--direct_running_mode=multi_processing"], os.cpu_count()),
        (["--direct_running_mode=multi_threading"], 1),
        (["--runner=PortableRunner", "--environment_type=LOOPBACK"], 1),
    ]:
        options = beam_options(arguments)
        fit_processes(options, 10**6, 20 << 20)
        assert local_processes(options) == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    options = beam_options([])
    fit_processes(options, 10**6, 20 << 20)
    assert local_processes(options) == 1


def test_a_command_s_process_collects_no_garbage_while_it_imports_nor_at_its_end():
    code = "import gc, time; from camboxes.pipeline import cli\n"
    code += "seen = []; cli._IMPORTS = 0.2\n"
    code += "cli.main = lambda **_: seen.append(gc.isenabled()) or time.sleep(1) or seen.append(gc.isenabled()) or 3\n"
    code += "print(cli.command(), gc.get_freeze_count(), *seen)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    status, frozen, *collecting = done.stdout.split()
    assert status == "3" and int(frozen) > 10_000 and collecting == ["False", "True"]
