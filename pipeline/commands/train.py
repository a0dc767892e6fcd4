"""Trains a classifier on image-level labels, for camboxes label --model CKPT.

DATA is what camboxes label reads: a folder of class folders, or a table with a path and labels. Where every
image has exactly one label, classes exclude each other (softmax); else an image may have any number of them (sigmoid),
and one without a label shows none. Images that show none of the classes may have a label of their own, which
--background names. The network is trained as its GAP conversion, so that class activation maps are exact for it: the
head on frozen features (--train head), or after that everything (--train all). It begins with the pretrained weights of
--model, or with another training's CKPT.
Part of the images is held out to choose the best epoch by, and to report how good it is; the choice flatters that
figure. Copies of an image, by content, are never on both sides. A folder of train/ and val/ with the class
folders below is split by these folders; test/ is left out.
Called again with the same options, a training that was cut short continues.
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
        print("the epoch was chosen on the same images, so these figures flatter: the fewer images, the more")
    output = job.output.rstrip("/")
    print(f"wrote {', '.join(str(Path(output, name)) for name in trained.written)}")
    fields = dataclasses.fields(SourceOptions)
    data = [text for field in fields if (value := getattr(job, field.name)) for text in (option_name(field), value)]
    call = ["camboxes", "label", "--model", output, *data, "--output", f"{output}-boxes"]
    print(f"draw boxes: {shlex.join(call)}")
