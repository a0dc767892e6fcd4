"""Rounds of self-training, each on the boxes of the one before, for as long as nothing speaks against another one."""

import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from camboxes.models.training.selftraining import MapRegressor, fit, known, on_one_core
from camboxes.pipeline.errors import CallError
from camboxes.pipeline.selftraining.examples import Sampled
from camboxes.transforms import BoxRule, boxes_from_map
from camboxes.transforms.boxes.from_map import MapBox, best_iou
from camboxes.transforms.boxes.stored_maps import StoredMap, quantize
from camboxes.transforms.inference.selftrained_maps import component

THRESHOLD = 0.2  # of a regressor's maps: docs/selftraining.md
_GRID = 112  # cells a side of the square on which boxes are compared
# Of a round that has not collapsed, as shares of the run's own figures.
_SPREAD, _BOXES, _SCORE = 0.5, 0.9, 0.75


class Standing(NamedTuple):
    """What can be said of maps and their boxes without any true box.

    Attributes:
      coherence, agreement: means over the maps; see `affinity.Coherence`.
      score: mean of the boxes' scores; 0 for a map that gives none.
      boxes: share of the maps that give a box.
      spread: standard deviation of the logarithm of the boxes' areas: near 0 where all have become one.
      iou: mean IoU of the boxes with the run's own.
    """

    coherence: float
    agreement: float
    score: float
    boxes: float
    spread: float
    iou: float

    def worse_because(self, before: "Standing", own: "Standing") -> str | None:
        """Why these maps should not take the place of others; None where they should.

        Args:
          before: of the maps whose place they would take.
          own: of the run's own maps.
        """
        if self.boxes < _BOXES * own.boxes:
            return f"it collapsed: only {self.boxes:.0%} of the maps give a box, of the run's own {own.boxes:.0%}"
        if self.spread < _SPREAD * own.spread:
            return f"it collapsed: its boxes are of one size (spread {self.spread:.2f}, the run's own {own.spread:.2f})"
        if self.score < _SCORE * own.score:  # scores of maps of another contrast are not quite comparable
            return f"it collapsed: its boxes' mean score is {self.score:.3f}, the run's own {own.score:.3f}"
        for name in ("agreement", "coherence"):
            now, then = getattr(self, name), getattr(before, name)
            if now <= then:
                return f"{name} is not above {then:.4f}"
        return None


class Learnt(NamedTuple):
    """What came of the rounds.

    Attributes:
      regressor: the one to keep; None where the run's own maps are better than any.
      kept: the number of its round; 0 for the run's own maps.
      history: for each round, the run's own maps as round 0, its standing and `verdict`, why it was kept or not.
    """

    regressor: MapRegressor | None
    kept: int
    history: list[dict[str, Any]]


def learn(sampled: Sampled, own_rule: BoxRule, rule: BoxRule, rounds: int) -> Learnt:
    """Trains at most so many regressors, each on the boxes of the one before, until one is no better.

    Args:
      sampled: what to learn from.
      own_rule: how the run's own maps are cut.
      rule: how a regressor's maps are cut.
      rounds: at least 1.

    Raises:
      CallError: no map gives a box.
    """
    examples = sampled.examples
    height, width = examples.maps.shape[1:]
    stored = [StoredMap.of(entry) for entry in sampled.entries]
    rules = [own_rule.of(label["label"]) for label in sampled.labels]
    own_boxes = _boxes(stored, rules)
    with on_one_core():
        own = last = _standing(sampled, examples.maps, stored, rules, own_boxes)
    history: list[dict[str, Any]] = [{"round": 0, **own._asdict(), "verdict": "the run's own maps"}]
    kept, kept_round = None, 0
    with on_one_core(), tqdm(total=rounds, desc="self-training", unit="round", disable=None) as bar:
        for number in range(1, rounds + 1):
            masks = [component(one, its, height, width) for one, its in zip(stored, rules, strict=True)]
            found = [place for place, mask in enumerate(masks) if mask is not None]
            if not found:
                raise CallError("no map gives a box to learn from; rebox the run with a smaller --min-area")
            chosen = torch.tensor(found)
            some = examples._replace(image=examples.image[chosen], maps=examples.maps[chosen])
            regressor = fit(some, torch.from_numpy(np.stack([mask for mask in masks if mask is not None])))
            maps = torch.stack(
                [
                    regressor.predict(examples.features[image], before)
                    for image, before in zip(examples.image, examples.maps, strict=True)
                ]
            )
            stored = [quantize(one.numpy()) for one in maps]
            rules = [rule] * len(stored)
            now = _standing(sampled, maps, stored, rules, own_boxes)
            worse = now.worse_because(last, own)
            history.append({"round": number, **now._asdict(), "verdict": worse or "better in agreement and coherence"})
            bar.update()
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
    """How maps stand beside the run's own."""
    examples, boxes = sampled.examples, _boxes(stored, rules)
    pairs = zip(examples.image.tolist(), maps, strict=True)
    found = [
        coherent
        for number, of_image in itertools.groupby(pairs, key=operator.itemgetter(0))
        for coherent in known(examples.features[number], [one for _, one in of_image])
    ]
    drawn = [box for box in boxes if box is not None]
    ious = [
        best_iou(np.array([box.bbox]), np.array([own.bbox]))[0] if box and own else 0.0
        for box, own in zip(boxes, own_boxes, strict=True)
    ]
    scores = [label["probability"] * box.mean if box else 0.0 for label, box in zip(sampled.labels, boxes, strict=True)]
    return Standing(
        float(np.nanmean([coherent.coherence.item() for coherent in found])),
        float(np.nanmean([coherent.agreement.item() for coherent in found])),
        float(np.mean(scores)),
        len(drawn) / len(boxes),
        float(np.std([np.log(box.bbox[2] * box.bbox[3]) for box in drawn])) if drawn else 0.0,
        float(np.mean(ious)),
    )


def _boxes(stored: Sequence[StoredMap], rules: Sequence[BoxRule]) -> list[MapBox | None]:
    """The first box of each map on a small square."""
    drawn = (boxes_from_map(one, _GRID, _GRID, rule).boxes for one, rule in zip(stored, rules, strict=True))
    return [boxes[0] if boxes else None for boxes in drawn]
