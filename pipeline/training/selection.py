"""Selects the images to train on and to validate on, and lists those that are left out."""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.reports import remarks
from camboxes.pipeline.training.checkpoint_folder import COPIES, REJECTED, write_table
from camboxes.pipeline.training.copies import Copies
from camboxes.pipeline.training.data import TrainingData
from camboxes.pipeline.training.inputs import Read


class TrainingSplit(NamedTuple):
    """The images of a training, the paths of both sides, and what classifier.json says of images, labels and copies."""

    data: TrainingData
    training: list[str]
    validation: list[str]
    counts: dict[str, Any]


def select(
    data: TrainingData, read: Read, settings: Mapping[str, Any], output: Path, reporter: Reporter
) -> TrainingSplit:
    """Leaves out what cannot be used, finds copies, and splits the rest; lists rejected images and copies in files.

    The settings are those of the training's record: `validation`, the share of each label's pictures to validate on,
    None where the data set comes split; and `seed`.

    Raises:
      ValueError: nothing is left to learn.
    """
    rejected = {**data.rejected, **read.rejected}
    if rejected:
        reasons = collections.Counter(reason.partition(":")[0] for reason in rejected.values())
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        reporter.say(f"images that cannot be used: {len(rejected)} ({counted}); see {output / REJECTED}")
        write_table(output / REJECTED, ("path", "reason"), rejected.items())
    usable = data.without(read.rejected)
    if gone := sorted({*data.classes} - {*usable.classes}):
        reporter.say(f"labels without a usable image are left out: {_named(gone)}")
    copies = Copies.among(usable.labels, read.prints)
    if copies.pairs:
        _tell_copies(copies, data.multilabel, output, reporter)
        rows = [(*pair, copies.kind(*pair)) for pair in copies.pairs]
        write_table(output / COPIES, ("path", "copy_of", "kind"), rows)
    if data.multilabel:
        usable = usable.joined(copies)
    training, validation = _sides(usable, copies, settings, reporter)
    selected = usable.without(usable.labels.keys() - {*training, *validation})
    selected.check()
    sides = {"training": training, "validation": validation}
    labels = {side: selected.counts(paths) for side, paths in sides.items()}
    counts = {
        "images": {side: len(paths) for side, paths in sides.items()} | {"rejected": len(rejected)},
        "labels": {label: {side: labels[side][label] for side in sides} for label in selected.classes},
        "copies": {"images": len(copies.pairs), "with_other_labels": len(copies.contradictions)},
    }
    return TrainingSplit(selected, training, validation, counts)


def _tell_copies(copies: Copies, multilabel: bool, output: Path, reporter: Reporter) -> None:
    alike = sum(not copies.kind(*pair).startswith("same") for pair in copies.pairs)
    kinds = f"{len(copies.pairs) - alike} of the same bytes, {alike} encoded or resized again"
    reporter.say(f"{remarks.of_copies(len(copies.pairs), copies.pairs[0])}: {kinds}; see {output / COPIES}")
    if copies.contradictions:
        pair = copies.contradictions[0]
        remark = remarks.of_other_labels(len(copies.contradictions), [(path, copies.labels[path]) for path in pair])
        now = "all of them are trained on with the labels of each" if multilabel else "each is trained on as it is"
        reporter.say(f"{remark}. Now {now}")


def _sides(
    data: TrainingData, copies: Copies, settings: Mapping[str, Any], reporter: Reporter
) -> tuple[list[str], list[str]]:
    """Paths to train on and to validate on; tells which labels are not judged, and why."""
    if settings["validation"] is None:
        training, validation, known = data.given_split(copies.first)
        if known:
            path, trained = map(remarks.on_one_line, known[0])
            reporter.say(
                f"WARNING: images to validate on that are copies of images to train on: {len(known)}, such as {path} "
                f"of {trained}; they are left out, because they would make the figures too optimistic"
            )
        learnt = data.counts(training)
        if strange := sorted(data.counts(validation).keys() - learnt.keys()):
            reporter.say(f"labels without images to train on are left out: {_named(strange)}")
        validation = [path for path in validation if learnt.keys() >= {*data.labels[path]}]
    else:
        training, validation = data.split(settings["validation"], settings["seed"], copies.first)
    if not validation:
        reporter.say("no images to validate on: the last epoch is kept, and its accuracy is unknown")
    elif unjudged := sorted(data.counts(training).keys() - data.counts(validation).keys()):
        reporter.say(f"labels with too few pictures to validate on are only trained on: {_named(unjudged)}")
    return training, validation


def _named(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
