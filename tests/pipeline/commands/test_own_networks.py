"""Networks of a user's own: their classes, what their weights were trained with, and the run's checkpoint of them."""

import dataclasses
import json
import shutil

import apache_beam as beam
import pytest
import torch
import torchvision
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from PIL import Image, ImageOps

from camboxes.models import ModelSpec
from camboxes.models.networks.checkpoints import Description
from camboxes.pipeline.cli import main
from camboxes.transforms import BatchImages, BoxesFromMaps, InferClassMaps, LabeledImage, PlannedRun, WriteCoco

PLAIN = ["--method", "cam", "--refine", "none", "--scales", "64"]
SAID = ["--mean", "0.1,0.2,0.3", "--std", "0.5,0.25,1", "--multilabel"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A data set of the class folders 1, 2 and 10, as many a set has them."""
    folder = tmp_path_factory.mktemp("folders")
    for number, colour in (("1", "red"), ("2", "green"), ("10", "blue")):
        (folder / number).mkdir()
        for name in "ab":
            ImageOps.expand(Image.new("RGB", (60, 60), colour), 2).save(folder / number / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The file of a ResNet-18 with so many outputs, random ones."""

    def make(outputs):
        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("weights") / f"{outputs}.pth"
        torch.save(torchvision.models.resnet18(num_classes=outputs).state_dict(), path)
        return str(path)

    return make


def _label(source, output, *options):
    return main(["label", "--input", str(source), "--output", str(output), *options])


def _with(weights, outputs):
    return ["--model", "resnet18", "--weights", weights(outputs)]


def test_folders_that_are_numbers_are_no_class_indices(folders, weights, tmp_path, capsys):
    assert _label(folders, tmp_path / "out", *_with(weights, 3), *PLAIN) == 2
    message = capsys.readouterr().err
    assert "the network has 3 classes without names, so no label can be matched with one: '1', '10', '2'" in message
    assert "--classes FILE" in message and '{"1": 0}' in message and "nothing near" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["labels.txt", "class_to_idx.json"])
def test_names_in_the_order_of_the_outputs(name, folders, weights, tmp_path, rows):
    data = torchvision.datasets.ImageFolder(str(folders))
    written = {"labels.txt": "\n".join(data.classes), "class_to_idx.json": json.dumps(data.class_to_idx)}
    (tmp_path / name).write_text(written[name])
    call = [*_with(weights, 3), "--classes", str(tmp_path / name), *PLAIN]
    assert _label(folders, tmp_path / "out", *call) == 0
    expected = {f"{data.classes[index]}/{path[-5:]}": index for path, index in data.samples}
    assert {row["path"]: row["labels"][0]["class_index"] for row in rows(tmp_path / "out")} == expected
    assert expected["2/a.png"] == 2 and expected["10/a.png"] == 1, "as text is sorted"


def test_a_label_map_serves_classes_without_names(folders, weights, tmp_path, rows):
    (tmp_path / "map.json").write_text('{"1": 0, "2": 2, "10": 1}')
    call = [*_with(weights, 3), "--label-map", str(tmp_path / "map.json"), *PLAIN]
    assert _label(folders, tmp_path / "out", *call) == 0
    found = {row["path"][:-6]: row for row in rows(tmp_path / "out")}
    assert {label: row["labels"][0]["class_index"] for label, row in found.items()} == {"1": 0, "2": 2, "10": 1}
    assert {guess["name"] for guess in found["1"]["top5"]} == {"class 0", "class 1", "class 2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n10", "2 class names were given, and torchvision:resnet18 has 3 outputs; expected one name for each"),
        ("1\n\n10\n2", "classes '{path}': class 1 has an empty name"),
        (None, "classes '{path}': there is no file at this path"),
        (b"\xff\xfe1", "classes '{path}' are not text in UTF-8"),
    ],
)
def test_files_that_do_not_name_the_classes(content, message, folders, weights, tmp_path, capsys):
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert _label(folders, tmp_path / "out", *_with(weights, 3), "--classes", str(path), *PLAIN) == 2
    assert message.format(path=path) in capsys.readouterr().err


@pytest.mark.parametrize("values", ["0.5", "a,b,c", "123.7,116.8,103.9"])
def test_a_mean_that_cannot_be(values, capsys):
    with pytest.raises(SystemExit) as end:
        main(["label", "--input", "photos", "--output", "out", "--mean", values])
    assert end.value.code == 2
    assert f"argument --mean: '{values}' is not R,G,B, such as 0.5,0.5,0.5" in capsys.readouterr().err


def test_what_is_assumed_of_weights_is_told(photographs, weights, tmp_path, capsys):
    call = [*_with(weights, 1000), *PLAIN]
    path = call[3]
    everything = (
        f"assumed of {path}: the names of ImageNet's 1,000 classes, mean 0.485,0.456,0.406, std 0.229,0.224,0.225, "
        "softmax (--classes, --mean, --std, --multilabel)"
    )
    assert _label(photographs, tmp_path / "out", *call, "--dry-run") == 0
    out = capsys.readouterr().out
    assert everything in out and "1,000 classes by softmax" in out
    assert _label(photographs, tmp_path / "out", *call, "--mean", "0.5,0.5,0.5", "--multilabel") == 0
    err = capsys.readouterr().err
    assert f"assumed of {path}: the names of ImageNet's 1,000 classes, std 0.229,0.224,0.225 (--classes, --std)" in err
    assert _label(photographs, tmp_path / "other", *PLAIN) == 0
    assert "assumed" not in capsys.readouterr().err, "the library's own weights are known"


def test_a_single_output_is_a_sigmoid(folders, weights, tmp_path, rows, capsys):
    (tmp_path / "map.json").write_text('{"1": 0, "2": [], "10": []}')
    call = [*_with(weights, 1), "--label-map", str(tmp_path / "map.json"), *PLAIN]
    assert _label(folders, tmp_path / "out", *call) == 0
    assert "no names for its 1 class," in (told := capsys.readouterr().err) and "sigmoid, for it has a single" in told
    [label] = next(row for row in rows(tmp_path / "out") if row["path"] == "1/a.png")["labels"]
    assert label["probability"] == pytest.approx(1 / (1 + 2.718281828 ** -label["logit"]), abs=1e-6)
    assert label["probability"] < 1


def test_another_value_is_another_configuration(folders, weights, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("1\n10\n2")
    (tmp_path / "other.txt").write_text("2\n10\n1")
    call = [*_with(weights, 3), "--classes", str(tmp_path / "labels.txt"), *PLAIN]
    assert _label(folders, tmp_path / "out", *call) == 0
    classes = ["--classes", str(tmp_path / "other.txt")]
    for changed in (["--mean", "0.2,0.2,0.3"], ["--std", "1,1,1"], ["--multilabel"], classes):
        capsys.readouterr()
        assert _label(folders, tmp_path / "out", *call, *changed) == 2, changed
        assert "holds another run: the call asks for " in capsys.readouterr().err
    assert _label(folders, tmp_path / "out", *call) == 0


@pytest.fixture(scope="module")
def networks(folders, weights, tmp_path_factory):
    """Options that name networks of every kind, with classes for the folders."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "map.json").write_text('{"1": 0, "2": 2, "10": 1}')
    (folder / "labels.txt").write_text("1\n10\n2")
    lite1 = folder / "lite1.pth"
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("tf_efficientnet_lite1", num_classes=3).state_dict(), lite1)
    train = [
        "train",
        "--input",
        str(folders),
        "--output",
        str(folder / "trained"),
        "--epochs",
        "1",
        "--validation",
        "0",
    ]
    assert main(train) == 0
    mapped, named = ["--label-map", str(folder / "map.json")], ["--classes", str(folder / "labels.txt")]
    return {
        "lite0": mapped,
        "lite1": ["--model", "timm:tf_efficientnet_lite1", "--weights", str(lite1), *mapped],
        "trained": ["--model", str(folder / "trained")],
        "foreign": [*_with(weights, 3), *named, *SAID, "--map-stride", "16"],
    }, mapped


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *[(kind, []) for kind in ("lite0", "lite1", "trained", "foreign")],
        ("lite1", ["--refine", "none", "--size", "96"]),
    ],
)
def test_the_network_of_a_run_is_that_very_one(kind, options, networks, folders, tmp_path):
    """Also what the command's defaults depend on: that it was trained here, or which of the library's it is."""
    calls, mapped = networks
    call = calls[kind]
    assert _label(folders, tmp_path / "one", *call, *options, "--device", "cpu") == 0
    again = ["--model", str(tmp_path / "one" / "plan"), *(mapped if mapped[1] in call else [])]
    assert _label(folders, tmp_path / "two", *again, *options, "--device", "cpu") == 0
    one, two = (PlannedRun.load(str(tmp_path / name)) for name in ("one", "two"))
    assert one.settings == two.settings and one.fingerprints == two.fingerprints
    plain = 0.15 if kind == "lite1" else 0.25
    assert one.settings["rule"]["threshold"] == (plain if options else "1*otsu")
    described = [(tmp_path / name / "plan" / "classifier.json").read_bytes() for name in ("one", "two")]
    assert described[0] == described[1]
    assert bool(Description.from_json(described[0]).training) == (kind == "trained")
    if kind == "foreign":
        model = one.settings["model"]
        assert (model["multilabel"], model["mean"], model["std"]) == (True, [0.1, 0.2, 0.3], [0.5, 0.25, 1])


def test_explain_takes_them_too(folders, weights, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("1\n10\n2")
    call = ["explain", str(folders / "2" / "a.png"), *_with(weights, 3), "--size", "64", "--method", "cam"]
    call += ["--output", str(tmp_path / "grid.png")]
    assert main([*call, "--labels", "2"]) == 2
    assert "the network has 3 classes without names" in capsys.readouterr().err
    assert main(call) == 0
    assert "class 2  0." in capsys.readouterr().out
    assert main([*call, "--labels", "2", "--classes", str(tmp_path / "labels.txt"), *SAID]) == 0
    assert "\n2  0." in "\n" + capsys.readouterr().out


def test_a_training_begins_with_the_weights_and_their_mean(folders, weights, tmp_path, capsys):
    call = ["train", "--input", str(folders), "--output", str(tmp_path / "c"), *_with(weights, 3), "--size", "64"]
    call += ["--epochs", "1", "--validation", "0"]
    assert main([*call, "--mean", "0.1,0.2,0.3"]) == 0
    assert "std 0.229,0.224,0.225 (--std)" in capsys.readouterr().err
    assert json.loads((tmp_path / "c" / "classifier.json").read_text())["preprocessing"]["mean"] == [0.1, 0.2, 0.3]
    assert main(call) == 2
    assert "the call asks for mean 0.485,0.456,0.406 instead of 0.1,0.2,0.3" in capsys.readouterr().err


def test_prompts_are_the_classes_of_a_dual_encoder():
    from camboxes.models.networks.checkpoints import find_network

    with pytest.raises(ValueError, match="the classes of open_clip:ViT-B-32 are its prompts"):
        find_network(ModelSpec("open_clip:ViT-B-32", prompts=("cat",), classes=("dog",)))


@pytest.fixture(scope="module")
def many(photographs, tmp_path_factory):
    """A manifest of two copies of each photograph, with the labels in place, and a label map that is shifted by one."""
    folder = tmp_path_factory.mktemp("many")
    lines, labels = ["path,label"], sorted(path.name for path in photographs.iterdir())
    for path in sorted(photographs.glob("*/*.*")):
        for copy in "ab":
            shutil.copy(path, folder / f"{copy}{path.name}")
            lines.append(f"{copy}{path.name},{path.parent.name}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "shifted.json").write_text(json.dumps(dict(zip(labels, [*labels[1:], labels[0]], strict=True))))
    return folder


def test_labels_of_other_classes_are_told_loudly(many, tmp_path, capsys):
    plain = ["--method", "cam", "--refine", "none", "--scales", "224"]
    assert _label(many / "labels.csv", tmp_path / "right", *plain) == 0
    assert "WARNING" not in capsys.readouterr().err
    summary = json.loads((tmp_path / "right" / "summary.json").read_text())
    assert summary["warnings"] == [] and summary["in_doubt"] == {"images": 0, "of": 10, "labels": {}}
    wrong = [*plain, "--label-map", str(many / "shifted.json")]
    assert _label(many / "labels.csv", tmp_path / "wrong", *wrong) == 0
    err = capsys.readouterr().err
    assert "WARNING: on 10 of 10 images the network gives every label less than chance (1 of 1,000)" in err
    summary = json.loads((tmp_path / "wrong" / "summary.json").read_text())
    assert f"WARNING: {summary['warnings'][0]}" in err and len(summary["warnings"][0]) < 500, "a page shows so much"
    assert summary["in_doubt"]["labels"]["tripod"] == {"images": 2, "of": 2}
    assert "every label less than chance" in (tmp_path / "wrong" / "report.html").read_text()
    assert main(["rebox", "--run", str(tmp_path / "wrong"), "--output", str(tmp_path / "again")]) == 0
    assert "WARNING: on 10 of 10 images" in capsys.readouterr().err


def test_a_pipeline_of_ones_own_asks_for_names_too(folders, weights, tmp_path):
    """Elsewhere a label without a class costs its image alone; here it would be every image."""
    images = [
        LabeledImage(f"{label}/a.png", (label,), (folders / label / "a.png").read_bytes()) for label in ("1", "2")
    ]
    spec = ModelSpec("resnet18", weights(3), 64, device="cpu")

    def job(spec, label_map=None):
        with beam.Pipeline(runner=FnApiRunner()) as p:
            shards = p | beam.Create(images) | BatchImages(2, categories=["1", "2"])
            infer = InferClassMaps(spec, "cam", label_map=label_map)
            shards | infer | BoxesFromMaps(0.25) | WriteCoco(str(tmp_path / "out"))

    with pytest.raises(Exception, match="the network has 3 classes without names"):
        job(spec)
    job(dataclasses.replace(spec, classes=("1", "10", "2")))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["images"]["skipped"] == summary["images"]["rejected"] == 0 and summary["in_doubt"]["of"] == 2
