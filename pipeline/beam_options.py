"""Beam's options on the command line of camboxes."""

import argparse
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from camboxes.pipeline.errors import CallError

# "DirectRunner" is a switch that tries a downloaded binary first; this is the local runner itself.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Parses Beam's options; the local runner is the default.

    Raises:
      CallError: an option that neither camboxes nor Beam knows, or a runner that loses data.
    """
    parser = _parser()
    try:
        _, unknown = parser.parse_known_args(list(arguments))
    except SystemExit:
        raise CallError("one of Beam's options has a wrong value (see the line above)") from None
    if unknown:
        raise CallError(
            f"unknown option {' '.join(unknown)}; see --help for camboxes' own, and Beam's documentation for Beam's"
        )
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    if (standard.runner or "").rpartition(".")[2] == "DaskRunner":
        raise CallError(
            "DaskRunner is refused: it drops what a bundle emits when it finishes and all but the last of several "
            "outputs, and reports success; use the default runner with --direct_num_workers, or a portable runner"
        )
    standard.runner = standard.runner or _LOCAL_RUNNER
    FileSystems.set_options(options)  # the source is read before there is a pipeline, which does the same
    return options


def local_processes(options: PipelineOptions) -> int:
    """How many worker processes a local runner is asked for; 1 for work in this process."""
    direct = options.view_as(DirectOptions)
    return direct.direct_num_workers if direct.direct_running_mode == "multi_processing" else 1


def _parser() -> argparse.ArgumentParser:
    parser = pipeline_options._BeamArgumentParser(allow_abbrev=False, prog="camboxes")
    for options in {str(options): options for options in PipelineOptions.__subclasses__()}.values():
        options._add_argparse_args(parser)
    return parser
