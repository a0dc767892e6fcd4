"""Reads the encoded bytes of images: from files below the root, from containers, or from the rows themselves.

May import `camboxes.transforms.containers`, `images` and `storage`.
"""
