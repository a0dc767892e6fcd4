"""Takes a network apart and records what its layers give in one pass.

Knows plain `torch.nn.Module`s alone: imports nothing else of camboxes but `camboxes.models.spec`.
"""
