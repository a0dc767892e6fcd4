"""Beam's options on the command line of camboxes."""

import os
from collections.abc import Sequence
from typing import NoReturn

from apache_beam.io.filesystems import FileSystems
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from camboxes.pipeline.errors import CallError, refuse_unknown

# "DirectRunner" is a switch that tries a downloaded binary first; this is the local runner itself.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"

# One process keeps two cores nine tenths busy, and a second process adds a second to a call. So it pays from some
# thousands of images on, with Lite0 (measured: benchmarks/records/speed.md).
_IMAGES_WORTH_PROCESSES = 3_000
_BYTES_OF_A_PROCESS = 2 << 30  # half of which is measured
_LARGE_NETWORK = 256 << 20  # bytes of weights; a process that runs them holds three to four times as many

# The boxes of one shard are drawn while the network works on another. More shards would only take more memory.
_SHARDS_AT_ONCE = 2


class _Parser(pipeline_options._BeamArgumentParser):
    """A parser that raises a CallError."""

    def error(self, message: str) -> NoReturn:
        raise CallError(f"{message} (an option of Apache Beam)")


def beam_options(arguments: Sequence[str], own: Sequence[str] = ()) -> PipelineOptions:
    """Parses Beam's options; the local runner is the default.

    Args:
      arguments: as on the command line.
      own: the names of a job's own options, which may have been meant by an unknown one.

    Raises:
      CallError: an option that neither camboxes nor Beam knows, or is missing, or a runner that loses data.
    """
    parser = _parser()
    _, unknown = parser.parse_known_args(list(arguments))
    known = [*own, *parser._option_string_actions]
    refuse_unknown(unknown, known, "see --help for camboxes' own, and Beam's documentation for Beam's")
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    if runner_name(options) == "DaskRunner":
        raise CallError(
            "DaskRunner is refused: it drops what a bundle emits when it finishes and all but the last of several "
            "outputs, and reports success; use the default runner with --direct_num_workers, or a portable runner"
        )
    standard.runner = standard.runner or _LOCAL_RUNNER
    FileSystems.set_options(options)  # the source is read before there is a pipeline, which does the same
    if runner_name(options) == "DataflowRunner":
        _check_dataflow(options)
        _share_the_machine(options)
    return options


def runner_name(options: PipelineOptions) -> str:
    """The runner's class, without its module."""
    return (options.view_as(StandardOptions).runner or "").rpartition(".")[2]


def workers_elsewhere(options: PipelineOptions) -> bool:
    """Whether the workers may run on other machines than this one, or in containers."""
    runner = runner_name(options)
    by_job_service = runner in ("PortableRunner", "FlinkRunner", "SparkRunner")
    in_this_process = options.view_as(pipeline_options.PortableOptions).environment_type == "LOOPBACK"
    return runner == "DataflowRunner" or (by_job_service and not in_this_process)


def local_processes(options: PipelineOptions) -> int:
    """How many worker processes a local runner is asked for; 1 for work in this process."""
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode != "multi_processing":
        return 1
    return direct.direct_num_workers or os.cpu_count() or 1  # 0 means as many as there are cores


def fitting_processes(options: PipelineOptions, images: int, weights: int = 0) -> int:
    """The number of local processes that the call asks for; else what suits this machine: `processes_for`."""
    direct = options.view_as(DirectOptions)
    asked = direct.direct_num_workers != 1 or direct.direct_running_mode not in (None, "in_memory")
    shared = "OMP_NUM_THREADS" in os.environ  # how many cores to use is said there
    if asked or shared or runner_name(options) != "FnApiRunner":
        return local_processes(options)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return processes_for(images, weights, available_cores(), memory)


def fit_processes(options: PipelineOptions, images: int, weights: int) -> None:
    """Asks a local runner for `fitting_processes`."""
    processes, direct = fitting_processes(options, images, weights), options.view_as(DirectOptions)
    if processes > 1:
        direct.direct_num_workers, direct.direct_running_mode = processes, "multi_processing"


def available_cores() -> int:
    """The number of cores that this process may use; on systems that do not say, that of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_for(images: int, weights: int, cores: int, memory: int) -> int:
    """The number of worker processes that suits a job; `weights` and `memory` are in bytes.

    A large network is held once, by one process: it is slow, and keeps all cores busy from there.
    """
    if images < _IMAGES_WORTH_PROCESSES or weights > _LARGE_NETWORK:
        return 1
    return max(1, min(cores, memory // _BYTES_OF_A_PROCESS))


def _check_dataflow(options: PipelineOptions) -> None:
    """Refuses a call that lacks what Dataflow needs, before anything is written."""
    try:
        from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401
    except ImportError as error:
        raise CallError(
            f'DataflowRunner needs Google\'s libraries ({error}): pip install ".[gcp]" (in the clone)'
        ) from None
    google = options.view_as(pipeline_options.GoogleCloudOptions)
    given = {
        "--project": google.project,
        "--region": google.region,
        "--temp_location": google.temp_location or google.staging_location,
    }
    if missing := [name for name, value in given.items() if not value]:
        raise CallError(
            f"DataflowRunner also needs {' and '.join(missing)}; docs/how-to/dataflow.md shows a complete command"
        )
    setup = options.view_as(pipeline_options.SetupOptions)
    image = options.view_as(pipeline_options.WorkerOptions).sdk_container_image
    if not any([image, setup.setup_file, setup.requirements_file, setup.extra_packages]):
        raise CallError(
            "Dataflow's workers would have no camboxes: give --sdk_container_image IMAGE with an image of the "
            "repository's Dockerfile, or --setup_file ./setup.py for a small job"
        )


def _share_the_machine(options: PipelineOptions) -> None:
    """Asks for one process on each worker, with a thread for each shard at once, unless the call says otherwise.

    Dataflow's default is a process for every core: each would load the network, and use the one GPU or all cores.
    """
    debug = options.view_as(pipeline_options.DebugOptions)
    if not debug.lookup_experiment("use_multiple_sdk_containers"):
        debug.add_experiment("no_use_multiple_sdk_containers")
    debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or _SHARDS_AT_ONCE


def _parser() -> _Parser:
    """A parser of all of Beam's options."""
    parser = _Parser(allow_abbrev=False)
    for kind in {str(kind): kind for kind in PipelineOptions.__subclasses__()}.values():
        kind._add_argparse_args(parser)
    return parser
