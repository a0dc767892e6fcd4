"""Rounds of self-training: each learns from the boxes of the round before, until a round is no better."""

import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from camboxes.models.localization.affinity import coherence
from camboxes.models.training.selftraining import MapRegressor, epochs_for, fit, on_one_core
from camboxes.pipeline.errors import CallError
from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.selftraining.examples import Sampled
from camboxes.transforms import BoxRule, boxes_from_map
from camboxes.transforms.boxes.from_map import MapBox, best_iou
from camboxes.transforms.boxes.stored_maps import StoredMap, quantize
from camboxes.transforms.inference.selftrained_maps import component

THRESHOLD = 0.2  # for the maps of a regressor: benchmarks/records/selftraining.md
_GRID = 112  # cells a side of the square on which boxes are compared
# The least figures of a round that has not collapsed, as shares of the run's own.
_SPREAD, _BOXES, _SCORE = 0.5, 0.9, 0.75


class Standing(NamedTuple):
    """Figures of maps and their boxes that need no true boxes.

    Attributes:
      coherence, agreement: means over the maps; see `affinity.Coherence`.
      score: mean of the boxes' scores, with 0 for a map without a box.
      boxes: share of the maps that give a box.
      spread: standard deviation of the logarithm of the boxes' areas; near 0 if all boxes have become alike.
      iou: mean IoU of the boxes with the run's own.
    """

    coherence: float
    agreement: float
    score: float
    boxes: float
    spread: float
    iou: float

    def worse_because(self, before: "Standing", own: "Standing") -> str | None:
        """The reason why these maps are no better than those before, or the run's own; None if they are better."""
        if self.boxes < _BOXES * own.boxes:
            return f"it collapsed: only {self.boxes:.0%} of the maps give a box, of the run's own {own.boxes:.0%}"
        if self.spread < _SPREAD * own.spread:
            return f"it collapsed: its boxes are of one size (spread {self.spread:.2f}, the run's own {own.spread:.2f})"
        if self.score < _SCORE * own.score:  # a loose bound: maps of another contrast have other scores
            return f"it collapsed: its boxes' mean score is {self.score:.3f}, the run's own {own.score:.3f}"
        for name in ("agreement", "coherence"):
            now, then = getattr(self, name), getattr(before, name)
            if now <= then:
                return f"{name} is not above {then:.4f}"
        return None


class Learnt(NamedTuple):
    """The result of all rounds.

    Attributes:
      regressor: the regressor of the best round; None if the run's own maps are the best.
      kept: the number of the best round; 0 for the run's own maps.
      history: the figures of each round, from round 0, the run's own maps; `verdict` says why it was kept or not.
    """

    regressor: MapRegressor | None
    kept: int
    history: list[dict[str, Any]]


def train_rounds(sampled: Sampled, own_rule: BoxRule, rule: BoxRule, rounds: int, reporter: Reporter) -> Learnt:
    """Trains at most so many regressors, each on the boxes of the one before, until one is no better.

    Boxes are drawn by `own_rule` from the run's own maps, and by `rule` from a regressor's.

    Raises:
      CallError: no map gives a box.
    """
    examples = sampled.examples
    height, width = examples.maps.shape[1:]
    stored = [StoredMap.of(entry) for entry in sampled.entries]
    rules = [own_rule.of(label["label"]) for label in sampled.labels]
    with on_one_core(), reporter.step("judging the run's own maps"):
        own_boxes = _boxes(stored, rules)
        own = last = _standing(sampled, examples.maps, stored, rules, own_boxes)
    history: list[dict[str, Any]] = [{"round": 0, **own._asdict(), "verdict": "the run's own maps"}]
    kept, kept_round = None, 0
    with on_one_core():
        for number in range(1, rounds + 1):
            masks = [component(one, its, height, width) for one, its in zip(stored, rules, strict=True)]
            found = [place for place, mask in enumerate(masks) if mask is not None]
            if not found:
                raise CallError("no map gives a box to learn from; rebox the run with a smaller --min-area")
            chosen = torch.tensor(found)
            some = examples._replace(image=examples.image[chosen], maps=examples.maps[chosen])
            wanted = torch.from_numpy(np.stack([mask for mask in masks if mask is not None]))
            with reporter.progress(epochs_for(len(found)), "epoch", f"training round {number}") as advance:
                regressor = fit(some, wanted, progress=advance)
            with reporter.step(f"judging the maps of round {number}"):
                pairs = zip(examples.image, examples.maps, strict=True)
                maps = torch.stack([regressor.predict(examples.features[image], before) for image, before in pairs])
                stored = [quantize(one.numpy()) for one in maps]
                rules = [rule] * len(stored)
                now = _standing(sampled, maps, stored, rules, own_boxes)
            worse = now.worse_because(last, own)
            history.append({"round": number, **now._asdict(), "verdict": worse or "better in agreement and coherence"})
            if worse:
                break
            kept, kept_round, last = regressor, number, now
    return Learnt(kept, kept_round, history)


def _standing(
    sampled: Sampled,
    maps: torch.Tensor,
    stored: Sequence[StoredMap],
    rules: Sequence[BoxRule],
    own_boxes: Sequence[MapBox | None],
) -> Standing:
    """Computes the figures of maps."""
    examples, boxes = sampled.examples, _boxes(stored, rules)
    pairs = zip(examples.image.tolist(), maps, strict=True)
    found = [
        coherence(torch.stack([one for _, one in of_image])[None], examples.features[number : number + 1])
        for number, of_image in itertools.groupby(pairs, key=operator.itemgetter(0))
    ]
    drawn = [box for box in boxes if box is not None]
    ious = [
        best_iou(np.array([box.bbox]), np.array([own.bbox]))[0] if box and own else 0.0
        for box, own in zip(boxes, own_boxes, strict=True)
    ]
    scores = [label["probability"] * box.mean if box else 0.0 for label, box in zip(sampled.labels, boxes, strict=True)]
    return Standing(
        float(np.nanmean([value for of_image in found for value in of_image.coherence[0].tolist()])),
        float(np.nanmean([value for of_image in found for value in of_image.agreement[0].tolist()])),
        float(np.mean(scores)),
        len(drawn) / len(boxes),
        float(np.std([np.log(box.bbox[2] * box.bbox[3]) for box in drawn])) if drawn else 0.0,
        float(np.mean(ious)),
    )


def _boxes(stored: Sequence[StoredMap], rules: Sequence[BoxRule]) -> list[MapBox | None]:
    """The first box of each map, on a small square; None without a box."""
    drawn = (boxes_from_map(one, _GRID, _GRID, rule).boxes for one, rule in zip(stored, rules, strict=True))
    return [boxes[0] if boxes else None for boxes in drawn]
