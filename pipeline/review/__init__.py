"""A run in FiftyOne: its data set, what a reviewer does, the operators, the server and the plugin.

`load_dataset` gives a run's data set without opening the App. May import `camboxes.transforms` and
`camboxes.pipeline.jobs`; FiftyOne is imported where it is used.
"""

from camboxes.pipeline.review.loading import load_dataset as load_dataset
