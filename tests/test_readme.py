"""The README's example is run as it stands."""

import json
import re
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

README = Path(__file__).parent.parent / "README.md"


def _as_a_script(examples):
    for example in examples:
        exec(compile(example, str(README), "exec"), {})


def _in_a_notebook(examples):
    """In a kernel of its own, in which Beam behaves otherwise."""
    cells = [nbformat.v4.new_code_cell(example) for example in examples]
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=300, kernel_name="python3").execute()


@pytest.mark.parametrize("run", [_as_a_script, _in_a_notebook])
def test_the_pipelines_of_ones_own(photographs, tmp_path, monkeypatch, run):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) == 2
    shutil.copytree(photographs, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    run(examples)
    planned = json.loads(Path("boxes", "annotations.json").read_text())
    assert len(planned["annotations"]) == 5
    stream = json.loads(Path("more_boxes", "annotations.json").read_text())
    assert [image["file_name"] for image in stream["images"]] == ["cat.png"]
    cat = next(image["id"] for image in planned["images"] if image["file_name"] == "Egyptian cat/chelsea.png")
    assert stream["annotations"][0]["bbox"] == next(a["bbox"] for a in planned["annotations"] if a["image_id"] == cat)


def test_every_option_of_label_is_in_the_readme():
    import argparse

    from camboxes.pipeline.commands import label

    parser = argparse.ArgumentParser(add_help=False)
    label.add_arguments(parser)
    for action in parser._actions:
        assert f"`{action.option_strings[0]}" in README.read_text(), action.option_strings[0]
