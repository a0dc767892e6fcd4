"""What is fitted: the GAP conversion from image-level labels, and the regressor of self-training.

May import everything else in `camboxes.models`.
"""
