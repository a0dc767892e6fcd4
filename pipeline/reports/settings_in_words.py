"""The settings of a run in words: how its maps are made, and how boxes are drawn from them."""

import re
from collections.abc import Mapping
from typing import Any

from camboxes.models.spec import MapSpec

_METHODS = {
    **{"cam": "CAM", "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "xgradcam": "XGrad-CAM", "hirescam": "HiResCAM"},
    **{"layercam": "LayerCAM", "scorecam": "Score-CAM", "eigencam": "Eigen-CAM", "guidedbackprop": "guided backprop"},
    **{"rollout": "attention rollout", "chefer": "Chefer et al.", "tscam": "TS-CAM"},
}
_SELFTRAINED = re.compile(r"selftrained\((.*)\)")  # what camboxes selftrain records as the method
_BOXES = {
    "largest": "around the largest component",
    "peak": "around the component at the peak",
    "all": "around each component",
    "instances": "around each component, taken apart where objects touch",
}


def maps_in_words(settings: Mapping[str, Any]) -> str:
    """How maps are made: "two scales, CAM x LayerCAM, refined". Settings: see `Localizer.settings`."""
    scales = len(settings.get("scales", ["the network's own"]))
    learnt = _SELFTRAINED.fullmatch(settings["method"])
    spec = MapSpec(learnt[1] if learnt else settings["method"])
    terms = [dict.fromkeys(factor.method for factor in term.factors) for term in spec.terms]
    method = " + ".join(" x ".join(_METHODS.get(name, name) for name in names) for names in terms)
    words = [{1: "one scale", 2: "two scales"}.get(scales, f"{scales} scales"), method]
    words += ["mirrored, too"] if settings.get("flip") else []
    words += ["refined"] if settings.get("refine") == "affinity" else []
    words += ["with a second look"] if settings.get("second_look") else []
    words += ["then learnt from the run's own boxes"] if learnt else []
    return ", ".join(words)


def rule_in_words(rule: Mapping[str, Any]) -> str:
    """How boxes are drawn: "around the component at the peak, cut at the map's Otsu level". Rule: see `BoxRule`."""
    from camboxes.transforms.boxes.from_map import Cut

    share, otsu = Cut.parse(rule["threshold"])
    whole = "the map's Otsu level" if otsu else "the map's range"
    cut = whole if otsu and share == 1 else f"{share:g} of {whole}"
    own = "; labels have thresholds of their own" if rule.get("thresholds") else ""
    return f"{_BOXES[rule['boxes']]}, cut at {cut}{own}"


def exactly(settings: Mapping[str, Any]) -> str:
    """The same in the notation of the options."""
    model, rule = settings["model"], settings["rule"]
    scales = " and ".join(map(str, settings.get("scales", [model["size"]])))
    words = [
        settings["method"],
        "labels competing" if settings.get("compete") else "",
        f"{model['name']} at {scales} ({model['aspect']})",
        "fine scales" if settings.get("fine_scales") else "",
        "flipped too" if settings.get("flip") else "",
        f"threshold {rule['threshold']}",
        f"boxes {rule['boxes']}",
    ]
    return ", ".join(filter(None, words))
