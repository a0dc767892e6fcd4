"""A reader and a writer for each format of boxes: pure functions of bytes, text and rows.

A reader makes a `GroundTruth` of a file's bytes. A writer takes the rows of images, with the columns of a shard. Their
boxes have four more values, which `detection_data` adds: `category`, the name, and where the box comes from, as
`source`, `model`, `method` and `threshold`.

May import `camboxes.transforms`.
"""
