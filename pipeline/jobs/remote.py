"""Jobs whose workers run on other machines: their accelerator, how they run the network, what they can read."""

import argparse
import dataclasses
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from camboxes.pipeline.errors import CallError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from camboxes.models import Classifier, ModelSpec

# Enough for one process with the default network, batches of 64 and two shards at once: estimated, not measured.
_MIN_RAM = "12GB"

# GPUs older than NVIDIA's Ampere multiply fp16, and only emulate bf16.
_WITHOUT_BF16 = ("nvidia-tesla-k80", "nvidia-tesla-p4", "nvidia-tesla-p100", "nvidia-tesla-v100", "nvidia-tesla-t4")


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """The GPU of each worker that runs the network."""

    kind: str  # its name on Google Cloud, such as nvidia-tesla-t4
    machine: str | None = None  # the type of the machine that it is in; None for the runner's choice

    @classmethod
    def parse(cls, text: str) -> "Accelerator":
        """Reads `KIND[:MACHINE]`.

        Raises:
          ArgumentTypeError: it is not that.
        """
        found = re.fullmatch(r"([a-z][a-z0-9-]*)(?::([a-z][a-z0-9-]*))?", text)
        if found is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not KIND[:MACHINE], such as nvidia-l4:g2-standard-8")
        return cls(*found.groups())

    def __str__(self) -> str:
        return f"{self.kind}:{self.machine}" if self.machine else self.kind

    @property
    def hints(self) -> dict[str, str]:
        """For `with_resource_hints` of every step from the planned shards to their files.

        All steps get the same hints: steps with different ones run on different workers, and all that flows between
        them is written and read again.
        """
        machine = f"machine_type:{self.machine};" if self.machine else ""
        gpu = f"type:{self.kind};count:1;{machine}install-nvidia-driver:5xx"
        return {"accelerator": gpu, "min_ram": _MIN_RAM}


def load(spec: "ModelSpec", options: "PipelineOptions", accelerator: Accelerator | None) -> "Classifier":
    """Loads the classifier that the job's workers will run, on this machine or on others.

    Raises:
      ValueError: an accelerator for workers on this machine, or see `settled`; and `load_classifier`'s errors.
    """
    from camboxes.models.loading import load_classifier, load_for_elsewhere
    from camboxes.pipeline.jobs.beam_options import workers_elsewhere

    if workers_elsewhere(options):
        return load_for_elsewhere(settled(spec, accelerator))
    if accelerator:
        raise ValueError("--accelerator is for workers on other machines; on this one give --device cuda")
    return load_classifier(spec)


def settled(spec: "ModelSpec", accelerator: Accelerator | None) -> "ModelSpec":
    """Settles how other machines run the network.

    What the spec leaves open follows from the accelerator alone, for nothing else is known of the machines: bf16 on a
    GPU, or fp16 where it has no bf16; on a CPU fp32, layer by layer.

    Raises:
      ValueError: the spec asks for a CPU, and the accelerator is a GPU.
    """
    if accelerator and spec.device == "cpu":
        raise ValueError(f"--accelerator {accelerator.kind} and --device cpu were both given; leave one out")
    gpu = accelerator is not None or spec.device == "cuda"
    precision = spec.precision
    if precision == "auto" and gpu:
        precision = "fp16" if accelerator and accelerator.kind in _WITHOUT_BF16 else "bf16"
    elif precision == "auto":
        precision = "fp32"
    compilation = "off" if spec.compile == "auto" else spec.compile
    return dataclasses.replace(spec, device="cuda" if gpu else "cpu", precision=precision, compile=compilation)


def check_stores(options: "PipelineOptions", **folders: str | None) -> None:
    """Refuses local folders for Dataflow's workers, which cannot see them.

    Raises:
      CallError: a folder is local.
    """
    from camboxes.pipeline.jobs.beam_options import runner_name
    from camboxes.transforms import storage

    if runner_name(options) != "DataflowRunner":
        return
    for name, folder in folders.items():
        if folder is not None and storage.is_local(folder):
            raise CallError(
                f"--{name} {folder!r} is a local path, and workers on other machines cannot see it; "
                "copy it to a store and name that: gs://BUCKET/FOLDER or s3://BUCKET/FOLDER"
            )


def described(build: "Callable[[beam.Pipeline], Any]", options: "PipelineOptions") -> bool:
    """Writes only the description of the job that `build` assembles, where a flex template's launcher asks for it.

    The launcher starts the job when this process has ended. Returns whether it asked.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    if options.view_as(GoogleCloudOptions).template_location is None:
        return False
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    pipeline.run()
    return True
