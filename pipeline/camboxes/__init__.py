"""Image-level labels in, pseudo bounding boxes out, by class activation maps (Zhou et al., CVPR 2016).

What a notebook needs:

    import camboxes
    from PIL import Image

    [boxes] = camboxes.find_boxes([Image.open("cat.jpg")], [["Egyptian cat"]])  # images in memory
    run = camboxes.label("photos/", "boxes/")  # a data set, into a folder
    run = camboxes.open_run("boxes/")  # a finished run

`camboxes.pipeline` has all commands as functions, `camboxes.transforms` the steps of a Beam job, `camboxes.models` the
network. This module imports `camboxes.pipeline` when a function is called.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camboxes.pipeline.run import Box, Run

__all__ = ["__version__", "find_boxes", "label", "open_run"]


def find_boxes(
    images: Sequence[Any],
    labels: Sequence[Sequence[str]],
    label_map: Mapping[str, Any] | None = None,
    **options: Any,
) -> "list[list[Box]]":
    """Draws pseudo boxes on images in memory: the same that `label` draws.

    A network that is given by name is kept for the next call, until another one is named.

    Args:
      images: PIL images, which are turned upright by their EXIF orientation; or uint8 arrays: [height, width, 3] in
        RGB, [height, width] (grey) or [height, width, 4] (alpha is dropped).
      labels: for each image, its labels.
      label_map: the network's classes, by name or index, that a label stands for; None to match names.
      options: how boxes are made, as fields of `camboxes.pipeline.LabelJob`: model, method, scales, refine, threshold,
        boxes, ...

    Returns:
      For each image its boxes, by label and rank, in pixels of the upright image. An image has none for a label that
      stands for no class, and none where its map is nowhere positive.

    Raises:
      ValueError: a label matches no class, or more than one; one of the images is no image; the numbers of images and
        of lists of labels differ; an option's value is wrong.
    """
    from camboxes.pipeline.in_memory import find_boxes

    return find_boxes(images, labels, label_map, **options)


def label(input: str, output: str, **options: Any) -> "Run":
    """Draws pseudo-boxes for a data set, into a folder. A run that was cut short continues.

    Args:
      input: the data set: a folder of class folders, a manifest, ... (docs/how-to/inputs.md).
      output: the folder for the run.
      options: other fields of `camboxes.pipeline.LabelJob`, such as threshold=0.4.

    Returns:
      The finished run.

    Raises:
      Exception: what `camboxes.pipeline.label` raises.
    """
    from camboxes.pipeline import LabelJob
    from camboxes.pipeline import label as label_job

    return label_job(LabelJob(input=input, output=output, **options))


def open_run(path: str) -> "Run":
    """The finished run in a folder. Raises a ValueError if there is none, or if it is not finished."""
    from camboxes.pipeline import Run

    return Run.open(path)


def __getattr__(name: str) -> Any:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib.metadata

    return importlib.metadata.version("camboxes")


def __dir__() -> list[str]:
    return __all__
