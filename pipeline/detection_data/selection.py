"""Selects the images and boxes of a run that are exported, and the split of each image."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from camboxes.pipeline.sampling import in_share
from camboxes.transforms.records import OK, REJECTED, is_background, score_of
from camboxes.transforms.review.decisions import Decision
from camboxes.transforms.review.keep_decided import keep
from camboxes.transforms.sources.background import BACKGROUND, CONTRADICTION
from camboxes.transforms.sources.entries import Split
from camboxes.transforms.sources.splits import split_of

Row = dict[str, Any]

_OF_CLASS = ("labels", "boxes")  # columns whose entries have a category


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which images and boxes of a run are exported, and which split an image is in.

    Attributes:
      val: the share of the images that goes to val, from 0 up to, but not including, 1. It has no effect where the
        input comes split into train and val.
      seed: another seed makes another split.
      min_score: the smallest score, 0 to 1, of an exported box: the calibrated score where there is one. An accepted
        box is exported whatever its score.
      include: "accepted": the images that a person accepted. "reviewed": also those that a person rejected, without
        boxes. "all": also those without a decision.
      decisions: of the run's review, by path: see `keep_decided.decided`.
      folders: the input's folders that are splits: see `Listing`. They count where one of them is train.
      background: ids of categories that are background: they are no classes, and give no boxes.
      empty: export images of the background, too, without boxes.

    Raises:
      ValueError: a share or a score is out of its range.
    """

    val: float
    seed: int
    min_score: float
    include: Literal["accepted", "reviewed", "all"] = "all"
    decisions: Mapping[str, Decision] = dataclasses.field(default_factory=dict)
    folders: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    background: frozenset[int] = frozenset()
    empty: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.val < 1:
            raise ValueError(f"val is {self.val}; expected a share from 0 up to, but not including, 1")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min-score is {self.min_score}; expected a score from 0 to 1")

    @property
    def given(self) -> frozenset[Split]:
        """The splits that the input comes in; none where it has no train."""
        splits = frozenset(self.folders.values())
        return splits if "train" in splits else frozenset()

    @property
    def splits(self) -> tuple[Split, ...]:
        """All splits that an image may be in."""
        return ("train", "val", "test") if "test" in self.given else ("train", "val")

    def split(self, row: Row) -> Split:
        """The split of an image: that of its folder, or one drawn by the seed and the image's content.

        Copies of the same bytes are drawn into the same split, and images that are added move no other image.
        """
        split = split_of(row["path"], self.folders) if self.given else None
        if split and (split != "train" or "val" in self.given):
            return split
        return "val" if in_share(row["digest"], self.val, self.seed) else "train"

    def with_boxes(self, row: Row) -> Row:
        """An image with the labels and boxes that are exported.

        Its boxes are the accepted ones, or none where a person rejected them.
        """
        decision = self._decision(row)
        if decision is None:
            row = row | {"boxes": [box for box in row["boxes"] if score_of(box) >= self.min_score]}
        else:
            row = keep(row, decision) if decision.verdict == "accepted" else row | {"boxes": []}
        return row | {name: [of for of in row[name] if of["category_id"] not in self.background] for name in _OF_CLASS}

    def is_empty(self, row: Row) -> bool:
        """Whether an image is labelled as background alone."""
        of_background = [label["category_id"] in self.background for label in row["labels"]]
        return is_background(row) or (bool(of_background) and all(of_background) and row["status"] != REJECTED)

    def left_out_for(self, row: Row) -> str | None:
        """Why an image is left out; None where it is exported."""
        decision = self._decision(row)
        if decision is None:
            if self.is_empty(row):
                return None if self.empty else BACKGROUND
            if row["status"] != OK:
                return row["status"]
            if any(label["category_id"] in self.background for label in row["labels"]):
                return CONTRADICTION
            if self.include != "all":
                return "not reviewed"
            return None if self.with_boxes(row)["boxes"] else "below --min-score"
        return None if decision.verdict == "accepted" or self.include != "accepted" else "rejected in review"

    def _decision(self, row: Row) -> Decision | None:
        """The decision about an image. A skipped image has none, nor has one that nobody could see."""
        decision = self.decisions.get(row["path"])
        return decision if decision and decision.verdict != "skipped" and row["status"] != REJECTED else None
