"""Ranks images for review: first those in which a person will probably correct something."""

from collections.abc import Mapping, Sequence
from typing import Any

from camboxes.transforms.records import score_of

_UNLIKELY = 0.01  # probability of a class below which its label is probably wrong
_SECOND = 0.25  # of the largest component's area: a second component of this size may be another object


def review(
    labels: Sequence[Mapping[str, Any]], boxes: Sequence[Mapping[str, Any]], areas: Mapping[int, Sequence[float]]
) -> dict[str, Any]:
    """Makes an image's entry in the column `review`.

    The priority is the expected number of labels whose boxes a person has to correct: the sum over the labels of 1
    without a box, otherwise of 1 - P(the best box is right). P is the calibrated score; before calibration it is the
    score, which gives a ranking only.

    `areas` has those of the components of each label's map, the largest first, by category_id.

    Returns:
      priority, rounded to 4 decimals, and reasons: "no_box", "unlikely_label" (its class's probability is below 0.01),
      "several_components" (a second one has at least a quarter of the largest one's area), "uncertain_box" (P below
      0.5), each with the label.
    """
    best: dict[int, float] = {}
    for box in boxes:
        best[box["category_id"]] = max(score_of(box), best.get(box["category_id"], 0.0))
    reasons = []
    for label in labels:
        trust, of_label = best.get(label["category_id"]), areas.get(label["category_id"], ())
        codes = {
            "no_box": trust is None,
            "unlikely_label": label["probability"] is not None and label["probability"] < _UNLIKELY,
            "several_components": len(of_label) > 1 and of_label[1] >= _SECOND * of_label[0],
            "uncertain_box": trust is not None and trust < 0.5,
        }
        reasons += [f"{code}: {label['label']}" for code, holds in codes.items() if holds]
    gain = sum(1 - best.get(label["category_id"], 0.0) for label in labels)
    return {"priority": round(gain, 4), "reasons": reasons}
