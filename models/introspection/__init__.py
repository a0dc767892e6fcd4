"""Takes a network apart and records what its layers give in one pass.

Knows plain `torch.nn.Module`s alone: imports no other part of camboxes.
"""
