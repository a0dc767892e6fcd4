"""A run becomes a data set to train a detector on: which images and boxes go out, and where to.

May import `camboxes.transforms` and `camboxes.pipeline.formats`.
"""
