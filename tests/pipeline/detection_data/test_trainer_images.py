import io

import cv2
import numpy as np
import pytest
from PIL import Image

from camboxes.pipeline.detection_data.trainer_images import for_trainers


def _encoded(form="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 90, 90)).save(file, form)
    return file.getvalue()


def test_pictures_may_be_linked_only_as_they_are():
    assert for_trainers(_encoded(), jpeg=True) == (".jpg", _encoded(), True)
    suffix, data, linkable = for_trainers(_encoded("PNG"), jpeg=True)
    assert (suffix, Image.open(io.BytesIO(data)).format, linkable) == (".jpg", "JPEG", False)


@pytest.mark.parametrize("jpeg", [False, True])
def test_trainers_get_the_picture_that_the_run_saw(jpeg):
    """Transparent pixels on white, and 16 bits as 8: trainers would see hidden colours, and white."""
    levels = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    colours = np.zeros((48, 64, 4), np.uint8)
    colours[:, 32:] = 200, 30, 30, 255
    for stored, seen in (
        (levels, np.dstack([levels >> 8] * 3)),
        (colours, np.where(colours[..., 3:], colours, 255)[..., :3]),
    ):
        file = io.BytesIO()
        Image.fromarray(stored).save(file, "PNG")
        suffix, data, linkable = for_trainers(file.getvalue(), jpeg=jpeg)
        assert (suffix, linkable) == (".jpg" if jpeg else ".png", False)
        found = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(found - seen)[:, :28].max() <= (8 if jpeg else 0)
        assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), found) or jpeg


def test_an_opaque_picture_of_eight_bits_is_linked_as_it_is():
    for data in (_encoded("PNG"), _encoded("WEBP"), _encoded("BMP")):
        assert for_trainers(data, jpeg=False)[1:] == (data, True)
