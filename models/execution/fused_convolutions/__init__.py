"""Convolutions fused with the norm and the activation behind them. `fast_layers` alone uses it.

May import `camboxes.models.introspection`.
"""
