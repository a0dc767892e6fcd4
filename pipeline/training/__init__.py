"""What `camboxes train` reads: images with labels, split so that copies stay on one side; features and photographs.

May import `camboxes.models.training` and `camboxes.transforms`.
"""
