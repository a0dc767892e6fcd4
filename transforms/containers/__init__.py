"""Lists and reads images inside containers: WebDataset's tar files, TFRecords, Parquet files.

May import `camboxes.transforms.sources`, `images` and `storage`. No Beam transform, no torch.
"""
