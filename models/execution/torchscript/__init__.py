"""Passes as TorchScript programs, which run without Python. `Executor` alone uses it, on a CPU.

May import `camboxes.models.introspection`.
"""
