import json
import sys

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional

from camboxes.models import Localizer, MapSpec, ModelSpec, class_maps, load_classifier
from camboxes.models.loading import load_for_elsewhere
from camboxes.models.networks.prompts import Prompt, embed, read_prompts

PROMPTS = ("cat", "", "coffee_mug", "couch: couch, sofa")
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
TOWERS = {
    "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "tiny-transformer": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "tiny-timm": {"image_size": 64, "timm_model_name": "test_resnet", "timm_pool": "", "timm_proj": "linear"},
    "one-size": {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": None},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files with random weights of small dual encoders, by name, that open_clip then knows."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("open_clip")
    configs = {name: {"embed_dim": 24, "vision_cfg": tower, "text_cfg": _TEXT} for name, tower in TOWERS.items()}
    configs["tiny-transformer"]["quick_gelu"] = True
    configs["tiny-mean"] = {
        **configs["tiny-transformer"],
        "vision_cfg": TOWERS["tiny-transformer"] | {"pool_type": "avg"},
    }
    configs["tiny-bias"] = configs["tiny-resnet"] | {"init_logit_bias": -10}
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    for name in configs:
        model = open_clip.create_model(name)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim:  # norms included, that begin with ones and zeros
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in configs}


@pytest.fixture
def load(weights):
    """Loads a network with prompts as open_clip has it, and as it is used here."""

    def load(name, **options):
        model = open_clip.create_model(name, weights[name]).eval()
        spec = ModelSpec(f"open_clip:{name}", weights[name], precision="fp32", prompts=PROMPTS, **options)
        return model, load_classifier(spec)

    return load


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("dog", "  ", " hot dog "), [Prompt("dog", ("dog",)), Prompt("hot dog", ("hot dog",))]),
        (("traffic_light",), [Prompt("traffic_light", ("traffic light",))]),
        (("bat, baseball",), [Prompt("bat, baseball", ("bat, baseball",))]),
        (("crane: construction crane",), [Prompt("crane", ("construction crane",))]),
        (("couch : couch,sofa , ",), [Prompt("couch", ("couch", "sofa"))]),
    ],
)
def test_reading_prompts(lines, expected):
    assert read_prompts(lines) == expected


def test_all_that_a_class_is_called_matches_labels():
    assert Prompt("couch", ("sofa", "couch")).class_names == ("couch", "sofa")


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ((), "there is no label; expected one a line"),
        ((" ",), "there is no label"),
        (("a", "b", "a: c"), "line 3: the label 'a' is there twice; remove one of them"),
        (("a", "b:"), "line 2: 'b:' is not LABEL, or LABEL: NAME, NAME"),
        ((": c",), "line 1: ': c' is not LABEL"),
    ],
)
def test_prompts_that_cannot_be_read(lines, error):
    with pytest.raises(ValueError, match=error):
        read_prompts(lines)


def test_embeddings_of_texts_one_by_one(weights):
    """Each text by itself, at its full length of 77 tokens, in float64."""
    model = open_clip.create_model("tiny-resnet", weights["tiny-resnet"]).eval()
    tokenizer = open_clip.get_tokenizer("tiny-resnet")
    slow = open_clip.create_model("tiny-resnet", weights["tiny-resnet"]).eval().double()
    expected = []
    for names in (["cat"], ["coffee mug"], ["couch", "sofa"]):
        of_names = []
        for name in names:
            texts = [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
            assert len(texts) == 80
            with torch.no_grad():
                found = np.concatenate([slow.encode_text(tokenizer([text])).numpy() for text in texts])
            mean = (found / np.linalg.norm(found, axis=1, keepdims=True)).mean(0)
            of_names.append(mean / np.linalg.norm(mean))
        mean = np.mean(of_names, axis=0)
        expected.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(embed(model, tokenizer, read_prompts(PROMPTS)), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny-resnet", "tiny-transformer", "tiny-mean", "tiny-timm", "tiny-bias", "one-size"])
def test_logits_are_open_clips_own(load, name):
    model, classifier = load(name)
    size = classifier.preprocessing.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    tokenizer = open_clip.get_tokenizer(name)
    texts = open_clip.build_zero_shot_classifier(
        model, tokenizer, ["cat", "coffee mug"], open_clip.OPENAI_IMAGENET_TEMPLATES
    )
    with torch.no_grad():
        expected = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ texts
    if name == "tiny-bias":
        expected = expected + model.logit_bias.detach()
    found = classifier(images).logits
    torch.testing.assert_close(found[:, :2], expected, rtol=1e-4, atol=1e-4)
    assert classifier.multilabel is (name == "tiny-bias")
    assert classifier.class_names == [("cat",), ("coffee_mug", "coffee mug"), ("couch", "sofa")]
    assert (size, classifier.preprocessing.interpolation) == (224 if name == "one-size" else 64, "bicubic")
    assert classifier.preprocessing.mean == open_clip.OPENAI_DATASET_MEAN


def _resnet_features(visual, images):
    return visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_gradient_cams_of_the_resnet_by_autograd(load, size):
    """By open_clip's own pooling; at another size with position embeddings resampled as for any vision transformer."""
    model, classifier = load("tiny-resnet")
    classifier.network.head.weight.normal_(generator=torch.Generator().manual_seed(1))  # as unlike as texts are
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    maps = _resnet_features(model.visual, images).detach().requires_grad_()
    pool, cells = model.visual.attnpool, (size[0] // 32, size[1] // 32)
    first, *rest = pool.positional_embedding.detach()
    grid = torch.stack(rest).T.unflatten(1, (2, 2))[None]
    grid = functional.interpolate(grid, cells, mode="bicubic", antialias=True)
    pool.positional_embedding = torch.nn.Parameter(torch.cat([first[None], grid[0].flatten(1).T]))
    logits = functional.normalize(pool(maps), dim=1) @ classifier.network.head.weight.T
    expected: dict[str, list[torch.Tensor]] = {"gradcam": [], "layercam": [], "hirescam": []}
    for class_id in range(3):
        (gradients,) = torch.autograd.grad(logits[:, class_id].sum(), maps, retain_graph=True)
        expected["gradcam"].append(functional.relu((maps * gradients.mean((2, 3), keepdim=True)).sum(1)))
        expected["layercam"].append(functional.relu((functional.relu(gradients) * maps).sum(1)))
        expected["hirescam"].append((gradients * maps).sum(1))
    for method, by_class in expected.items():
        maps_by_hand = torch.stack(by_class, 1).detach()
        assert maps_by_hand.shape == (2, 3, *cells) and maps_by_hand.max() > 0
        found = class_maps(classifier, images, torch.arange(3).expand(2, 3), method)
        torch.testing.assert_close(found, maps_by_hand, rtol=1e-3, atol=1e-5)


def _attended(model, images):
    """What each attention of open_clip's own transformer is given, in a graph of gradients, and the embeddings."""
    given: list[torch.Tensor] = []
    blocks = model.visual.transformer.resblocks
    handles = [block.ln_1.register_forward_hook(lambda _, __, output: given.append(output)) for block in blocks]
    embeddings = model.visual(images)
    for handle in handles:
        handle.remove()
    return given, embeddings


def test_gradient_cams_of_the_transformer_by_autograd(load):
    """Of what the last attention is given: behind that, logits depend on the class token alone."""
    model, classifier = load("tiny-transformer")
    classifier.network.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    given, embeddings = _attended(model, IMAGES)
    logits = functional.normalize(embeddings, dim=1) @ classifier.network.head.weight.T
    (gradients,) = torch.autograd.grad(logits[0, 2] + logits[1, 0], given[-1])
    tokens, gradients = given[-1][:, 1:].detach(), gradients[:, 1:]
    ids = torch.tensor([[2], [0]])
    for method, expected in {
        "gradcam": functional.relu((tokens * gradients.mean(1, keepdim=True)).sum(2)),
        "layercam": functional.relu((tokens * functional.relu(gradients)).sum(2)),
    }.items():
        assert expected.max() > 0
        found = class_maps(classifier, IMAGES, ids, method)
        torch.testing.assert_close(found, expected.unflatten(1, (4, 4))[:, None], rtol=1e-3, atol=1e-5)


def test_rollout_of_the_transformer_by_its_own_attention(load):
    """Abnar and Zuidema 2020, equation 1: the product of (A + 1) / 2 over the layers, in the class token's row."""
    model, classifier = load("tiny-transformer")
    with torch.no_grad():
        given, _ = _attended(model, IMAGES)
        product = torch.eye(17)
        for block, tokens in zip(model.visual.transformer.resblocks, given, strict=True):
            product = (block.attn(tokens, tokens, tokens)[1] + torch.eye(17)) / 2 @ product
    found = class_maps(classifier, IMAGES, torch.tensor([[1], [1]]), "rollout")
    torch.testing.assert_close(found[:, 0], product[:, 0, 1:].unflatten(1, (4, 4)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny-resnet", "tiny-transformer", "tiny-timm", "tiny-bias"])
def test_a_checkpoint_holds_the_image_tower_alone(load, name, tmp_path, monkeypatch):
    _, classifier = load(name)
    for file, content in classifier.files().items():
        (tmp_path / file).write_bytes(content)
    for function in ("create_model", "get_tokenizer"):
        monkeypatch.setattr(open_clip, function, None)
    again = load_classifier(ModelSpec(str(tmp_path), precision="fp32"))
    assert torch.equal(again(IMAGES).logits, classifier(IMAGES).logits)
    assert again.settings == classifier.settings
    assert {key.partition(".")[0] for key in again.network.state_dict()} == {"tower", "head"}
    assert (again.class_names, again.multilabel) == (classifier.class_names, classifier.multilabel)
    assert again.preprocessing == classifier.preprocessing


@pytest.mark.parametrize("name", ["tiny-resnet", "tiny-transformer"])
def test_maps_do_not_depend_on_what_else_is_in_the_batch(load, name):
    _, classifier = load(name, batch_size=3)
    localizer = Localizer(classifier, MapSpec("layercam", scales=(64, 96)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3), dtype=np.uint8)
    first, second = (localizer.resize(image) for image in pixels)
    [alone] = localizer.localize([first], [[[0]]])
    beside = localizer.localize([first, second], [[[0]], [[2], [1], [0]]])
    assert np.array_equal(alone.maps, beside[0].maps) and np.array_equal(alone.logits, beside[0].logits)
    assert alone.maps.max() > 0 and not np.array_equal(beside[1].maps[0], beside[1].maps[1])


def test_a_tower_for_one_size(load):
    _, classifier = load("one-size")
    assert Localizer(classifier, MapSpec("layercam")).scales == (224,)
    with pytest.raises(ValueError, match="open_clip:one-size takes no images of 448 x 448 pixels"):
        Localizer(classifier, MapSpec("layercam", scales=(224, 448)))


def test_for_elsewhere(weights):
    spec = ModelSpec("open_clip:tiny-resnet", weights["tiny-resnet"], prompts=PROMPTS, precision="fp32")
    here = load_classifier(spec)
    there = load_for_elsewhere(ModelSpec(**{**vars(spec), "device": "cuda", "compile": "off"}))
    assert there.weights_sha256 == here.weights_sha256 and there.class_names == here.class_names


def test_cam_points_to_gradcam(load):
    _, classifier = load("tiny-resnet")
    with pytest.raises(ValueError, match="CAM is not exact for open_clip:tiny-resnet") as error:
        class_maps(classifier, IMAGES, torch.tensor([[0], [0]]))
    assert 'use method "gradcam" or "layercam"' in str(error.value) and "camboxes train" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        (
            "tiny-resnet",
            {"prompts": None},
            "open_clip:tiny-resnet has no classes of its own: give it prompts",
        ),
        (
            "tiny-resnet",
            {"weights": None},
            "model open_clip:tiny-resnet: which weights. .* those that open_clip knows: none",
        ),
        ("RN50", {"weights": None}, "open_clip:RN50: which weights. .* knows: open_clip:RN50-quickgelu/openai, "),
        ("RN50/nobody", {"weights": None}, "model open_clip:RN50/nobody: which weights"),
        ("RN50/openai", {"weights": None}, "open_clip:RN50/openai.*: open_clip:RN50-quickgelu/openai"),
        (
            "RN50/cc12m",
            {},
            "open_clip:RN50/cc12m and the weights .*tiny-resnet.* were both given; leave one of them out",
        ),
        ("RN51", {}, "open_clip:RN51 is not known to open_clip; nearest names: RN50"),
        ("tiny-timm", {}, "tiny-resnet.safetensors are not those of open_clip:tiny-timm in open_clip's format"),
        ("coca_ViT-B-32", {"prompts": ("a",)}, "are not those of open_clip:coca_ViT-B-32"),
    ],
)
def test_what_cannot_be_loaded(weights, name, options, error):
    given = {"weights": weights["tiny-resnet"], "prompts": PROMPTS} | options
    with pytest.raises(ValueError, match=error):
        load_classifier(ModelSpec(f"open_clip:{name}", **given))


def test_weights_that_are_not_there():
    with pytest.raises(OSError, match=r"weights nowhere.pt: there is no such file"):
        load_classifier(ModelSpec("open_clip:RN50", "nowhere.pt", prompts=PROMPTS))


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    with pytest.raises(
        OSError, match=r"open_clip:RN50-quickgelu/cc12m could not be loaded .*no host.* give the file as weights"
    ):
        load_classifier(ModelSpec("open_clip:RN50-quickgelu/cc12m", prompts=PROMPTS))


def test_prompts_for_a_network_with_classes():
    with pytest.raises(ValueError, match="'efficientnet_lite0' has classes of its own; leave the prompts out, or name"):
        load_classifier(ModelSpec(prompts=PROMPTS))


def test_without_open_clip(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        ValueError, match=r'open_clip, which is not installed: pip install "\.\[prompts\]" \(in the clone\)'
    ):
        load_classifier(ModelSpec("open_clip:RN50-quickgelu/cc12m", prompts=PROMPTS))
