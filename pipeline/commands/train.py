"""Trains a classifier on image-level labels, for camboxes label --model CKPT.

DATA is what camboxes label reads, such as a folder of class folders, or a table with a path and labels. If every image
has exactly one label, the classes exclude each other (softmax). Otherwise an image may have any number of labels
(sigmoid), and an image without a label shows none of the classes. --background names labels of images that show none of
the classes. The network is trained as its GAP conversion, for which class activation maps are exact: the head on frozen
features (--train head), or then all layers (--train all). It begins with the pretrained weights of --model, or with
another training's CKPT.
Some images are held out, to choose the best epoch and to report how good it is; that figure is too optimistic, because
the epoch was chosen by it. Copies of an image are never on both sides. Folders train/ and val/ with class folders are
used as the split; test/ is not used.
If a training was interrupted, the same command continues it.
"""

import dataclasses
import shlex
from pathlib import Path

from camboxes.pipeline.options.data import SourceOptions
from camboxes.pipeline.options.fields import option_name
from camboxes.pipeline.reporter import TERMINAL
from camboxes.pipeline.train_job import TrainJob, train

JOB = TrainJob


def run(job: TrainJob) -> None:
    """Runs the command."""
    trained = train(job, TERMINAL)
    if not trained.written:
        print(f"{job.output} holds this training, finished; --overwrite trains again")
        return
    for name, value in trained.metrics.items():
        guess = trained.guessing[name]
        print(f"{name.replace('_', ' ')} {100 * value:.1f}% on validation images (guessing: {100 * guess:.1f}%)")
    if trained.metrics:
        print(
            "the epoch was chosen on the same images, so these figures are too optimistic, most of all with few images"
        )
    output = job.output.rstrip("/")
    print(f"wrote {', '.join(str(Path(output, name)) for name in trained.written)}")
    fields = dataclasses.fields(SourceOptions)
    data = [text for field in fields if (value := getattr(job, field.name)) for text in (option_name(field), value)]
    call = ["camboxes", "label", "--model", output, *data, "--output", f"{output}-boxes"]
    print(f"draw boxes: {shlex.join(call)}")
