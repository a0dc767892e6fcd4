"""The parts of `camboxes selftrain`: the network, a sample of the run, the rounds of training, and the record.

May import `camboxes.models.training` and `camboxes.transforms`.
"""
