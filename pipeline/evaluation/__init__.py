"""A run beside true boxes: pairs, judgement, figures, average precision, intervals, comparison.

May import `camboxes.transforms` and `camboxes.pipeline.formats`.
"""
