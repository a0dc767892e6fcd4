"""Trains networks: GAP conversions from image-level labels, and the map regressor of self-training.

May import everything else in `camboxes.models`.
"""
