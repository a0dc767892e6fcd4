"""Chooses the images that a report shows, spread evenly over statuses, labels and reasons of rejection."""

import bisect
import collections
import heapq
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from camboxes.pipeline.sampling import number_of
from camboxes.transforms import PlannedRun
from camboxes.transforms.records import REJECTED, SKIPPED, is_background, score_of
from camboxes.transforms.sources.background import BACKGROUND

COLUMNS = ["path", "width", "height", "status", "reason", "labels", "boxes"]  # all but the large ones
PICTURES = 120  # at most
ROWS = 200  # of a table, at most
_OF_BACKGROUND = 6  # of the pictures, at most: there is no box to look at


class Stratum(NamedTuple):
    """A group of similar images: of one status, and of one label or one code of rejection."""

    status: str
    name: str


def stratum_of(row: Mapping[str, Any], images: Mapping[str, int]) -> Stratum:
    """The group of a row with the columns COLUMNS, given the number of images of each label.

    A rejected image and one of the background belong to their reason's code, any other to its rarest label: frequent
    labels are seen anyway.
    """
    if row["status"] == REJECTED:
        return Stratum(REJECTED, row["reason"].partition(":")[0])
    if is_background(row):
        return Stratum(SKIPPED, BACKGROUND)
    names = [label["label"] for label in row["labels"]]
    return Stratum(row["status"], min(names, key=lambda name: (images[name], name), default=""))


def sample_rows(run: PlannedRun, sizes: Mapping[Stratum, int], images: Mapping[str, int]) -> list[dict[str, Any]]:
    """Reads the rows to show, with all their columns, sorted by path: at most PICTURES, and ROWS rejected ones.

    `sizes` are the numbers of rows of the run's strata; `images`: see `stratum_of`.
    """
    places: dict[Stratum, int] = {}
    background = Stratum(SKIPPED, BACKGROUND)
    sizes = {of: min(size, _OF_BACKGROUND) if of == background else size for of, size in sizes.items()}
    for rejected, most in ((False, PICTURES), (True, ROWS)):
        places |= deal({each: size for each, size in sizes.items() if (each.status == REJECTED) is rejected}, most)
    kept: dict[Stratum, list[tuple[int, dict[str, Any]]]] = {stratum: [] for stratum in places}
    for _, rows in run.tables():
        for position, row in enumerate(rows.select(COLUMNS).to_pylist()):
            stratum = stratum_of(row, images)
            heap, rank = kept[stratum], -number_of(row["path"])
            if len(heap) < places[stratum] or (heap and rank > heap[0][0]):
                heapq.heappush(heap, (rank, rows.slice(position, 1).to_pylist()[0]))
            if len(heap) > places[stratum]:
                heapq.heappop(heap)
    found = (row for _, row in itertools.chain.from_iterable(kept.values()))
    return sorted(found, key=lambda row: row["path"])


def worst_of_label(run: PlannedRun, label: str, most: int) -> list[dict[str, Any]]:
    """Reads at most so many images of a label that are not rejected, with all their columns, the worst first.

    Those without a box of the label come first, then those whose best box has the lowest score; of equal ones the first
    by path.
    """
    [category] = [category.id for category in run.categories if category.name == label]
    worst: list[tuple[float, str, dict[str, Any]]] = []
    for _, rows in run.tables():
        for position, row in enumerate(rows.select(COLUMNS).to_pylist()):
            if row["status"] == REJECTED or all(of["category_id"] != category for of in row["labels"]):
                continue
            score = max((score_of(box) for box in row["boxes"] if box["category_id"] == category), default=-1.0)
            if len(worst) < most or (score, row["path"]) < worst[-1][:2]:
                bisect.insort(
                    worst, (score, row["path"], rows.slice(position, 1).to_pylist()[0]), key=lambda of: of[:2]
                )
                del worst[most:]
    return [row for _, _, row in worst]


def deal(sizes: Mapping[Stratum, int], places: int) -> dict[Stratum, int]:
    """Deals places to strata, one each in turn, until there are no more places or no more images.

    If there are more strata than places, each status gives its largest ones.
    """
    by_status: dict[str, list[Stratum]] = collections.defaultdict(list)
    for stratum in sorted(sizes, key=lambda stratum: (-sizes[stratum], stratum)):
        by_status[stratum.status].append(stratum)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_status.values()))
    dealt = dict.fromkeys(filter(None, turns), 0)
    while places and (hungry := [stratum for stratum in dealt if dealt[stratum] < sizes[stratum]]):
        for stratum in hungry[:places]:
            dealt[stratum] += 1
        places -= len(hungry[:places])
    return dealt
