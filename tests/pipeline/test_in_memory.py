"""`import camboxes`, and boxes of images in memory."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import camboxes
from camboxes.pipeline import Run


@pytest.fixture(scope="module")
def pictures(run):
    """The photographs of a finished run: PIL images, their labels, and the run's boxes."""
    found = [image for image in Run(str(run)).images() if image.status == "ok"]
    root = Run(str(run))._plan.root
    return [Image.open(f"{root}/{image.path}") for image in found], [image.labels for image in found], found


def test_boxes_are_those_of_label(pictures):
    images, labels, found = pictures
    boxes = camboxes.find_boxes(images, labels)
    assert len(boxes) == len(found) == 5
    for ours, theirs in zip(boxes, found, strict=True):
        assert [box.label for box in ours] == [box.label for box in theirs.boxes]
        for box, other in zip(ours, theirs.boxes, strict=True):
            assert box.bbox == pytest.approx(other.bbox, abs=1)
            assert box.score == pytest.approx(other.score, rel=1e-3)


def test_arrays_grey_images_and_several_labels(pictures):
    images, labels, _ = pictures
    [camera] = [image for image in images if image.mode == "L"]
    cat = images[labels.index(("Egyptian cat",))]
    of_images, of_arrays = (
        camboxes.find_boxes(given, [["tripod", "binoculars"], []], scales=(224,), method="cam", boxes="all")
        for given in ([camera, cat], [np.asarray(camera), np.asarray(cat)])
    )
    assert of_images == of_arrays
    assert {box.label for box in of_images[0]} == {"binoculars", "tripod"}
    assert of_images[1] == []


def test_images_are_turned_upright(pictures):
    images, labels, _ = pictures
    cat = images[labels.index(("Egyptian cat",))]
    turned = cat.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned.info["exif"] = exif.tobytes()
    plain = {"scales": (224,), "method": "cam"}
    assert camboxes.find_boxes([turned], [["tabby"]], **plain) == camboxes.find_boxes([cat], [["tabby"]], **plain)


def test_label_maps_and_blank_images():
    blank = np.full((30, 40, 3), 7, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    none, known = camboxes.find_boxes(
        [blank, noise], [["tabby"], ["puss", "thing"]], {"puss": "tabby", "thing": []}, threshold=0, method="cam"
    )
    assert none == []
    assert [box.label for box in known] == ["puss"]
    assert known[0].bbox == (0, 0, 40, 30)


@pytest.mark.parametrize(
    ("images", "labels", "options", "message"),
    [
        ([np.zeros((4, 4, 3), np.uint8)], "tabby", {}, "labels are 'tabby'; expected a list of labels, as"),
        ([np.zeros((4, 4, 3), np.uint8)], ["tabby"], {}, "labels are 'tabby'; expected a list of labels, as"),
        ([np.zeros((4, 4, 3), np.uint8)], [], {}, "1 image and labels of 0 were given"),
        ([np.zeros((4, 4, 3), np.uint8)], [["tabbi"]], {}, "'tabbi'"),
        ([np.zeros((4, 4, 3), np.uint8)], [["tabby"]], {"threshold": 25}, "threshold is 25"),
        ([np.zeros((4, 4, 3))], [["tabby"]], {}, "the image is float64 of shape"),
    ],
)
def test_wrong_calls(images, labels, options, message):
    with pytest.raises(ValueError, match=message):
        camboxes.find_boxes(images, labels, **options)


def test_a_data_set_into_a_folder(photographs, tmp_path):
    output = str(tmp_path / "boxes")
    run = camboxes.label(str(photographs), output, method="cam", scales=(224,), refine="none")
    assert run.counts.ok == 5
    assert camboxes.open_run(output).counts == run.counts
    with pytest.raises(ValueError, match="nowhere"):
        camboxes.open_run(str(tmp_path / "nowhere"))


def test_the_package_says_what_it_is_and_imports_nothing_heavy():
    assert "class activation maps" in camboxes.__doc__
    assert camboxes.__version__ == "0.1.0"
    assert dir(camboxes) == ["__version__", "find_boxes", "label", "open_run"]
    code = "import camboxes, sys; print([m for m in ('torch', 'numpy', 'apache_beam') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
