"""What a data set says of its images: class folders, manifests, COCO, Open Images; one parser of label values.

May import `camboxes.transforms.storage`. No Beam transform, no torch.
"""
