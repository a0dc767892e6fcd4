import contextlib
import io
import os

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from camboxes.transforms.images.decoding import (
    ACCEPTED,
    DEFAULT_LIMITS,
    BadImageError,
    Limits,
    check_not_blank,
    decode,
    decode_at_least,
)
from camboxes.transforms.inference.image_loading import decode_jpeg

QUARTERS = np.zeros((40, 60, 3), np.uint8)  # red, green / blue, white: no two orientations look alike
QUARTERS[:20, :30] = 255, 0, 0
QUARTERS[:20, 30:] = 0, 255, 0
QUARTERS[20:, :30] = 0, 0, 255
QUARTERS[20:, 30:] = 255, 255, 255


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    stored = {
        1: QUARTERS, 2: QUARTERS[:, ::-1], 3: QUARTERS[::-1, ::-1], 4: QUARTERS[::-1],
        5: QUARTERS.transpose(1, 0, 2), 6: np.rot90(QUARTERS), 7: np.rot90(QUARTERS.transpose(1, 0, 2), 2),
        8: np.rot90(QUARTERS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif))
    assert np.array_equal(upright, QUARTERS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_size_of_a_turned_photograph(kind):
    """Pillow turns a TIFF itself, all others not."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(np.ascontiguousarray(np.rot90(QUARTERS))), kind, exif=exif)
    photograph = decode_at_least(data, None, decode_jpeg)
    assert (photograph.width, photograph.height, photograph.pixels.shape) == (60, 40, (40, 60, 3))
    assert np.abs(photograph.pixels[5:15, 5:25].astype(int) - (255, 0, 0)).max() <= 20


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_lossless_formats(kind):
    assert np.array_equal(decode(encoded(Image.fromarray(QUARTERS), kind)), QUARTERS)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_jpeg(mode):
    expected = np.asarray(Image.fromarray(QUARTERS).convert(mode).convert("RGB")).astype(int)
    found = decode(encoded(Image.fromarray(QUARTERS).convert(mode), "JPEG", quality=95)).astype(int)
    assert np.abs(found - expected)[5:15, 5:25].max() <= 6
    assert np.abs(found - expected)[25:35, 35:55].max() <= 6


def test_webp_and_palette_and_alpha():
    """Transparent pixels: test_depth.py."""
    image = Image.fromarray(QUARTERS)
    assert np.array_equal(decode(encoded(image, "WEBP", lossless=True)), QUARTERS)
    assert np.array_equal(decode(encoded(image.quantize(8), "PNG")), QUARTERS)
    image.putalpha(255)
    assert np.array_equal(decode(encoded(image, "PNG")), QUARTERS)


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(QUARTERS), Image.fromarray(255 - QUARTERS)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(decode(data), QUARTERS), kind


def test_sixteen_bits_are_scaled_not_clipped():
    levels = np.array([[0, 256, 32768, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(levels), "PNG"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_what_comes_back_is_uint8_rgb():
    for image in (Image.new("1", (3, 2), 1), Image.new("L", (3, 2), 255), Image.new("LA", (3, 2), (255, 0))):
        found = decode(encoded(image, "PNG"))
        assert found.shape == (2, 3, 3)
        assert found.dtype == np.uint8
        assert found.tolist() == [[[255] * 3] * 3] * 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"a text file named .jpg", "not_an_image"),
        (b"\x89PNG\r\n\x1a\nwhich goes on as text", "unreadable"),
        (b"II*\0\x08\0\0\0", "unreadable"),
        (b"GIF89a", "unreadable"),
        (encoded(Image.fromarray(QUARTERS), "JPEG")[:-300], "truncated"),
        (encoded(Image.fromarray(QUARTERS), "PNG")[:-40], "truncated"),
        (encoded(Image.fromarray(QUARTERS), "PNG")[:60], "truncated"),
    ],
)
def test_bad_files(data, code):
    with pytest.raises(BadImageError, match=rf"^{code}: ") as error:
        decode(data)
    assert error.value.code == code


def test_the_format_that_a_broken_file_begins_as_is_named():
    """Not that none begins so."""
    with pytest.raises(BadImageError, match=r"^unreadable: it begins as PNG, then SyntaxError: broken PNG file"):
        decode(b"\x89PNG\r\n\x1a\nwhich goes on as text")


def test_an_error_of_a_decoders_own_is_no_fault_of_the_image():
    def broken(data):
        raise TypeError("unexpected keyword argument")

    with pytest.raises(TypeError, match="unexpected keyword argument"):
        decode_at_least(encoded(Image.fromarray(QUARTERS), "JPEG"), None, broken)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_a_photograph_in_which_there_is_nothing(kind):
    blank = np.full((40, 50, 3), (9, 8, 7), np.uint8)
    with pytest.raises(BadImageError, match=r"^blank: all pixels are equal: \[9, 8, 7\]$"):
        check_not_blank(kind(blank))
    blank[-1, -1, -1] += 1
    check_not_blank(kind(blank))
    check_not_blank(kind(QUARTERS))
    check_not_blank(kind(blank[:1, :1]))  # too small for a map: that is told of the box


def test_limits_of_pixels():
    data = encoded(Image.fromarray(QUARTERS), "PNG")
    assert decode(data, Limits(max_pixels=2400)).shape == (40, 60, 3)
    for decoder in (None, decode_jpeg):
        for kind in ("PNG", "JPEG"):
            data = encoded(Image.fromarray(QUARTERS), kind)
            with pytest.raises(
                BadImageError, match=r"^too_large: 60 x 40 pixels are more than --max-pixels 2399 allows$"
            ):
                decode_at_least(data, 10, decoder, Limits(max_pixels=2399))


def test_pillows_own_limit():
    """Above it nothing can be asked for, and up to it nothing else refuses."""
    assert DEFAULT_LIMITS.max_pixels < ACCEPTED.max_pixels == 2 * Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match="--max-pixels is 178956971; expected 1 to 178956970, above which Pillow"):
        Limits(max_pixels=178_956_971)
    with pytest.raises(ValueError, match="--max-bytes is 0; expected the size of a file, at least 1"):
        Limits(max_bytes=0)
    with pytest.raises(BadImageError, match=r"^too_large: Image size \(180000000 pixels\) exceeds limit"):
        decode(encoded(Image.new("1", (18_000, 10_000)), "PNG"))


def test_what_would_start_a_program_is_not_opened(tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript, whatever the file is called. This one says when it is called."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    data = encoded(Image.fromarray(QUARTERS), "EPS")
    with pytest.raises(BadImageError, match=r"^not_an_image: no image format begins with b'%!PS-Ado', among those"):
        decode(data)
    assert not (tmp_path / "called").exists()
    with contextlib.suppress(OSError):
        Image.open(io.BytesIO(data)).load()
    assert (tmp_path / "called").exists(), "so it would have been"


def test_broken_metadata_cost_no_image():
    image = Image.fromarray(QUARTERS)
    for exif in (b"Exif\0\0no TIFF", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        data = encoded(image, "JPEG", exif=exif)
        assert np.array_equal(decode(data), decode(encoded(image, "JPEG")))


def test_scans_without_end():
    """A progressive JPEG in which one scan stands again and again: each takes time, and next to no bytes."""
    data = encoded(Image.fromarray(QUARTERS), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert decode(data[:-2] + 400 * data[last:-2] + data[-2:]).shape == (40, 60, 3)
    with pytest.raises(BadImageError, match=r"^too_large: a JPEG of \d+ scans; expected 500 at most$"):
        decode(data[:-2] + 500 * data[last:-2] + data[-2:])


LARGE = np.kron(QUARTERS, np.ones((20, 20, 1), np.uint8))  # 1200 x 800


@pytest.mark.parametrize(
    ("side", "shape"), [(224, (400, 600)), (100, (100, 150)), (101, (200, 300)), (401, (800, 1200))]
)
def test_a_large_jpeg_is_decoded_as_small_as_is_asked_for(side, shape):
    """At a half, a quarter or an eighth, and never below."""
    small = decode_at_least(encoded(Image.fromarray(LARGE), "JPEG", quality=95), side)
    assert (small.width, small.height) == (1200, 800)
    assert small.pixels.shape[:2] == shape
    rows, columns = shape
    for row, column, color in ((1, 1, (255, 0, 0)), (1, 3, (0, 255, 0)), (3, 1, (0, 0, 255)), (3, 3, (255, 255, 255))):
        assert np.abs(small.pixels[row * rows // 4, column * columns // 4].astype(int) - color).max() <= 6


def test_a_small_version_is_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(LARGE)))
    small = decode_at_least(encoded(stored, "JPEG", quality=95, exif=exif), 100, decode_jpeg)
    assert (small.width, small.height, small.pixels.shape) == (1200, 800, (100, 150, 3))
    assert np.abs(small.pixels[25, 37].astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_faster_decoder_gives_the_same_pixels(photographs, mode):
    paths = list(photographs.glob("*/*.*"))
    assert len(paths) == 5
    for path in paths:
        data = encoded(Image.open(path).convert(mode), "JPEG")
        assert np.array_equal(decode_at_least(data, None, decode_jpeg).pixels, decode(data))


def test_where_the_faster_decoder_fails_pillow_decides():
    def fails(data):
        raise RuntimeError("not today")

    data = encoded(Image.fromarray(QUARTERS), "JPEG")
    assert np.array_equal(decode_at_least(data, None, fails).pixels, decode(data))
    with pytest.raises(BadImageError, match=r"^truncated: "):
        decode_at_least(data[:-300], None, decode_jpeg)
