import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from camboxes.models import (
    Localizer,
    MapSpec,
    ModelSpec,
    class_maps,
    load_classifier,
)
from camboxes.models.classifier import Classifier
from camboxes.models.execution.process import use_one_core
from camboxes.models.localization.fusion import fuse
from camboxes.models.networks.by_name import empty_network


@pytest.fixture(scope="module")
def images():
    pixels = torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return [(image,) for image in pixels]


@pytest.fixture(scope="module")
def localizer(classifier):
    return Localizer(classifier)


def test_a_label_of_several_classes_takes_the_one_with_the_highest_logit(localizer, images):
    [found] = localizer.localize(images[:1], [[range(151, 269), [7]]])
    assert found.class_ids == (151 + int(found.logits[151:269].argmax()), 7)
    assert found.maps.shape == (2, 7, 7)
    np.testing.assert_allclose(found.maps.mean((1, 2)) + localizer.classifier.bias[list(found.class_ids)].numpy(),
                               found.logits[list(found.class_ids)], rtol=1e-4)  # fmt: skip
    np.testing.assert_allclose(found.probabilities.sum(), 1, rtol=1e-5)


def test_an_image_has_the_same_bits_alone_and_in_a_full_batch(localizer, images):
    together = localizer.localize(images[:4], [[[index], [9]] if index % 2 else [[index]] for index in range(4)])
    [alone] = localizer.localize(images[3:4], [[[3], [9]]])
    assert np.array_equal(alone.maps, together[3].maps)
    assert np.array_equal(alone.logits, together[3].logits)


def test_images_of_one_shape_at_the_first_scale_alone_share_a_pass():
    """Their maps are those that each has alone, to the last bit, whatever their shapes at the second scale."""
    classifier = load_classifier(ModelSpec("efficientnet_lite0", aspect="keep"))
    maps = MapSpec("cam*layercam@16", (224, 448), compete=True, refine="affinity", keep_plain=True)
    localizer = Localizer(classifier, maps)
    noise = np.random.default_rng(0)
    sizes = [(480, 640), (480, 620), (480, 640), (480, 620)]
    images = [localizer.resize(noise.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    assert [tuple(tuple(pixels.shape[1:]) for pixels in image) for image in images[:2]] == [
        ((224, 288), (448, 608)), ((224, 288), (448, 576)),
    ]  # fmt: skip
    assert len({localizer.companions(image) for image in images}) == 1
    labels = [[[1]], [[2], [3]], [[4], [5], [6]], []]
    together = localizer.localize(images, labels)
    for image, of_image, found in zip(images, labels, together, strict=True):
        [alone] = localizer.localize([image], [of_image])
        assert found.class_ids == alone.class_ids and len(found.maps) == len(of_image)
        for name in ("logits", "maps", "plain", "coherence", "agreement"):
            assert np.array_equal(getattr(found, name), getattr(alone, name), equal_nan=True), name
    assert [found.maps.shape[1:] for found in together[:2]] == [(28, 38), (28, 36)]


def test_an_image_has_the_same_bits_with_any_number_of_threads_in_the_process(localizer, images):
    """What `use_one_core` is for: on two threads a convolution's last bits are others."""
    found = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads, initializer=use_one_core) as passes:
            batches = [images[start : start + 4] for start in (0, 4, 0, 4)]
            found.append(
                [f for batch in passes.map(lambda b: localizer.localize(b, [[[7]]] * 4), batches) for f in batch]
            )
    assert all(np.array_equal(one.maps, two.maps) for one, two in zip(*found, strict=True))


def test_sizes_of_batches():
    assert [load_classifier(ModelSpec(size=size)).spec.batch_size for size in (224, 160, 448, 600)] == [4, 8, 1, 1]


def test_an_image_without_labels_gets_no_map(localizer, images):
    assert [len(found.maps) for found in localizer.localize(images[:2], [[], []])] == [0, 0]


def test_too_many_images(localizer, images):
    with pytest.raises(ValueError, match="9 images were given; a batch holds 4"):
        localizer.localize([*images, images[0]], [[]] * 9)


FUSED = [MapSpec("cam*layercam@16+2*gradcam++", flip=True), MapSpec("layercam@16"), MapSpec(scales=(224, 320))]


@pytest.mark.parametrize("maps", FUSED, ids=str)
def test_any_maps_have_the_same_bits_alone_among_others_and_on_any_number_of_threads(classifier, maps):
    localizer = Localizer(classifier, maps)
    photographs = np.random.default_rng(0).integers(0, 256, (4, 240, 200, 3), dtype=np.uint8)
    images = [localizer.resize(photograph) for photograph in photographs]
    candidates = [[[3], [9]], [[7]], [[1], [2], [4]], [[3], [9]]]

    def three_times(threads):
        with ThreadPoolExecutor(threads, initializer=use_one_core) as passes:
            return list(passes.map(lambda _: localizer.localize(images, candidates), range(3)))

    first = three_times(1)[0]
    for again in three_times(2):
        assert all(np.array_equal(one.maps, two.maps) for one, two in zip(first, again, strict=True))
    with ThreadPoolExecutor(1, initializer=use_one_core) as passes:
        [alone] = passes.submit(localizer.localize, images[3:], [[[3], [9]]]).result()
    assert np.array_equal(alone.maps, first[3].maps) and np.array_equal(alone.logits, first[3].logits)


def test_fused_maps_are_the_mean_of_their_scaled_parts(classifier):
    """Against the definition, written out once more with OpenCV's resizing."""
    import cv2

    spec = MapSpec("2*cam+layercam@16", scales=(224, 448), flip=True)
    localizer = Localizer(classifier, spec)
    photograph = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    [found] = localizer.localize([localizer.resize(photograph)], [[[285]]])
    total, weights = np.zeros((28, 28)), 0
    for pixels in localizer.resize(photograph):
        for flip in (False, True):
            images = classifier.normalize(pixels[None].flip(3) if flip else pixels[None])
            for weight, method in ((2, "cam"), (1, "layercam@16")):
                part = class_maps(classifier, images, torch.tensor([[285]]), method)[0, 0].numpy()
                part = part[:, ::-1] if flip else part
                large = cv2.resize(np.ascontiguousarray(part), (28, 28), interpolation=cv2.INTER_LINEAR)
                total += weight * (large - large.min()) / (large.max() - large.min())
                weights += weight
    np.testing.assert_allclose(found.maps[0], total / weights, atol=2e-3)


def test_fine_scales_have_the_cells_of_the_largest(classifier):
    photograph = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    localizer = Localizer(classifier, MapSpec(scales=(224, 448), fine_scales=True))
    pixels = localizer.resize(photograph)
    [found] = localizer.localize([pixels], [[[285]]])
    finer = load_classifier(ModelSpec("efficientnet_lite0", map_stride=16, precision="fp32"))
    maps = [
        class_maps(network, network.normalize(of_scale[None]), torch.tensor([[285]]))
        for network, of_scale in zip((finer, classifier), pixels, strict=True)
    ]
    assert [part.shape[2:] for part in maps] == [(14, 14), (14, 14)]
    np.testing.assert_allclose(found.maps, fuse([(1, [part]) for part in maps])[0], atol=2e-3)
    np.testing.assert_allclose(found.logits, finer.infer(pixels[0][None]).logits[0], atol=2e-3)


def test_three_fine_scales_keep_the_largest_as_it_is(classifier):
    localizer = Localizer(classifier, MapSpec(scales=(448, 112, 320), fine_scales=True))
    strides = [look.methods.classifier.preprocessing.stride for look in localizer._looks]
    assert strides == [32, 8, 32]  # 320 has 10 cells where 448 has 14; at stride 16 it would have 20


def test_fine_scales_of_a_network_that_pools(tmp_path):
    torch.save(empty_network("torchvision:densenet121").module.state_dict(), tmp_path / "w.pth")
    classifier = load_classifier(ModelSpec("torchvision:densenet121", str(tmp_path / "w.pth"), size=64))
    with pytest.raises(
        ValueError, match=r"fine_scales: map_stride 16 is not possible: a pooling layer .* leave it out"
    ):
        Localizer(classifier, MapSpec("gradcam", scales=(64, 128), fine_scales=True))


def test_fusing_by_hand():
    def of(*rows):
        return torch.tensor(rows, dtype=torch.float32)[None, None]

    one, two = of([-1, 0], [1, 3]), of([0, 2], [2, 1])  # scaled: 0 .25 .5 1 and 0 1 1 .5
    assert fuse([(1, [one])]) is one
    np.testing.assert_allclose(fuse([(1, [one]), (3, [two])])[0, 0], [[0, 0.8125], [0.875, 0.625]])
    np.testing.assert_allclose(fuse([(1, [one, two])])[0, 0] ** 2, [[0, 0.25], [0.5, 0.5]], rtol=1e-6)
    both = [torch.cat([part, part]) for part in (one, two)]
    counts = torch.tensor([1.0, 3.0])[:, None, None]  # of the second map, in each of two images
    of_each = fuse([(torch.ones(2, 1, 1), both[:1]), (counts, both[1:])])[:, 0]
    np.testing.assert_allclose(of_each, [[[0, 0.625], [0.75, 0.75]], [[0, 0.8125], [0.875, 0.625]]])
    against = of([-2, -1], [-1, -3])  # no cell speaks for the class
    np.testing.assert_allclose(fuse([(1, [two]), (1, [against])])[0, 0], [[0, 0.5], [0.5, 0.25]])
    assert fuse([(1, [against]), (1, [against])]).max() == 0
    assert fuse([(1, [two]), (1, [of([0, float("nan")], [1, 2])])]).isnan().all()


def test_a_sum_of_one_map_with_itself_is_that_map_scaled(classifier, images):
    [once] = Localizer(classifier).localize(images[:1], [[[7]]])
    [twice] = Localizer(classifier, MapSpec("cam+cam")).localize(images[:1], [[[7]]])
    scaled = (once.maps - once.maps.min()) / (once.maps.max() - once.maps.min())
    np.testing.assert_allclose(twice.maps, scaled, atol=1e-6)


def test_the_first_scale_decides_logits_and_classes(classifier):
    both = Localizer(load_classifier(ModelSpec(size=192)), MapSpec(scales=(192, 256)))
    one = Localizer(load_classifier(ModelSpec(size=192)))
    photograph = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    [with_both] = both.localize([both.resize(photograph)], [[range(1000)]])
    [with_one] = one.localize([one.resize(photograph)], [[range(1000)]])
    assert np.array_equal(with_both.logits, with_one.logits) and with_both.class_ids == with_one.class_ids
    assert both.settings["scales"] == [192, 256] and with_both.maps.shape == (1, 8, 8)


@pytest.mark.parametrize("name", ["timm:tf_efficientnet_lite0", "torchvision:resnet18", "torchvision:regnet_y_400mf"])
@pytest.mark.parametrize("size", [8, 16, 32])
def test_a_size_at_which_the_maps_have_one_cell(name, size):
    """It looks as if the network had no maps, or as if those before were its last, and CAM not exact."""
    torch.manual_seed(0)
    network = empty_network(name)
    preprocessing = dataclasses.replace(network.preprocessing, size=size)
    with pytest.raises(ValueError, match=f"{name} at {size} pixels: its last maps have one cell, .* size of 64 pixels"):
        Classifier(network.module, preprocessing, ModelSpec(name, size=size))


@pytest.mark.parametrize("size", [33, 64])
def test_a_small_size_at_which_they_have_several(size):
    classifier = load_classifier(ModelSpec(size=size, precision="fp32"))
    localizer = Localizer(classifier)
    [found] = localizer.localize([localizer.resize(np.zeros((50, 60, 3), np.uint8))], [[[285]]])
    assert found.maps.shape == (1, 2, 2) and classifier.inexact_because is None


def test_a_further_scale_at_which_the_maps_have_one_cell(classifier):
    with pytest.raises(ValueError, match=r"lite0 at 32 pixels: its last maps have one cell, .* 64 pixels or more"):
        Localizer(classifier, MapSpec("layercam", scales=(224, 32)))
    Localizer(classifier, MapSpec("layercam", scales=(64, 32), fine_scales=True))  # at stride 16 it has two
