"""Reviews a run in FiftyOne: dataset, a reviewer's actions, operators, server and plugin.

`load_dataset` gives a run's data set without opening the App, `serve` opens it. May import `camboxes.transforms`,
`camboxes.pipeline.jobs` and `camboxes.pipeline.options`; FiftyOne is imported where it is used.
"""

from camboxes.pipeline.review.serving import ReviewJob as ReviewJob
from camboxes.pipeline.review.serving import load_dataset as load_dataset
from camboxes.pipeline.review.serving import serve as serve
