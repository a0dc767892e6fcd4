"""Passes over an image become one map for each of its labels: scales, flips, competition, refinement.

May import `camboxes.models.cam` and what lies below it.
"""
