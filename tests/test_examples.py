"""The Python examples are run as they stand, and what they write is what the commands write."""

import json
import re
import shlex
import shutil
from pathlib import Path

import nbclient
import nbformat

from camboxes.pipeline import cli

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "how-to" / "python.md"


def _examples(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_examples(photographs, run, plain_run, tmp_path, monkeypatch):
    """In a notebook, where Beam behaves otherwise; the second and third give what `camboxes label` does, the fourth
    what `camboxes label` does with plain CAM.
    """
    examples = _examples(PAGE)
    assert len(examples) == 4
    shutil.copytree(photographs, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    cells = [nbformat.v4.new_code_cell(example) for example in examples]
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=300, kernel_name="python3").execute()
    assert _boxes("labelled") == _boxes("beam_boxes") == _boxes(run)
    assert len(_boxes("labelled-t40")) == 5
    assert _boxes("more_boxes") == {"cat.png": _boxes(plain_run)["Egyptian cat/chelsea.png"]}


def _boxes(output):
    """Of each image of a run the boxes and their scores."""
    found = json.loads(Path(output, "annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in found["images"]}
    boxes = {name: [] for name in names.values()}
    for annotation in found["annotations"]:
        boxes[names[annotation["image_id"]]].append((annotation["bbox"], annotation["score"]))
    return boxes


def test_the_readme_has_one_of_them():
    assert _examples(ROOT / "README.md") == _examples(PAGE)[2:3]


def test_the_tutorial_shows_what_the_commands_print(photographs, tmp_path, monkeypatch, capfd):
    """But for seconds, the precision that suits the machine, and the steps that are told where they take long."""
    shutil.copytree(photographs, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    shown = r"```sh\n(camboxes (?:label|report|rebox) [^\n]*)\n```\n+```text\n(.*?)```"
    calls = re.findall(shown, (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
    assert len(calls) == 4
    for typed, said in calls:
        assert cli.main(shlex.split(typed)[1:]) == 0
        assert _lines(said) == _lines("".join(capfd.readouterr()).replace(str(tmp_path), "…"))


def _lines(text):
    lines = re.sub(r"\d+\.\d s\b", "SECONDS", re.sub(r"\b(fp32|bf16)\b", "PRECISION", text)).splitlines()
    return sorted(line for line in lines if not line.endswith(" …"))
