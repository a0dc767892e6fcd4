"""Draws a run's boxes again from its stored maps: another threshold in seconds, without a GPU or a model."""

import argparse
import contextlib
import dataclasses
from collections.abc import Sequence

from camboxes.pipeline.label import add_box_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--run", required=True, metavar="OUT", help="a finished run's folder")
    parser.add_argument("--output", required=True, metavar="OUT2", help="folder for the new run")
    add_box_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the run that OUT2 holds")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline import runs
    from camboxes.pipeline.beam_options import beam_options
    from camboxes.pipeline.errors import blaming_the_call
    from camboxes.transforms import BoxesFromMaps, BoxRule, ReadShards, WriteCoco

    with blaming_the_call():
        options = beam_options(beam_arguments)
        rule = BoxRule(arguments.threshold, arguments.min_area, arguments.boxes)
        runs.check_output(arguments.output, arguments.run)
        source = runs.finished(arguments.run)
    with contextlib.ExitStack() as held:
        with blaming_the_call():
            held.enter_context(runs.locked(arguments.output))
            if arguments.overwrite:
                runs.remove(arguments.output)
            planned = source.copy(arguments.output, {**source.settings, "rule": dataclasses.asdict(rule)})
            runs.remove(arguments.output, ["shards"])  # all are drawn anew: the run that they come from may have grown
        runs.announce(planned, "boxes from the maps stored in " + arguments.run)
        runs.execute(
            lambda p: (
                p
                | ReadShards(arguments.run)
                | BoxesFromMaps(rule.threshold, rule.min_area, rule.boxes)
                | WriteCoco(arguments.output)
            ),
            options,
            planned,
            images=planned.images,
        )
