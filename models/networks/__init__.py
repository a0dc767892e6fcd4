"""Loads networks by name: layers, weights, preprocessing and class names.

May import torch, timm, torchvision, open_clip and `camboxes.models.introspection`.
"""
