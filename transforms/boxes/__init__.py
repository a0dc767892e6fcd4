"""A stored map becomes boxes: numpy and OpenCV alone, called by everybody who draws a box.

Neither torch nor Beam.
"""
