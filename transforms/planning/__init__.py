"""Which images there are, in which shards, with which ids and classes; what is taken over from another run.

May import `camboxes.transforms.sources`, `containers`, `contents`, `storage` and the records.
"""
