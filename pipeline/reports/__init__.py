"""What a person looks at: the HTML page with its pictures and charts, and remarks on an input.

May import `camboxes.transforms` and `camboxes.pipeline.evaluation`.
"""
