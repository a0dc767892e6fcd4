"""Some 700 broken and odd image files, always the same ones: what a data set of strangers may hold.

    python tests/hostile_images.py PHOTOGRAPHS FOLDER

writes them, from the photographs below one folder, into another. A file's name begins with its kind:

    cut, flipped, header, zeroed, grown    what was done to a valid file, at places and with bits that a seed gives
    size      headers that promise sizes which are not there, or are hostile; true sizes that are odd
    disguise  other files under an image's name
    odd       valid, and decoded: depths, colours, frames, orientations
    dark      valid, of 16 or 32 bits of which no more than 8 are used
"""

import io
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_CUTS = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999)
_CLAIMED = ((60000, 60000), (65535, 65535), (11000, 11000), (65535, 1), (1, 65535), (0, 0), (0, 8), (8, 0))
_FLIPS, _HEADERS, _ZEROED = 6, 6, 2  # files of each kind, for each valid one


def write(photographs: Path, folder: Path) -> None:
    """Writes the files into a folder, which it makes."""
    folder.mkdir(parents=True)
    for name, data in _files(photographs):
        (folder / name).write_bytes(data)


def _files(photographs: Path) -> Iterator[tuple[str, bytes]]:
    pictures = [Image.open(path).convert("RGB").resize((96, 72)) for path in sorted(photographs.glob("*/*.*"))]
    for number, (name, data) in enumerate(_valid(pictures)):
        stem, _, ending = name.rpartition(".")
        yield f"odd-{name}", data
        for what, broken in _mutations(data, random.Random(number)):
            yield f"{what}-{stem}.{ending}", broken
    yield from _sizes()
    yield from _disguised(pictures[0])
    yield from _odd(pictures[0])


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _valid(pictures: list[Image.Image]) -> Iterator[tuple[str, bytes]]:
    """One file of each format and, where a format has several decoders, of each of these."""
    first, second, third, fourth, fifth = pictures
    rest = {"save_all": True, "append_images": [second, third]}
    yield "baseline.jpg", _encoded(first, "JPEG")
    yield "progressive.jpg", _encoded(second, "JPEG", progressive=True)
    yield "large.jpg", _encoded(third.resize((1200, 900)), "JPEG", quality=60)
    yield "oriented.jpg", _encoded(fourth, "JPEG", exif=_exif(6))
    yield "cmyk.jpg", _encoded(fifth.convert("CMYK"), "JPEG")
    yield "rgb.png", _encoded(first, "PNG")
    yield "palette.png", _encoded(second.quantize(64), "PNG")
    yield "sixteen.png", _encoded(Image.fromarray(np.asarray(third.convert("L"), np.uint16) * 257), "PNG")
    yield "lossy.webp", _encoded(first, "WEBP")
    yield "lossless.webp", _encoded(second, "WEBP", lossless=True)
    yield "frames.webp", _encoded(first, "WEBP", **rest)
    yield "still.gif", _encoded(third, "GIF")
    yield "frames.gif", _encoded(first, "GIF", **rest)
    yield "raw.tiff", _encoded(first, "TIFF")
    yield "lzw.tiff", _encoded(second, "TIFF", compression="tiff_lzw")
    yield "deflate.tiff", _encoded(third, "TIFF", compression="tiff_adobe_deflate")
    yield "jpeg.tiff", _encoded(fourth, "TIFF", compression="jpeg")
    yield "rgb.bmp", _encoded(first, "BMP")
    yield "palette.bmp", _encoded(second.quantize(16), "BMP")
    yield "rgb.ppm", _encoded(fifth, "PPM")
    yield "lossy.avif", _encoded(first, "AVIF")


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _mutations(data: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    for share in _CUTS:
        yield f"cut{share}", data[: int(share * len(data))]
    for number in range(_FLIPS):
        yield f"flipped{number}", _changed(data, chance, 0, len(data), 2**number)
    for number in range(_HEADERS):
        yield f"header{number}", _changed(data, chance, 0, min(len(data), 200), 1 + number)
    for number in range(_ZEROED):
        start = chance.randrange(len(data))
        size = min(len(data) - start, 2 ** (4 + 2 * number))
        yield f"zeroed{number}", data[:start] + bytes(size) + data[start + size :]
    yield "grown-before", b"\0" + data
    yield "grown-after", data + chance.randbytes(5000)
    yield "grown-twice", data + data
    yield "grown-inside", data[: len(data) // 2] + chance.randbytes(100) + data[len(data) // 2 :]


def _changed(data: bytes, chance: random.Random, start: int, end: int, times: int) -> bytes:
    changed = bytearray(data)
    for _ in range(times):
        changed[chance.randrange(start, end)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _sizes() -> Iterator[tuple[str, bytes]]:
    small = Image.linear_gradient("L").resize((8, 8)).convert("RGB")
    jpeg, gif, bmp, tiff = (_encoded(small, kind) for kind in ("JPEG", "GIF", "BMP", "TIFF"))
    frame = jpeg.index(b"\xff\xc0") + 5  # of the JPEG's header: height and width
    for width, height in _CLAIMED:
        size = f"{width}x{height}"
        yield f"size-{size}.jpg", jpeg[:frame] + struct.pack(">HH", height, width) + jpeg[frame + 4 :]
        yield f"size-{size}.png", _png(width, height)
        yield f"size-{size}.gif", gif[:6] + struct.pack("<HH", width, height) + gif[10:]
        yield f"size-{size}.bmp", bmp[:18] + struct.pack("<ii", width, height) + bmp[26:]
        yield f"size-{size}.ppm", f"P6 {width} {height} 255\n".encode() + bytes(192)
        yield f"size-{size}.tiff", _tiff_of(tiff, width, height)
    yield "size-negative.bmp", bmp[:18] + struct.pack("<ii", -8, -8) + bmp[26:]
    yield "size-lowest.bmp", bmp[:18] + struct.pack("<ii", 8, -(2**31)) + bmp[26:]
    yield "size-31-bits.png", _png(2**31 - 1, 2**31 - 1)
    yield "size-text.ppm", b"P3 " + b"9" * 4000 + b" 9 255\n"
    yield "size-strips.tiff", tiff.replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 279, 4, 2**32 - 1))
    for width, height in ((1, 1), (1, 10000), (10000, 1), (2, 3)):
        odd = Image.linear_gradient("L").resize((width, height)).convert("RGB")
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
            yield f"odd-{width}x{height}.{kind.lower()}", _encoded(odd, kind)


def _png(width: int, height: int) -> bytes:
    """Of 8 bits a pixel, with the data of one row of eight."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(bytes(9))),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff_of(tiff: bytes, width: int, height: int) -> bytes:
    """With another width (tag 256) and height (tag 257)."""
    for tag, value in ((256, width), (257, height)):
        place = tiff.index(struct.pack("<H", tag), struct.unpack_from("<I", tiff, 4)[0])
        tiff = tiff[:place] + struct.pack("<HHII", tag, 4, 1, value) + tiff[place + 12 :]
    return tiff


def _disguised(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("../../escape.txt", "zip slip")
        members.writestr("photo.jpg", _encoded(picture, "JPEG"))
    script = b"<script>window.ran = 1</script>"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">' + script + b'<image href="/etc/passwd"/></svg>'
    others = {
        "empty": b"",
        "zip": archive.getvalue(),
        "svg": svg,
        "xml-bomb": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "'
        + b"a" * 999
        + b'">]><svg>'
        + b"&a;" * 999
        + b"</svg>",
        "html": b"<!doctype html>" + script,
        "eps": _encoded(picture, "EPS"),
        "pdf": _encoded(picture, "PDF"),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "ico": _encoded(picture.resize((32, 32)), "ICO"),
        "tga": _encoded(picture, "TGA"),
        "pcx": _encoded(picture, "PCX"),
        "jpeg2000": _encoded(picture, "JPEG2000"),
        "xbm": b"#define x_width 9\n#define x_height 9\nstatic char x_bits[] = {0};",
        "wmf": b"\xd7\xcd\xc6\x9a" + bytes(99),
        "pickle": b"\x80\x04cposix\nsystem\n(S'touch ran'\ntR.",
        "shell": b"#!/bin/sh\ntouch ran\n",
        "gzip": b"\x1f\x8b\x08" + bytes(99),
        "zeros": bytes(4096),
        "text": b"path,label\n=cmd|' /C calc'!A0,cat\n",
        "utf16": "path,label\n".encode("utf-16"),
        "jpeg-start": b"\xff\xd8\xff",
        "png-start": b"\x89PNG\r\n\x1a\n",
        "gif-start": b"GIF89a",
        "webp-start": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        "tiff-start": b"II*\0\x08\0\0\0",
        "bmp-start": b"BM",
        "avif-start": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1",
    }
    for name, data in others.items():
        yield f"disguise-{name}.jpg", data
    yield "odd-jpeg-and-zip.jpg", _encoded(picture, "JPEG") + archive.getvalue()
    yield "odd-gif-and-script.gif", _encoded(picture, "GIF") + script


def _odd(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 65535):
        yield f"odd-orientation{orientation}.jpg", _encoded(picture, "JPEG", exif=_exif(orientation))
    yield "odd-orientation-text.jpg", _encoded(picture, "JPEG", exif=_exif_of_type(2, b"six\0"))
    yield "odd-orientation-float.jpg", _encoded(picture, "JPEG", exif=_exif_of_type(11, struct.pack("<f", 6.5)))
    yield "odd-exif-broken.jpg", _encoded(picture, "JPEG", exif=b"Exif\0\0" + b"not a TIFF at all")
    yield "odd-exif-loop.jpg", _encoded(picture, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0")
    yield "odd-comment.jpg", _encoded(picture, "JPEG", comment=b"<script>alert(1)</script>" * 2000)
    yield "odd-profile.jpg", _encoded(picture, "JPEG", icc_profile=bytes(99_000))
    for mode in ("1", "L", "LA", "P", "RGBA"):
        yield f"odd-{mode}.png", _encoded(picture.convert(mode), "PNG")
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "LAB"):
        yield f"odd-{mode}.tiff", _encoded(picture.convert(mode), "TIFF")
    grey = picture.convert("L")
    yield "odd-F.tiff", _encoded(grey.convert("F"), "TIFF")
    yield "dark-I16.png", _encoded(grey.convert("I;16"), "PNG")
    yield "dark-I16.tiff", _encoded(grey.convert("I;16"), "TIFF")
    yield "dark-I.tiff", _encoded(grey.convert("I"), "TIFF")
    drawn = ImageDraw.Draw(transparent := Image.new("RGBA", (96, 72)))
    drawn.ellipse((20, 20, 60, 60), (255, 0, 0, 128))
    yield "odd-transparent.webp", _encoded(transparent, "WEBP")
    yield "odd-transparent.gif", _encoded(transparent, "GIF")
    yield (
        "odd-many-frames.gif",
        _encoded(picture, "GIF", save_all=True, append_images=[picture.rotate(n) for n in range(60)]),
    )
    text = zlib.compress(bytes(50_000_000), 9)
    png = _encoded(picture, "PNG")
    yield "odd-none.png", png[:33] + _chunk(b"tEXt", b"Comment\0" + b"x" * 10_000) + png[33:]
    yield "size-text-bomb.png", png[:33] + _chunk(b"zTXt", b"Comment\0\0" + text) + png[33:]
    yield "size-profile-bomb.png", png[:33] + _chunk(b"iCCP", b"icc\0\0" + text) + png[33:]


def _exif_of_type(kind: int, value: bytes) -> bytes:
    """An orientation of another type than the one that it should have."""
    entry = struct.pack("<HHI", 0x0112, kind, len(value) if kind == 2 else 1) + value.ljust(4, b"\0")[:4]
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
