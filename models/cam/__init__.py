"""Class activation maps: one family of methods a module, and one registry of their names, `methods`.

May import `camboxes.models.classifier` and what lies below it; no Beam, no files.
"""
