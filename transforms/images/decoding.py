"""Decodes image files of any origin, broken and hostile ones too, to upright RGB photographs."""

import contextlib
import dataclasses
import functools
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from camboxes.transforms.images.bad_images import BadImageError
from camboxes.transforms.images.depth import layout_of_tiff, load_rgb

# Pillow opens some forty formats. These are those of photographs, and those that class folders are searched for. Of the
# others, one starts a program (EPS: Ghostscript), and few are tested as well against hostile files.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF")

_MOST_PIXELS = 178_956_970  # Pillow refuses more
# Of a progressive JPEG; encoders write a dozen. A scan of a hundred bytes can take as long as one of megabytes.
_MOST_SCANS, _SCAN = 500, b"\xff\xda"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """How large an image may be. A larger one is rejected before it is read or decoded.

    Attributes:
      max_bytes: of the encoded file.
      max_pixels: of the decoded photograph, 1 to 178956970; decoding takes up to 18 bytes of memory for each.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 120_000_000

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"--max-bytes is {self.max_bytes}; expected the size of a file, at least 1")
        if not 1 <= self.max_pixels <= _MOST_PIXELS:
            raise ValueError(
                f"--max-pixels is {self.max_pixels}; expected 1 to {_MOST_PIXELS}, above which Pillow refuses"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """The entry of a run's settings: limits decide which images are rejected."""
        return {"limits": dataclasses.asdict(self)}

    def check_bytes(self, size: int) -> None:
        """Raises BadImageError where a file of `size` bytes is too large."""
        if size > self.max_bytes:
            raise BadImageError("too_large", f"{size} bytes are more than --max-bytes {self.max_bytes} allows")

    def check_pixels(self, width: int, height: int) -> None:
        """Raises BadImageError where a photograph of so many pixels is too large."""
        if width * height > self.max_pixels:
            raise BadImageError(
                "too_large", f"{width} x {height} pixels are more than --max-pixels {self.max_pixels} allows"
            )


DEFAULT_LIMITS = Limits()
ACCEPTED = Limits(sys.maxsize, _MOST_PIXELS)  # for images that a run has accepted under its own limits


class Photograph(NamedTuple):
    """A decoded photograph, at full or reduced size.

    Attributes:
      pixels: uint8 [rows, columns, 3], RGB, after EXIF orientation.
      width, height: those of the whole photograph, in pixels, after EXIF orientation.
    """

    pixels: np.ndarray
    width: int
    height: int


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """Decodes a file's bytes, in any of FORMATS; the first frame of an animation.

    Returns:
      uint8 [height, width, 3], RGB, after EXIF orientation.

    Raises:
      BadImageError: empty, not_an_image, truncated, too_large, unreadable, unsupported or unclear_range.
    """
    return decode_at_least(data, None, limits=limits).pixels


def decode_at_least(
    data: bytes,
    side: int | None,
    decode_jpeg: Callable[[bytes], np.ndarray] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Photograph:
    """Decodes a file's bytes to no more pixels than a network needs.

    A JPEG with at least twice the wanted pixels a side is decoded at 1/2, 1/4 or 1/8 of its size: only the low
    frequencies of each block of 8 x 8 pixels are transformed back.

    Args:
      data: see `decode`.
      side: how many pixels the short side must keep; None for full size.
      decode_jpeg: decodes whole JPEGs faster than Pillow, to the same pixels; it may raise RuntimeError
        where it cannot.
      limits: what is too large.

    Raises:
      BadImageError: see `decode`.
    """
    with opened(data, limits) as image:
        width, height = image.size
        if side is not None:
            image.draft(None, (side, side))
        whole = image.format == "JPEG" and image.mode in ("RGB", "L") and image.size == (width, height)
        if decode_jpeg is None or not whole or orientation(image) != 1:
            colours = load_rgb(image)
            turn = orientation(image)  # after loading: a PNG may state it behind its pixels
            if turn > 4:
                width, height = height, width
            return Photograph(np.array(colours.transpose(_TURNS[turn]) if turn > 1 else colours), width, height)
    # Outside the block: inside, any error is a BadImageError.
    try:
        return Photograph(decode_jpeg(data), width, height)
    except RuntimeError:  # Pillow says why, or decodes the file all the same
        return decode_at_least(data, side, None, limits)


def check_not_blank(pixels: np.ndarray) -> None:
    """Raises BadImageError (blank) for the pixels of a `Photograph` if there are several and all are equal."""
    first = pixels[:1, :1]
    if first.shape[:2] == pixels.shape[:2]:
        return
    if (pixels[::16, ::16] == first).all() and (pixels == first).all():  # a sample settles most photographs
        raise BadImageError("blank", f"all pixels are equal: {first[0, 0].tolist()}")


@contextlib.contextmanager
def opened(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Iterator[ImageFile.ImageFile]:
    """Opens an image and reads its header. Any error, here or inside the block, becomes a BadImageError.

    Arguments and errors: see `decode`.
    """
    if not data:
        raise BadImageError("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of the size at which it refuses, and about odd metadata.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                limits.check_pixels(*image.size)
                scans = data.count(_SCAN) if image.info.get("progressive") else 0
                if scans > _MOST_SCANS:
                    raise BadImageError("too_large", f"a JPEG of {scans} scans; expected {_MOST_SCANS} at most")
                yield image
    except BadImageError:
        raise
    except UnidentifiedImageError:
        with warnings.catch_warnings(action="ignore"):
            raise _unidentified(data) from None
    except Image.DecompressionBombError as error:
        raise BadImageError("too_large", str(error)) from None
    except Exception as error:  # decoders raise errors of any type on a broken file
        raise _broken(error) from error


def _broken(error: Exception, where: str = "") -> BadImageError:
    code = "truncated" if "truncated" in str(error) else "unreadable"
    return BadImageError(code, f"{where}{type(error).__name__}: {error}")


def _unidentified(data: bytes) -> BadImageError:
    """Why Pillow opens a file in none of the formats: the error of the format that the file begins as, if any."""
    for name in _formats():
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(data[:16]) is True:
            try:
                factory(io.BytesIO(data), "")
            except Exception as error:
                return _unopened(data, name, error)
    return BadImageError(
        "not_an_image", f"no image format begins with {data[:8]!r}, among those that are read: {', '.join(FORMATS)}"
    )


def _unopened(data: bytes, name: str, error: Exception) -> BadImageError:
    """Why the format that a file begins as refuses it."""
    begins = f"it begins as {name}, then "
    if name != "TIFF" or not isinstance(error, SyntaxError | KeyError):
        return _broken(error, begins)
    try:
        layout = layout_of_tiff(data)
    except Exception as broken:
        return _broken(broken, begins)
    return BadImageError(
        "unsupported",
        f"a TIFF of {layout}; expected grey, a palette, RGB, CMYK or Lab of 8 bits, grey, RGB or CMYK of 16, or grey "
        "of 32: convert it to RGB of 8 bits",
    )


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow knows; older releases have no AVIF."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 (upright) to 8; 1 where there is none, or no valid one."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata raises errors of any type
        return 1
    return value if value in _TURNS else 1
