"""What `camboxes selftrain` learns from, and its rounds.

May import `camboxes.models.training` and `camboxes.transforms`.
"""
