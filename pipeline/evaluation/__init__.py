"""Judges boxes by true ones: matching, IoU of each pair, figures with intervals, AP, comparison of two runs.

May import `camboxes.transforms` and `camboxes.pipeline.formats`.
"""
