import pytest
import torch

from camboxes.models.training.selftraining import FeatureReader, MapExamples, MapRegressor, fit, likeness

SIDE = 12


def _photographs(count, seed):
    """Objects, rectangles of at least 4 x 4 cells that the first channel of their features marks exactly.

    Returns:
      Examples and the objects, float32 [maps, height, width]. Their maps light up in one corner of the object alone.
    """
    chance = torch.Generator().manual_seed(seed)
    objects = torch.zeros(count, SIDE, SIDE)
    maps = torch.zeros(count, SIDE, SIDE)
    for one, its_map in zip(objects, maps, strict=True):
        top, left, height, width = (int(torch.randint(4, 7, (), generator=chance)) for _ in range(4))
        top, left = top - 3, left - 3
        one[top : top + height, left : left + width] = 1
        its_map[top : top + 2, left : left + 2] = 1
    features = torch.cat([objects[:, None], torch.randn(count, 3, SIDE, SIDE, generator=chance)], 1)
    return MapExamples(features.half(), torch.arange(count), maps), objects


def _halves(objects, seed):
    """Of each object its left or its right half, and every tenth cell of the image turned round."""
    chance = torch.Generator().manual_seed(seed)
    masks = objects.clone()
    for mask in masks:
        columns = mask.any(0).nonzero()[:, 0]
        half = len(columns) // 2
        mask[:, columns[:half] if torch.rand((), generator=chance) < 0.5 else columns[half:]] = 0
    wrong = torch.rand(masks.shape, generator=chance) < 0.1
    return torch.where(wrong, 1 - masks, masks)


@pytest.fixture(scope="module")
def learnt():
    examples, objects = _photographs(160, seed=1)
    return fit(examples, _halves(objects, seed=2))


def _iou(found, objects):
    return ((found * objects).sum((1, 2)) / torch.maximum(found, objects).sum((1, 2))).mean().item()


def test_the_whole_object_is_learnt_from_halves_of_objects(learnt):
    examples, objects = _photographs(40, seed=3)
    assert _iou((_halves(objects, seed=4) > 0.5).float(), objects) < 0.5, "what it was told"
    maps = torch.stack([learnt.foreground(*pair) for pair in zip(examples.features, examples.maps, strict=True)])
    # A cell of the object was foreground in 0.5 x 0.9 + 0.5 x 0.1 = 0.5 of the masks, any other one in 0.1.
    assert maps[objects == 1].mean() == pytest.approx(0.5, abs=0.08)
    assert maps[objects == 0].mean() == pytest.approx(0.1, abs=0.05)
    assert _iou((maps >= 0.3).float(), objects) > 0.9


def test_a_map_is_multiplied_by_its_foreground(learnt):
    examples, _ = _photographs(1, seed=10)
    features, before = examples.features[0], 0.3 + 0.7 * examples.maps[0]
    made, foreground = learnt.predict(features, before), learnt.foreground(features, before)
    assert torch.allclose(made, foreground * before, atol=1e-6)


def test_a_regressor_that_has_learnt_nothing_leaves_a_map_as_it_was():
    examples, _ = _photographs(1, seed=11)
    blank = MapRegressor(4)
    torch.nn.init.zeros_(blank.logit.weight)
    torch.nn.init.zeros_(blank.logit.bias)
    assert torch.equal(blank.predict(examples.features[0], examples.maps[0]), examples.maps[0] / 2)


def test_likeness_to_where_the_map_is_highest():
    # Cells of (1, 0), (-1, 0), (0, 1) and (0, -1); the map is highest over the first and the third.
    features = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, -1]]).reshape(2, 2, 2).half()
    found = likeness(features, torch.tensor([[1.0, 0], [0.95, 0.5]]))
    assert found.flatten().tolist() == pytest.approx([0.5**0.5, -(0.5**0.5), 0.5**0.5, -(0.5**0.5)])


def test_a_mirrored_photograph_has_the_mirrored_map(learnt):
    examples, _ = _photographs(1, seed=5)
    there = learnt.predict(examples.features[0], examples.maps[0])
    back = learnt.predict(examples.features[0].flip(2), examples.maps[0].flip(1)).flip(1)
    assert torch.allclose(there, back, atol=1e-6)


def test_the_same_examples_give_the_same_bytes_whatever_else_goes_on():
    examples, objects = _photographs(20, seed=6)
    masks = _halves(objects, seed=7)
    torch.manual_seed(8)
    first = fit(examples, masks).safetensors()
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    second = fit(examples, masks).safetensors()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert second == first
    assert torch.equal(torch.get_rng_state(), state), "the caller's chance is not touched"
    assert fit(examples, masks, seed=1).safetensors() != first


def test_weights_come_back_from_their_bytes(learnt):
    examples, _ = _photographs(1, seed=9)
    again = MapRegressor.load(learnt.safetensors())
    assert again.safetensors() == learnt.safetensors()
    one = examples.features[0], examples.maps[0]
    assert torch.equal(again.predict(*one), learnt.predict(*one))


def test_features_are_standardised_by_channel():
    features = torch.zeros(2, 2, 1, 2).half()
    features[:, 0] = torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]]).half()
    maps = torch.zeros(2, 1, 2)
    regressor = fit(MapExamples(features, torch.arange(2), maps), maps)
    assert regressor.mean.flatten().tolist() == [4, 0]
    assert regressor.std.flatten().tolist() == pytest.approx([5**0.5, 1]), "a channel that never changes stays as it is"


def test_features_do_not_depend_on_their_neighbours(classifier):
    reader = FeatureReader(classifier)
    pixels = torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = reader.features(list(pixels))
    assert together.dtype == torch.float16 and together.shape == (3, 112, 14, 14)
    assert torch.equal(reader.features([pixels[2]])[0], together[2])
