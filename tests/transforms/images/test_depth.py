"""Images of other depths than 8 bits, and transparent ones: pixels worked out by hand, or the reason against them."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from camboxes.transforms.images.decoding import BadImageError, decode, opened
from camboxes.transforms.images.depth import is_plain

BLACK_IS_ZERO, WHITE_IS_ZERO, RGB, CMYK, YCBCR, LAB = 1, 0, 2, 5, 6, 8
UNSIGNED, SIGNED, FLOAT, COMPLEX = 1, 2, 3, 6
SUBFILE, BITS, COMPRESSION, PHOTOMETRIC, BANDS, LOWEST, HIGHEST, PLANES, EXTRA, FORMAT, SLOWEST, SHIGHEST = (
    254, 258, 259, 262, 277, 280, 281, 284, 338, 339, 340, 341,
)  # fmt: skip


def tiff(samples, tags=None, *, order="<", packed=None):
    """A TIFF file of samples [rows, columns] or [rows, columns, bands], uncompressed, in one strip.

    `packed` are the bytes of samples that numpy has no type for.
    """
    samples = np.asarray(samples)
    bands = samples.shape[2] if samples.ndim == 3 else 1
    formats = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT, "c": COMPLEX}
    data = packed or samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    entries = {
        256: samples.shape[1],
        257: samples.shape[0],
        BITS: (samples.dtype.itemsize * 8,) * bands,
        COMPRESSION: 1,
        PHOTOMETRIC: RGB if bands in (3, 4) else BLACK_IS_ZERO,
        273: 0,
        BANDS: bands,
        278: samples.shape[0],
        279: len(data),
        FORMAT: (formats[samples.dtype.kind],) * bands,
    } | (tags or {})
    start = 8 + 2 + 12 * len(entries) + 4
    values, directory = b"", b""
    for tag in sorted(entries):
        value = entries[tag] if isinstance(entries[tag], tuple) else (entries[tag],)
        real = any(isinstance(one, float) for one in value)
        kind, letter = (11, "f") if real else (4, "I") if tag in (273, 279) else (3, "H")
        packed_value = struct.pack(f"{order}{len(value)}{letter}", *value)
        if tag == 273:
            packed_value = b"DATA"
        elif len(packed_value) > 4:
            values += packed_value
            packed_value = struct.pack(f"{order}I", start + len(values) - len(packed_value))
        directory += struct.pack(f"{order}HHI", tag, kind, len(value)) + packed_value.ljust(4, b"\0")
    directory = directory.replace(b"DATA", struct.pack(f"{order}I", start + len(values)))
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return head + directory + bytes(4) + values + data


def png(samples):
    """A PNG, by OpenCV."""
    return cv2.imencode(".png", samples)[1].tobytes()


def grey(data):
    """The levels of the first row, which must be grey."""
    pixels = decode(data)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


def reason(data):
    with pytest.raises(BadImageError) as error:
        decode(data)
    assert str(error.value).startswith(f"{error.value.code}: ")
    return str(error.value)


def test_the_writer_of_these_tests_is_right():
    """By Pillow, of what it reads as it is."""
    samples = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for order in "<>":
        assert np.array_equal(Image.open(io.BytesIO(tiff(samples, order=order))), samples)
        wide = np.array([[1, 300, 65535]], np.uint16)
        assert np.array_equal(Image.open(io.BytesIO(tiff(wide, order=order))), wide)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("samples", "tags", "expected"),
    [
        # The type's whole range: no tag is needed.
        (np.array([[0, 257, 32768, 65535]], np.uint16), {}, [0, 1, 128, 255]),
        (np.array([[0, 128, 16384, 32767]], np.int16), {}, [0, 1, 128, 255]),
        (np.array([[0, 1 << 30, (1 << 31) - 1]], np.int32), {}, [0, 128, 255]),
        (np.array([[0, 64, 127]], np.int8), {}, [0, 128, 254]),
        # Float32 by its two usual ranges.
        (np.array([[0, 0.25, 0.5, 1]], np.float32), {}, [0, 64, 128, 255]),
        (np.array([[0, 0.1, 0.26]], np.float32), {}, [0, 26, 66]),
        (np.array([[0, 64, 127.6, 255]], np.float32), {}, [0, 64, 128, 255]),
        # Declared ranges.
        (np.array([[0, 16, 2048, 4095]], np.uint16), {HIGHEST: 4095}, [0, 1, 128, 255]),
        (np.array([[64, 576, 1023]], np.uint16), {LOWEST: 64, HIGHEST: 1023}, [0, 136, 255]),
        (np.array([[0, 100, 500]], np.uint16), {HIGHEST: 1023}, [0, 25, 125]),
        (np.array([[0, 8000, 16383]], np.uint16), {SHIGHEST: 16383}, [0, 125, 255]),
        (np.array([[0.0, 50, 100]], np.float32), {SLOWEST: 0.0, SHIGHEST: 100.0}, [0, 128, 255]),
        (np.array([[-1, 0, 1]], np.float32), {SLOWEST: -1.0, SHIGHEST: 1.0}, [0, 128, 255]),
        (np.array([[-1024, 0, 3071]], np.int16), {SLOWEST: -1024.0, SHIGHEST: 3071.0}, [0, 64, 255]),
        (np.array([[0, 0.05, 0.2]], np.float32), {SHIGHEST: 0.2}, [0, 64, 255]),
        # What declares no more than the type does is no declaration.
        (np.array([[0, 32768, 65535]], np.uint16), {LOWEST: 0, HIGHEST: 65535}, [0, 128, 255]),
        # Zero is white.
        (np.array([[0, 32768, 65535]], np.uint16), {PHOTOMETRIC: WHITE_IS_ZERO}, [255, 127, 0]),
        (np.array([[0, 0.25, 1]], np.float32), {PHOTOMETRIC: WHITE_IS_ZERO}, [255, 191, 0]),
    ],
)
def test_grey_samples_are_scaled_by_their_range(samples, tags, expected, order):
    data = tiff(samples, tags, order=order)
    if order == ">" and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and samples.dtype == np.uint16:
        assert reason(data).startswith("unsupported: a TIFF of 1 band of 16 bits; expected grey, ")
        return
    assert grey(data) == expected


def test_unsigned_samples_of_32_bits():
    assert grey(tiff(np.array([[0, 1 << 31, (1 << 32) - 1]], np.uint32))) == [0, 128, 255]


def test_twelve_bits_in_a_byte_and_a_half():
    """Four samples, 0x000 0x010 0x800 0xfff."""
    packed = bytes([0x00, 0x00, 0x10, 0x80, 0x0F, 0xFF])
    assert grey(tiff(np.zeros((1, 4), np.uint16), {BITS: 12}, packed=packed)) == [0, 1, 128, 255]


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("write", [tiff, lambda samples: tiff(samples, order=">"), png], ids=["TIFF", "MM", "PNG"])
def test_samples_that_do_not_fill_their_sixteen_bits_are_refused(bits, bands, write):
    """They would be black; alpha, which fills them, does not speak for the others."""
    ramp = np.linspace(0, 2**bits - 1, 12).astype(np.uint16).reshape(3, 4)
    samples = ramp if bands == 1 else np.dstack([ramp] * 3 + [np.full_like(ramp, 65535)] * (bands - 3))
    mode = {1: "I;16", 3: "RGB", 4: "RGBA"}[bands]
    if write is tiff:
        data = tiff(samples, {EXTRA: 2} if bands == 4 else {})
    elif write is png:
        data = png(samples)
    else:
        data = tiff(samples, {EXTRA: 2} if bands == 4 else {}, order=">")
        mode = "I;16B" if bands == 1 else mode
    most = f"from 0 to {2**bits - 1}" if bands == 1 else f"up to {max(2**bits, 256) - 1} at most"
    assert reason(data) == (
        f"unclear_range: samples of 16 bits (mode {mode}) {most}, and the file does not say which value is white; "
        "convert it to 8 bits"
    )


@pytest.mark.parametrize("bits", [15, 16])
@pytest.mark.parametrize("bands", [1, 3])
def test_samples_of_sixteen_bits(bits, bands):
    """Above a quarter of the range, and the same in both formats."""
    ramp = np.linspace(0, 2**bits - 1, 12).astype(np.uint16).reshape(3, 4)
    samples = ramp if bands == 1 else np.dstack([ramp, ramp[::-1], ramp // 2])
    expected = samples >> 8 if bands == 3 else np.dstack([ramp >> 8] * 3)
    assert np.array_equal(decode(tiff(samples)), expected)
    assert np.array_equal(decode(png(samples[..., ::-1] if bands == 3 else samples)), expected)


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        (np.array([[0, 0.1, 0.2]], np.float32), "32 bits in floating point (mode F) from 0 to 0.2"),
        (np.array([[0, 1, 40]], np.float32), "32 bits in floating point (mode F) from 0 to 40"),
        (np.array([[0, 1, 4000]], np.float32), "32 bits in floating point (mode F) from 0 to 4000"),
        (np.array([[-1, 0, 1]], np.float32), "32 bits in floating point (mode F) from -1 to 1"),
        (np.array([[-9999, 0, 200]], np.float32), "32 bits in floating point (mode F) from -9999 to 200"),
        (np.array([[0, np.nan, 1]], np.float32), "32 bits in floating point (mode F) from nan to nan"),
        (np.array([[0, np.inf, 1]], np.float32), "32 bits in floating point (mode F) from 0 to inf"),
        (np.array([[-1024, 0, 3071]], np.int16), "16 bits with a sign (mode I) from -1024 to 3071"),
        (np.array([[-100, 0, 100]], np.int8), "8 bits with a sign (mode L) from -100 to 100"),
        (np.array([[0, 1, 65535]], np.int32), "32 bits with a sign (mode I) from 0 to 65535"),
        (np.array([[0, 1, 65535]], np.uint32), "32 bits (mode I) from 0 to 65535"),
        (np.array([[0, 0, 0]], np.uint16), "16 bits (mode I;16) from 0 to 0"),
    ],
)
def test_a_range_that_cannot_be_told(samples, found):
    assert reason(tiff(samples)) == (
        f"unclear_range: samples of {found}, and the file does not say which value is white; convert it to 8 bits"
    )


@pytest.mark.parametrize(
    ("samples", "tags", "said"),
    [
        (np.array([[0, 5000]], np.uint16), {HIGHEST: 4095}, "from 0 to 5000, and the file declares 0 to 4095"),
        (np.array([[0, 5]], np.uint16), {LOWEST: 1, HIGHEST: 9}, "from 0 to 5, and the file declares 1 to 9"),
        (np.array([[7, 7]], np.uint16), {LOWEST: 7, HIGHEST: 7}, "from 7 to 7, and the file declares 7 to 7"),
        (np.array([[0, np.nan]], np.float32), {SHIGHEST: 1.0}, "from nan to nan, and the file declares 0 to 1"),
    ],
)
def test_a_declared_range_that_is_not_kept(samples, tags, said):
    assert said in reason(tiff(samples, tags))


def test_colours_of_a_declared_range():
    """Pillow gives the upper 8 bits alone, of which these are four."""
    samples = np.full((2, 2, 3), 4000, np.uint16)
    assert reason(tiff(samples, {HIGHEST: (4095,) * 3})) == (
        "unsupported: samples of 16 bits (mode RGB) up to 4095 at most, declared to go from 0 to 4095; of colours no "
        "range but that of all 16 bits is read: convert it to 8 bits"
    )


@pytest.mark.parametrize(
    ("samples", "tags", "layout"),
    [
        (np.zeros((2, 2, 5), np.uint8), {}, "5 bands of 8 bits"),
        (np.zeros((2, 2, 2), np.uint8), {}, "2 bands of 8 bits"),
        (np.zeros((2, 2, 3), np.float32), {}, "3 bands of 32 bits in floating point"),
        (np.zeros((2, 2), np.float64), {}, "1 band of 64 bits in floating point"),
        (np.zeros((2, 2), np.float16), {}, "1 band of 16 bits in floating point"),
        (np.zeros((2, 2), np.complex64), {}, "1 band of 64 bits of format 6"),
        (np.zeros((2, 2, 3), np.uint8), {COMPRESSION: 34712}, "3 bands of 8 bits, compression 34712"),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_a_tiff_that_is_not_read_is_described_as_it_is(samples, tags, layout, order):
    assert reason(tiff(samples, tags, order=order)) == (
        f"unsupported: a TIFF of {layout}; expected grey, a palette, RGB, CMYK or Lab of 8 bits, grey, RGB or CMYK of "
        "16, or grey of 32: convert it to RGB of 8 bits"
    )


def test_planes_of_sixteen_bits():
    """Pillow takes each byte of them for a sample."""
    planes = np.linspace(0, 65535, 3 * 4 * 5).astype(np.uint16).reshape(3, 4, 5)
    tags = {PLANES: 2, BANDS: 3, BITS: (16,) * 3, PHOTOMETRIC: RGB, FORMAT: (1,) * 3}
    data = tiff(planes.reshape(12, 5), tags | {257: 4})
    assert reason(data).startswith("unsupported: a TIFF of 16 bits with a plane for each band, uncompressed; ")


@pytest.mark.parametrize(("subfile", "refused"), [(0, False), (1, True), (2, False), (4, True), (3, True)])
def test_a_preview_is_not_the_picture(subfile, refused):
    data = tiff(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), {SUBFILE: subfile})
    if refused:
        assert reason(data).startswith(
            "unsupported: the first picture of the TIFF is a reduced copy or a mask of another"
        )
    else:
        assert decode(data).shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P5 3 1 65535 \x00\x00\x80\x00\xff\xff", [0, 128, 255]),
        (b"P5 3 1 4095 \x00\x00\x08\x00\x0f\xff", [0, 128, 255]),  # maxval declares it, even for a dark picture
        (b"P5 3 1 4095 \x00\x00\x00\x10\x01\x00", [0, 1, 16]),
        (b"P2 3 1 4095 0 2048 4095", [0, 128, 255]),
        (b"P6 1 1 4095 \x0f\xff\x0f\xff\x0f\xff", [255]),
        (b"Pf 3 1 -1.0 " + struct.pack("<3f", 0, 0.5, 1), [0, 128, 255]),
    ],
)
def test_ppm(data, expected):
    assert grey(data) == expected


@pytest.mark.parametrize(
    "data", [b"P5 2 1 65535 \x00\x00\x0f\xff", b"P6 1 1 65535 \x0f\xff\x0f\xff\x0f\xff", b"P2 2 1 65535 0 4095"]
)
def test_ppm_that_does_not_fill_its_sixteen_bits(data):
    assert reason(data).startswith("unclear_range: samples of 16 bits (mode ")


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


HIDDEN = np.zeros((2, 3, 4), np.uint8)  # red, half of it transparent, or blue that is hidden altogether
HIDDEN[:, 0] = 255, 0, 0, 255
HIDDEN[:, 1] = 255, 0, 0, 128
HIDDEN[:, 2] = 0, 0, 255, 0
SEEN = [[255, 0, 0], [255, 127, 127], [255, 255, 255]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_lies_on_white(kind):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert decode(encoded(Image.fromarray(HIDDEN), kind, **options))[0].tolist() == SEEN


def test_transparent_greys_palettes_and_single_colours():
    greys = np.array([[[0, 255], [100, 0], [100, 255]]], np.uint8)
    assert grey(encoded(Image.fromarray(greys, "LA"), "PNG")) == [0, 255, 100]
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255, 9, 9, 9])
    for kind in ("PNG", "GIF"):
        assert decode(encoded(palette, kind, transparency=1))[0].tolist() == [[255, 0, 0], [255, 255, 255], [9, 9, 9]]
    assert grey(encoded(Image.fromarray(np.array([[0, 7, 9]], np.uint8)), "PNG", transparency=7)) == [0, 255, 9]
    colours = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert decode(encoded(colours, "PNG", transparency=(4, 5, 6)))[0].tolist() == [[1, 2, 3], [255, 255, 255]]
    wide = Image.fromarray(np.array([[0, 700, 65535]], np.uint16))
    data = encoded(wide, "PNG")
    key = b"tRNS" + struct.pack(">H", 700)
    chunk = struct.pack(">I", 2) + key + struct.pack(">I", zlib.crc32(key))
    assert grey(data[:33] + chunk + data[33:]) == [0, 255, 255]


def test_premultiplied_alpha():
    """A half-transparent red is stored as 128, 0, 0, 128."""
    stored = np.array([[[255, 0, 0, 255], [128, 0, 0, 128], [0, 0, 0, 0]]], np.uint8)
    assert decode(tiff(stored, {EXTRA: 1}))[0].tolist() == SEEN


def test_lab():
    """Colours by OpenCV's conversion, whose white is a little colder."""
    colours = np.array([[[180, 90, 90], [90, 180, 90], [90, 90, 180], [255, 255, 255], [90, 90, 90]]], np.uint8)
    lab = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)
    stored = np.dstack([lab[..., 0], lab[..., 1:] ^ 0x80])  # TIFF's a and b have a sign
    found = decode(tiff(stored, {PHOTOMETRIC: LAB})).astype(int)
    assert np.abs(found - colours).max() <= 15
    assert np.abs(found - colours)[:, 3:].max() <= 2


def test_cmyk_of_eight_and_sixteen_bits():
    inks = np.array([[[0, 255, 255, 0], [255, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8)
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 0], [255, 255, 255]]
    assert decode(tiff(inks, {PHOTOMETRIC: CMYK}))[0].tolist() == expected
    assert decode(tiff(inks.astype(np.uint16) * 257, {PHOTOMETRIC: CMYK}))[0].tolist() == expected


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (encoded(Image.new("RGB", (2, 2)), "PNG"), True),
        (encoded(Image.new("CMYK", (2, 2)), "JPEG"), True),
        (encoded(Image.new("P", (2, 2)), "PNG"), True),
        (encoded(Image.new("P", (2, 2)), "PNG", transparency=0), False),
        (encoded(Image.new("RGB", (2, 2)), "PNG", transparency=(1, 2, 3)), False),
        (encoded(Image.new("RGBA", (2, 2)), "WEBP"), False),
        (png(np.zeros((2, 2), np.uint16)), False),
        (tiff(np.zeros((2, 2), np.float32)), False),
    ],
)
def test_what_every_reader_sees_alike(data, plain):
    with opened(data) as image:
        assert is_plain(image) is plain
