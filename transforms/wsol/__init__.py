"""The metrics of weakly supervised localization (Choe et al., CVPR 2020): plain, and as Beam combiners.

Imports nothing else of camboxes.
"""

from camboxes.transforms.wsol.combiners import BoxedMap as BoxedMap
from camboxes.transforms.wsol.combiners import MaskedMap as MaskedMap
from camboxes.transforms.wsol.combiners import MaxBoxAcc as MaxBoxAcc
from camboxes.transforms.wsol.combiners import PxAP as PxAP
from camboxes.transforms.wsol.metrics import IOU_PERCENT as IOU_PERCENT
from camboxes.transforms.wsol.metrics import SIDE as SIDE
from camboxes.transforms.wsol.metrics import BoxAccuracy as BoxAccuracy
from camboxes.transforms.wsol.metrics import BoxCounts as BoxCounts
from camboxes.transforms.wsol.metrics import PixelCounts as PixelCounts
from camboxes.transforms.wsol.metrics import PixelPrecision as PixelPrecision
from camboxes.transforms.wsol.metrics import contour_boxes as contour_boxes
from camboxes.transforms.wsol.metrics import pixel_labels as pixel_labels
from camboxes.transforms.wsol.metrics import scale_boxes as scale_boxes
from camboxes.transforms.wsol.metrics import scale_map as scale_map
from camboxes.transforms.wsol.metrics import thresholds as thresholds
