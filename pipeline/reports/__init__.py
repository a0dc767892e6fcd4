"""Makes what a person looks at: the HTML page with its pictures and charts, figures of methods, remarks on an input.

May import `camboxes.transforms` and `camboxes.pipeline.evaluation`.
"""
