"""Matches a run's images and categories with those of a ground truth, and lists what is left out. Nothing is guessed.

Two images match if their paths are equal, or if one path is the tail of the other at a folder boundary
("photos/a.jpg" and "a.jpg") and neither has another candidate. An image of the truth that has the name under which
`camboxes export` writes an image of the run is a candidate, too: boxes may be corrected in an export. Categories match
by exact name.
"""

import dataclasses
import itertools
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.formats.exported_names import stem
from camboxes.pipeline.formats.ground_truth import GroundTruth, TrueImage
from camboxes.transforms import PlannedRun
from camboxes.transforms.records import REJECTED


@dataclasses.dataclass(frozen=True)
class Matching:
    """The images and categories that are judged, and those that are left out."""

    truths: dict[str, TrueImage]  # the judged images, by the run's path, in the order of their ids
    categories: list[str]  # the judged names, sorted
    images_only_in_run: list[str]  # paths without a counterpart
    images_only_in_truth: list[str]  # likewise
    ambiguous_images: list[str]  # the run's paths that have several candidates in the truth, or share one; with these
    images_of_other_size: list[str]  # with both sizes: their true boxes are in another frame
    rejected_images: list[str]  # matched images that the run rejected
    categories_only_in_run: list[str]  # names without a counterpart
    categories_only_in_truth: list[str]  # likewise
    categories_without_class: list[str]  # names on both sides that stand for no class of the network
    labelled_without_class: int = 0  # number of labels of judged images that stand for no class
    labelled_without_true_box: int = 0  # number of labels of judged images and categories that have no true box there
    true_without_label: int = 0  # number of judged categories with true boxes on a judged image that lacks the label

    @property
    def left_out(self) -> dict[str, list[str] | int]:
        """Everything but the judged images and categories, by name."""
        return {name: value for name, value in vars(self).items() if name not in ("truths", "categories")}


def match(run: PlannedRun, truth: GroundTruth) -> Matching:
    """Matches a finished run with a ground truth. The counts of pairs stay 0; `judge` fills them in.

    Raises:
      CallError: no image or no category is left to judge. The message shows names of both sides.
    """
    seen = {row["path"]: row for row in run.rows(["path", "width", "height", "status"])}  # in the order of the ids
    pairs, ambiguous = _pairs(seen, truth.images)
    truths, other_size, rejected = {}, [], []
    for path, image in seen.items():
        if path not in pairs:
            continue
        true, width, height = truth.images[pairs[path]], image["width"], image["height"]
        if image["status"] == REJECTED:
            rejected.append(path)
        elif true.width not in (None, width) or true.height not in (None, height):
            other_size.append(
                f"{path}: {width} x {height} in the run, {true.width} x {true.height} in the ground truth"
            )
        else:
            truths[path] = true
    names = {category.name for category in run.categories}
    known = {category.name for category in run.categories if category.class_indices}
    common = names & set(truth.categories)
    candidates = {other for others in ambiguous.values() for other in others}
    matching = Matching(
        truths=truths,
        categories=sorted(common & known),
        images_only_in_run=[path for path in seen if path not in pairs and path not in ambiguous],
        images_only_in_truth=sorted(set(truth.images) - set(pairs.values()) - candidates),
        ambiguous_images=[f"{path}: {' or '.join(others)} in the ground truth" for path, others in ambiguous.items()],
        images_of_other_size=other_size,
        rejected_images=rejected,
        categories_only_in_run=sorted(names - common),
        categories_only_in_truth=sorted(set(truth.categories) - common),
        categories_without_class=sorted(common - known),
    )
    if not matching.truths:
        raise CallError(
            f"no image of ground truth {truth.source!r} can be judged: {_why_no_image(matching, seen, truth.images)}"
        )
    if not matching.categories:
        raise CallError(
            f"no category of ground truth {truth.source!r} is one that the run looks for: {_named(known)} in the run, "
            f"{_named(truth.categories)} in the ground truth; names must be the same{_case(known, truth.categories)}"
        )
    return matching


def _pairs(seen: Iterable[str], true: Iterable[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Maps the run's paths to the ground truth's, and the ambiguous ones to all their candidates."""
    true = set(true)
    pairs = {path: path for path in seen if path in true}
    remaining = true - set(pairs)
    ends: defaultdict[str, list[str]] = defaultdict(list)
    exported: defaultdict[str, list[str]] = defaultdict(list)
    for path in remaining:
        exported[posixpath.splitext(posixpath.basename(path))[0]].append(path)
        for tail in _tails(path):
            ends[tail].append(path)
    candidates = {}
    for path in seen:
        if path not in pairs:
            shorter = remaining.intersection(_tails(path))
            if found := sorted(shorter.union(ends.get(path, []), exported.get(stem(path), []))):
                candidates[path] = found
    claims = Counter(itertools.chain.from_iterable(candidates.values()))
    single = {path: found[0] for path, found in candidates.items() if len(found) == 1 and claims[found[0]] == 1}
    return pairs | single, {path: found for path, found in candidates.items() if path not in single}


def _tails(path: str) -> Iterator[str]:
    """The path itself, then the path without its first folder, without its first two, and so on."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _why_no_image(matching: Matching, seen: Iterable[str], true: Iterable[str]) -> str:
    if rejected := matching.rejected_images:
        return f"the run rejected {_named(rejected)}; its report says why"
    if others := matching.images_of_other_size:
        return f"the true boxes are in another frame, as of {others[0]}; give them in pixels of the upright images"
    if ambiguous := matching.ambiguous_images:
        return f"paths are ambiguous, as {ambiguous[0]}; give them with their folders"
    hint = _case(map(posixpath.basename, seen), map(posixpath.basename, true))
    return (
        f"{_named(seen)} in the run, {_named(true)} in the ground truth; paths must be the same, or one the tail of "
        f"the other at a folder{hint}"
    )


def _named(names: Iterable[str]) -> str:
    """The first three names, for one line."""
    first, *others = [repr(name) for name in sorted(names)] or ["nothing"]
    return ", ".join([first, *others[:2], *(["..."] if len(others) > 2 else [])])


def _case(ours: Iterable[str], theirs: Iterable[str]) -> str:
    """A hint about a name that differs in upper and lower case only; empty if there is none."""
    by_lower = {name.lower(): name for name in ours}
    for name in sorted(theirs):
        if (other := by_lower.get(name.lower(), name)) != name:
            return f" ({other!r} and {name!r} differ in upper and lower case)"
    return ""
