"""Plans a run: its images with their shards, ids and classes; finds rows to reuse from another run.

May import `camboxes.transforms.sources`, `containers`, `contents`, `storage` and the records.
"""
