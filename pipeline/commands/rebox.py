"""Draws a run's boxes again from its stored maps: another threshold in seconds, without a GPU or a model.

What was decided in a review (OUT/review.jsonl) is carried over: accepted images keep exactly their boxes.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from camboxes.pipeline.commands.label import add_box_arguments, box_rule

if TYPE_CHECKING:
    import apache_beam as beam

    from camboxes.transforms import BoxRule, PlannedRun
    from camboxes.transforms.boxes.calibration import Calibration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--run", required=True, metavar="OUT", help="a finished run's folder")
    parser.add_argument("--output", required=True, metavar="OUT2", help="folder for the new run")
    add_box_arguments(parser, *["the run's own"] * 3)
    parser.add_argument(
        "--thresholds", metavar="FILE", help="what camboxes tune wrote: thresholds, and how scores are calibrated"
    )
    parser.add_argument(
        "--plain", action="store_true", help="draw from the maps before refinement, which label --keep-plain stores"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that OUT2 holds")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline.errors import blaming_the_call
    from camboxes.pipeline.jobs import running
    from camboxes.pipeline.jobs.beam_options import beam_options
    from camboxes.pipeline.tuning.tuning_file import FILE
    from camboxes.transforms import BoxesFromMaps, PlainMaps, ReadShards, WriteCoco, storage
    from camboxes.transforms.boxes_from_maps import drawing_settings
    from camboxes.transforms.review.decisions import carry_decisions, check_carried
    from camboxes.transforms.review.keep_decided import KeepDecided, decided

    with blaming_the_call():
        options = beam_options(beam_arguments)
        running.check_output(arguments.output, arguments.run)
        source = running.finished(arguments.run)
        if arguments.plain:
            source = _plain(source)
        rule, calibration = _rule(arguments, source)
        tuning = storage.read_bytes(arguments.thresholds) if arguments.thresholds is not None else None
        decisions = decided(source)
    with contextlib.ExitStack() as held:
        with blaming_the_call():
            held.enter_context(running.locked(arguments.output))
            running.check_contents(arguments.output)
            check_carried(arguments.run, arguments.output)
            if arguments.overwrite:
                running.remove(arguments.output)
            source.copy(arguments.output, {**source.settings, **drawing_settings(rule, calibration)})
        # All is drawn anew: the run that the shards come from may have grown.
        running.remove(arguments.output, ["shards", "evaluation.json", "tuning.json"])
        if tuning is not None:
            storage.write_bytes(storage.join(arguments.output, FILE), tuning)
        carry_decisions(arguments.run, arguments.output)
        carried = f"; {len(decisions)} decisions carried over" if decisions else ""
        running.announce(arguments.output, f"boxes from the maps stored in {arguments.run}{carried}")

        # No limit to what is rejected: the run that the images come from had its own.
        def build(p: "beam.Pipeline") -> None:
            shards = p | ReadShards(arguments.run)
            if arguments.plain:
                shards |= PlainMaps()
            boxes = BoxesFromMaps(rule.threshold, rule.min_area, rule.boxes, rule.thresholds, calibration)
            shards | boxes | KeepDecided(decisions) | WriteCoco(arguments.output, max_reject_rate=1)

        running.execute(build, options, arguments.output)


def _plain(source: "PlannedRun") -> "PlannedRun":
    """The run with the settings of its plain maps."""
    from camboxes.transforms.plain_maps import PLAIN

    if not source.settings.get("keep_plain"):
        raise ValueError(f"--run {source.output!r} keeps no plain maps; expected a run of camboxes label --keep-plain")
    return dataclasses.replace(source, settings={**source.settings, **PLAIN})


def _rule(arguments: argparse.Namespace, source: "PlannedRun") -> "tuple[BoxRule, Calibration | None]":
    """What the options, or the file of camboxes tune, ask for; what is not asked for stays as it is in the run."""
    from camboxes.pipeline.tuning.tuning_file import Tuning
    from camboxes.transforms import BoxRule

    if arguments.thresholds is None:
        return box_rule(arguments, BoxRule(**source.settings["rule"])), None

    for name in ("threshold", "min_area", "boxes"):
        if getattr(arguments, name) is not None:
            option = name.replace("_", "-")
            raise ValueError(
                f"--{option} and --thresholds were both given; {arguments.thresholds!r} holds the whole rule, and its "
                f"scores are calibrated for it: leave --{option} out"
            )
    tuning = Tuning.read(arguments.thresholds)
    tuning.check_maps(source)
    return tuning.rule, tuning.calibration
