"""A stored map becomes boxes: numpy and OpenCV alone, called by everybody who draws a box.

Imports the records; neither torch nor Beam.
"""
