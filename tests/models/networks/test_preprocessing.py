import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image

from camboxes.models import Preprocessing, class_maps
from camboxes.models.networks.preprocessing import rgb

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


COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = COLOURS[:, :, 0]
ALPHA = np.random.default_rng(1).integers(0, 256, (5, 7, 1), np.uint8)
PHOTOGRAPHS = {
    "array": (COLOURS, COLOURS),
    "channels first": (COLOURS.transpose(2, 0, 1), COLOURS),
    "mirrored": (COLOURS[:, ::-1], COLOURS[:, ::-1]),
    "tensor": (torch.tensor(COLOURS), COLOURS),
    "tensor, channels first": (torch.tensor(COLOURS).permute(2, 0, 1), COLOURS),
    "grey": (GREY, np.dstack([GREY] * 3)),
    "grey, with a channel": (GREY[:, :, None], np.dstack([GREY] * 3)),
    "grey tensor": (torch.tensor(GREY)[None], np.dstack([GREY] * 3)),
    "alpha": (np.dstack([COLOURS, ALPHA]), COLOURS),
    "alpha, channels first": (torch.tensor(np.dstack([COLOURS, ALPHA])).permute(2, 0, 1), COLOURS),
    "PIL": (Image.fromarray(COLOURS), COLOURS),
    "PIL, alpha": (Image.fromarray(np.dstack([COLOURS, ALPHA])), COLOURS),
    "PIL, grey": (Image.fromarray(GREY), np.dstack([GREY] * 3)),
    "PIL, black and white": (Image.fromarray(GREY).convert("1", dither=0), np.dstack([255 * (GREY >= 128)] * 3)),
    "PIL, palette": (Image.fromarray(GREY).convert("P"), np.dstack([GREY] * 3)),
}


@pytest.mark.parametrize(("given", "expected"), PHOTOGRAPHS.values(), ids=PHOTOGRAPHS)
def test_a_photograph_however_it_comes(given, expected, classifier):
    assert np.array_equal(np.asarray(rgb(given)), expected)
    resized = LITE0.resize(np.ascontiguousarray(expected).astype(np.uint8))
    assert torch.equal(LITE0.resize(given), resized)
    assert torch.equal(classifier.prepare(given), classifier.normalize(resized[None]))


def test_a_photograph_lies_as_its_metadata_say():
    image = Image.fromarray(COLOURS)
    image.getexif()[0x0112] = 6  # to be turned by 90 degrees
    assert np.array_equal(rgb(image), np.rot90(COLOURS, -1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            COLOURS / 255,
            "the image is float64 of shape [5, 7, 3]; expected a PIL image, or uint8 [height, width, 3] in",
        ),
        (torch.rand(3, 5, 7), "the image is float32 of shape [3, 5, 7]; expected"),
        (COLOURS.astype(np.uint16), "the image is uint16 of shape [5, 7, 3]; expected"),
        (COLOURS[None], "the image is uint8 of shape [1, 5, 7, 3]; expected"),
        (np.zeros((5, 7, 2), np.uint8), "the image is uint8 of shape [5, 7, 2]; expected"),
        (np.zeros((0, 7, 3), np.uint8), "the image is uint8 of shape [0, 7, 3]; expected"),
        (COLOURS.tolist(), "the image is of the type list; expected"),
        ("cat.jpg", "the image is of the type str; expected"),
        (None, "the image is of the type NoneType; expected"),
        (Image.fromarray(GREY.astype(np.int32)), "the image is a PIL image of the mode I; expected one with 8 bits"),
        (
            Image.fromarray(GREY.astype(np.uint16)),
            "the image is a PIL image of the mode I;16; expected one with 8 bits",
        ),
    ],
)
def test_what_is_no_photograph_is_told(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LITE0.resize(given)


def test_several_photographs_become_a_batch(classifier):
    expected = classifier.normalize(torch.stack([LITE0.resize(COLOURS), LITE0.resize(COLOURS[::-1].copy())]))
    both = np.stack([COLOURS, COLOURS[::-1]])
    for given in ([COLOURS, Image.fromarray(both[1])], tuple(both), both, torch.tensor(both).permute(0, 3, 1, 2)):
        assert torch.equal(classifier.prepare(given), expected)
    with torch.inference_mode():
        assert torch.equal(classifier(expected).logits, classifier(classifier.prepare(iter(both))).logits)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "0 images were given, whose inputs are none; expected one shape in a batch"),
        (torch.rand(2, 3, 224, 224), "the image is float32 of shape [3, 224, 224]; expected a PIL image, or uint8"),
        ("cat.jpg", "the image is of the type str"),
        (None, "the image is of the type NoneType"),
    ],
)
def test_what_is_no_batch_of_photographs_is_told(classifier, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        classifier.prepare(given)


def test_photographs_of_several_shapes_have_no_batch_where_their_aspect_is_kept(classifier):
    kept = copy.copy(classifier)
    kept.preprocessing = dataclasses.replace(kept.preprocessing, aspect="keep")
    given = [np.zeros((60, 80, 3), np.uint8), np.zeros((80, 60, 3), np.uint8)]
    with pytest.raises(
        ValueError, match=r'2 images .* inputs are 224 x 288 and 288 x 224; expected one shape .*"squash"'
    ):
        kept.prepare(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([COLOURS], "images are of the type list; expected torch.float32 of shape [n, 3, height, width] on cpu"),
        (Image.fromarray(COLOURS), "images are of the type Image; expected torch.float32"),
        (torch.zeros(1, 3, 224, 224, dtype=torch.uint8), "images are torch.uint8 on cpu; expected torch.float32"),
        (torch.zeros(1, 3, 224, 224, dtype=torch.float64), "images are torch.float64 on cpu; expected torch.float32"),
        (torch.zeros(1, 4, 224, 224), "images are float32 of shape [1, 4, 224, 224]; expected torch.float32"),
        (torch.zeros(1, 1, 224, 224), "images are float32 of shape [1, 1, 224, 224]; expected torch.float32"),
        (torch.zeros(3, 224, 224), "images are float32 of shape [3, 224, 224]; expected torch.float32"),
        (
            np.zeros((1, 3, 224, 224), np.float32),
            "images are float32 of shape [1, 3, 224, 224]; expected torch.float32",
        ),
    ],
    ids=range(8),
)
def test_class_maps_takes_prepared_images_alone(classifier, given, message):
    with pytest.raises(ValueError, match=re.escape(message) + ".*classifier.prepare"):
        class_maps(classifier, given, torch.tensor([[285]]))


def test_a_batch_that_is_normalised_already_is_not_inferred_as_pixels(classifier):
    with pytest.raises(ValueError, match=r"images are float32 of shape \[1, 3, 224, 224\]; expected uint8 of shape"):
        classifier.infer(torch.rand(1, 3, 224, 224))
