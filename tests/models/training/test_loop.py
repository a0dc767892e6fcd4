import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from camboxes.models.networks.gap_conversions import GapNetwork
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.training import lightning_module
from camboxes.models.training.examples import Examples, augment
from camboxes.models.training.lightning_module import TrainingModule, frozen_features, guessing, validation_metrics
from camboxes.models.training.loop import train

PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 4, "bilinear")


class _Colours(nn.Module):
    """Two channels that copy red and green, and a layer that the logits do not depend on."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.unused = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1))

    def forward(self, images):
        return torch.relu(self.conv(images))


def _network(classes=2, *, convolution=False):
    torch.manual_seed(0)
    return GapNetwork(_Colours(), 2, classes, convolution=convolution).eval()


def _features(*rows):
    return [torch.tensor(row).view(-1, 1, 1) for row in rows]


def _examples(inputs, targets, classes=2):
    return Examples([str(n) for n in range(len(inputs))], lambda key, epoch: inputs[int(key)], targets, classes)


def _train(tmp_path, network, learn, judge=None, progress=lambda images: None, **options):
    options = {"everything": False, "epochs": 40, "seed": 0, "device": "cpu"} | options
    return train(network, PLAIN, learn, judge, folder=tmp_path, progress=progress, **options)


def _module(learn):
    return TrainingModule(_network(), PLAIN, learn, None, everything=False, seed=0)


# Two classes that the first channel tells apart; the second is the same for both, and large.
TWO = _examples(_features([1.0, 5.0], [0.8, 5.0], [0.0, 5.0], [0.2, 5.0]), torch.tensor([0, 0, 1, 1]))


def test_the_head_learns_what_tells_the_classes_apart(tmp_path):
    network = _network()
    outcome = _train(tmp_path, network, TWO, TWO)
    assert outcome.metrics == {"mean_class_accuracy": 1.0, "top1_accuracy": 1.0}
    assert outcome.guessing == {"mean_class_accuracy": 0.5, "top1_accuracy": 0.5}
    (first, same), (other, same_too) = network.head.weight.tolist()
    assert first > 0 > other and first == pytest.approx(-other, rel=1e-3), "the classes are mirror images"
    assert abs(same) < 1e-6 and abs(same_too) < 1e-6
    # The bias holds the centring: the classes part in the middle, at 0.5 of the first channel.
    said = [network.forward_head(torch.tensor([value, 5.0]).view(1, 2, 1, 1)).argmax() for value in (0.52, 0.48)]
    assert said == [0, 1]


def test_training_stops_when_the_metric_does_not_grow(tmp_path):
    wrong = dataclasses.replace(TWO, targets=1 - TWO.targets)
    # Nothing is ever right, and the loss grows with every epoch: the first one is kept, and five more are tried.
    assert _train(tmp_path, _network(), TWO, wrong).epochs == 6
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 0


def test_a_training_that_had_stopped_does_not_go_on(tmp_path):
    wrong = dataclasses.replace(TWO, targets=1 - TWO.targets)
    networks, seen = [_network(), _network()], []
    outcome = _train(tmp_path, networks[0], TWO, wrong)
    torch.manual_seed(123)
    assert _train(tmp_path, networks[1], TWO, wrong, progress=seen.append) == outcome
    assert seen == []
    assert all(map(torch.equal, *(network.state_dict().values() for network in networks)))


def test_of_epochs_that_are_equal_in_the_metric_the_loss_decides(tmp_path):
    assert _train(tmp_path, _network(), TWO, TWO, epochs=10).metrics["top1_accuracy"] == 1
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 9


def test_without_validation_all_epochs_are_trained(tmp_path):
    outcome = _train(tmp_path, _network(), TWO, epochs=9)
    assert outcome == ({}, {}, 9)


def test_features_are_centred_and_scaled_by_one_number():
    learn = _examples(_features([1.0, 0.0], [3.0, 4.0]), torch.tensor([0, 1]))
    module = _module(learn)
    # Means 2 and 2; standard deviations 1 and 2, in the mean 1.5.
    np.testing.assert_allclose(module.centre, [2, 2])
    assert module.scale == 1.5
    with torch.no_grad():
        module.head.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, -1.5]]))
        module.head.bias.copy_(torch.tensor([1.0, 0.0]))
    before = module(torch.stack(learn.read("1", None)[None].unbind()))
    np.testing.assert_allclose(before.detach(), [[3 * 1 / 1.5 + 1, -1.5 * 2 / 1.5]])
    module.fold()
    np.testing.assert_allclose(module.head.weight.detach(), [[2, 0], [0, -1]])
    np.testing.assert_allclose(module.head.bias.detach(), [1 - 2 * 2, 2])
    np.testing.assert_allclose(module.head(torch.tensor([[3.0, 4.0]])).detach(), before.detach())


def test_features_that_are_all_the_same_are_not_scaled():
    learn = _examples(_features([1.0, 2.0], [1.0, 2.0]), torch.tensor([0, 1]))
    assert _module(learn).scale == 1


def test_rare_classes_weigh_more():
    inputs = _features(*[[0.0, 0.0]] * 4)
    one_each = _examples(inputs, torch.tensor([0, 0, 0, 1]))
    np.testing.assert_allclose(lightning_module._balance(one_each), [4 / (2 * 3), 4 / (2 * 1)])
    any_number = _examples(inputs, torch.tensor([[1.0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]]), 3)
    # Negatives per positive; a class that all images have, or none, counts as if one did not, or did.
    np.testing.assert_allclose(lightning_module._balance(any_number), [1 / 4, 3 / 1, 3 / 1])


def test_metrics_by_hand():
    learn = _examples(_features(*[[0.0, 0.0]] * 3), torch.tensor([0, 0, 1]), 3)
    judge = _examples(_features(*[[0.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]), 3)
    # Right: two of three, none of one; the third class, guessed once, has no validation image and does not count.
    logits = torch.eye(3)[[0, 0, 2, 0]]
    found = validation_metrics(learn, judge)
    found.update(logits, judge.targets)
    assert found.compute() == {
        "mean_class_accuracy": pytest.approx((2 / 3 + 0) / 2),
        "top1_accuracy": pytest.approx(2 / 4),
    }
    assert guessing(learn, judge) == {"mean_class_accuracy": 1 / 2, "top1_accuracy": 3 / 4}


@pytest.mark.parametrize("classes", [1, 2])
def test_average_precision_by_hand(classes):
    targets = torch.tensor([[1.0], [0.0], [1.0], [0.0]]).expand(4, classes)
    judge = _examples(_features(*[[0.0, 0.0]] * 4), targets, classes)
    # Ranked: right, wrong, right, wrong. Precision at the two hits: 1 and 2/3.
    found = validation_metrics(judge, judge)
    found.update(torch.tensor([[4.0], [3.0], [2.0], [1.0]]).expand(4, classes), targets.long())
    assert found.compute() == {"mean_average_precision": pytest.approx((1 + 2 / 3) / 2)}
    assert guessing(judge, judge) == {"mean_average_precision": 0.5}


def test_several_labels_an_image(tmp_path):
    inputs = _features([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0])
    learn = _examples(inputs, torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]]))
    network = _network()
    outcome = _train(tmp_path, network, learn, learn)
    assert outcome.metrics == {"mean_average_precision": 1.0}
    weight = network.head.weight
    assert weight[0, 0] > 0 and weight[1, 1] > 0
    # Neither label tells anything about the other.
    assert weight[0, 1].abs() < 0.05 * weight[0, 0] and weight[1, 0].abs() < 0.05 * weight[1, 1]


def test_a_training_that_was_cut_short_ends_with_the_same_bits(tmp_path):
    torch.manual_seed(1)
    inputs = list(torch.randn(70, 2, 1, 1))  # three batches an epoch
    learn = _examples(inputs, torch.tensor([int(x[0] > 0) for x in inputs]))

    def weights(folder, network, progress):
        _train(folder, network, learn, epochs=6, progress=progress)
        return [tensor.clone() for tensor in network.state_dict().values()]

    seen = []

    def interrupt(images):
        seen.append(images)
        if len(seen) == 11:  # in the fourth epoch
            raise KeyboardInterrupt

    whole = weights(tmp_path / "whole", _network(), seen.append)
    assert seen == [32, 32, 6] * 6
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path / "cut", _network(), interrupt)
    assert torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["epoch"] == 2
    torch.manual_seed(123)
    assert all(map(torch.equal, whole, weights(tmp_path / "cut", _network(), seen.append)))
    assert len(seen) == 11 + 3 * 3, "the last three epochs and no other"
    other = _network()
    _train(tmp_path / "seed", other, learn, epochs=6, seed=1)
    assert not torch.equal(other.head.weight, whole[-2]), "the seed decides the order"


def test_a_new_convolution_is_trained_on_frozen_maps(tmp_path):
    network = _network(convolution=True)
    bright, dark = torch.ones(2, 4, 4), torch.zeros(2, 4, 4)
    learn = _examples([bright.half(), dark.half()] * 2, torch.tensor([0, 1, 0, 1]))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    _train(tmp_path, network, learn, epochs=5)
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"convolution.0.weight", "convolution.0.bias", "head.weight", "head.bias"}
    assert network(torch.ones(1, 3, 4, 4)).argmax() == 0 and network(torch.zeros(1, 3, 4, 4)).argmax() == 1


def test_everything_is_trained_but_what_the_logits_do_not_depend_on(tmp_path):
    network = _network()
    red, green = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    red[0], green[1] = 255, 255
    before = {key: value.clone() for key, value in network.state_dict().items()}
    _train(tmp_path, network, _examples([red, green], torch.tensor([0, 1])), everything=True, epochs=3)
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"features.conv.weight", "head.weight", "head.bias"}
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_frozen_features():
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    images[0, 1, 0, 0] = 2.0
    pooled = frozen_features(_network(), images)
    assert pooled.tolist() == [[[[0.5]], [[0.5]]]]
    maps = frozen_features(_network(convolution=True), images)
    assert maps.dtype == torch.float16 and maps.tolist() == images[:, :2].tolist()


def test_views_of_a_photograph():
    image = np.zeros((60, 120, 3), np.uint8)
    image[:, :, 0] = 2 * np.arange(120)  # red grows from left to right
    views = [augment(image, 32, seed).float() for seed in range(20)]
    assert torch.equal(views[3], augment(image, 32, 3).float()) and not torch.equal(views[3], views[4])
    growth = [(view[0, :, -1] - view[0, :, 0]).mean().item() for view in views]
    assert any(value > 0 for value in growth) and any(value < 0 for value in growth), "some are mirrored"
    # Half of the area at least, no narrower than sqrt(0.5 x 3/4) = 0.61 of the width; colours keep four fifths.
    assert min(map(abs, growth)) > 0.6 * 2 * 120 * 0.6
