import dataclasses

import pytest

from camboxes.models import MapSpec
from camboxes.pipeline.options.maps import in_words


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (MapSpec.default_of("timm:tf_efficientnet_lite0", 224), "two scales, CAM x LayerCAM, refined"),
        (MapSpec("cam", (224,)), "one scale, CAM"),
        (MapSpec("2*gradcam+++occlusion@16", (1, 2, 3), flip=True), "3 scales, Grad-CAM++ + occlusion, mirrored, too"),
        (MapSpec("rollout", (224,), second_look=True), "one scale, attention rollout, with a second look"),
    ],
)
def test_maps_in_words(maps, words):
    assert in_words(dataclasses.asdict(maps)) == words
