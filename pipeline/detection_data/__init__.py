"""Makes a run a data set that a detector is trained on: which images and boxes, in which split, in which files.

May import `camboxes.transforms`, `camboxes.pipeline.formats` and `sampling`.
"""
