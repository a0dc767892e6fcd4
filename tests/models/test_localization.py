import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from camboxes.models import ModelSpec, load_classifier, localize, passes_side_by_side, use_one_core


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_label_of_several_classes_takes_the_one_with_the_highest_logit(classifier, images):
    [found] = localize(classifier, images[:1], [[range(151, 269), [7]]])
    assert found.class_ids == (151 + int(found.logits[151:269].argmax()), 7)
    assert found.maps.shape == (2, 7, 7)
    np.testing.assert_allclose(found.maps.mean((1, 2)) + classifier.bias[list(found.class_ids)].numpy(),
                               found.logits[list(found.class_ids)], rtol=1e-4)  # fmt: skip
    np.testing.assert_allclose(found.probabilities.sum(), 1, rtol=1e-5)


def test_an_image_has_the_same_bits_alone_and_in_a_full_batch(classifier, images):
    together = localize(classifier, images[:4], [[[index], [9]] if index % 2 else [[index]] for index in range(4)])
    [alone] = localize(classifier, images[3:4], [[[3], [9]]])
    assert np.array_equal(alone.maps, together[3].maps)
    assert np.array_equal(alone.logits, together[3].logits)


def test_an_image_has_the_same_bits_with_any_number_of_threads_in_the_process(classifier, images):
    """What `use_one_core` is for: on two threads a convolution's last bits are others."""
    found = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads, initializer=use_one_core) as passes:
            batches = [images[start : start + 4] for start in (0, 4, 0, 4)]
            found.append(
                [f for batch in passes.map(lambda b: localize(classifier, b, [[[7]]] * 4), batches) for f in batch]
            )
    assert all(np.array_equal(one.maps, two.maps) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("3", 3), ("4,2", 4), ("0", 1), ("", len(os.sched_getaffinity(0))), ("many", len(os.sched_getaffinity(0)))],
)
def test_passes_side_by_side(classifier, monkeypatch, asked, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert passes_side_by_side(classifier) == expected


def test_sizes_of_batches():
    assert [load_classifier(ModelSpec(size=size)).spec.batch_size for size in (224, 160, 448, 600)] == [4, 8, 1, 1]


def test_an_image_without_labels_gets_no_map(classifier, images):
    assert [len(found.maps) for found in localize(classifier, images[:2], [[], []])] == [0, 0]


def test_too_many_images(classifier, images):
    with pytest.raises(ValueError, match="9 images were given; a batch of this classifier holds 4"):
        localize(classifier, [*images, images[0]], [[]] * 9)
