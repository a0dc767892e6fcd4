"""Where and how a job runs: folder, lock, lease, Beam's options, worker processes, Dataflow, the flex template.

May import `camboxes.transforms` and `camboxes.pipeline.reports`.
"""
