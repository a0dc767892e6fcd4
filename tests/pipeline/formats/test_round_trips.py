"""What a writer writes, a reader of the same format reads again, within the format's rounding."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camboxes.pipeline.formats import coco, parquet, voc, yolo
from camboxes.transforms.coco import Counts

NAMES = ["cat", "<dog> & 'cat'", "写真"]
SCORES = {"score": 0.5, "calibrated_score": None, "rank": 1, "box_uid": "u", "component_area": 0.5}
PROVENANCE = {"source": "machine", "model": "timm:net", "method": "cam", "threshold": 0.25}


@st.composite
def _sides(draw, size, smallest):
    """Where a box begins, and its extent, on a side of `size` pixels, in hundredths of a pixel as boxes have them."""
    low = draw(st.integers(0, 100 * size - smallest))
    return low / 100, draw(st.integers(smallest, 100 * size - low)) / 100


@st.composite
def rows(draw, most=5000, smallest=1):
    """An image of up to `most` pixels a side; its boxes have extents of `smallest` hundredths of a pixel, at least."""
    width, height = draw(st.integers(1, most)), draw(st.integers(1, most))
    boxes = []
    for number in draw(st.lists(st.integers(1, len(NAMES)), min_size=1, max_size=4)):
        (x, extent_x), (y, extent_y) = draw(_sides(width, smallest)), draw(_sides(height, smallest))
        boxes.append(
            {"category_id": number, "category": NAMES[number - 1], "bbox": [x, y, extent_x, extent_y]}
            | SCORES
            | PROVENANCE
        )
    image = {"image_id": 1, "path": "a.jpg", "digest": "0f", "width": width, "height": height, "split": "train"}
    return image | {"status": "ok", "labels": [], "top5": [], "boxes": boxes, "review": None}


def _boxes(row):
    """The boxes of a row by category name."""
    return {
        name: [box["bbox"] for box in row["boxes"] if box["category"] == name]
        for name in sorted({box["category"] for box in row["boxes"]})
    }


def _read(image):
    return {name: boxes.tolist() for name, boxes in sorted(image.boxes.items())}


@given(st.lists(rows(), min_size=1, max_size=3))
def test_coco(images):
    images = [row | {"image_id": number, "path": f"{number}.jpg"} for number, row in enumerate(images, start=1)]
    file = io.BytesIO()
    coco.write(file, images, NAMES, {"settings": {}}, Counts())
    truth = coco.read(file.getvalue(), "instances.json")
    assert truth.categories == tuple(sorted(NAMES))
    for row, image in zip(images, truth.images.values(), strict=True):
        assert (image.path, image.width, image.height) == (row["path"], row["width"], row["height"])
        assert _read(image) == _boxes(row)


@given(rows(smallest=100))
def test_voc_moves_a_corner_by_half_a_pixel_at_most(row):
    image = voc.read([("a.xml", voc.write(row).encode())], "folder").images["a.jpg"]
    assert (image.width, image.height) == (row["width"], row["height"])
    found = _read(image)
    assert found.keys() == _boxes(row).keys()
    for name, boxes in _boxes(row).items():
        for (left, top, width, height), (x, y, extent_x, extent_y) in zip(found[name], boxes, strict=True):
            corners = [x, y, x + extent_x, y + extent_y]
            assert [left, top, left + width, top + height] == pytest.approx(corners, abs=0.5001)


@given(rows())
def test_a_voc_box_has_a_pixel_and_lies_in_the_image(row):
    image = voc.read([("a.xml", voc.write(row).encode())], "folder").images["a.jpg"]
    for boxes in _read(image).values():
        for x, y, width, height in boxes:
            assert x >= 0 and y >= 0 and width >= 1 and height >= 1
            assert x + width <= row["width"] and y + height <= row["height"]


@given(rows(most=100_000))
def test_yolo_gives_back_hundredths_of_a_pixel(row):
    for line, box in zip(yolo.write(row).splitlines(), row["boxes"], strict=True):
        number, *shares = line.split()
        assert int(number) == box["category_id"] - 1
        x, y, width, height = (
            float(share) * row[side] for share, side in zip(shares, ["width", "height"] * 2, strict=True)
        )
        assert [round(value, 2) for value in (x - width / 2, y - height / 2, width, height)] == box["bbox"]


@given(rows())
def test_parquet(row):
    row["boxes"] = [box | {"rank": rank} for rank, box in enumerate(row["boxes"], start=1)]
    found = parquet.table([row]).to_pylist()
    expected = sorted(row["boxes"], key=lambda box: (box["category_id"], box["rank"]))
    assert [[of[name] for name in ("x", "y", "box_width", "box_height")] for of in found] == [
        box["bbox"] for box in expected
    ]
    assert [of["category"] for of in found] == [box["category"] for box in expected]
