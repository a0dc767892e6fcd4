"""Composes photographs with known boxes: three objects, cut out of packaged photographs, on others as backgrounds.

    from composed_photographs import compose

    compose("photos", "true_boxes.json", count=75)

Nothing is downloaded: the photographs come with scikit-image and scikit-learn. There is one cat, one cup and one
motorcycle, so figures on these pictures say nothing about other photographs.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

# Of each label a photograph, and the outline of the object on it: x, y, x, y, ... in pixels.
OBJECTS = {
    "cat": (
        "skimage/data/chelsea.png",
        "35 0 385 0 378 30 357 75 363 110 362 150 345 180 318 210 312 250 290 270 255 283 215 278 165 265 120 235 "
        "70 190 42 150 33 90 34 40",
    ),
    "espresso": (
        "skimage/data/coffee.png",
        "181 72 200 40 240 22 285 18 330 26 365 40 390 62 400 75 412 66 424 73 423 95 445 125 465 165 478 215 472 "
        "260 455 300 420 340 375 370 320 386 260 387 200 370 150 340 110 300 88 260 77 215 84 170 105 130 140 95",
    ),
    "moped": (
        "skimage/data/motorcycle_left.png",
        "92 200 115 195 140 205 147 195 138 165 145 147 160 148 170 165 230 170 245 170 270 192 300 198 355 188 "
        "390 165 356 172 410 125 440 125 465 140 470 125 495 115 500 80 543 100 535 118 560 130 580 120 580 138 "
        "562 150 560 170 548 190 552 205 575 260 610 272 640 305 655 315 675 350 683 395 675 440 655 450 620 445 "
        "575 415 540 380 518 330 505 325 510 300 530 280 505 220 470 240 480 290 470 330 430 375 400 380 350 372 "
        "350 405 335 412 335 432 322 435 325 400 322 370 280 360 265 385 225 400 185 393 150 370 125 330 122 280 "
        "140 250 150 242 112 247 105 240 115 225 95 215",
    ),
}
BACKGROUNDS = [f"skimage/data/{name}" for name in ("grass.png", "gravel.png", "brick.png", "rocket.jpg")]
BACKGROUNDS += [f"sklearn/datasets/images/{name}" for name in ("china.jpg", "flower.jpg")]
SIZE = (320, 240)


def compose(folder: str, true_boxes: str, count: int, boxed: int | None = None, seed: int = 0) -> None:
    """Writes folder/LABEL/NNN.jpg, and a COCO file of true boxes.

    Args:
      folder: where the photographs go.
      true_boxes: the path of the COCO file.
      count: number of photographs; the labels take turns.
      boxed: number of photographs, the first ones, whose boxes the file has; None for all.
      seed: decides backgrounds, places, sizes and light.
    """
    random = np.random.default_rng(seed)
    cuts = {label: _cut(*of) for label, of in OBJECTS.items()}
    backgrounds = [_packaged(name) for name in BACKGROUNDS]
    names = sorted(OBJECTS)
    coco: dict[str, list] = {"images": [], "annotations": []}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    for number in range(count):
        label = names[number % len(names)]
        picture = _background(backgrounds[random.integers(len(backgrounds))], random)
        box = _paste(cuts[label], picture, random)
        path = f"{label}/{number:03d}.jpg"
        Path(folder, label).mkdir(parents=True, exist_ok=True)
        picture.save(Path(folder, path), quality=88)
        if boxed is None or number < boxed:
            image = {"id": number + 1, "file_name": path, "width": SIZE[0], "height": SIZE[1]}
            annotation = {"id": number + 1, "image_id": number + 1, "category_id": 1 + names.index(label), "bbox": box}
            coco["images"].append(image)
            coco["annotations"].append(annotation | {"area": box[2] * box[3], "iscrowd": 0})
    Path(true_boxes).write_text(json.dumps(coco))


def _packaged(name: str) -> Image.Image:
    package, _, file = name.partition("/")
    return Image.open(Path(importlib.util.find_spec(package).origin).parent / file).convert("RGB")


def _cut(name: str, outline: str) -> Image.Image:
    """The object alone, transparent around its outline."""
    photograph, numbers = _packaged(name), [int(number) for number in outline.split()]
    mask = Image.new("L", photograph.size)
    ImageDraw.Draw(mask).polygon(numbers, fill=255)
    photograph.putalpha(mask.filter(ImageFilter.GaussianBlur(1.5)))
    return photograph.crop(mask.getbbox())


def _background(photograph: Image.Image, random: np.random.Generator) -> Image.Image:
    """A part of a photograph in the size of the pictures."""
    width = int(photograph.width * random.uniform(0.5, 1))
    height = min(width * SIZE[1] // SIZE[0], photograph.height)
    left, top = random.integers(photograph.width - width + 1), random.integers(photograph.height - height + 1)
    return photograph.resize(SIZE, box=(left, top, left + width, top + height))


def _paste(cut: Image.Image, picture: Image.Image, random: np.random.Generator) -> list[int]:
    """Pastes the object, turned, scaled and lit anew, somewhere; gives its box: x, y, width, height."""
    if random.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    cut = cut.rotate(random.uniform(-15, 15), Image.Resampling.BICUBIC, expand=True)
    cut = cut.crop(_bounds(cut))
    scale = random.uniform(0.35, 0.85) * min(picture.width / cut.width, picture.height / cut.height)
    cut = cut.resize((round(cut.width * scale), round(cut.height * scale)))
    lit = ImageEnhance.Brightness(cut.convert("RGB")).enhance(random.uniform(0.7, 1.2))
    left = int(random.integers(picture.width - cut.width + 1))
    top = int(random.integers(picture.height - cut.height + 1))
    picture.paste(lit, (left, top), cut.getchannel("A"))
    x0, y0, x1, y1 = _bounds(cut)
    return [left + x0, top + y0, x1 - x0, y1 - y0]


def _bounds(cut: Image.Image) -> tuple[int, int, int, int]:
    return cut.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
