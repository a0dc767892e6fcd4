"""The parts of the inference step: reader of images, scheduler, builder of rows, salvage of failed batches.

May import `camboxes.models`, `camboxes.transforms.contents` and what lies below it.
"""
