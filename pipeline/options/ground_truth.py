"""The option that names true boxes, for every job that judges by them."""

import functools

from camboxes.pipeline.options.fields import option

truth_option = functools.partial(option, help="COCO .json, a .csv of boxes, or a folder of VOC .xml", metavar="FILE")
