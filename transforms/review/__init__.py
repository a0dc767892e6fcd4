"""What people decided about a run's images, and how it is kept when boxes are drawn again.

May import the records, the plan and `camboxes.transforms.storage`.
"""
