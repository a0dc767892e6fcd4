"""Lists data sets - class folders, manifests, COCO, Open Images - with one parser of label values for all formats.

May import `camboxes.transforms.storage`. No Beam transform, no torch.
"""
