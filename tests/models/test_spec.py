from types import SimpleNamespace

import pytest

from camboxes.models import MapSpec, ModelSpec
from camboxes.models.classifier import Classifier
from camboxes.models.networks.by_name import empty_network


@pytest.mark.parametrize(
    ("network", "size", "maps"),
    [
        (
            "timm:tf_efficientnet_lite0",
            224,
            MapSpec("cam*layercam@32[-2]*layercam@16", (224, 448), True, compete=True, refine="affinity"),
        ),
        (
            "timm:tf_efficientnet_lite1",
            240,
            MapSpec("cam*layercam@32[-2]*layercam@16", (240, 480), True, compete=True, refine="affinity"),
        ),
        ("torchvision:resnet50", 96, MapSpec("cam*layercam@16", (96, 192), compete=True, refine="affinity")),
    ],
)
def test_default_maps_suit_the_network(network, size, maps):
    assert MapSpec.default_for(SimpleNamespace(spec=ModelSpec(network, size=size))) == maps


def test_default_maps_of_a_loaded_classifier(classifier):
    assert MapSpec.default_for(classifier).scales == (224, 448)


def test_the_spec_of_a_classifier_leaves_nothing_open():
    network = empty_network("timm:tf_efficientnet_lite0")
    spec = Classifier(network.module, network.preprocessing, ModelSpec("lite0")).spec
    assert (spec.name, spec.size, spec.batch_size, spec.multilabel) == ("lite0", 224, 1, False)
    assert (spec.mean, spec.std) == (network.preprocessing.mean, network.preprocessing.std)
