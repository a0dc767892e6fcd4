"""The decisions of a review, and the step that keeps accepted boxes when boxes are drawn again.

May import the records, the plan and `camboxes.transforms.storage`.
"""
