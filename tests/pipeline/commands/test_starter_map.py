import json
import shlex
import subprocess
import sys

import pytest

from camboxes.pipeline.cli import main
from camboxes.pipeline.commands import starter_map
from camboxes.pipeline.label_job import LabelJob

STARTER = {"Straße": ["?", "street sign"], "dog": "dog"}


@pytest.fixture
def job(tmp_path):
    return LabelJob(input="some data", output=str(tmp_path / "out"), scales=(224, 448), compete=False)


def test_a_label_a_line_and_the_call_that_takes_it(job, tmp_path):
    edit, again, _, train = starter_map.offered(STARTER, job, ["--direct_num_workers=2"]).splitlines()
    path = tmp_path / "out-label-map.json"
    assert path.read_text() == '{\n  "Straße": ["?", "street sign"],\n  "dog": "dog"\n}\n'
    assert edit.startswith(f"Edit {path}, which lists all labels")
    assert again == (
        f"  camboxes label --input 'some data' --output {tmp_path}/out --label-map {path} --scales 224,448 "
        "--no-compete --direct_num_workers=2"
    )
    assert train == "  camboxes train --input 'some data' --output CKPT"


def test_a_file_is_never_overwritten(job, tmp_path):
    path = tmp_path / "out-label-map.json"
    path.write_text('{"Straße": "street sign"}')
    for _ in range(2):  # the second call finds what it would write
        assert f"Edit {tmp_path / 'out-label-map-2.json'}," in starter_map.offered(STARTER, job, [])
    assert path.read_text() == '{"Straße": "street sign"}' and len([*tmp_path.iterdir()]) == 2


def test_a_folder_that_cannot_be_written_to(job, tmp_path):
    (tmp_path / "file").write_text("")
    said = starter_map.offered(STARTER, LabelJob(input="data", output=str(tmp_path / "file" / "out")), [])
    assert said.startswith("A label map to begin with cannot be written beside ")


def test_labels_that_match_nothing_end_with_a_label_map_to_edit(tmp_path, capsys):
    (tmp_path / "m.csv").write_text("path,label\na.jpg,dog\nb.jpg,person\n")
    call = ["label", "--input", str(tmp_path / "m.csv"), "--output", str(tmp_path / "out"), "--no-compete", "--dry-run"]
    assert main([*call, "--scales", "224,448"]) == 2
    said, path = capsys.readouterr(), tmp_path / "out-label-map.json"
    assert "          dog = 118 classes: Chihuahua, Japanese spaniel, Maltese dog and 115 more" in said.out.splitlines()
    assert json.loads(path.read_text()) == {"person": ["?", "ballplayer", "groom", "scuba diver"], "dog": "dog"}
    again = shlex.split(said.err.splitlines()[-3])
    assert again[again.index("--label-map") + 1] == str(path) and {"--no-compete", "--dry-run"} <= {*again}
    assert main(again[1:]) == 2
    assert "label map, 'person': not decided yet" in capsys.readouterr().err
    path.write_text('{"person": [], "dog": "dog"}')
    assert main(again[1:]) == 2, "no image is there"
    said = capsys.readouterr()
    assert (
        "person = no class: its images get no box for it" in said.out and "2 of 2 images that were looked" in said.err
    )


@pytest.mark.parametrize(
    ("model", "label", "options", "said"),
    [
        ("efficientnet_lite0", "person", [], "'person' has 10,296 kinds in WordNet"),
        (
            "efficientnet_lite0",
            "dog",
            ["--label-map", "map.json"],
            "label map, 'dog': class index 1000 is not in 0 to ",
        ),
        ("CKPT", "dog", [], "no single class of the network matches 1 of 1 label"),
    ],
)
def test_wrong_labels_are_told_before_torch_is_loaded(model, label, options, said, tmp_path):
    (tmp_path / "m.csv").write_text(f"path,label\na.jpg,{label}\nb.jpg,other\n")
    (tmp_path / "map.json").write_text('{"dog": 1000, "other": []}')
    (tmp_path / "CKPT").mkdir()
    described = {"class_names": [["tripod"], ["dig"]], "training": {"settings": {"background": ["other"]}}}
    (tmp_path / "CKPT" / "classifier.json").write_text(json.dumps(described))
    call = ["label", "--input", "m.csv", "--output", "out", "--model", model, *options]
    code = f"import sys; sys.modules['torch'] = None; from camboxes.pipeline.cli import main; sys.exit(main({call!r}))"
    found = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert (found.returncode, said in found.stderr) == (2, True), found.stderr
    assert ("'other' is" in found.stderr) == (model != "CKPT" and not options), "it was background in training"
