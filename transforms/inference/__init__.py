"""What the inference step works with: the classifier of a worker, and what is saved of a batch that fails.

May import `camboxes.models`, `camboxes.transforms.contents` and what lies below it.
"""
