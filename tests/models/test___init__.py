"""What `camboxes.models` offers."""

import subprocess
import sys

from camboxes import models


def test_the_public_names_are_listed_and_can_be_had():
    expected = {"ModelSpec", "MapSpec", "METHODS", "Classifier", "Activations", "load_classifier", "Preprocessing"}
    expected |= {"class_maps", "class_activation_maps", "Localizer", "Localization"}
    assert set(dir(models)) == set(models.__all__) == expected
    assert all(getattr(models, name).__module__.startswith("camboxes.models.") for name in expected - {"METHODS"})
    assert models.METHODS[0] == "cam"
    assert not hasattr(models, "out_of_memory")


def test_the_names_are_listed_without_torch():
    code = "import sys, camboxes.models; dir(camboxes.models); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "False"
