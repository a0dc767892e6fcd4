import numpy as np
import pytest
import torch
from PIL import Image

from camboxes.models import Preprocessing

LITE0 = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224, "bicubic")


@pytest.mark.parametrize(
    ("aspect", "height", "width", "expected"),
    [
        ("squash", 480, 640, (224, 224)),
        ("keep", 480, 640, (224, 288)),  # 224 * 4 / 3 = 298.7, the nearest multiple of 32 is 288
        ("keep", 640, 480, (288, 224)),
        ("keep", 100, 100, (224, 224)),
        ("keep", 10, 20_000, (224, 448)),  # clipped to 2:1
        ("keep", 3, 1, (448, 224)),
        ("keep", 500, 505, (224, 224)),
    ],
)
def test_input_shapes(aspect, height, width, expected):
    assert Preprocessing((0,) * 3, (1,) * 3, 224, "bicubic", aspect).shape(height, width) == expected


def test_resizing_agrees_with_pillow(photographs):
    for path in photographs.glob("*/*"):
        image = Image.open(path).convert("RGB")
        theirs = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)).astype(int)
        ours = LITE0.resize(np.array(image)).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(ours - theirs).max() <= 2


def test_normalization_by_hand():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    normalize = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.25, 2.0), 1, "bilinear").normalize
    torch.testing.assert_close(normalize(pixels).flatten(), torch.tensor([-1.0, 3.0, 0.1]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_each_channel_of_every_pixel_is_normalized_by_its_own_factors(layout):
    preprocessing = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.25, 2.0), 1, "bilinear")
    pixels = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = pixels.contiguous(memory_format=layout)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    found = preprocessing.normalize(given)
    torch.testing.assert_close(found, (pixels / 255 - mean) / std)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(given, pixels)
