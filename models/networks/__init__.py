"""A name becomes a network: its layers, its weights, its preprocessing and the names of its classes.

May import torch, timm, torchvision, open_clip and `camboxes.models.introspection`.
"""
