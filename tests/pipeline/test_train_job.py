import json
import logging

import numpy as np
import pytest
from PIL import Image

from camboxes.models import ModelSpec, load_classifier
from camboxes.pipeline import TrainJob, train
from camboxes.pipeline.errors import CallError


@pytest.fixture
def squares(tmp_path):
    """Two class folders of four images each, which nobody could mistake."""
    random = np.random.default_rng(0)
    for label, colour in (("red", (220, 30, 30)), ("green", (30, 200, 30))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(90, 160, (64, 64, 3)).astype(np.uint8)
            pixels[16:48, 16:48] = colour
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    return tmp_path / "data"


def test_a_training_from_python(squares, tmp_path, caplog, capsys):
    job = TrainJob(input=squares, output=tmp_path / "classifier", size=64, epochs=2)
    with caplog.at_level(logging.INFO, "camboxes"):
        found = train(job)
    assert "8 images, 2 labels, one an image (softmax)" in caplog.text
    assert found.path == str(tmp_path / "classifier")
    assert found.written == ("weights.safetensors", "classifier.json")
    described = json.loads((tmp_path / "classifier" / "classifier.json").read_text())["training"]
    assert {name: round(value, 4) for name, value in found.metrics.items()} == described["metrics"]
    assert found.guessing == {"mean_class_accuracy": 0.5, "top1_accuracy": 0.5}
    assert list(load_classifier(ModelSpec(found.path)).class_names) == [("green",), ("red",)]

    again = train(job)
    assert again.written == () and again.metrics == described["metrics"], "it was finished before"
    assert capsys.readouterr().out == "", "only the command prints"


def test_a_job_that_cannot_be_done(tmp_path):
    with pytest.raises(CallError, match="epochs is 0; expected at least 1"):
        train(TrainJob(input=tmp_path, output=tmp_path / "out", epochs=0))
    with pytest.raises(ValueError, match="train is 'tail'; expected one of head, all"):
        TrainJob(input=tmp_path, output=tmp_path / "out", train="tail")
