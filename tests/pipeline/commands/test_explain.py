import time

import numpy as np
import pytest
from PIL import Image, ImageColor

from camboxes.pipeline.cli import main
from camboxes.pipeline.commands import explain
from camboxes.transforms.boxes.from_map import BoxRule, boxes_from_map
from camboxes.transforms.boxes.stored_maps import quantize

LEFT, TOP = explain.MARGIN, explain.MARGIN // 2 + explain.HEADING  # of the photograph's tile
STEP = explain.TILE[0] + explain.GAP  # from a column to the next


@pytest.fixture
def cat(photographs):
    return str(photographs / "Egyptian cat" / "chelsea.png")


@pytest.fixture
def drawn(monkeypatch):
    """What the command hands to `figure`, by argument, instead of a picture of it."""
    seen = {}

    def figure(photograph, columns, rows, threshold, notes):
        seen.update(photograph=photograph, columns=columns, rows=rows, threshold=threshold, notes=notes)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(explain, "figure", figure)
    return seen


def _mapped(cells, width, height, threshold=0.5):
    stored = quantize(np.array(cells, np.float32))
    return stored, boxes_from_map(stored, width, height, BoxRule(threshold))


def _figure(width=720, height=480, maps=(), name="tripod", threshold=0.25):
    photograph = np.full((height, width, 3), (200, 0, 0), np.uint8)
    columns = [explain.Column(f"method{number}", 12.3) for number in range(len(maps))]
    rows = [explain.Row(3, name, 0.5, [_mapped(cells, width, height) for cells in maps])]
    return np.asarray(explain.figure(photograph, columns, rows, threshold, ("network", "at 224")))


def _extent(where):
    """First and last column, first and last row that hold a true value."""
    rows, columns = np.nonzero(where)
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_classes_and_probabilities_are_told(cat, tmp_path, capsys):
    output = tmp_path / "grid.webp"
    call = ["explain", cat, "--labels", "tabby, egyptian_cat,n02124075", "--method", "cam", "--output", str(output)]
    assert main(call) == 0
    assert capsys.readouterr().out.splitlines() == ["tabby  0.08", "Egyptian cat  0.77", f"wrote {output}"]
    with Image.open(output) as picture:
        assert picture.format == "WEBP"
        assert picture.width == 2 * 64 + 2 * 360 + 28


def test_maps_and_boxes_are_those_of_label(photographs, cat, plain_run, rows, annotations, tmp_path, drawn):
    assert (
        main(["explain", cat, "--labels", "Egyptian cat", "--method", "cam", "--output", str(tmp_path / "g.png")]) == 0
    )
    [row] = [row for row in rows(plain_run) if row["path"].endswith("chelsea.png")]
    [(stored, boxes)] = drawn["rows"][0].maps
    # Its batches are larger, which the last bits depend on.
    cells = np.frombuffer(row["maps"][0]["cells"], np.uint8).reshape(7, 7)
    np.testing.assert_allclose(stored.cells.astype(int), cells, rtol=0, atol=1)
    assert (stored.raw_min, stored.raw_max) == pytest.approx(
        (row["maps"][0]["raw_min"], row["maps"][0]["raw_max"]), rel=1e-4
    )
    [annotation] = [a for a in annotations(plain_run)["annotations"] if a["image_id"] == row["image_id"]]
    assert [list(box.bbox) for box in boxes.boxes] == [pytest.approx(annotation["bbox"], abs=1)]
    assert drawn["rows"][0].probability == pytest.approx(row["labels"][0]["probability"], rel=1e-4)


def test_the_first_two_classes_of_the_network(cat, plain_run, rows, tmp_path, drawn):
    assert main(["explain", cat, "--method", "cam", "--threshold", "0.6", "--output", str(tmp_path / "g.png")]) == 0
    [row] = [row for row in rows(plain_run) if row["path"].endswith("chelsea.png")]
    assert [(r.class_index, r.name) for r in drawn["rows"]] == [(c["class_index"], c["name"]) for c in row["top5"][:2]]
    for of_class in drawn["rows"]:
        [(stored, boxes)] = of_class.maps
        assert boxes == boxes_from_map(stored, 451, 300, BoxRule(0.6))
    assert drawn["threshold"] == 0.6


def test_one_network_for_all_methods(cat, tmp_path, drawn, monkeypatch):
    from camboxes.models import classifier

    loaded = []
    load = classifier.load_classifier
    monkeypatch.setattr(classifier, "load_classifier", lambda spec: loaded.append(spec) or load(spec))
    methods = "cam,layercam@16, cam+layercam@16"
    call = ["explain", cat, "--method", methods, "--scales", "192,224", "--flip", "--output", str(tmp_path / "g.png")]
    assert main(call) == 0
    assert len(loaded) == 1
    assert [column.method for column in drawn["columns"]] == ["cam", "layercam@16", "cam+layercam@16"]
    cam, layercam, both = (stored.cells for stored, _ in drawn["rows"][0].maps)
    assert cam.shape == (7, 7)
    assert layercam.shape == both.shape == (14, 14)
    assert (layercam != both).any()
    assert drawn["notes"] == ("timm:tf_efficientnet_lite0", "at 192 and 224, flipped too, on cpu")


def test_the_hottest_place_is_the_maps():
    cells = np.zeros((4, 6))
    cells[1:3, 3:5] = 1
    picture = np.asarray(explain.overlay(Image.new("RGB", (360, 240), (100, 100, 100)), *_mapped(cells, 720, 480), 0.5))
    # 60 pixels a cell; bilinear between centres: at its highest between the centres of the four, 0 a cell further on.
    hottest = (abs(picture.astype(int) - (222, 224, 151)) <= 1).all(2)  # 0.8 (252, 255, 164) + 0.2 (100, 100, 100)
    assert _extent(hottest) == (210, 269, 90, 149)
    changed = (picture != 100).any(2)
    left, right, top, bottom = _extent(changed)
    assert 150 <= left <= 155
    assert 324 <= right <= 329
    assert 30 <= top <= 35
    assert 204 <= bottom <= 209


def test_the_box_is_the_one_that_was_drawn():
    stored, boxes = _mapped([[0, 1]], 720, 480)
    assert boxes.boxes[0].bbox == (360, 0, 360, 480)
    picture = np.asarray(explain.overlay(Image.new("RGB", (360, 240)), stored, boxes, 0.5))
    line = (picture == ImageColor.getrgb(explain.LINE)).all(2)
    assert _extent(line) == (181, 358, 1, 238), "from 180 to 359 and from 0 to 239, inside a casing of one pixel"
    assert not line[10:230, 190:350].any()


def test_a_speck_is_still_a_box():
    cells = np.zeros((3, 3))
    cells[1, 1] = 1
    stored, boxes = _mapped(cells, 300, 300, threshold=1)
    assert max(boxes.boxes[0].bbox[2:]) <= 2
    picture = np.asarray(explain.overlay(Image.new("RGB", (300, 300)), stored, boxes, 1))
    left, right, top, bottom = _extent((picture == ImageColor.getrgb(explain.LINE)).all(2))
    assert (right - left, bottom - top) == (6, 6)
    assert left <= 150 <= right
    assert top <= 150 <= bottom


@pytest.mark.parametrize("cells", [[[-2, -1]], [[3, 3]], [[0, np.nan]]])
def test_a_map_without_a_box_says_why(cells):
    page = _figure(maps=[[[0, 1]], cells])
    tile = page[TOP : TOP + 240]
    assert (tile[:, LEFT + 2 * STEP :][:, :360] == (200, 0, 0)).all(), "bare"
    assert (tile[:, LEFT + STEP :][:, :360] != (200, 0, 0)).any()
    below = page[TOP + 242 : TOP + 300]
    assert (below[:, LEFT + 2 * STEP :] < 160).any()
    assert (below[:, : LEFT + 2 * STEP] == 255).all()
    assert page.shape[0] - _figure(maps=[[[0, 1]]]).shape[0] == 88 - 28


@pytest.mark.parametrize(
    ("size", "tile"),
    [
        ((720, 480), (360, 240)),
        ((3000, 300), (360, 36)),
        ((300, 1500), (108, 540)),
        ((30, 30), (360, 360)),
        ((5000, 2), (360, 1)),
    ],
)
def test_photographs_keep_their_aspect_ratio(size, tile):
    page = _figure(*size, maps=[[[0, 1]]])
    first = LEFT, LEFT + tile[0] - 1, TOP, TOP + tile[1] - 1
    assert _extent((page == (200, 0, 0)).all(2)[:, : LEFT + STEP]) == first
    coloured = (page != 255).any(2)[TOP : TOP + tile[1]]
    assert _extent(coloured)[1] == LEFT + STEP + tile[0] - 1, "the overlay is as wide"


def test_the_scale_marks_the_threshold():
    page = _figure(maps=[[[0, 1]]], threshold=0.25)
    left, top = LEFT + STEP, TOP + 240 + 28 + 44
    assert page[top + 5, left].tolist() == [0, 0, 4], "inferno's first colour"
    assert page[top + 5, left + 359].tolist() == [252, 255, 164], "and its last"
    ticks = (page[top - 6, left : left + 360] == ImageColor.getrgb("#1d1d1b")).all(1)
    assert np.flatnonzero(ticks).tolist() == [90, 91], "0.25 of 358 pixels, two wide"


def test_long_names_are_shortened():
    page = _figure(maps=[[[0, 1]]], name="black-and-tan " * 9)
    short = _figure(maps=[[[0, 1]]], name="black")
    heading = np.s_[explain.MARGIN // 2 : TOP]
    assert (page[heading, : LEFT + 300] != short[heading, : LEFT + 300]).any()
    assert (page[heading, LEFT + 360 :] == short[heading, LEFT + 360 :]).all()
    assert (page[heading, LEFT + 300 : LEFT + 360] < 100).any(), "as long as there is room"


def test_a_name_of_a_stranger_is_one_line_at_once():
    start = time.monotonic()
    _figure(name="x" * 100_000)
    assert time.monotonic() - start < 10
    assert (_figure(name="a\nb") == _figure(name="a\\nb")).all()


def test_a_name_that_no_font_has(monkeypatch):
    explain._fonts.cache_clear()
    monkeypatch.setattr(explain, "_OTHER_FONTS", ("none.ttf",))
    try:
        assert (_figure(name="猫") == _figure(name="class 3")).all()
        assert (_figure(name="cat") != _figure(name="class 3")).any()
    finally:
        explain._fonts.cache_clear()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "Egyptian cat,tabbi"], "'tabbi' is the name of no class; nearest: tabby (281)"),
        (["--labels", "crane"], "'crane' is the name of 2 classes: 134: crane, n02012849; 517: crane, n03126707"),
        (["--method", "cam,saliency"], "method 'saliency': 'saliency' is not understood; expected "),
        (["--method", "layercam@head"], "layer 'head': the network has none of this name"),
        (["--output", "absent/grid.png"], "--output 'absent/grid.png': there is no folder 'absent'; make it, or"),
        (["--output", "grid.doc"], "--output 'grid.doc' ends in '.doc', which Pillow cannot write; expected .png"),
        (["--output", "grid.xbm"], "--output 'grid.xbm' ends in '.xbm', which Pillow cannot write"),
        (["--output", "grid"], "--output 'grid' ends in '', which Pillow cannot write"),
        (["--threshold", "25"], "threshold is 25.0; expected a share from 0 to 1"),
        (["--size", "192", "--scales", "192,224"], "--size 192 and --scales were both given"),
        (["--direct_num_workers=2"], "unknown option --direct_num_workers=2; see camboxes explain --help"),
    ],
)
def test_wrong_calls(cat, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", cat, *options]) == 2
    assert capsys.readouterr().err.startswith(f"camboxes explain: {message}")
    assert list(tmp_path.iterdir()) == []


def test_wrong_images(cat, tmp_path, capsys):
    (tmp_path / "note.jpg").write_text("no image")
    output = str(tmp_path / "grid.png")
    for image, message in [
        (str(tmp_path / "absent.jpg"), "there is no file at this path"),
        (str(tmp_path / "note.jpg"), "cannot be used: not_an_image: no image format begins with b'no image'"),
    ]:
        assert main(["explain", image, "--output", output]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"camboxes explain: image {image!r}")
        assert message in error
    assert main(["explain", cat, "--output", cat]) == 2
    assert "is the input itself" in capsys.readouterr().err


def test_a_network_for_which_cam_is_not_exact(cat, tmp_path, capsys):
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), tmp_path / "w.pth")
    call = ["explain", cat, "--model", "mobilenet_v3_small", "--weights", str(tmp_path / "w.pth")]
    assert main([*call, "--output", str(tmp_path / "grid.png")]) == 0
    assert "cam is left out: it is not exact for torchvision:mobilenet_v3_small" in capsys.readouterr().out
    with Image.open(tmp_path / "grid.png") as grid:  # the photograph and three of the five methods
        assert grid.width == 2 * explain.MARGIN + 4 * explain.TILE[0] + 3 * explain.GAP
    assert main([*call, "--output", str(tmp_path / "grid.png"), "--method", "cam"]) == 2
    assert "CAM is not exact for torchvision:mobilenet_v3_small" in capsys.readouterr().err
