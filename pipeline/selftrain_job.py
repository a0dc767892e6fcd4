"""Better maps, learnt from a run's own confident boxes: the job of `camboxes selftrain`."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from camboxes.models.counts import counted
from camboxes.pipeline.errors import blaming_the_call
from camboxes.pipeline.options.fields import Options, option, option_names
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.pipeline.run import Run

if TYPE_CHECKING:
    from camboxes.models import ModelSpec
    from camboxes.transforms import PlannedRun


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelftrainJob(Options):
    """Which run to learn from, and how long. Its fields are the options of `camboxes selftrain`."""

    run: str = option(help="a finished run's folder", metavar="OUT")
    output: str = option(help="folder for the new run", metavar="OUT2")
    rounds: int = option(
        3, "largest number of rounds; training stops earlier if a round is no better", type=int, metavar="N"
    )
    overwrite: bool = option(False, "replace the run that OUT2 holds")


def selftrain(job: SelftrainJob, beam_options: Sequence[str] = (), reporter: Reporter = LOG) -> Run:
    """Trains a small network on a run's confident boxes, and draws the run's boxes again from the maps that it gives.

    Decisions of a review are carried over. Called again for the same job, it continues where it was cut short.
    Other arguments, and errors: see `label`.
    """
    with reporter.step("loading Apache Beam"):
        from camboxes.pipeline.jobs import beam_options as beams
        from camboxes.pipeline.jobs import progress, redrawn_run, run_folder
        from camboxes.transforms import BoxesFromMaps, ReadShards, storage
        from camboxes.transforms.boxes_from_maps import drawing_settings
        from camboxes.transforms.inference.selftrained_maps import RegressMaps, selftrained
        from camboxes.transforms.review.decisions import carry_decisions
        from camboxes.transforms.review.keep_decided import decided

    with blaming_the_call():
        options = beams.beam_options(beam_options, option_names(type(job)))
        _check(job)
        run_folder.check_output(job.output, job.run)
        run_folder.check_folder(job.output)
        source = run_folder.finished(job.run)
        decisions = decided(source)

    with reporter.step("loading PyTorch"):  # a wrong path was told before
        from camboxes.pipeline.selftraining.examples import network_of
        from camboxes.pipeline.selftraining.record import REGRESSOR, rule_of

    with redrawn_run.locked_output(job.run, job.output, reporter):
        with blaming_the_call():
            spec = network_of(source)
        record = _learn(job, source, spec, reporter)
        rule = rule_of(source, regressed=record["kept"] > 0)
        changed: dict[str, Any] = drawing_settings(rule, None)
        if record["kept"]:
            changed["method"] = selftrained(source.settings["method"])
            changed["selftraining"] = {name: record[name] for name in ("kept", "size", "regressor_sha256")}
        with blaming_the_call():
            planned = source.copy(job.output, {**source.settings, **changed})
        carry_decisions(job.run, job.output)
        for remark in _remarks(record):
            reporter.say(remark)
        kept = f"round {record['kept']}" if record["kept"] else "the run's own maps"
        progress.announce(job.output, kept, reporter)
        plan = storage.join(job.output, "plan")
        network = dataclasses.replace(spec, name=plan)
        regress = [RegressMaps(source.root, network, storage.join(plan, REGRESSOR), changed)] if record["kept"] else []
        boxes = BoxesFromMaps(rule.threshold, rule.min_area, rule.boxes, rule.thresholds)
        steps = [ReadShards(job.run, planned.missing()), *regress, boxes]
        redrawn_run.redraw(steps, decisions, job.output, options, reporter)
    return Run(job.output)


def _learn(job: SelftrainJob, source: "PlannedRun", spec: "ModelSpec", reporter: Reporter) -> dict[str, Any]:
    """Trains, or returns the record of an earlier call for the same job."""
    from camboxes.pipeline.jobs import run_folder
    from camboxes.pipeline.selftraining.examples import load_reader
    from camboxes.pipeline.selftraining.record import asked_of, learn, read_record

    with blaming_the_call():
        asked = asked_of(source, job.rounds, spec.size)
        if not job.overwrite and (record := read_record(job.output, asked)):
            return record
        with reporter.step("loading the run's network"):
            reader = load_reader(source, spec)
    if job.overwrite:
        run_folder.remove(job.output)
    return learn(source, job.output, asked, reader, reporter)


def _check(job: SelftrainJob) -> None:
    """Raises a ValueError where an option is out of its range."""
    from camboxes.transforms import storage

    if job.rounds < 1:
        raise ValueError(f"--rounds is {job.rounds}; expected at least 1")
    for name, folder in (("run", job.run), ("output", job.output)):
        if not storage.is_local(folder):
            raise ValueError(f"--{name} {folder!r} is on a store; expected a local folder: copy the run to one")


def _remarks(record: Mapping[str, Any]) -> Iterator[str]:
    """Lines about the figures of each round, and about the round that is kept."""
    yield (
        f"learnt from {counted(record['maps'], 'map')} of {counted(record['images'], 'image')}, "
        f"{counted(len(record['unread']), 'image')} left out"
    )
    for found in record["history"]:
        figures = ", ".join(f"{name} {found[name]:.3f}" for name in ("agreement", "coherence", "score"))
        yield f"round {found['round']}: {figures}, IoU with the run's own boxes {found['iou']:.2f}: {found['verdict']}"
    if record["kept"]:
        yield f"kept: the maps of round {record['kept']}"
    else:
        yield "kept: the run's own maps, because no round gave better ones; the new run has the boxes of the old one"
