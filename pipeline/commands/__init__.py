"""The commands of `camboxes`: each parses its options, calls a function, and prints what came out.

May import everything else in camboxes.
"""
