"""The command `camboxes`. Every heavy import happens in the command that needs it, so that --help answers at once."""

import argparse
import functools
import gc
import importlib
import importlib.metadata
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from camboxes.pipeline import interrupts
from camboxes.pipeline.commands.conclusion import cut_short
from camboxes.pipeline.errors import CallError, did_you_mean, refuse_unknown, unknown_options
from camboxes.pipeline.options import fields
from camboxes.pipeline.untrusted_text import error_text, failure_text

COMMANDS = {
    "label": "draw pseudo boxes for labelled images",
    "classes": "list a network's classes, or those that a word stands for",
    "rebox": "draw a run's boxes again from its stored maps, without a network",
    "selftrain": "learn better maps from a run's own boxes",
    "explain": "draw the maps of several methods for one photograph",
    "report": "write a page of one label's images, the worst first",
    "evaluate": "measure a run's boxes against true boxes",
    "compare": "compare two runs, given true boxes",
    "tune": "choose thresholds and calibrate scores from a few boxed images",
    "review": "review a run in FiftyOne's App",
    "train": "train a classifier on image-level labels",
    "doctor": "check what works on this machine",
    "export": "write a finished run as a data set to train a detector on",
    "demo": "label five real photographs",
}
_IMPORTS = 15  # seconds after which a command has imported what it needs, or nearly so


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the option that may have been meant by an unknown one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = args or ()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        known = self._option_string_actions
        unknown = unknown_options(self._given, known)
        if meant := did_you_mean(unknown, known):  # so the option that is missing is not
            self.exit(2, f"{self.prog}: unknown option {' '.join(unknown)}; {meant}\n")
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None, answer: interrupts.Answer | None = None) -> int:
    """Runs the command; returns 0 where it is done, 1 where the job failed, 2 where the call was wrong.

    Where it was interrupted, it says so and returns `interrupts.CODE`; `answer` may say it before.
    """
    parser = _Parser(
        prog="camboxes", description="Image-level labels in, pseudo bounding boxes out.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"camboxes {importlib.metadata.version('camboxes')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {name: importlib.import_module(f"camboxes.pipeline.commands.{name}") for name in COMMANDS}
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=modules[name].__doc__,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--verbose", action="store_true", help="log what happens, and tracebacks of errors")
        fields.add_arguments(command, modules[name].JOB)
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        remedy = did_you_mean(arguments[:1], COMMANDS) or f"expected one of {', '.join(COMMANDS)}"
        parser.exit(2, f"camboxes: there is no command {arguments[0]!r}; {remedy}\n")
    known, beam_options = parser.parse_known_args(arguments)
    logging.basicConfig(
        format="%(levelname)s %(name)s: %(message)s", level="INFO" if known.verbose else "ERROR", force=True
    )
    module, job = modules[known.command], None
    try:
        job = fields.job_from(known, module.JOB)
        if answer:
            answer.line = functools.partial(_interrupted, known.command, job)
        if getattr(module, "TAKES_BEAM_OPTIONS", False):
            module.run(job, beam_options)
        else:
            names = fields.option_names(module.JOB)
            refuse_unknown(beam_options, names, f"see camboxes {known.command} --help")
            module.run(job)
    except CallError as error:
        logging.getLogger("camboxes").info("the call was wrong", exc_info=True)
        print(f"camboxes {known.command}: {error_text(error)}", file=sys.stderr)
        return 2
    except (Exception, KeyboardInterrupt) as error:
        notes = getattr(error, "__notes__", [])
        if interrupts.interrupted(error):
            print(_interrupted(known.command, job, notes), file=sys.stderr)
            return interrupts.CODE
        logging.getLogger("camboxes").info("the job failed", exc_info=True)
        print(f"camboxes {known.command}: the job failed: {failure_text(error)}", file=sys.stderr)
        if notes:
            print("; ".join([*reversed(notes), cut_short(known.command, job, begun=True)]), file=sys.stderr)
        return 1
    return 0


def _interrupted(command: str, job: Any, done: Sequence[str]) -> str:
    said = "; ".join([*done, cut_short(command, job, begun=bool(done))])
    return f"camboxes {command}: interrupted{':' if done else ';'} {said}"


def command() -> int:
    """Runs `main` in a process of its own, which collects no garbage while it imports, nor a last time at its end.

    Imports make a million objects, which the collector looks at again and again: that takes 2 s, and the last time 1.5.
    """
    gc.disable()
    later = threading.Timer(_IMPORTS, gc.enable)
    later.daemon = True
    later.start()
    answer = interrupts.Answer(lambda _: "camboxes: interrupted")
    try:
        code = main(answer=answer)
    finally:
        gc.freeze()
    if code == interrupts.CODE:
        answer.end()
    answer.stop()
    return code


if __name__ == "__main__":
    sys.exit(command())
