import pytest

from camboxes.pipeline.formats import csv


def _read(text):
    return csv.read(text.encode(), "boxes.csv")


def _plain(boxes):
    return {name: of_category.tolist() for name, of_category in boxes.items()}


def test_boxes_by_extent_and_by_corners():
    extent = _read(
        "path,label,x,y,width,height,image_width,image_height,who\n"
        "a.jpg,dog,1,2,3,4,40,30,me\nb.jpg,,,,,,,,me\na.jpg,cat,0,0,.5,1e1,40,30,\nc.jpg,dog,,,,,,,\n",
    )
    assert list(extent.images) == ["a.jpg", "b.jpg", "c.jpg"]
    assert _plain(extent.images["a.jpg"].boxes) == {"dog": [[1, 2, 3, 4]], "cat": [[0, 0, 0.5, 10]]}
    assert extent.images["a.jpg"][1:3] == (40, 30)
    assert extent.images["b.jpg"][1:5] == extent.images["c.jpg"][1:5] == (None, None, {}, {}), "known to hold nothing"
    # Here width and height are the image's, as in the CSV files that tools make of VOC, and are passed over.
    corners = _read("\ufeffpath,width,height,label,xmin,ymin,xmax,ymax\na.jpg,640,480,dog,1,2,4,6\n")
    assert _plain(corners.images["a.jpg"].boxes) == {"dog": [[1, 2, 3, 4]]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,dog\n", "begins with 'path,label'; expected a header with path,label and either x,y,width"),
        ("path,class,x,y,width,height\n", "expected a header with path,label"),
        ("path,label,x,y,width,height,xmin,ymin,xmax,ymax\n", "and either x,y,width,height or xmin,ymin,xmax,ymax"),
        (
            "path,label,x,y,width,height\na.jpg,dog,1,2,3\n",
            "line 2: x,y,width,height are '1,2,3,'; expected four numbers",
        ),
        ("path,label,x,y,width,height\n\na.jpg,dog,1,2,3,far\n", "line 3: x,y,width,height are '1,2,3,far'"),
        ("path,label,x,y,width,height\na.jpg,,1,2,3,4\n", "line 2: a box without a label"),
        ("path,label,x,y,width,height\n,dog,1,2,3,4\n", "line 2: expected a path"),
        ("path,label,x,y,width,height\na.jpg,dog,1,2,3,4,5\n", "line 2: expected a path, and as many cells"),
        ("path,label,xmin,ymin,xmax,ymax\na.jpg,dog,4,2,4,9\n", "line 2: the box of 'dog' is x 4, y 2, 0 x 7 pixels"),
        ("path,label,xmin,ymin,xmax,ymax\na.jpg,dog,4,2,inf,9\n", "inf x 7 pixels"),
        ("path,label,x,y,width,height\na.jpg,dog,,,,\n", "holds no boxes"),
        (
            "path,label,x,y,width,height,image_width,image_height\na.jpg,dog,1,2,3,4,8,9\na.jpg,dog,1,2,3,4,9,8\n",
            "line 3: 'a.jpg' has 9 x 8 pixels, and before it had 8 x 9",
        ),
    ],
)
def test_what_is_wrong(text, message):
    with pytest.raises(ValueError) as error:
        _read(text)
    assert message in str(error.value)
    assert "boxes.csv" in str(error.value)


def test_another_encoding():
    with pytest.raises(ValueError, match=r"boxes.csv' is not UTF-8 .*; save it as UTF-8"):
        csv.read("path,label,x,y,width,height\nä.jpg,dog,1,2,3,4\n".encode("latin-1"), "boxes.csv")
