"""The parts of `camboxes train`: labelled images, copies, the split, features, and the folder that is written.

May import `camboxes.models.training`, `camboxes.transforms` and `camboxes.pipeline.reports`.
"""
