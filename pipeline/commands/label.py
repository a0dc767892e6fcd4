"""Draws pseudo boxes for a data set with image-level labels.

DATA is one of: a folder of class folders (DATA/LABEL/IMAGE.jpg), or of splits of them (DATA/train/LABEL/IMAGE.jpg); a
folder of images with a metadata.csv; a table (.csv, .tsv, .jsonl, .json, .parquet) with a path and labels, or with a
column of 0 and 1 for each class; COCO annotations (.json) or Open Images' labels (.csv); containers of images
(WebDataset's .tar, .tfrecord, .parquet with a column image), as a pattern in quotes ("train-*.tar") or a folder.
docs/how-to/inputs.md describes all of them. Paths are relative to the table's folder. DATA and OUT may be on a store:
s3://, gs://. Any option of Apache Beam may follow, such as
--direct_num_workers=2 --direct_running_mode=multi_processing.
If a run was interrupted, the same command continues it.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from camboxes.models.counts import counted
from camboxes.pipeline.errors import CallError
from camboxes.pipeline.label_job import LabelJob, Prepared, label, prepare
from camboxes.pipeline.options.network import assumed
from camboxes.pipeline.reporter import TERMINAL
from camboxes.pipeline.reports.settings_in_words import maps_in_words
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    from camboxes.transforms.planning.label_matching import LabelMatcher

JOB, TAKES_BEAM_OPTIONS = LabelJob, True

_LABELS = 20  # that a dry run prints, at most


def run(job: LabelJob, beam_options: Sequence[str]) -> None:
    """Carries the job out, or prints its plan, and says what came out."""
    from camboxes.pipeline.commands import starter_map
    from camboxes.pipeline.commands.conclusion import concluded

    again = f"{job.output.rstrip('/')}-t40"
    try:
        if job.dry_run:
            _describe(job, prepare(job, beam_options, TERMINAL))
            return
        with concluded(job.output, ["camboxes", "rebox", "--run", job.output, "--output", again, "--threshold", "0.4"]):
            label(job, beam_options, TERMINAL)
    except CallError as error:
        if starter := getattr(error.__cause__, "starter", None):
            raise CallError(f"{error}\n{starter_map.offered(starter, job, beam_options)}") from error
        raise


def _describe(job: LabelJob, ready: Prepared) -> None:
    """Prints a plan that is not carried out; raises a CallError where it would fail."""
    from apache_beam.options.pipeline_options import StandardOptions

    from camboxes.pipeline.errors import blaming_the_call
    from camboxes.pipeline.reports import remarks
    from camboxes.transforms.planning.label_matching import UnmatchedLabelsError

    source, classifier = ready.source, ready.localizer.classifier
    assert source is not None, "a dry run lists its images here"
    with blaming_the_call():
        try:
            draft = ready.plan.draft(source)
        except UnmatchedLabelsError as error:
            _describe_labels([category.name for category in error.matched], ready.plan.matcher())
            raise
    print(f"input     {counted(draft.images, 'image')} below {draft.root}")
    print(
        f"          {counted(draft.repeated, 'repeated row')} dropped, "
        f"{counted(draft.passed_over.files, 'file')} passed over"
    )
    for name in draft.background:
        print(
            f"          {on_one_line(name)} is background: its images get no box and are not passed through the network"
        )
    names = [category.name for category in draft.categories]
    found = remarks.look_up(source)
    if found.images:
        some = f" ({', '.join(map(on_one_line, found.missing[:3]))})" if found.missing else ""
        print(f"          {counted(found.images, 'image')} looked up, missing: {len(found.missing):,}{some}")
    sizes = sorted({*draft.shards.values()})
    extent = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
    print(f"output    {draft.output}, {counted(len(draft.shards), 'shard')} of {extent}")
    print(f"maps      {maps_in_words(ready.localizer.settings)}")
    print(f"network   {ready.describe_network()}, batches of {classifier.spec.batch_size}")
    outputs = f"{counted(len(classifier.class_names), 'class')} by {'sigmoid' if classifier.multilabel else 'softmax'}"
    print(f"          weights {classifier.settings['weights_sha256'][:16]}, {outputs}")
    for note in assumed(job, classifier):
        print(f"          {note}")
    print(f"boxes     {', '.join(f'{name} {value}' for name, value in draft.settings['rule'].items() if value != {})}")
    print(f"runner    {ready.options.view_as(StandardOptions).runner}")
    matcher = ready.plan.matcher()
    _describe_labels(names, matcher)
    of_input = remarks.of_input(draft.passed_over, names, draft.splits, draft.assumed)
    of_map = remarks.of_label_map(ready.plan.label_map or {}, names)
    for remark in [*of_input, *of_map, *remarks.of_doubtful(names, matcher), *filter(None, [found.remark()])]:
        print(remark)
    print("nothing was written: this was a dry run")
    if len(found.missing) > job.max_reject_rate * found.images:
        raise CallError(f"this run would fail: {found.remark()}")


def _describe_labels(labels: Sequence[str], matcher: "LabelMatcher") -> None:
    """Prints what labels stand for, those that are other names than their class's first; all with --verbose."""
    print(f"labels    {len(labels)} matched")
    shown_labels = [*labels]
    if not logging.getLogger("camboxes").isEnabledFor(logging.INFO):
        shown_labels = [name for name in labels if not _by_name(name, matcher)][:_LABELS]
    for name in shown_labels:
        classes = matcher.match(name)
        count = f"{len(classes)} classes: " if len(classes) > 1 else ""
        meaning = matcher.words.shown(classes) or "no class: its images get no box for it"
        print(f"          {on_one_line(name)} = {count}{on_one_line(meaning, 300)}")
    by_name = sum(_by_name(name, matcher) for name in labels)
    if left := len(labels) - len(shown_labels):
        of_these = " by name" if left == by_name else f", {by_name:,} of them by name"
        print(f"          {f'and {left:,} more' if shown_labels else 'all'}{of_these}; --verbose prints them")


def _by_name(name: str, matcher: "LabelMatcher") -> bool:
    """Whether a label is the first name of the one class that it stands for."""
    return matcher.words.shown(matcher.match(name)).casefold() == name.casefold().replace("_", " ")
