"""From an encoded file to an upright RGB photograph."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class BadImageError(ValueError):
    """An image that cannot be used. `code` is a short, stable name of the reason; the message is "code: detail"."""

    def __init__(self, code: str, detail: str):
        super().__init__(f"{code}: {detail}")
        self.code = code


def decode(data: bytes) -> np.ndarray:
    """Decodes a file's bytes, in any format that Pillow reads; the first frame of an animation.

    Returns:
      uint8 [height, width, 3], RGB, after EXIF orientation.

    Raises:
      BadImageError: empty, not_an_image, truncated, too_large or unreadable.
    """
    if not data:
        raise BadImageError("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of the size at which it refuses, and about odd metadata.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return np.array(_rgb(ImageOps.exif_transpose(image)))
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
