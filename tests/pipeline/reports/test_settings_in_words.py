import dataclasses

import pytest

from camboxes.models import MapSpec
from camboxes.models.spec import LITE_MAPS
from camboxes.pipeline.reports.settings_in_words import exactly, maps_in_words, rule_in_words

MODEL = {"name": "timm:net", "size": 224, "aspect": "keep"}


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (dataclasses.replace(LITE_MAPS, scales=(224, 448)), "two scales, CAM x LayerCAM, refined"),
        (MapSpec("cam", (224,)), "one scale, CAM"),
        (MapSpec("2*gradcam+++occlusion@16", (1, 2, 3), flip=True), "3 scales, Grad-CAM++ + occlusion, mirrored, too"),
        (MapSpec("rollout", (224,), second_look=True), "one scale, attention rollout, with a second look"),
    ],
)
def test_maps_in_words(maps, words):
    assert maps_in_words(dataclasses.asdict(maps)) == words


def test_maps_that_selftrain_made():
    settings = {"method": "selftrained(cam*layercam@16)", "scales": [224, 448], "refine": "affinity"}
    words = "two scales, CAM x LayerCAM, refined, then learnt from the run's own boxes"
    assert maps_in_words(settings) == words


def test_settings_of_an_earlier_version():
    settings = {"method": "cam", "model": MODEL, "rule": {"threshold": 0.25, "boxes": "largest"}}
    assert maps_in_words(settings) == "one scale, CAM"
    assert exactly(settings) == "cam, timm:net at 224 (keep), threshold 0.25, boxes largest"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"threshold": "1*otsu", "boxes": "peak"}, "around the component at the peak, cut at the map's Otsu level"),
        ({"threshold": "0.8*otsu", "boxes": "all"}, "around each component, cut at 0.8 of the map's Otsu level"),
        (
            {"threshold": 0.25, "boxes": "largest", "thresholds": {"cat": 0.4}},
            "around the largest component, cut at 0.25 of the map's range; labels have thresholds of their own",
        ),
    ],
)
def test_rules_in_words(rule, words):
    assert rule_in_words(rule) == words
