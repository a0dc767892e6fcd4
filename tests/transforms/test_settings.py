import pytest

from camboxes.transforms.settings import in_words, settings_that_differ


def test_settings_that_differ():
    one = {"method": "cam", "flip": False, "rule": {"threshold": 0.25, "thresholds": {}}, "calibration": None}
    two = {"method": "cam", "scales": [224], "flip": False, "calibration": {"weights": {"fill": 1.0}}}
    two["rule"] = {"threshold": "0.8*otsu", "thresholds": {"cat": 0.5}}
    assert settings_that_differ(one, one) == {}
    assert settings_that_differ(one, two) == {
        "rule.threshold": (0.25, "0.8*otsu"),
        "calibration": (None, {"weights": {"fill": 1.0}}),
        "scales": (None, [224]),
        "rule.thresholds.cat": (None, 0.5),
    }


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"rule": {"threshold": "1*otsu"}}, {"rule": {"threshold": 0.4}}, "threshold 0.4 instead of 1*otsu"),
        ({"limits": {"max_bytes": 10}}, {"limits": {"max_bytes": 20}}, "max-bytes 20 instead of 10"),
        ({"scales": [224, 448]}, {"scales": (224,)}, "scales 224 instead of 224,448"),
        (
            {"flip": True, "mean": None},
            {"flip": False, "mean": [0.5]},
            "flip off instead of on, mean 0.5 instead of none",
        ),
        ({"model": {"name": "a", "size": 1}}, {"model": {"name": "b", "size": 2}}, "network b instead of a"),
        ({"model": {"weights_sha256": "a"}}, {"model": {"weights_sha256": "b"}}, "other weights"),
        ({"model": {"class_names_sha256": "a"}}, {"model": {"class_names_sha256": "b"}}, "other class names"),
        ({"rule": {"thresholds": {"a": 1}}}, {"rule": {"thresholds": {"b": 1}}}, "other thresholds of labels"),
        ({"calibration": None}, {"calibration": {"weights": {}}}, "calibrated scores"),
        ({"scales": [224]}, {"scales": (224,)}, ""),
    ],
)
def test_settings_in_words(before, now, words):
    assert in_words(settings_that_differ(before, now)) == words
