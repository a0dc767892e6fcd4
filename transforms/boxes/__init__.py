"""Draws boxes from stored maps, with numpy and OpenCV alone, for every part of camboxes that needs boxes.

Imports the records; neither torch nor Beam.
"""
