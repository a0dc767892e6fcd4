"""Labels in words: `camboxes label --prompts` with a small dual encoder of random weights, from a local file."""

import json

import open_clip
import pytest
import torch

from camboxes.pipeline.cli import main

PROMPTS = "Egyptian cat: cat, tabby\nespresso\n\nmilitary uniform\nmoped\ntripod\nzebra\n"


_TOWERS = {
    "small-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "small-transformer": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The options that name each."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("networks")
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    for name, tower in _TOWERS.items():
        config = {"embed_dim": 16, "vision_cfg": tower, "text_cfg": text}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    for name in _TOWERS:
        save_file(open_clip.create_model(name).state_dict(), folder / f"{name}.safetensors")
    return {
        name: ["--model", f"open_clip:{name}", "--weights", str(folder / f"{name}.safetensors")] for name in _TOWERS
    }


@pytest.fixture
def network(networks):
    """Those of one with convolutions."""
    return networks["small-resnet"]


@pytest.fixture
def prompts(tmp_path):
    """A file of prompts."""
    (tmp_path / "labels.txt").write_text(PROMPTS, encoding="utf-8-sig")
    return ["--prompts", str(tmp_path / "labels.txt")]


def _label(photographs, output, *options):
    return main(["label", "--input", str(photographs), "--output", str(output), "--method", "layercam", *options])


def test_labels_in_words(network, prompts, photographs, annotations, rows, results, tmp_path, capsys):
    assert _label(photographs, tmp_path / "boxes", *network, *prompts) == 0
    names = ["Egyptian cat", "espresso", "military uniform", "moped", "tripod"]
    assert [category["name"] for category in annotations(tmp_path / "boxes")["categories"]] == names
    found = rows(tmp_path / "boxes")
    assert sorted(label["label"] for row in found for label in row["labels"]) == names
    assert {row["status"] for row in found} <= {"ok", "no_box"} and any(row["boxes"] for row in found)
    described = json.loads((tmp_path / "boxes/plan/classifier.json").read_text())
    assert described["network"] == "open_clip:small-resnet"
    assert described["class_names"] == [["Egyptian cat", "cat", "tabby"], *([name] for name in [*names[1:], "zebra"])]

    # Its plan is a network like any other: without the file of prompts, to the same boxes.
    assert _label(photographs, tmp_path / "again", "--model", str(tmp_path / "boxes/plan")) == 0
    assert results(tmp_path / "again")["results.json"] == results(tmp_path / "boxes")["results.json"]

    # Given again it goes on; with other words it is another run.
    assert _label(photographs, tmp_path / "boxes", *network, *prompts) == 0
    (tmp_path / "labels.txt").write_text(PROMPTS.replace("tabby", "tiger"))
    assert _label(photographs, tmp_path / "boxes", *network, *prompts) == 2
    assert "the call asks for other class names, other weights" in capsys.readouterr().err


def test_tokens_in_words(networks, prompts, photographs, rows, tmp_path):
    """At two sizes, in the photographs' own aspect ratios, refined: all that `label` does by default."""
    assert _label(photographs, tmp_path / "boxes", *networks["small-transformer"], *prompts) == 0
    found = rows(tmp_path / "boxes")
    assert len(found) == 5 and {row["status"] for row in found} <= {"ok", "no_box"}
    [cat] = [row for row in found if row["labels"][0]["label"] == "Egyptian cat"]
    assert (cat["maps"][0]["height"], cat["maps"][0]["width"]) == (8, 12)  # 128 x 192 of 300 x 451 pixels, in patches


def test_explaining_in_words(network, prompts, photographs, tmp_path, capsys):
    picture = str(photographs / "Egyptian cat/chelsea.png")
    call = ["explain", picture, *network, *prompts, "--method", "gradcam,layercam@16", "--labels", "Zebra,tabby"]
    assert main([*call, "--output", str(tmp_path / "grid.png")]) == 0
    assert [line.rpartition(" ")[0].strip() for line in capsys.readouterr().out.splitlines()[:2]] == [
        "zebra",
        "Egyptian cat",
    ]


def test_labels_without_words(network, prompts, photographs, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text(PROMPTS.replace("moped\n", ""))
    assert _label(photographs, tmp_path / "boxes", *network, *prompts) == 2
    told = capsys.readouterr().err
    assert (
        "no single class of the network matches 1 of 5 labels" in told and "'moped' is not the name of a class" in told
    )
    assert "--model open_clip:NAME --prompts FILE" in told


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "labels.txt': there is no file at this path"),
        (b"\xff\xfe", "labels.txt' are not text in UTF-8"),
        (b"cat\ncat\n", "prompts, line 2: the label 'cat' is there twice"),
    ],
)
def test_files_that_are_no_prompts(network, photographs, tmp_path, capsys, content, error):
    if content is not None:
        (tmp_path / "labels.txt").write_bytes(content)
    assert _label(photographs, tmp_path / "boxes", *network, "--prompts", str(tmp_path / "labels.txt")) == 2
    assert error in capsys.readouterr().err


def test_words_are_not_trained(network, photographs, tmp_path, capsys):
    call = ["train", "--input", str(photographs), "--output", str(tmp_path / "ckpt")]
    assert main([*call, *network]) == main([*call, "--model", "gap:open_clip:small-resnet"]) == 2
    assert capsys.readouterr().err.count("camboxes label --model open_clip:small-resnet --prompts FILE") == 2
