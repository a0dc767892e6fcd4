"""Finds doubtful labels in a finished run: labels of wrong classes, and copies of an image with other labels.

Imports nothing else of camboxes.
"""
