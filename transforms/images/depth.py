"""Converts images of any bit depth to RGB of 8 bits.

A wrong range makes a photograph black, and a network finds boxes in black photographs, too. So samples of more than 8
bits are scaled by the range that their file declares, or by one that is beyond doubt; else the image is refused.

    declared    TIFF: SMinSampleValue and SMaxSampleValue, else MinSampleValue and MaxSampleValue, where they are not
                those of every file of that type; a BitsPerSample of 12. PPM: a maxval other than 65535.
    beyond      0 to the highest value of the type, or to 1 or 255 for float32, where some sample is above a quarter of
    doubt       it. Cameras write 10, 12 or 14 bits into 16: that stays below a quarter
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from camboxes.transforms.images.bad_images import BadImageError

_Tags = Mapping[int, Any]  # of TIFF

_SUBFILE, _WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _BANDS, _PLANES, _FORMAT = 254, 256, 258, 259, 262, 277, 284, 339
_LOWEST_AND_HIGHEST = ((340, 341), (280, 281))  # SMinSampleValue, SMaxSampleValue; MinSampleValue, MaxSampleValue
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # values of _FORMAT
_KINDS = {_UNSIGNED: "bits", _SIGNED: "bits with a sign", _FLOAT: "bits in floating point"}
_REDUCED_OR_MASK = 1 | 4  # bits of _SUBFILE

_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")  # modes of Pillow's
_HIGHEST_FLOAT = 3e38  # of float32, about: a file that declares it declares nothing


def is_plain(image: Image.Image) -> bool:
    """Whether an image has samples of 8 bits and no transparency: every reader sees what `load_rgb` returns."""
    return image.mode in _EIGHT_BITS and not image.has_transparency_data


def load_rgb(image: ImageFile.ImageFile) -> Image.Image:
    """Loads an opened image as RGB. Transparent pixels are laid on white.

    Raises:
      BadImageError: unclear_range or unsupported.
      Exception: any error of Pillow's on a broken file.
    """
    tags: _Tags = getattr(image, "tag_v2", {})
    _check_layout(tags)
    sixteen = _fills_sixteen_bits(image)
    image.load()
    if image.mode not in _EIGHT_BITS or _first(tags, _FORMAT, _UNSIGNED) == _SIGNED:
        return _scaled(image, tags, sixteen)
    if sixteen:
        _check_upper_bits(image, tags)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    colours = image if image.mode == "RGBA" else image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(colours, mask=colours.getchannel("A"))
    return page


def layout_of_tiff(data: bytes) -> str:
    """Describes the samples of the first picture of a TIFF file in words.

    Raises:
      SyntaxError: there is no picture.
      Exception: any error of Pillow's on a broken file.
    """
    big = 43 in data[2:4]
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
    stream = io.BytesIO(data)
    stream.seek(tags.next)
    tags.load(stream)
    if not tags.get(_WIDTH):
        raise SyntaxError("its directory gives no width")
    bands = tags.get(_BANDS, 1)
    words = f"{bands} band{'s' if bands > 1 else ''} of {_first(tags, _BITS, 1)} {_kind(tags)}"
    compression = tags.get(_COMPRESSION, 1)
    return words if compression in TiffImagePlugin.COMPRESSION_INFO else f"{words}, compression {compression}"


def _first(tags: _Tags, tag: int, default: Any) -> Any:
    """The value of a tag; that of the first band where each band has one."""
    value = tags.get(tag, default)
    return value[0] if isinstance(value, tuple) else value


def _kind(tags: _Tags) -> str:
    sample_format = _first(tags, _FORMAT, _UNSIGNED)
    return _KINDS.get(sample_format, f"bits of format {sample_format}")


def _check_layout(tags: _Tags) -> None:
    """Refuses TIFFs that Pillow loads wrongly, and first pictures that are not the photograph."""
    if tags.get(_SUBFILE, 0) & _REDUCED_OR_MASK:
        raise BadImageError(
            "unsupported",
            "the first picture of the TIFF is a reduced copy or a mask of another one (NewSubfileType); save that one "
            "as a file of its own",
        )
    # Pillow takes each byte of such samples for a sample.
    if tags.get(_PLANES, 1) == 2 and _first(tags, _BITS, 1) > 8 and tags.get(_COMPRESSION, 1) == 1:
        raise BadImageError(
            "unsupported",
            f"a TIFF of {_first(tags, _BITS, 1)} bits with a plane for each band, uncompressed; convert it to 8 bits",
        )


def _fills_sixteen_bits(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not loaded yet declares the full range of 16 bits."""
    stored = str(image.tile[0][3]) if image.tile else ""  # Pillow's name of the layout in the file; maxval of PPM
    return ";16" in stored or stored.endswith(", 65535)")


def _check_upper_bits(image: Image.Image, tags: _Tags) -> None:
    """Refuses colours of 16 bits whose upper 8 bits, which Pillow loads, are all in the lowest quarter."""
    colours = [band != "A" for band in image.getbands()]
    highest = int(np.reshape(image.getextrema(), (-1, 2))[colours, 1].max())
    if highest >= 64:
        return
    found = f"samples of 16 bits (mode {image.mode}) up to {256 * highest + 255} at most"
    if declared := _declared(tags, 65535):
        raise BadImageError(
            "unsupported",
            f"{found}, declared to go from {declared[0]:g} to {declared[1]:g}; of colours no range but that of all 16 "
            "bits is read: convert it to 8 bits",
        )
    raise _unclear(found)


def _scaled(image: Image.Image, tags: _Tags, sixteen: bool) -> Image.Image:
    """Scales a grey image whose samples are not unsigned ones of 8 bits."""
    values, bits, sample_format = _values(image, tags)
    most = _HIGHEST_FLOAT if sample_format == _FLOAT else 2.0 ** (bits - (sample_format == _SIGNED)) - 1
    declared = _declared(tags, most)
    if bits not in (8, 16, 32) or (image.format == "PPM" and image.mode == "I" and not sixteen):
        declared = declared or (0.0, most)
    lowest, highest = float(values.min()), float(values.max())
    found = f"samples of {bits} {_KINDS[sample_format]} (mode {image.mode}) from {lowest:g} to {highest:g}"
    black, white = declared or _guessed(found, lowest, highest, (1, 255) if sample_format == _FLOAT else (most,))
    if not black <= lowest <= highest <= white or black == white:
        raise BadImageError(
            "unclear_range", f"{found}, and the file declares {black:g} to {white:g}; convert it to 8 bits"
        )
    grey = values.astype(np.float32)
    grey -= black
    if sample_format == _FLOAT:
        grey *= 255 / (white - black)
        grey += 0.5
    else:
        grey *= 256 / (white - black + 1)  # the upper 8 bits, as Pillow gives them of colours
    levels = grey.clip(0, 255, out=grey).astype(np.uint8)
    if _first(tags, _PHOTOMETRIC, 1) == 0:  # 0 is white
        levels = 255 - levels
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels[values == transparent] = 255
    return Image.fromarray(levels).convert("RGB")


def _values(image: Image.Image, tags: _Tags) -> tuple[np.ndarray, int, int]:
    """The samples of a grey image in their own type, their number of bits in the file, and their _FORMAT."""
    values = np.asarray(image)
    if image.mode == "F":
        return values, 32, _FLOAT
    bits, sample_format = _first(tags, _BITS, 16), _first(tags, _FORMAT, _UNSIGNED)
    if (bits, sample_format) == (32, _UNSIGNED):
        values = values.view(np.uint32)  # Pillow has no mode for them
    elif (bits, sample_format) == (8, _SIGNED):
        values = values.view(np.int8)
    return values, bits, sample_format


def _guessed(found: str, lowest: float, highest: float, whites: Sequence[float]) -> tuple[float, float]:
    """The range from 0 to the first of `whites` that no sample exceeds."""
    white = next((float(white) for white in whites if highest <= white), math.inf)
    if not 0 <= lowest <= highest or not highest > white / 4:  # nor where one is NaN
        raise _unclear(found)
    return 0.0, white


def _declared(tags: _Tags, most: float) -> tuple[float, float] | None:
    """The range that a TIFF declares, unless it is the full range of its type."""
    for lowest, highest in _LOWEST_AND_HIGHEST:
        if highest in tags:
            white = float(_first(tags, highest, 0))
            return None if white >= most else (float(_first(tags, lowest, 0)), white)
    return None


def _unclear(found: str) -> BadImageError:
    return BadImageError(
        "unclear_range", f"{found}, and the file does not say which value is white; convert it to 8 bits"
    )
