"""A reader and a writer for each format of boxes.

May import `camboxes.transforms`.
"""
