"""Groups of command-line options that several commands share, with their help.

May import `camboxes.models` and `camboxes.transforms`, where they are used.
"""
