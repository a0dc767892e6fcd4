import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from camboxes.models import MapSpec, ModelSpec, class_maps
from camboxes.models.cam.activations import COMBINATIONS, eigen_cam
from camboxes.models.cam.masking import score_cam
from camboxes.models.classifier import Classifier
from camboxes.models.networks.by_name import empty_network
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.spec import CELLS, METHODS, OF_ATTENTION

A = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]])
G = torch.tensor([[[[1.0, -1.0], [0.0, 2.0]], [[0.5, 0.5], [-1.0, 0.0]]]])
LAYERS = ["", "@blocks.4", "@16"]
GRADIENTS = ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam"]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("gradcam", [[0.5, 1], [1.5, 0]]),  # weights .5 and 0
        ("gradcam++", [[15 / 56, 30 / 56 + 1 / 3], [45 / 56, 1 / 3]]),  # 1/8 + 2/14 and 2 (.5/3)
        ("xgradcam", [[0, 0], [0, 0.25]]),  # weights -1/6 and 1/4
        ("hirescam", [[1, -1.5], [0, 0]]),
        ("layercam", [[1, 0.5], [0, 0]]),
    ],
)
def test_combinations_by_hand(method, expected):
    np.testing.assert_allclose(COMBINATIONS[method](A, G)[0], expected, atol=1e-6)


def test_xgrad_cam_of_an_empty_channel():
    empty = A * torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    np.testing.assert_allclose(COMBINATIONS["xgradcam"](empty, G)[0], [[0, 0.25], [0, 0.25]])


def test_eigen_cam_by_hand():
    common = torch.tensor([[1.0, 2.0], [2.0, 0.0]])
    maps = torch.stack([3 * common, 4 * common])[None]  # O = u (3, 4), V_1 = (.6, .8), O V_1 = 5 u
    torch.testing.assert_close(eigen_cam(maps)[0], 5 * common, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(eigen_cam(-maps)[0], 5 * common, rtol=1e-5, atol=1e-5)  # the sign is ours to choose
    broken = torch.cat([maps, maps.clone().fill_(torch.nan)])
    assert torch.equal(eigen_cam(broken)[0], eigen_cam(maps)[0]) and eigen_cam(broken)[1].isnan().all()


class Tiny(nn.Module):
    """Two channels that copy red and green; GAP, perhaps a hidden layer that squares what it gets, a linear layer."""

    def __init__(self, *, hidden=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = hidden
        self.fc = nn.Linear(2, 3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1))
            self.fc.weight.copy_(torch.tensor([[1.0, 0], [0, 1.0], [2.0, -1.0]]))
            self.fc.bias.copy_(torch.tensor([0.0, 0.5, 1.0]))

    def forward(self, x):
        pooled = self.pool(self.relu(self.conv(x))).flatten(1)
        return self.fc(pooled * pooled if self.hidden else pooled)


def _tiny(**options):
    plain = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 2, "bilinear")
    return Classifier(Tiny(**options), plain, ModelSpec("tiny", size=2, device="cpu", batch_size=3))


RED, GREEN = [[0, 1.0], [0.2, 0]], [[1.0, 0], [0, 0.4]]
IMAGE = torch.tensor([[RED, GREEN, [[0, 0], [0, 0]]]])


def test_score_cam_by_hand():
    # Under the red mask the means are .26 and 0, under the green one 0 and .29: logits of class 2 are 1.52 and .71.
    red, green = np.exp(1.52), np.exp(0.71)
    expected = (red * np.array(RED) + green * np.array(GREEN)) / (red + green)
    found = class_maps(_tiny(), IMAGE, torch.tensor([[2, 0]]), "scorecam")
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)
    assert not torch.equal(found[0, 0], found[0, 1])


def test_score_cam_tries_equal_masks_once_and_counts_them_all(monkeypatch):
    classifier, seen = _tiny(), []
    maps = torch.tensor([[[2.0, 0], [0, 0]], [[0, 0], [0, 0]], [[5.0, 0], [0, 0]], [[3.0, 3.0], [3.0, 3.0]]])
    forward = classifier.forward
    monkeypatch.setattr(classifier, "forward", lambda images: seen.append(images) or forward(images))
    found = score_cam(classifier, IMAGE[0], maps, torch.tensor([1]))
    assert [len(images) for images in seen] == [3]  # one mask for channels 0 and 2, one for those without a contrast
    corner, nothing = np.exp(0.75), np.exp(0.5)  # green's mean is .25 under the first mask
    alpha = np.array([corner, nothing, corner, nothing]) / (2 * corner + 2 * nothing)
    np.testing.assert_allclose(found[0], np.tensordot(alpha, maps.numpy(), 1), rtol=1e-5)


def test_gradients_through_a_hidden_layer_by_hand():
    classifier = _tiny(hidden=True)
    assert "hidden layer" in classifier.inexact_because
    # logit 2 = 2 r^2 - g^2 + 1 with r = .3 and g = .35: gradients 4 r / 4 and -2 g / 4 in each cell
    found = class_maps(classifier, IMAGE, torch.tensor([[2]]), "hirescam")[0, 0]
    np.testing.assert_allclose(found, 0.3 * np.array(RED) - 0.175 * np.array(GREEN), rtol=1e-5)


def test_cam_is_refused_where_it_is_not_exact():
    with pytest.raises(
        ValueError, match=r"CAM is not exact for tiny.*use method \"gradcam\" or \"layercam\".*model gap:tiny"
    ):
        class_maps(_tiny(hidden=True), IMAGE, torch.tensor([[2]]))


@pytest.fixture(scope="module")
def images(classifier, photographs):
    paths = sorted(photographs.glob("*/*.*g"))[:3]
    pixels = [classifier.preprocessing.resize(np.array(Image.open(path).convert("RGB"))) for path in paths]
    return classifier.normalize(torch.stack(pixels))


IDS = torch.tensor([[285, 281], [967, 968], [652, 457]])


def _theirs(kind, classifier, images, layer, ids):
    """What grad-cam's own hooks saw, and what it makes of them before it rectifies, resizes and scales."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(index)) for index in ids]
    classifier.network.requires_grad_(True)  # it gives no gradients for a frozen network
    try:
        with getattr(pytorch_grad_cam, kind)(classifier.network, [layer]) as extractor:
            extractor(images, targets)
            seen = extractor.activations_and_grads
            gradients = seen.gradients[0].detach().numpy() if seen.gradients else None
            raw = extractor.get_cam_image(images, layer, targets, seen.activations[0].numpy(), gradients, False)
    finally:
        classifier.network.requires_grad_(False)
        classifier.network.zero_grad()
    return torch.from_numpy(np.asarray(raw))


@pytest.mark.parametrize("layer", ["bn2", "blocks.4", "blocks.6"])
@pytest.mark.parametrize(
    ("method", "kind"),
    [("gradcam", "GradCAM"), ("xgradcam", "XGradCAM"), ("hirescam", "HiResCAM"), ("layercam", "LayerCAM"),
     ("gradcam++", "GradCAMPlusPlus")],
)  # fmt: skip
def test_parity_with_grad_cam(classifier, images, method, kind, layer):
    theirs = _theirs(kind, classifier, images, classifier.network.get_submodule(layer), IDS[:, 0])
    ours = class_maps(classifier, images, IDS, f"{method}@{layer}")[:, 0]
    if method == "gradcam++":
        # It adds 1e-6 to a denominator of squared gradients, which are as small here (1e-8 to 1e-5): its weights are
        # not the paper's. With the same addition ours are its own.
        forward = _forward(classifier, images, layer)
        maps, gradients = forward.maps(layer), forward.gradients(layer, IDS[:, 0])
        alpha = gradients**2 / (2 * gradients**2 + maps.sum((2, 3), keepdim=True) * gradients**3 + 1e-6)
        ours = torch.einsum("nk,nkyx->nyx", (alpha * gradients.clamp(min=0)).sum((2, 3)), maps)
    if method != "hirescam":
        theirs, ours = theirs.clamp(min=0), ours.clamp(min=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def _forward(classifier, images, layer):
    from camboxes.models.cam.forward_pass import ForwardPass

    layers = frozenset([classifier.layer(layer)])
    return ForwardPass(classifier, images, layers, gradients=layers)


@pytest.mark.parametrize("layer", ["bn2", "blocks.4"])
@pytest.mark.parametrize(
    ("method", "kind"), [("gradcam", "GradCAM"), ("xgradcam", "XGradCAM"), ("layercam", "LayerCAM"),
                         ("gradcam++", "GradCAMpp")]
)  # fmt: skip
def test_parity_with_torchcam(classifier, images, method, kind, layer):
    from torchcam import methods

    with getattr(methods, kind)(classifier.network, target_layer=layer) as extractor:
        inputs = images.clone().requires_grad_()  # else it has no gradients of a frozen network
        theirs = extractor(IDS[:, 0].tolist(), extractor.model(inputs), normalized=False)[0].detach()
    ours = class_maps(classifier, images, IDS, f"{method}@{layer}")[:, 0]
    if method == "gradcam++":
        # torchcam divides a copy of alpha, and goes on with the squared gradients (`alpha[idx][mask].div_(...)`).
        forward = _forward(classifier, images, layer)
        maps, gradients = forward.maps(layer), forward.gradients(layer, IDS[:, 0])
        ours = torch.einsum("nk,nkyx->nyx", (gradients**2 * gradients.clamp(min=0)).sum((2, 3)), maps).clamp(min=0)
    torch.testing.assert_close(ours, theirs.clamp(min=0), rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_parity_of_score_cam_with_torchcam(classifier, images):
    """It scales masks before it resizes them, where the paper scales what was resized (equation 3)."""
    from torchcam.methods import ScoreCAM

    with ScoreCAM(classifier.network, target_layer="blocks.2") as extractor, torch.no_grad():
        theirs = extractor([285], classifier.network(images[:1]), normalized=False)[0]
    ours = class_maps(classifier, images[:1], IDS[:1], "scorecam@blocks.2")[:, 0]
    assert np.corrcoef(ours.flatten(), theirs.flatten())[0, 1] >= 0.99


def test_parity_of_score_cam_with_grad_cam(classifier, images, monkeypatch):
    """It aligns corners when it resizes masks, which shifts them by up to half a cell; the paper does not say."""
    theirs = _theirs("ScoreCAM", classifier, images[:1], classifier.network.blocks[2], [285]).clamp(min=0)
    halfway = class_maps(classifier, images[:1], IDS[:1], "scorecam@blocks.2")[:, 0]
    assert np.corrcoef(halfway.flatten(), theirs.flatten())[0, 1] >= 0.97
    resize = torch.nn.functional.interpolate
    monkeypatch.setattr(
        torch.nn.functional,
        "interpolate",
        lambda *given, **options: resize(*given, **options | {"align_corners": True}),
    )
    aligned = class_maps(classifier, images[:1], IDS[:1], "scorecam@blocks.2")[:, 0]
    torch.testing.assert_close(aligned, theirs, rtol=1e-3, atol=1e-3 * float(theirs.max()))


def test_eigen_cam_is_the_papers_and_grad_cam_centres(classifier, images):
    maps = classifier.record(images, frozenset([classifier.layer("blocks.4")]))[1].maps["blocks.4"]
    centred = maps - maps.mean((2, 3), keepdim=True)
    theirs = _theirs("EigenCAM", classifier, images, classifier.network.blocks[4], IDS[:, 0])
    for image in range(len(images)):
        cells, direction = maps[image].flatten(1).T, torch.linalg.svd(centred[image].flatten(1).T)[2][0]
        expected = centred[image].flatten(1).T @ direction
        sign = 1 if torch.dot(expected, theirs[image].flatten()) > 0 else -1
        torch.testing.assert_close(sign * expected, theirs[image].flatten(), rtol=1e-3, atol=1e-2)
        ours = class_maps(classifier, images, IDS, "eigencam@blocks.4")[image, 0].flatten()
        torch.testing.assert_close(ours.abs(), (cells @ torch.linalg.svd(cells)[2][0]).abs(), rtol=1e-3, atol=1e-2)
        assert ours.sum() > 0


def test_behind_gap_and_a_linear_layer_three_methods_are_one_map(classifier, images):
    cam = class_maps(classifier, images, IDS)
    cells = cam.shape[2] * cam.shape[3]
    torch.testing.assert_close(class_maps(classifier, images, IDS, "hirescam"), cam / cells, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(class_maps(classifier, images, IDS, "gradcam"), cam.relu() / cells, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", GRADIENTS)
def test_known_gradients_are_those_of_autograd(classifier, images, method):
    known, taken = (class_maps(classifier, images, IDS, name) for name in (method, f"{method}@bn2"))
    torch.testing.assert_close(known, taken, rtol=1e-3, atol=1e-5 * float(taken.abs().max()))


def test_a_stage_is_read_rectified_and_a_named_layer_as_it_is(classifier, images):
    forward = _forward(classifier, images, "16")
    maps, gradients = forward.maps("blocks.4"), forward.gradients("blocks.4", IDS[:, 0])
    assert maps.min() < 0, "Lite0's blocks end without a ReLU"
    staged, named = (class_maps(classifier, images, IDS, f"layercam@{layer}")[:, 0] for layer in ("16", "blocks.4"))
    torch.testing.assert_close(staged, (gradients.relu() * maps.relu()).sum(1))
    torch.testing.assert_close(named, (gradients.relu() * maps).sum(1).relu())


def test_a_stage_by_its_place_from_the_end(classifier, images):
    forward = _forward(classifier, images, "32[-2]")
    maps, gradients = forward.maps("blocks.5"), forward.gradients("blocks.5", IDS[:, 0])
    expected = (gradients.relu() * maps.relu()).sum(1)
    torch.testing.assert_close(class_maps(classifier, images, IDS, "layercam@32[-2]")[:, 0], expected)
    assert [classifier.layer(wanted) for wanted in ("16[-1]", "16[-2]", "32[-1]")] == ["blocks.4", "blocks.3", "blocks"]
    with pytest.raises(ValueError, match=r"layer 32\[-3\]: at this stride the network has blocks.5, blocks alone"):
        classifier.layer("32[-3]")
    with pytest.raises(ValueError, match=r"layer 32\[-0\]: "):
        classifier.layer("32[-0]")


def test_layers_of_one_pass_have_the_gradients_that_each_has_alone(classifier, images):
    from camboxes.models.cam.forward_pass import ForwardPass

    layers = frozenset(classifier.layer(wanted) for wanted in ("16", "32[-2]", "8"))
    together = ForwardPass(classifier, images, layers, gradients=layers)
    for name in layers:
        alone = ForwardPass(classifier, images, frozenset([name]), gradients=frozenset([name]))
        for ids in IDS.unbind(1):
            expected = alone.gradients(name, ids)
            assert expected.abs().max() > 0
            torch.testing.assert_close(together.gradients(name, ids), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", GRADIENTS)
def test_each_image_and_each_class_by_itself(classifier, images, method, layer):
    together = class_maps(classifier, images, IDS, method + layer)
    for image in range(len(images)):
        for label in range(2):
            alone = class_maps(classifier, images[image : image + 1], IDS[image : image + 1, label : label + 1],
                               method + layer)[0, 0]  # fmt: skip
            scale = float(alone.abs().max())
            torch.testing.assert_close(together[image, label], alone, rtol=1e-3, atol=1e-3 * scale)


@contextlib.contextmanager
def _unchanged(network):
    """No hooks, no gradients, the same modes and the same wishes for gradients as before."""

    def state():
        return [(m.training, *(len(hooks) for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)))
                for m in network.modules()], [p.requires_grad for p in network.parameters()]  # fmt: skip

    before, modules = state(), [id(m) for m in network.modules()]
    yield
    assert state() == before and [id(m) for m in network.modules()] == modules
    assert all(p.grad is None for p in network.parameters())
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", [method for method in METHODS if method not in OF_ATTENTION])
def test_the_network_is_left_as_it_was_found(method, training, frozen):
    classifier = _tiny(hidden=method != "cam")
    classifier.train(training).requires_grad_(not frozen)
    ids = torch.tensor([[2, 0]])
    at = "@1" if method in CELLS else "@conv"
    layers = [""] if method == "cam" else ["", at]
    with _unchanged(classifier.network):
        found = [class_maps(classifier, IMAGE, ids, method + layer) for layer in layers]
    assert all(not maps.requires_grad for maps in found)
    with _unchanged(classifier.network), pytest.raises(ValueError, match="class id 3 is not among the network's 3"):
        class_maps(classifier, IMAGE, torch.tensor([[0, 3]]), method)
    classifier.network.fc.weight = nn.Parameter(torch.zeros(3, 5), requires_grad=not frozen)  # it breaks half-way
    if method not in ("cam", "eigencam"):
        with _unchanged(classifier.network), pytest.raises(RuntimeError):
            class_maps(classifier, IMAGE, ids, method + at)


@pytest.mark.parametrize("method", ["cam", "gradcam@1", "scorecam", "eigencam", "occlusion@1", "guidedbackprop@1"])
def test_a_network_in_training_keeps_its_statistics(method):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                            nn.Linear(2, 3))  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()  # no ReLU is dead, no map is zero
    plain = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 2, "bilinear")
    spec = ModelSpec("norm", size=2, device="cpu", batch_size=3)
    expected = class_maps(Classifier(network.eval(), plain, spec), IMAGE, torch.tensor([[2]]), method)
    assert expected.min() > 0
    classifier = Classifier(network, plain, spec).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert torch.equal(class_maps(classifier, IMAGE, torch.tensor([[2]]), method), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["timm:swin_tiny_patch4_window7_224", "torchvision:swin_t"])
def test_a_stage_with_its_channels_last(name):
    """Against the gradient of a network that is run with a hook, its maps brought into the usual order by hand."""
    torch.manual_seed(0)
    network = empty_network(name)
    stage = network.module.layers[2] if name.startswith("timm") else network.module.features[5]
    classifier = Classifier(network.module, network.preprocessing, ModelSpec(name))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    ours = class_maps(classifier, images, torch.tensor([[5], [7]]), "hirescam@16")[:, 0]
    kept = []
    hook = stage.register_forward_hook(lambda layer, inputs, output: kept.append(output))
    logits = network.module(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, 5] + logits[1, 7], kept[0])
    assert kept[0].shape[1:3] == (14, 14)
    torch.testing.assert_close(ours, (gradient * kept[0].relu()).sum(3).detach(), rtol=1e-3, atol=1e-5)


def test_frozen_or_not_in_inference_mode_or_not_gives_the_same_maps(classifier, images):
    frozen = class_maps(classifier, images, IDS, "layercam@16")
    try:
        classifier.requires_grad_(True)
        with _unchanged(classifier.network):
            assert torch.equal(class_maps(classifier, images, IDS, "layercam@16"), frozen)
    finally:
        classifier.requires_grad_(False)
    with torch.inference_mode():
        assert torch.equal(class_maps(classifier, images.clone(), IDS, "layercam@16"), frozen)


@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam++@16", "xgradcam", "layercam@16", "eigencam@16"])
def test_half_precision_and_memory_formats(images, method):
    from camboxes.models import load_classifier

    classifier = load_classifier("efficientnet_lite0")
    exact = class_maps(classifier, images, IDS, method)
    plain = class_maps(classifier, images.contiguous(memory_format=torch.contiguous_format), IDS, method)
    torch.testing.assert_close(plain, exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max()))
    half = class_maps(classifier.to(torch.bfloat16), images.bfloat16(), IDS, method)
    assert half.dtype == torch.float32
    for ours, theirs in zip(half.flatten(0, 1), exact.flatten(0, 1), strict=True):
        assert np.corrcoef(ours.flatten(), theirs.flatten())[0, 1] >= 0.97


def test_threads_that_ask_for_different_layers_do_not_meet(classifier, images):
    methods = ["layercam@16", "gradcam@8", "cam", "hirescam@blocks.6"] * 3
    expected = [class_maps(classifier, images, IDS, method) for method in methods]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda method: class_maps(classifier, images, IDS, method), methods))
    for ours, alone in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("layercam@11", "no layer at stride 11; this network has layers at 2, 4, 8, 16, 32"),
        ("layercam@nowhere", "layer 'nowhere': the network has none of this name"),
        ("gradcam@classifier", r"layer 'classifier' gives no maps of \[n, channels, height, width\]"),
        ("cam+layercam", "has 2 parts"),
    ],
)
def test_layers_that_cannot_be_read(classifier, images, method, message):
    with pytest.raises(ValueError, match=message):
        class_maps(classifier, images, IDS, method)


def test_ids_of_a_wrong_shape(classifier, images):
    with pytest.raises(
        ValueError, match=r"class ids are torch.int64 of shape \[3\]; expected int64 of \[images, labels\]"
    ):
        class_maps(classifier, images, IDS[:, 0])


def test_as_many_rows_of_ids_as_images(classifier, images):
    with pytest.raises(ValueError, match="3 images and class ids of 2 were given; expected as many"):
        class_maps(classifier, images, IDS[:2])


def test_no_labels_give_no_maps(classifier, images):
    for method in ("cam", "gradcam@16", "eigencam", "scorecam@8", "occlusion", "guidedbackprop"):
        assert class_maps(classifier, images[:1], IDS[:1, :0], method).shape[:2] == (1, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cam", [(1, [("cam", None)])]),
        ("gradcam++", [(1, [("gradcam++", None)])]),
        ("gradcam+++cam", [(1, [("gradcam++", None)]), (1, [("cam", None)])]),
        ("2*cam+.5*layercam@16", [(2, [("cam", None)]), (0.5, [("layercam", "16")])]),
        ("cam*layercam@layer3.1", [(1, [("cam", None), ("layercam", "layer3.1")])]),
        ("cam*occlusion@32+deconvnet", [(1, [("cam", None), ("occlusion", "32")]), (1, [("deconvnet", None)])]),
        ("3*cam*gradcam++@8", [(3, [("cam", None), ("gradcam++", "8")])]),
    ],
)
def test_methods_are_read(text, expected):
    assert [(term.weight, [tuple(factor) for factor in term.factors]) for term in MapSpec(text).terms] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not understood; expected"),
        ("cam+", "'' is not understood"),
        ("gradcam+", "'' is not understood"),
        ("smoothgrad", "'smoothgrad' is not understood"),
        ("cam@16", "cam is read from the last feature maps, and takes no @16"),
        ("occlusion@layer3.1", "occlusion reads the pixels and no layer; .* as in occlusion@32, not 'layer3.1'"),
        ("guidedbackprop@0", "expected the side of a cell in pixels behind @, as in guidedbackprop@16, not '0'"),
        ("0*cam", "the weight 0 is not a positive number"),
        ("1.2.3*cam", "the weight 1.2.3 is not a positive number"),
    ],
)
def test_methods_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        MapSpec(text)


@pytest.mark.parametrize("scales", [(224, 224), (0,)])
def test_scales_that_cannot_be(scales):
    with pytest.raises(ValueError, match="expected positive numbers, each once"):
        MapSpec(scales=scales)
