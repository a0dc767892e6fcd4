"""Puts two runs side by side: what is the better one by, given true boxes, and could it be chance?

Both runs are judged on what they share: images that both have and the ground truth knows, and pairs of an image and a
label that both have a true box for. Images are drawn again together for both runs (a paired bootstrap), so that what
makes an image hard for either leaves the difference alone. A difference is run 2 less run 1. Its p-value is twice the
smaller share of resamples on either side of 0; nothing is corrected for the number of figures and classes looked at.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from camboxes.pipeline.commands.evaluate import add_truth_argument, check_call
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    import numpy as np

    from camboxes.pipeline.evaluation.judging import Judged
    from camboxes.pipeline.evaluation.resampling import Estimate

_FEWEST_PAIRS = 5  # of a class
_CLASSES_SHOWN = 10
_SETTINGS = 500  # characters of what is told of settings that differ: thresholds may be of a thousand labels
_CELLS = 2**21  # of one array of resamples by pairs: 16 MiB


class Shared(NamedTuple):
    """Two runs on what they share, pair by pair.

    Attributes:
      first, second: with the same images, categories and pairs in the same places.
      images: the ground truth's paths.
      left_out: of either run, how many images, categories and pairs it alone has.
    """

    first: "Judged"
    second: "Judged"
    images: list[str]
    left_out: list[dict[str, int]]


class Difference(NamedTuple):
    """One figure of both runs.

    Attributes:
      first, second: in percent; None where there is nothing to judge.
      difference: the second less the first, with its interval.
      p: two-sided, at least 1 / resamples; None where the difference is not defined.
    """

    first: float | None
    second: float | None
    difference: "Estimate"
    p: float | None

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and (low > 0 or high < 0)


class Comparison(NamedTuple):
    """All that is compared.

    AP and AR count every box of the shared images and categories, also that of a label that one run alone has.

    Attributes:
      figures: the headline figures by name.
      classes: GT-known Loc at IoU 0.5 and the number of pairs, of categories with at least 5, by name; the largest
        differences first.
      both_right, first_right, second_right, neither_right: pairs by which run's box reaches IoU 0.5, one alone or both.
    """

    figures: dict[str, Difference]
    classes: dict[str, tuple[int, Difference]]
    both_right: int
    first_right: int
    second_right: int
    neither_right: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("first", metavar="OUT1", help="a finished run's folder")
    parser.add_argument("second", metavar="OUT2", help="another's")
    add_truth_argument(parser)
    parser.add_argument("--output", metavar="FILE.json", help="where everything is written, every class too")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline.errors import CallError, blaming_the_call
    from camboxes.pipeline.evaluation.judging import judge
    from camboxes.pipeline.formats.ground_truth import read_ground_truth
    from camboxes.pipeline.jobs import running
    from camboxes.transforms import storage

    folders = arguments.first, arguments.second
    with blaming_the_call():
        check_call("compare", beam_arguments)
        if arguments.output:
            running.check_output(arguments.output, arguments.ground_truth)
        if _same_folder(*folders):
            raise CallError(f"OUT1 {folders[0]!r} and OUT2 {folders[1]!r} are one run; expected two")
        if arguments.output and storage.is_local(arguments.output) and Path(arguments.output).is_dir():
            raise CallError(f"--output {arguments.output!r} is a folder; expected a file, as {arguments.output}/c.json")
        planned = [running.finished(folder) for folder in folders]
        truth = read_ground_truth(arguments.ground_truth)
    both = shared(*(judge(each, truth) for each in planned))
    comparison = compare(both)
    _print_runs(folders, both)
    _print_figures(comparison)
    _print_classes(comparison)
    if arguments.output:
        storage.write_json(arguments.output, _record(arguments, both, comparison))
        print(f"\nwrote {arguments.output}")


def shared(first: "Judged", second: "Judged") -> Shared:
    """What two runs share. An image is the same where the ground truth's is.

    Raises:
      CallError: they share no pair.
    """
    import numpy as np

    from camboxes.pipeline.errors import CallError
    from camboxes.pipeline.evaluation.judging import restricted

    own_paths = [{each.matching.truths[path].path: path for path in each.paths} for each in (first, second)]
    images = [path for path in own_paths[0] if path in own_paths[1]]
    categories = sorted(set(first.matching.categories) & set(second.matching.categories))
    places = {path: place for place, path in enumerate(images)}
    pairs = [_pairs(each) for each in (first, second)]
    common = sorted(pairs[0].keys() & pairs[1].keys(), key=lambda pair: (places[pair[0]], pair[1]))
    if not common:
        raise CallError(
            f"the two runs share {len(images)} judged images, {len(categories)} judged categories, and no pair of an "
            "image and a label with a true box; expected runs over the same photographs with the same labels"
        )
    one, two = (
        restricted(each, [own[path] for path in images], categories, np.array([of[pair] for pair in common]))
        for each, own, of in zip((first, second), own_paths, pairs, strict=True)
    )

    alone = [
        {
            "images": len(each.paths) - len(images),
            "categories": len(each.matching.categories) - len(categories),
            "pairs": len(each.image) - len(common),
        }
        for each in (first, second)
    ]
    return Shared(one, two, images, alone)


def _pairs(judged: "Judged") -> dict[tuple[str, str], int]:
    """The place of each pair, by the ground truth's path and the category's name."""
    paths = [judged.matching.truths[path].path for path in judged.paths]
    places = zip(judged.image.tolist(), judged.category.tolist(), strict=True)
    return {(paths[image], judged.categories[category]): number for number, (image, category) in enumerate(places)}


def compare(both: Shared) -> Comparison:
    """Compares two runs, with intervals from joint resamples of their images."""
    import numpy as np

    from camboxes.pipeline.evaluation import figures

    localized, of_classes = _localization(both)
    overall = dict(zip((*figures.LOCALIZATION, *figures.DETECTION), [*localized, *_detection(both)], strict=True))
    numbers, counts = np.unique(both.first.category, return_counts=True)
    classes = {
        both.first.categories[number]: (count, of_class)
        for number, count, of_class in zip(numbers.tolist(), counts.tolist(), of_classes, strict=True)
        if count >= _FEWEST_PAIRS
    }
    first, second = both.first.iou >= 0.5, both.second.iou >= 0.5
    return Comparison(
        figures={name: overall[name] for name in figures.HEADLINE},
        classes=dict(sorted(classes.items(), key=lambda item: (-abs(item[1][1].difference.value or 0.0), item[0]))),
        both_right=int((first & second).sum()),
        first_right=int((first & ~second).sum()),
        second_right=int((~first & second).sum()),
        neither_right=int((~first & ~second).sum()),
    )


def _localization(both: Shared) -> tuple[list[Difference], list[Difference]]:
    """Differences of figures.LOCALIZATION, and of GT-known Loc at IoU 0.5 of each category that has pairs."""
    import numpy as np

    from camboxes.pipeline.evaluation import figures
    from camboxes.pipeline.evaluation.resampling import image_weights

    def of_rows(weights: np.ndarray) -> np.ndarray:
        """[rows, runs, figures]."""
        found = [figures.localization(run, weights) for run in (both.first, both.second)]
        return np.stack([np.concatenate([of.overall, of.gt_known_50], axis=1)[:, :, 0] for of in found], axis=1)

    rows = max(1, _CELLS // len(both.first.image))
    samples = [
        of_rows(weights[start : start + rows])
        for weights in image_weights(both.images, figures.RESAMPLES, figures.SEED)
        for start in range(0, len(weights), rows)
    ]
    found = differences(of_rows(np.ones((1, len(both.images))))[0], np.concatenate(samples))
    return found[: len(figures.LOCALIZATION)], found[len(figures.LOCALIZATION) :]


def _detection(both: Shared) -> list[Difference]:
    """Differences of figures.DETECTION."""
    import numpy as np

    from camboxes.pipeline.evaluation import figures
    from camboxes.pipeline.evaluation.average_precision import Boxes, match_boxes
    from camboxes.pipeline.evaluation.resampling import image_weights

    true, matches = figures.true_boxes(both.first), []
    for run in (both.first, both.second):
        image, category, bbox, score = run.detections
        matches.append(match_boxes(true, Boxes(image, category, bbox, score, np.zeros(len(score), bool))))

    def of_rows(weights: np.ndarray) -> np.ndarray:
        """[rows, runs, figures]."""
        return figures.detection(matches, weights).overall.swapaxes(1, 2)

    samples = [of_rows(weights) for weights in image_weights(both.images, figures.RESAMPLES_OF_DETECTION, figures.SEED)]
    return differences(of_rows(np.ones((1, len(both.images))))[0], np.concatenate(samples))


def differences(values: "np.ndarray", resampled: "np.ndarray") -> list[Difference]:
    """Differences of several figures.

    Args:
      values: [runs, figures] in percent; NaN where one is not defined.
      resampled: [resamples, runs, figures]; a resample in which a figure is NaN is left out.
    """
    import numpy as np

    from camboxes.pipeline.evaluation.resampling import estimates

    samples = resampled[:, 1] - resampled[:, 0]
    found = []
    for number, estimate in enumerate(estimates(values[1] - values[0], samples)):
        first, second = (None if np.isnan(value) else float(value) for value in values[:, number])
        sample = samples[~np.isnan(samples[:, number]), number]
        p = None
        if estimate.low is not None:
            p = min(1.0, max(2 * min((sample <= 0).mean(), (sample >= 0).mean()), 1 / len(sample)))
        found.append(Difference(first, second, estimate, None if p is None else float(p)))
    return found


def settings_that_differ(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings of two runs that are not the same, by dotted name; None where a run does not have one.

    A calibration counts as one setting, for its weights tell a person nothing.
    """
    flat = [dict(_flat(settings)) for settings in (first, second)]
    names = dict.fromkeys([*flat[0], *flat[1]])
    return {name: values for name in names if (values := (flat[0].get(name), flat[1].get(name)))[0] != values[1]}


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and name != "calibration":
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _same_folder(first: str, second: str) -> bool:
    from camboxes.transforms import storage

    if storage.is_local(first) and storage.is_local(second):
        return Path(first).resolve() == Path(second).resolve()
    return first.rstrip("/") == second.rstrip("/")


def _record(arguments: argparse.Namespace, both: Shared, comparison: Comparison) -> dict[str, Any]:
    """What --output holds: figures in percent."""
    from camboxes.pipeline.evaluation import figures, resampling

    return {
        "runs": [arguments.first, arguments.second],
        "ground_truth": arguments.ground_truth,
        "settings": [both.first.settings, both.second.settings],
        "judged": {
            "images": len(both.images),
            "categories": both.first.categories,
            "pairs": len(both.first.image),
        },
        "left_out_of_each_run": both.left_out,
        "intervals": {
            "percent": resampling.LEVEL,
            "of": "percentiles over resamples of the images, drawn together for both runs",
            "resamples": figures.RESAMPLES,
            "resamples_of_detection": figures.RESAMPLES_OF_DETECTION,
            "detection": list(figures.DETECTION),
            "seed": figures.SEED,
        },
        "figures": {name: _as_json(of) for name, of in comparison.figures.items()},
        "pairs_at_iou_50": {
            "both_right": comparison.both_right,
            "only_first_right": comparison.first_right,
            "only_second_right": comparison.second_right,
            "neither_right": comparison.neither_right,
        },
        "classes": {
            name: {"pairs": pairs, "gt_known_50": _as_json(of)} for name, (pairs, of) in comparison.classes.items()
        },
    }


def _as_json(of: Difference) -> dict[str, Any]:
    """Rounded to what no change in the order of a sum reaches."""
    values = {"first": of.first, "second": of.second, **of.difference._asdict(), "p": of.p}
    values["difference"] = values.pop("value")
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def _print_runs(folders: Sequence[str], both: Shared) -> None:
    differ = settings_that_differ(both.first.settings, both.second.settings)
    told = "; ".join(f"{name} {_short(name, one)} and {_short(name, two)}" for name, (one, two) in differ.items())
    print(f"they differ in {on_one_line(told, _SETTINGS)}" if told else "they differ in no setting")
    for number, folder in enumerate(folders, start=1):
        print(f"run {number}: {folder}")
    print(
        f"judged: {len(both.images)} images, {len(both.first.categories)} categories, {len(both.first.image)} pairs of "
        "an image and a label that both runs have"
    )
    for number, alone in enumerate(both.left_out, start=1):
        for what, count in alone.items():
            if count:
                print(f"left out: {count} {what} of run {number} alone")


def _short(name: str, value: Any) -> str:
    """A setting for one line."""
    if name == "calibration":
        return "none" if value is None else "fitted"
    return ",".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _print_figures(comparison: Comparison) -> None:
    from camboxes.pipeline.evaluation import figures, resampling

    print(
        f"\nIn percent; a difference is run 2 less run 1, in brackets what {resampling.LEVEL}% of {figures.RESAMPLES} "
        f"resamples of the images give (COCO: {figures.RESAMPLES_OF_DETECTION}). * marks those that leave 0 out; "
        "of errors less is better.\n"
    )
    print(_line("", "run 1", "run 2", "difference", "p"))
    for name, of in comparison.figures.items():
        print(_line(figures.NAMES[name], *_cells(of)))
    print(
        f"\nright at IoU 0.5: {comparison.both_right} pairs in both runs, {comparison.first_right} in run 1 alone, "
        f"{comparison.second_right} in run 2 alone, {comparison.neither_right} in neither"
    )


def _print_classes(comparison: Comparison) -> None:
    if not comparison.classes:
        print(f"\nNo category has {_FEWEST_PAIRS} pairs.")
        return
    print(
        f"\nThe largest differences of {len(comparison.classes)} categories with at least {_FEWEST_PAIRS} pairs, "
        "GT-known Loc at IoU 0.5; chosen for their size, so some are chance:\n"
    )
    print(_line("", "run 1", "run 2", "difference", "p") + "  pairs")
    for name, (pairs, of) in list(comparison.classes.items())[:_CLASSES_SHOWN]:
        print(_line(on_one_line(name, 23), *_cells(of)) + f"  {pairs:>5}")


def _line(name: str, first: str, second: str, difference: str, p: str) -> str:
    return f"{name:<23}  {first:>5}  {second:>5}  {difference:<25}  {p:>6}"


def _cells(of: Difference) -> tuple[str, str, str, str]:
    first, second = ("-" if value is None else f"{value:.1f}" for value in (of.first, of.second))
    value, low, high = of.difference
    if value is None:
        return first, second, "-", "-"
    if low is None or high is None:
        return first, second, f"{value:+.1f}", "-"
    mark = " *" if of.told_apart else ""
    return first, second, f"{value:+.1f} ({low:+.1f} to {high:+.1f}){mark}", f"{of.p:.3f}"
