"""Image files as trainers read them: their encoding, names and links."""

import io
import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from camboxes.transforms import storage
from camboxes.transforms.images.decoding import ACCEPTED, decode, opened, orientation
from camboxes.transforms.images.depth import is_plain

# The formats that every trainer reads, and the suffixes that it looks for. Others (GIF, TIFF, AVIF, ...) become PNG.
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp"}


class TrainerImage(NamedTuple):
    """An image file as trainers get it."""

    suffix: str  # of its file's name
    data: bytes  # the encoded file
    linkable: bool  # `data` is the original, and no trainer writes to it


def for_trainers(data: bytes, jpeg: bool) -> TrainerImage:
    """The original file where every trainer decodes it as the run did, or the upright image encoded anew.

    Boxes are in pixels of the upright image. OpenCV (so ultralytics) turns an image by its EXIF orientation;
    torchvision and most COCO and VOC loaders do not. So an image with an orientation is encoded anew, upright and
    without it. These are encoded anew, too: formats that not every trainer reads; transparent pixels, whose hidden
    colours trainers see; grey of more than 8 bits, which Pillow converts to white. With `jpeg` all become JPEG.

    Raises:
      BadImageError: this machine cannot decode it.
    """
    with opened(data, ACCEPTED) as image:
        suffix = _SUFFIXES.get(image.format or "")
        as_it_is = is_plain(image) and orientation(image) == 1
    is_jpeg = suffix == ".jpg"
    if as_it_is and suffix and (is_jpeg or not jpeg):
        # ultralytics rewrites a JPEG without an end marker in place, which must never reach the original.
        return TrainerImage(suffix, data, linkable=not is_jpeg or data.endswith(b"\xff\xd9"))
    kind, suffix, options = "PNG", ".png", {}
    if is_jpeg or jpeg:
        kind, suffix, options = "JPEG", ".jpg", {"quality": 95, "subsampling": 0}
    file = io.BytesIO()
    Image.fromarray(decode(data, ACCEPTED)).save(file, kind, **options)
    return TrainerImage(suffix, file.getvalue(), linkable=False)


def hard_linked(location: str, target: Path) -> bool:
    """Makes a hard link to a file where that is possible; says whether it did.

    A symbolic link would not do: supervision refuses links that lead out of the data set, and on another machine they
    lead nowhere.
    """
    if not storage.is_local(location):
        return False
    try:
        os.link(Path(location).resolve(), target)  # resolved: else this links to a symbolic link
    except OSError:  # on another filesystem, with links forbidden, or too many
        return False
    return True
