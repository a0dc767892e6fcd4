import pytest

from camboxes.pipeline.formats import voc

VOC = """<annotation><folder>x</folder><filename>{name}</filename>
<size><width>40</width><height>{height}</height></size>
<object><name>dog</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin><ymin>3</ymin><xmax>4</xmax>
<ymax>6</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object></annotation>"""


def _plain(boxes):
    return {name: of_category.tolist() for name, of_category in boxes.items()}


def _xml(name="a.jpg", height=30, difficult=0, xmin=2):
    return VOC.format(name=name, height=height, difficult=difficult, xmin=xmin).encode()


def _read(**files):
    return voc.read(((f"{name}.xml", data) for name, data in files.items()), "folder")


def test_read():
    truth = _read(a=_xml(), b=_xml("b.jpg", height=0, difficult=1))
    assert (truth.source, truth.categories) == ("folder", ("dog",))
    a, b = truth.images["a.jpg"], truth.images["b.jpg"]
    assert _plain(a.boxes) == {"dog": [[1, 2, 3, 4]]}, "pixels 2 to 4 and 3 to 6, counted from 1"
    assert (a.width, a.height, a.ignored) == (40, 30, {})
    assert (b.width, b.height, b.boxes, _plain(b.ignored)) == (40, None, {}, {"dog": [[1, 2, 3, 4]]})


def test_what_is_wrong():
    with pytest.raises(ValueError, match=r"a.xml', object 1: the box of 'dog' is x 4, y 2, 0 x 4 pixels"):
        _read(a=_xml(xmin=5))
    with pytest.raises(ValueError, match="object 1: its corners are 'left, 3, 4, 6'; expected four numbers"):
        _read(a=_xml(xmin="left"))
    with pytest.raises(ValueError, match="difficult is 'yes'; expected 0 or 1"):
        _read(a=_xml(difficult="yes"))
    with pytest.raises(ValueError, match=r"a.xml' has no filename; expected a Pascal VOC annotation"):
        _read(a=_xml(name=" "))
    with pytest.raises(ValueError, match=r"b.xml': its image 'a.jpg' is that of 'a.xml' too"):
        _read(a=_xml(), b=_xml())
    with pytest.raises(ValueError, match=r"b.xml' is not XML"):
        _read(b=b"<annotation>")


def _box(*bbox):
    person = {"source": "person", "model": None, "method": None, "threshold": None}
    return {"bbox": bbox, "category_id": 2, "category": "b"} | person


def test_corners_by_hand():
    row = {"path": "x.jpg", "width": 200, "height": 100}
    xml = voc.write(row | {"boxes": [_box(10.4, 20.6, 30.2, 9.6)]})
    # 10.4 -> 10, the 11th pixel; 40.6 -> the 41st; 20.6 -> 21, the 22nd; 30.2 -> the 30th
    for edge, value in {"xmin": 11, "ymin": 22, "xmax": 41, "ymax": 30}.items():
        assert f"<{edge}>{value}</{edge}>" in xml
    edge = voc.write(row | {"boxes": [_box(199.7, 99.6, 0.3, 0.4)]})
    assert "<xmin>200</xmin>" in edge and "<xmax>200</xmax>" in edge, "one pixel, inside"
    assert "<ymin>100</ymin>" in edge and "<ymax>100</ymax>" in edge


def test_whole_pixels_are_read_as_they_were_written():
    boxes = [[0.0, 0.0, 64.0, 48.0], [10.0, 20.0, 1.0, 5.0], [63.0, 47.0, 1.0, 1.0]]
    xml = voc.write({"path": "a.png", "width": 64, "height": 48, "boxes": [_box(*bbox) for bbox in boxes]})
    assert _plain(_read(a=xml.encode()).images["a.png"].boxes) == {"b": boxes}
