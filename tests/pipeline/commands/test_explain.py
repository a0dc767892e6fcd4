import numpy as np
import pytest
from PIL import Image

from camboxes.models.spec import LITE_MAPS
from camboxes.pipeline import explain_job
from camboxes.pipeline.cli import main
from camboxes.pipeline.reports import method_sheet
from camboxes.transforms.boxes.from_map import BoxRule, boxes_from_map

PLAIN = ["--method", "cam", "--scales", "224", "--aspect", "squash", "--refine", "none", "--boxes", "largest"]


@pytest.fixture
def cat(photographs):
    return str(photographs / "Egyptian cat" / "chelsea.png")


@pytest.fixture
def drawn(monkeypatch):
    """What the command hands to `figure`, by argument, instead of a picture of it."""
    seen = {}

    def figure(photograph, columns, rows, notes):
        seen.update(photograph=photograph, columns=columns, rows=rows, notes=notes)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(explain_job, "figure", figure)
    return seen


def test_classes_and_probabilities_are_told(cat, tmp_path, capsys):
    output = tmp_path / "grid.webp"
    call = ["explain", cat, "--labels", "tabby, egyptian_cat,n02124075", *PLAIN, "--output", str(output)]
    assert main(call) == 0
    assert capsys.readouterr().out.splitlines() == ["tabby  0.08", "Egyptian cat  0.77", f"wrote {output}"]
    with Image.open(output) as picture:
        assert picture.format == "WEBP"
        assert picture.width == 2 * 64 + 2 * 360 + 28


def _compare(drawn, run, rows, annotations, classes, shape):
    """Compares the first map, and its box, with those that `camboxes label` made of the same photograph."""
    [row] = [row for row in rows(run) if row["path"].endswith("chelsea.png")]
    [labeled] = row["labels"]
    [found] = [of_class for of_class in drawn["rows"] if of_class.class_index == labeled["class_index"]]
    stored, boxes = found.maps[0]
    # Its batches are larger, which the last bits depend on.
    cells = np.frombuffer(row["maps"][0]["cells"], np.uint8).reshape(shape)
    np.testing.assert_allclose(stored.cells.astype(int), cells, rtol=0, atol=1)
    assert (stored.raw_min, stored.raw_max) == pytest.approx(
        (row["maps"][0]["raw_min"], row["maps"][0]["raw_max"]), rel=1e-4, abs=1e-6
    )
    [annotation] = [a for a in annotations(run)["annotations"] if a["image_id"] == row["image_id"]]
    assert [list(box.bbox) for box in boxes.boxes] == [pytest.approx(annotation["bbox"], abs=1)]
    assert found.probability == pytest.approx(labeled["probability"], rel=1e-4)
    assert [of_class.name for of_class in drawn["rows"]] == classes


def test_maps_and_boxes_are_those_of_label(cat, plain_run, rows, annotations, tmp_path, drawn):
    call = ["explain", cat, "--labels", "Egyptian cat", *PLAIN, "--output", str(tmp_path / "g.png")]
    assert main(call) == 0
    _compare(drawn, plain_run, rows, annotations, ["Egyptian cat"], (7, 7))


def test_by_default_too(cat, run, rows, annotations, tmp_path, drawn):
    assert main(["explain", cat, "--output", str(tmp_path / "g.png")]) == 0
    [row] = [row for row in rows(run) if row["path"].endswith("chelsea.png")]
    shape = row["maps"][0]["height"], row["maps"][0]["width"]
    # The network's own guesses do not compete, and neither does the photograph's only label.
    _compare(drawn, run, rows, annotations, [guess["name"] for guess in row["top5"][:2]], shape)
    methods = [column.method for column in drawn["columns"]]
    assert methods == [LITE_MAPS.method, "cam", "gradcam++", "layercam@16", "eigencam"]
    assert drawn["notes"][-1] == f"what label draws comes first: {LITE_MAPS.method}"


def test_labels_that_are_asked_for_compete(cat, tmp_path, drawn):
    def maps(*options):
        call = ["explain", cat, "--method", "cam", *options, "--output", str(tmp_path / "g.png")]
        assert main(call) == 0
        return [of_class.maps[0][0].cells.tolist() for of_class in drawn["rows"]]

    together = maps("--labels", "Egyptian cat,tabby")
    assert together != maps("--labels", "Egyptian cat,tabby", "--no-compete")
    assert maps("--labels", "Egyptian cat") == maps("--labels", "Egyptian cat", "--no-compete")


def test_the_first_two_classes_of_the_network(cat, plain_run, rows, tmp_path, drawn):
    call = ["explain", cat, *PLAIN, "--threshold", "0.6", "--output", str(tmp_path / "g.png")]
    assert main(call) == 0
    [row] = [row for row in rows(plain_run) if row["path"].endswith("chelsea.png")]
    assert [(r.class_index, r.name) for r in drawn["rows"]] == [(c["class_index"], c["name"]) for c in row["top5"][:2]]
    for of_class in drawn["rows"]:
        [(stored, boxes)] = of_class.maps
        assert boxes == boxes_from_map(stored, 451, 300, BoxRule(0.6))


def test_one_network_for_all_methods(cat, tmp_path, drawn, monkeypatch):
    from camboxes.models import loading

    loaded = []
    load = loading.load_classifier
    monkeypatch.setattr(loading, "load_classifier", lambda spec: loaded.append(spec) or load(spec))
    methods = "cam,layercam@16, cam+layercam@16"
    call = ["explain", cat, "--method", methods, "--scales", "192,224", "--flip", "--refine", "none"]
    call += ["--aspect", "squash", "--no-fine-scales", "--output", str(tmp_path / "g.png")]
    assert main(call) == 0
    assert len(loaded) == 1
    assert [column.method for column in drawn["columns"]] == ["cam", "layercam@16", "cam+layercam@16"]
    cam, layercam, both = (stored.cells for stored, _ in drawn["rows"][0].maps)
    assert cam.shape == (7, 7)
    assert layercam.shape == both.shape == (14, 14)
    assert (layercam != both).any()
    assert drawn["notes"] == ["timm:tf_efficientnet_lite0", "at 192 and 224, flipped too (squash), on cpu"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "Egyptian cat,tabbi"], "'tabbi' is not the name of a class; nearest: tabby (281)"),
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
        assert grid.width == 2 * method_sheet.MARGIN + 4 * method_sheet.TILE[0] + 3 * method_sheet.GAP
    assert main([*call, "--output", str(tmp_path / "grid.png"), "--method", "cam"]) == 2
    assert "CAM is not exact for torchvision:mobilenet_v3_small" in capsys.readouterr().err


def test_of_a_word_for_several_classes_the_most_probable_is_drawn(cat, tmp_path, drawn):
    assert main(["explain", cat, "--labels", "cat,dog", "--method", "cam", "--output", str(tmp_path / "grid.png")]) == 0
    first, second = drawn["rows"]
    assert first.name == "Egyptian cat" and 151 <= second.class_index <= 268
