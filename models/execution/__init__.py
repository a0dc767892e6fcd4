"""The same layers, executed faster; and how a process runs them. Without it everything gives the same boxes.

May import `camboxes.models.introspection`.
"""
