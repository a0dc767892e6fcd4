"""Decodes image files to upright RGB pixels, within limits.

Imports nothing else of camboxes; neither torch nor Beam.
"""
