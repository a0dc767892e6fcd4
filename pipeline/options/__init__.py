"""Options as fields of dataclasses: each has its default, its help and its place on the command line once.

May import `camboxes.models` and `camboxes.transforms`, where they are used.
"""
