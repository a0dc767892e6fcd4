from types import SimpleNamespace

import pytest

from camboxes.models import MapSpec, ModelSpec


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


def test_without_a_size_there_are_no_default_maps():
    with pytest.raises(ValueError, match="the size of resnet50 is open; expected the classifier that load_classifier"):
        MapSpec.default_for(SimpleNamespace(spec=ModelSpec("resnet50")))
