"""Learns thresholds and calibrated scores from a few boxed images.

May import `camboxes.pipeline.evaluation` and `camboxes.transforms`.
"""
