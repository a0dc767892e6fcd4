"""From an encoded file to an upright RGB photograph."""

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError


class BadImageError(ValueError):
    """An image that cannot be used. `code` is a short, stable name of the reason; the message is "code: detail"."""

    def __init__(self, code: str, detail: str):
        super().__init__(f"{code}: {detail}")
        self.code = code


class Photograph(NamedTuple):
    """A decoded photograph, perhaps a smaller version of it.

    Attributes:
      pixels: uint8 [rows, columns, 3], RGB, after EXIF orientation.
      width, height: those of the whole photograph, in pixels, after EXIF orientation.
    """

    pixels: np.ndarray
    width: int
    height: int


def decode(data: bytes) -> np.ndarray:
    """Decodes a file's bytes, in any format that Pillow reads; the first frame of an animation.

    Returns:
      uint8 [height, width, 3], RGB, after EXIF orientation.

    Raises:
      BadImageError: empty, not_an_image, truncated, too_large or unreadable.
    """
    return decode_at_least(data, None).pixels


def decode_at_least(
    data: bytes, side: int | None, decode_jpeg: Callable[[bytes], np.ndarray] | None = None
) -> Photograph:
    """Decodes a file's bytes for a network, which takes less of them than a camera gives.

    A JPEG with at least twice the pixels a side that are wanted is decoded at 1/2, 1/4 or 1/8 of its size: of each
    block of 8 x 8 pixels its coarse frequencies alone are transformed back.

    Args:
      data: see `decode`.
      side: how many pixels the short side must still have; None for the whole photograph.
      decode_jpeg: decodes JPEGs faster than Pillow, to the same pixels, uint8 [height, width, 3]; it may raise
        RuntimeError where it cannot.

    Raises:
      BadImageError: see `decode`.
    """
    if not data:
        raise BadImageError("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of the size at which it refuses, and about odd metadata.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                size = image.size
                if side is not None:
                    image.draft(None, (side, side))
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                upright = size[::-1] if orientation in (5, 6, 7, 8) else size
                fast = image.format == "JPEG" and image.mode in ("RGB", "L") and image.size == size
                if decode_jpeg and fast and orientation == 1:
                    # Where this fails, Pillow says why, or makes more of the file.
                    with contextlib.suppress(RuntimeError):
                        return Photograph(decode_jpeg(data), *upright)
                image.load()
                return Photograph(np.array(_rgb(ImageOps.exif_transpose(image))), *upright)
    except UnidentifiedImageError:
        raise BadImageError("not_an_image", f"no image format begins with {data[:8]!r}") from None
    except Image.DecompressionBombError as error:
        raise BadImageError("too_large", str(error)) from None
    except Exception as error:  # decoders raise whatever a broken file leads them to
        code = "truncated" if "truncated" in str(error) else "unreadable"
        raise BadImageError(code, f"{type(error).__name__}: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16 bits to 8 instead of scaling them.
        return Image.fromarray((np.asarray(image, np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
