"""The notebook in examples/ is executed, and gives what it shows."""

import re
import runpy
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


def _printed(notebook):
    return ["".join(output.get("text", "") for output in cell.get("outputs", ())) for cell in notebook.cells]


def _pictures(notebook):
    return [
        sum("image/jpeg" in output.get("data", ()) for output in cell.get("outputs", ())) for cell in notebook.cells
    ]


def _number(before, text):
    [number] = re.findall(rf"{re.escape(before)}([\d.]+)", text)
    return float(number)


def test_the_notebook_gives_what_it_shows(tmp_path, monkeypatch):
    """Figures may differ by machine, in their digits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    examples = runpy.run_path(str(EXAMPLES / "execute.py"))
    kept, found = nbformat.read(examples["NOTEBOOK"], as_version=4), examples["executed"](tmp_path)
    assert [re.sub(r"[\d.]+", "#", text) for text in _printed(found)] == [
        re.sub(r"[\d.]+", "#", text) for text in _printed(kept)
    ]
    assert _pictures(found) == _pictures(kept)
    assert sum(_pictures(kept)) == 3
    text = "".join(_printed(found))
    assert _number("right boxes: ", text) >= 90
    assert _number("with the rule 'overall': ", text) >= _number("with the rule 'as it was': ", text)
    assert _number("AP50 ", text) >= 0.9
    assert examples["NOTEBOOK"].stat().st_size <= 600_000


@pytest.mark.parametrize("label", ["cat", "espresso", "moped"])
def test_the_true_boxes_are_true(label):
    """On a background of one colour, what differs from it lies in the box, but for the soft edge."""
    composed = runpy.run_path(str(EXAMPLES / "composed_photographs.py"))
    cut, random = composed["_cut"](*composed["OBJECTS"][label]), np.random.default_rng(0)
    for _ in range(10):
        picture = Image.new("RGB", composed["SIZE"], (0, 255, 0))
        x, y, width, height = composed["_paste"](cut, picture, random)
        differs = np.abs(np.asarray(picture).astype(int) - (0, 255, 0)).sum(axis=2) > 60
        rows, columns = differs.any(axis=1).nonzero()[0], differs.any(axis=0).nonzero()[0]
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(np.subtract(found, [x, y, x + width, y + height])).max() <= 3
