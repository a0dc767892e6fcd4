import contextlib
import csv
import io
import json
import shutil

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camboxes.models import ModelSpec, load_classifier
from camboxes.pipeline.cli import main
from camboxes.pipeline.training.data import TrainingData

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 230)


pytestmark = pytest.mark.usefixtures("one_core")


def _draw(path, *colours, seed=0):
    """Noise with a square of each colour, somewhere."""
    random = np.random.default_rng([seed, *path.name.encode()])
    pixels = random.integers(90, 160, (64, 96, 3)).astype(np.uint8)
    for colour in colours:
        y, x = random.integers(0, (32, 64))
        pixels[y : y + 32, x : x + 32] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Two class folders of ten images each."""
    folder = tmp_path_factory.mktemp("squares")
    for number in range(10):
        _draw(folder / "red" / f"{number}.png", RED)
        _draw(folder / "green" / f"{number}.png", GREEN)
    return folder


def _train(data, output, *options):
    # Small and short, for the sake of time: maps of 2 x 2 cells.
    call = ["train", "--input", str(data), "--output", str(output), "--size", "64", "--epochs", "3", *options]
    return main(call)


def _described(output):
    return json.loads((output / "classifier.json").read_text())


@pytest.fixture(scope="module")
def said():
    """What the training of `trained` printed: stdout, stderr."""
    return io.StringIO(), io.StringIO()


@pytest.fixture(scope="module")
def trained(squares, said, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "classifier"
    with contextlib.redirect_stdout(said[0]), contextlib.redirect_stderr(said[1]):
        assert _train(squares, output) == 0
    return output


def test_what_is_written(trained):
    assert {path.name for path in trained.iterdir()} == {
        "weights.safetensors", "classifier.json", "training.json"
    }  # fmt: skip
    described = _described(trained)
    assert described["network"] == "gap:timm:tf_efficientnet_lite0" and described["multilabel"] is False
    assert described["class_names"] == [["green"], ["red"]]
    training = described["training"]
    assert training["images"] == {"training": 16, "validation": 4, "rejected": 0}
    assert training["labels"] == {label: {"training": 8, "validation": 2} for label in ("green", "red")}
    assert training["metrics"] == {"mean_class_accuracy": 1.0, "top1_accuracy": 1.0}
    assert training["guessing"] == {"mean_class_accuracy": 0.5, "top1_accuracy": 0.5}
    assert training["settings"]["seed"] == 0 and training["settings"]["train"] == "head"


def test_the_classifier_knows_the_classes(trained, squares):
    classifier = load_classifier(ModelSpec(str(trained)))
    assert classifier.inexact_because is None and classifier.spec.size == 64
    for label in ("green", "red"):
        pixels = [np.array(Image.open(path)) for path in sorted((squares / label).iterdir())]
        images = [classifier.preprocessing.resize(image) for image in pixels]
        logits = np.concatenate([classifier.infer(image[None]).logits for image in images])
        assert [classifier.class_names[index] for index in logits.argmax(1)] == [(label,)] * 10


def test_label_takes_it(trained, squares, tmp_path, annotations):
    call = ["label", "--input", str(squares), "--output", str(tmp_path / "boxes"), "--model", str(trained)]
    assert main(call) == 0
    categories = {category["name"]: category["id"] for category in annotations(tmp_path / "boxes")["categories"]}
    assert set(categories) == {"green", "red"}
    summary = json.loads((tmp_path / "boxes" / "summary.json").read_text())
    assert summary["settings"]["rule"]["threshold"] == "1*otsu", "as of every other network"
    assert summary["images"]["planned"] == 20 and summary["images"]["skipped"] == summary["images"]["rejected"] == 0


def test_what_is_said(trained, said, squares):
    out, err = (stream.getvalue().splitlines() for stream in said)
    assert err == [
        "20 images, 2 labels, one an image (softmax); timm:tf_efficientnet_lite0 at 64 on cpu: "
        "its head, on frozen features",
        "it is trained as its GAP conversion, gap:timm:tf_efficientnet_lite0",
    ]
    assert out == [
        "mean class accuracy 100.0% on validation images (guessing: 50.0%)",
        "top1 accuracy 100.0% on validation images (guessing: 50.0%)",
        "the epoch was chosen on the same images, so these figures are too optimistic, most of all with few images",
        f"wrote {trained}/weights.safetensors, {trained}/classifier.json",
        f"draw boxes: camboxes label --model {trained} --input {squares} --output {trained}-boxes",
    ]


def test_the_same_call_again_and_others(trained, squares, tmp_path, capsys):
    before = (trained / "weights.safetensors").read_bytes()
    assert _train(squares, trained) == 0
    assert "holds this training, finished" in capsys.readouterr().out
    assert _train(squares, trained, "--epochs", "2", "--seed", "1") == 2
    assert (
        "holds another training: the call asks for epochs 2 instead of 3, seed 1 instead of 0."
        in capsys.readouterr().err
    )
    shutil.copytree(squares, tmp_path / "elsewhere")  # the same paths and labels
    assert _train(tmp_path / "elsewhere", trained) == 2
    assert f"the images lay below '{squares}', lie below '{tmp_path}/elsewhere'" in capsys.readouterr().err
    (tmp_path / "data").symlink_to(squares)
    assert _train(tmp_path / "data", trained) == 0, "the images are the same"
    _draw(tmp_path / "less" / "red" / "0.png", RED)
    _draw(tmp_path / "less" / "green" / "0.png", GREEN)
    assert _train(tmp_path / "less", trained) == 2
    assert "the input's paths or labels changed (20 images then, 2 now)" in capsys.readouterr().err
    assert (trained / "weights.safetensors").read_bytes() == before
    output = tmp_path / "again"
    assert _train(squares, output, "--seed", "1") == 0
    assert _train(squares, output, "--overwrite") == 0
    assert (output / "weights.safetensors").read_bytes() == before, "the same call gives the same bytes"
    assert (output / "classifier.json").read_bytes() == (trained / "classifier.json").read_bytes()


def test_an_interrupted_training_goes_on(trained, squares, tmp_path, monkeypatch, capsys):
    from camboxes.models.training.lightning_module import TrainingModule
    from camboxes.pipeline.training import inputs

    monkeypatch.setattr(inputs, "_CHUNK", 8)
    read = inputs.decode
    seen = []

    def decode(data):
        seen.append(data)
        if len(seen) == 12:
            raise KeyboardInterrupt
        return read(data)

    def interrupt(*_):
        raise KeyboardInterrupt

    output = tmp_path / "c"
    with monkeypatch.context() as patched:
        patched.setattr(inputs, "decode", decode)
        assert _train(squares, output) == 130
        said = "camboxes train: interrupted: finished epochs are kept; the same command continues\n"
        assert capsys.readouterr().err.endswith(said)
        assert [path.name for path in sorted((output / "features").iterdir())] == ["000000.json", "000000.npy"]
    with monkeypatch.context() as patched:
        patched.setattr(TrainingModule, "training_step", interrupt)
        seen.clear()
        patched.setattr(inputs, "decode", lambda data: seen.append(data) or read(data))
        assert _train(squares, output) == 130
        assert len(seen) == 20 - 8, "the first chunk is not read again"
    assert capsys.readouterr().err.endswith(said)
    assert not (output / "classifier.json").exists()
    assert _train(squares, output) == 0
    assert (output / "weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()


def test_several_labels_an_image(tmp_path, capsys):
    kinds = {"r": (RED,), "g": (GREEN,), "rg": (RED, GREEN), "none": ()}
    with (tmp_path / "images.jsonl").open("w") as manifest:
        for kind, colours in kinds.items():
            for number in range(8):
                _draw(tmp_path / "images" / f"{kind}{number}.png", *colours)
                labels = [name for name, colour in {"red": RED, "green": GREEN}.items() if colour in colours]
                print(json.dumps({"path": f"images/{kind}{number}.png", "labels": labels}), file=manifest)
    assert _train(tmp_path / "images.jsonl", tmp_path / "c") == 0
    out, err = capsys.readouterr()
    assert "32 images, 2 labels, any number of them an image (sigmoid)" in err
    assert "mean average precision" in out
    described = _described(tmp_path / "c")
    assert described["multilabel"] is True and described["class_names"] == [["green"], ["red"]]
    # Strata by the rarest label, of equally rare ones the first: 16 of green (g and rg), 8 of red, 8 without.
    assert described["training"]["images"] == {"training": 32 - 3 - 2 - 2, "validation": 7, "rejected": 0}
    assert described["training"]["metrics"]["mean_average_precision"] > 0.9
    guess = [described["training"]["labels"][label]["validation"] / 7 for label in ("green", "red")]
    assert described["training"]["guessing"]["mean_average_precision"] == pytest.approx(np.mean(guess), abs=1e-4)


def test_a_table_with_other_columns(squares, tmp_path, capsys):
    """Names without an ending and several colours in a cell; the call that follows has the same options."""
    rows = [
        f"{colour}/{number},{colour}" + ";round" * (number < 4) for colour in ("red", "green") for number in range(10)
    ]
    (tmp_path / "m.csv").write_text("\n".join(["id,colour", *rows]))
    options = ["--root", str(squares), "--label-column", "colour", "--label-separator", ";"]
    assert _train(tmp_path / "m.csv", tmp_path / "c", *options) == 0
    assert _described(tmp_path / "c")["class_names"] == [["green"], ["red"], ["round"]]
    out, err = capsys.readouterr()
    assert "images from the column id, labels from the column colour, separated by ';'\n" in err
    assert "names without an ending: 20, such as red/0, found as red/0.png\n" in err
    assert f"--input {tmp_path}/m.csv --root {squares} --label-column colour --label-separator ';' --output" in out
    assert _train(tmp_path / "m.csv", tmp_path / "c", *options[:-2]) == 2
    assert "the input's paths or labels changed (20 images then, 20 now)" in capsys.readouterr().err


def test_one_label_and_images_without_it(squares, tmp_path):
    rows = [(f"{label}/{n}.png", label if label == "red" else "") for label in ("red", "green") for n in range(10)]
    (tmp_path / "images.csv").write_text("".join(f"{path},{label}\n" for path, label in [("path", "label"), *rows]))
    assert _train(tmp_path / "images.csv", tmp_path / "c", "--root", str(squares)) == 0
    described = _described(tmp_path / "c")
    assert described["multilabel"] is True and described["class_names"] == [["red"]]
    assert described["training"]["metrics"] == {"mean_average_precision": 1.0}


def test_bad_images_and_empty_folders(squares, tmp_path, capsys):
    data = tmp_path / "data"
    for label in ("red", "green"):
        (data / label).mkdir(parents=True)
        for path in sorted((squares / label).iterdir())[:4]:
            (data / label / path.name).write_bytes(path.read_bytes())
    (data / "red" / "cut.png").write_bytes((squares / "red" / "9.png").read_bytes()[:900])
    (data / "broken").mkdir()
    (data / "broken" / "a.jpg").write_bytes(b"")
    (data / "broken" / "b.jpg").write_bytes(b"no image")
    (data / "empty").mkdir()
    _draw(data / "alone" / "0.png", BLUE)
    assert _train(data, tmp_path / "c") == 0
    said = capsys.readouterr().err.splitlines()
    assert said[2:] == [
        "WARNING: labels without an image, because no file in their folders is read: empty (1, such as empty/)",
        "1 file passed over, an empty folder: 1 without an ending (empty/)",
        f"images that cannot be used: 3 (1 empty, 1 not_an_image, 1 truncated); see {tmp_path}/c/rejected.csv",
        "labels without a usable image are left out: broken",
        "labels with too few pictures to validate on are only trained on: alone",
    ]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "c" / "rejected.csv").read_text())))
    assert [row["path"] for row in rows] == ["broken/a.jpg", "broken/b.jpg", "red/cut.png"]
    assert rows[0]["reason"] == "empty: the file has no bytes"
    training = _described(tmp_path / "c")["training"]
    assert training["images"] == {"training": 7, "validation": 2, "rejected": 3}
    assert training["labels"]["alone"] == {"training": 1, "validation": 0}
    assert set(training["labels"]) == {"alone", "green", "red"}


def test_too_few_images_to_validate(photographs, tmp_path, capsys):
    assert _train(photographs, tmp_path / "c", "--epochs", "30") == 0
    out, err = capsys.readouterr()
    assert "no images to validate on: the last epoch is kept, and its accuracy is unknown" in err
    assert "on validation images" not in out
    training = _described(tmp_path / "c")["training"]
    assert (training["epochs"], training["metrics"]) == (30, {})
    classifier = load_classifier(ModelSpec(str(tmp_path / "c")))
    for path in photographs.glob("*/*"):
        image = classifier.preprocessing.resize(np.array(Image.open(path).convert("RGB")))
        assert classifier.class_names[classifier.infer(image[None]).logits.argmax()] == (path.parent.name,)


def test_everything_is_trained(trained, squares, tmp_path, capsys):
    from safetensors.numpy import load_file

    for name in ("all", "again"):
        assert _train(squares, tmp_path / name, "--train", "all", "--epochs", "2") == 0
    assert "its head, then everything" in capsys.readouterr().err
    found, again = (load_file(tmp_path / name / "weights.safetensors") for name in ("all", "again"))
    assert all(np.array_equal(found[name], again[name]) for name in found), "the same call gives the same weights"
    before = load_file(trained / "weights.safetensors")
    assert not np.array_equal(found["features.network.conv_stem.weight"], before["features.network.conv_stem.weight"])
    name = "features.network.bn1.running_mean"
    assert np.array_equal(found[name], before[name]), "norms keep their statistics"
    assert _described(tmp_path / "all")["training"]["metrics"]["top1_accuracy"] == 1.0


def test_a_training_can_begin_with_another(trained, squares, tmp_path):
    call = ["train", "--input", str(squares), "--output", str(tmp_path / "c"), "--model", str(trained), "--epochs", "3"]
    assert main(call) == 0
    described = _described(tmp_path / "c")
    assert described["network"] == "gap:timm:tf_efficientnet_lite0" and described["preprocessing"]["size"] == 64
    # The features are the same, so that the new head becomes the same.
    assert (tmp_path / "c" / "weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()


def test_finer_maps(squares, tmp_path):
    assert _train(squares, tmp_path / "c", "--map-stride", "16", "--model", "gap:efficientnet_lite0") == 0
    assert _described(tmp_path / "c")["map_stride"] == 16
    assert load_classifier(ModelSpec(str(tmp_path / "c"))).preprocessing.stride == 16


def _split(labels, share, seed):
    return TrainingData("root", labels, multilabel=True).split(share, seed, {path: path for path in labels})


def test_the_split():
    labels = {f"{n}.png": ("a",) for n in range(10)} | {f"b{n}.png": ("b",) for n in range(2)} | {"c.png": ("c",)}
    learn, judge = _split(labels, 0.2, seed=0)
    assert sorted(learn + judge) == sorted(labels)
    assert sorted(labels[path] for path in judge) == [("a",), ("a",), ("b",)]
    assert _split(dict(reversed(labels.items())), 0.2, seed=0)[1] == judge[::-1], "their order does not matter"
    assert {*_split(labels, 0.2, seed=1)[1]} != {*judge}
    assert _split(labels, 0, seed=0) == ([*labels], [])
    # Only images without a label could be judged by: they tell nothing.
    assert _split({"0": ("a",), "1": (), "2": ()}, 0.5, seed=0) == (["0", "1", "2"], [])


def test_no_label_is_left_to_validation_alone():
    labels = {"0": ("a", "z"), "1": ("a",), "2": ("b", "z"), "3": ("b",)}
    for seed in range(50):
        learn, judge = _split(labels, 0.5, seed)
        assert {label for path in learn for label in labels[path]} == {"a", "b", "z"}
        assert sorted(learn + judge) == ["0", "1", "2", "3"]


def test_wrong_calls(squares, tmp_path, capsys, monkeypatch):
    def refused(data, *options):
        assert _train(data, tmp_path / "c", *options) == 2
        assert not (tmp_path / "c").exists()
        return capsys.readouterr().err

    _draw(tmp_path / "one" / "red" / "0.png", RED)
    assert "all images are labelled 'red', so there is nothing to compare it with; add photographs of other things" in (
        said := refused(tmp_path / "one")
    )
    assert "--background other" in said
    (tmp_path / "none.csv").write_text("path,label\none/red/0.png,\n")
    assert "no image of the input has a label; expected LABEL/IMAGE.jpg in folders" in refused(tmp_path / "none.csv")
    assert "--validation is 1.0; expected a share from 0 to less than 1" in refused(squares, "--validation", "1")
    assert "--epochs is 0; expected at least 1" in refused(squares, "--epochs", "0")
    assert "unknown option --runner=x" in refused(squares, "--runner=x")
    assert _train(squares, squares) == 2
    assert "is the input itself" in capsys.readouterr().err
    assert "nearest names" in refused(squares, "--model", "efficientnet_lite9")
    (tmp_path / "own" / "features").mkdir(parents=True)
    assert _train(squares, tmp_path / "own", "--overwrite") == 2
    assert "holds features, which are not from a training" in capsys.readouterr().err
    assert (tmp_path / "own" / "features").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'not installed: pip install ".[train]" (in the clone)' in refused(squares)


def test_noise_labels_on_copies_report_what_guessing_gives(tmp_path, capsys):
    """Four files of each picture, two of them encoded or resized anew: without regard to copies it is 83%."""
    random = np.random.default_rng(0)
    for number in range(100):
        label = "ab"[random.integers(2)]
        _draw(tmp_path / "data" / label / f"{number}.png", *random.integers(0, 256, (6, 3)))
        picture = Image.open(tmp_path / "data" / label / f"{number}.png")
        picture.save(tmp_path / "data" / label / f"{number}-again.png")
        picture.save(tmp_path / "data" / label / f"{number}-encoded.jpg", quality=90)
        picture.resize((192, 128), Image.Resampling.BICUBIC).save(tmp_path / "data" / label / f"{number}-large.png")
    assert _train(tmp_path / "data", tmp_path / "c", "--epochs", "30", "--seed", "1") == 0
    training = _described(tmp_path / "c")["training"]
    assert training["copies"] == {"images": 300, "with_other_labels": 0}
    assert training["images"] == {"training": 320, "validation": 80, "rejected": 0}
    assert training["metrics"]["mean_class_accuracy"] < 0.65
    said = capsys.readouterr()
    assert (
        "copies of other images: 300, such as a/11-encoded.jpg of a/11-again.png: 100 of the same bytes, " in said.err
    )
    assert f"200 encoded or resized again; see {tmp_path}/c/copies.csv" in said.err
    assert (
        "the epoch was chosen on the same images, so these figures are too optimistic, most of all with few images"
        in said.out
    )
    assert training["epoch_chosen_on"] == "validation"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "c" / "copies.csv").read_text())))
    assert len(rows) == 300
    assert rows[0] == {"path": "a/11-encoded.jpg", "copy_of": "a/11-again.png", "kind": "looks alike"}
    assert rows[2] == {"path": "a/11.png", "copy_of": "a/11-again.png", "kind": "same bytes"}


def test_one_photograph_in_two_folders_of_labels(squares, tmp_path, capsys):
    shutil.copytree(squares, tmp_path / "data")
    for number in range(3):
        shutil.copy(squares / "red" / f"{number}.png", tmp_path / "data" / "green" / f"red{number}.png")
    assert _train(tmp_path / "data", tmp_path / "c") == 0
    assert (
        "WARNING: images of the same bytes with other labels: 3, such as red/0.png (red) and green/red0.png (green); "
        "if one label is wrong, remove that copy; if both are right, name the image once, with both labels, "
        "in a table. Now each is trained on as it is\n"
    ) in capsys.readouterr().err
    described = _described(tmp_path / "c")
    assert described["multilabel"] is False, "three strays do not make another problem of it"
    assert described["training"]["copies"] == {"images": 3, "with_other_labels": 3}
    kinds = [row["kind"] for row in csv.DictReader(io.StringIO((tmp_path / "c" / "copies.csv").read_text()))]
    assert kinds == ["same bytes, other labels"] * 3


def test_copies_in_a_manifest_of_several_labels_have_the_labels_of_each(squares, tmp_path, capsys):
    shutil.copytree(squares, tmp_path / "data")
    shutil.copy(squares / "red" / "0.png", tmp_path / "data" / "copy.png")
    rows = [("path", "label"), ("copy.png", "green"), ("red/1.png", "")]
    rows += [(f"{label}/{n}.png", label) for label in ("red", "green") for n in range(10) if (label, n) != ("red", 1)]
    (tmp_path / "data" / "images.csv").write_text("".join(f"{path},{label}\n" for path, label in rows))
    assert _train(tmp_path / "data" / "images.csv", tmp_path / "c") == 0
    assert "such as red/0.png (red) and copy.png (green);" in capsys.readouterr().err
    labels = _described(tmp_path / "c")["training"]["labels"]
    assert {label: sum(sides.values()) for label, sides in labels.items()} == {"green": 10 + 2, "red": 9 + 1}


@given(st.data())
def test_copies_are_on_one_side(data):
    labels, first = {}, {}
    for number in range(data.draw(st.integers(1, 20))):
        copies = [f"{number:02d}{letter}" for letter in "abcd"[: data.draw(st.integers(1, 4))]]
        first |= dict.fromkeys(copies, copies[0])
        labels |= {path: tuple(sorted(data.draw(st.sets(st.sampled_from("xyz"), max_size=2)))) for path in copies}
    learn, judge = TrainingData("root", labels, multilabel=True).split(data.draw(st.sampled_from([0.2, 0.5])), 0, first)
    assert sorted(learn + judge) == sorted(labels)
    assert not {first[path] for path in learn} & {first[path] for path in judge}
    assert {label for path in judge for label in labels[path]} <= {label for path in learn for label in labels[path]}


@pytest.fixture
def split(squares, tmp_path):
    """train/, valid/ and test/, each with class folders."""
    for label in ("red", "green"):
        for number in range(10):
            folder = "train" if number < 6 else "valid" if number < 9 else "test"
            target = tmp_path / "split" / folder / label / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(squares / label / f"{number}.png", target)
    return tmp_path / "split"


def test_a_split_by_folders_is_taken(split, tmp_path, capsys):
    assert _train(split, tmp_path / "c") == 0
    said = capsys.readouterr().err
    assert "12 images" not in said and "18 images, 2 labels, one an image (softmax)" in said
    assert (
        "the split of the folders is taken: test is left out (2 images), train is trained on, valid is validated on\n"
    ) in said
    training = _described(tmp_path / "c")["training"]
    assert training["images"] == {"training": 12, "validation": 6, "rejected": 0}
    assert training["labels"] == {label: {"training": 6, "validation": 3} for label in ("green", "red")}
    assert training["settings"]["splits"] == {"train": "train", "valid": "val", "test": "test"}
    assert training["settings"]["validation"] is None
    assert training["metrics"]["top1_accuracy"] == 1.0
    assert _train(split, tmp_path / "d", "--validation", "0.5") == 2
    assert (
        "--validation is 0.5, and the input comes split, in folders test, train, valid; leave --validation out, or "
        "name a table of all images to split them anew"
    ) in capsys.readouterr().err


def test_what_is_trained_on_is_not_validated_on(split, tmp_path, capsys):
    shutil.copy(split / "train" / "red" / "0.png", split / "valid" / "red" / "0.png")
    Image.open(split / "train" / "green" / "1.png").save(split / "valid" / "green" / "1.jpg", quality=90)
    _draw(split / "valid" / "blue" / "0.png", BLUE)
    assert _train(split, tmp_path / "c") == 0
    said = capsys.readouterr().err
    assert (
        "WARNING: images to validate on that are copies of images to train on: 2, such as valid/green/1.jpg of "
        "train/green/1.png; they are left out, because they would make the figures too optimistic"
    ) in said
    assert "labels without images to train on are left out: blue" in said
    described = _described(tmp_path / "c")
    assert described["class_names"] == [["green"], ["red"]]
    assert described["training"]["images"] == {"training": 12, "validation": 6, "rejected": 0}


def test_splits_without_validation_or_training(split, tmp_path, capsys):
    shutil.rmtree(split / "valid")
    assert _train(split, tmp_path / "c", "--validation", "0.5") == 0
    training = _described(tmp_path / "c")["training"]
    assert training["images"] == {"training": 6, "validation": 6, "rejected": 0}
    assert "test is left out (2 images), train is trained on\n" in capsys.readouterr().err
    shutil.rmtree(split / "train")
    assert _train(split, tmp_path / "d") == 2
    assert (
        "the input has the splits test, and none to train on; expected a folder train, or, to train on all images of "
        "such a folder, its own path"
    ) in capsys.readouterr().err


def test_a_transformers_conversion_gives_ts_cam(squares, tmp_path, capsys):
    torch.manual_seed(0)
    network = timm.create_model("test_vit")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model = ("--model", "timm:test_vit", "--weights", str(tmp_path / "w.pth"))
    assert _train(squares, tmp_path / "out", *model) == 0
    classifier = load_classifier(str(tmp_path / "out"))
    assert classifier.inexact_because is None and classifier.weight.shape == (2, network.num_features)
    trained = classifier.network.features.network.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())
    call = ["label", "--input", str(squares), "--output", str(tmp_path / "boxes"), "--model", str(tmp_path / "out")]
    assert main([*call, "--method", "tscam+chefer", "--shards", "1"]) == 0, capsys.readouterr().err
    summary = json.loads((tmp_path / "boxes" / "summary.json").read_text())
    assert summary["settings"]["method"] == "tscam+chefer"
