"""Thresholds and calibrated scores, learnt from a few boxed images.

May import `camboxes.pipeline.evaluation` and `camboxes.transforms`.
"""
