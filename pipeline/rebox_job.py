"""Boxes again from a run's stored maps: the job of `camboxes rebox`."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from camboxes.models.counts import counted
from camboxes.pipeline.errors import blaming_the_call
from camboxes.pipeline.options.boxes import BoxOptions
from camboxes.pipeline.options.fields import Options, changed, option, option_names
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.pipeline.run import Run

if TYPE_CHECKING:
    from camboxes.transforms import BoxRule, PlannedRun
    from camboxes.transforms.boxes.calibration import Calibration

_OWN = "the run's own"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Folders(Options):
    run: str = option(help="a finished run's folder", metavar="OUT")
    output: str = option(help="folder for the new run", metavar="OUT2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReboxJob(BoxOptions, _Folders):
    """What to draw again, and how. Its fields are the options of `camboxes rebox`, whose help describes them."""

    threshold: float | str | None = changed(BoxOptions, "threshold", None, stated=_OWN)
    min_area: float | None = changed(BoxOptions, "min_area", None, stated=_OWN)
    boxes: str | None = changed(BoxOptions, "boxes", None, stated=_OWN)
    thresholds: str | None = option(
        None, "the file that camboxes tune wrote, with thresholds and the calibration of scores", metavar="FILE"
    )
    plain: bool = option(False, "draw from the maps before refinement, which label --keep-plain stores")
    overwrite: bool = option(False, "replace the run that OUT2 holds")


def rebox(job: ReboxJob, beam_options: Sequence[str] = (), reporter: Reporter = LOG) -> Run:
    """Draws a run's boxes again from its stored maps, without the network and the photographs.

    Decisions of a review are carried over: accepted images keep exactly their boxes.
    Other arguments, and errors: see `label`.
    """
    with reporter.step("loading Apache Beam"):
        from camboxes.pipeline.jobs import beam_options as beams
        from camboxes.pipeline.jobs import progress, redrawn_run, run_folder
        from camboxes.pipeline.tuning.tuning_file import FILE
        from camboxes.transforms import BoxesFromMaps, BoxRule, PlainMaps, ReadShards, storage
        from camboxes.transforms.boxes_from_maps import drawing_settings
        from camboxes.transforms.plain_maps import PLAIN
        from camboxes.transforms.review.decisions import carry_decisions
        from camboxes.transforms.review.keep_decided import decided

    with blaming_the_call():
        options = beams.beam_options(beam_options, option_names(type(job)))
        run_folder.check_output(job.output, job.run)
        run_folder.check_folder(job.output)
        source = run_folder.finished(job.run)
        if job.plain:
            if not source.settings.get("keep_plain"):
                raise ValueError(
                    f"--run {job.run!r} keeps no plain maps; expected a run of camboxes label --keep-plain"
                )
            source = dataclasses.replace(source, settings={**source.settings, **PLAIN})
        rule, calibration = _rule(job, source)
        tuning = storage.read_bytes(job.thresholds) if job.thresholds is not None else None
        decisions = decided(source)
    with redrawn_run.locked_output(job.run, job.output, reporter):
        with blaming_the_call():
            if job.overwrite:
                run_folder.remove(job.output)
            source.copy(job.output, {**source.settings, **drawing_settings(rule, calibration)})
        # All is drawn anew: the run that the shards come from may have grown.
        run_folder.remove(job.output, ["shards", "evaluation.json", "tuning.json"])
        if tuning is not None:
            storage.write_bytes(storage.join(job.output, FILE), tuning)
        carry_decisions(job.run, job.output)
        carried = f"; {counted(len(decisions), 'decision')} carried over" if decisions else ""
        progress.announce(job.output, f"boxes from the maps stored in {job.run}{carried}", reporter)
        if job.thresholds is not None:
            kept = "the run's own rule" if rule == BoxRule(**source.settings["rule"]) else "a rule of its own"
            scores = "scores stay uncalibrated" if calibration is None else "calibrated scores"
            reporter.say(f"{job.thresholds} holds {kept}; {scores}")
        maps = [ReadShards(job.run), *([PlainMaps()] if job.plain else [])]
        boxes = BoxesFromMaps(rule.threshold, rule.min_area, rule.boxes, rule.thresholds, calibration)
        redrawn_run.redraw([*maps, boxes], decisions, job.output, options, reporter)
    return Run(job.output)


def _rule(job: ReboxJob, source: "PlannedRun") -> "tuple[BoxRule, Calibration | None]":
    """The rule of the options, or of the file of camboxes tune; what is not given stays as it is in the run."""
    from camboxes.pipeline.tuning.tuning_file import Tuning
    from camboxes.transforms import BoxRule

    if job.thresholds is None:
        return job.box_rule(BoxRule(**source.settings["rule"])), None

    for name in ("threshold", "min-area", "boxes"):
        if getattr(job, name.replace("-", "_")) is not None:
            raise ValueError(
                f"--{name} and --thresholds were both given; {job.thresholds!r} holds the whole rule, and its "
                f"scores are calibrated for it: leave --{name} out"
            )
    tuning = Tuning.read(job.thresholds)
    tuning.check_maps(source)
    return tuning.rule, tuning.calibration
