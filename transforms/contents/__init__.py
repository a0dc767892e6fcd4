"""The encoded bytes of an image, wherever it lies: in a file below the root, or in a container.

May import `camboxes.transforms.containers`, `images` and `storage`.
"""
