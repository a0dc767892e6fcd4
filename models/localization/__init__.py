"""Makes one map for each label of an image: looks at several scales, fusion, competition, refinement.

May import `camboxes.models.cam` and what lies below it.
"""
