"""What everyday words stand for among ImageNet's classes, as WordNet 3.0 has it (LICENSE).

`python docs/make_nouns.py` wrote nouns.json.gz; nothing is downloaded. Imports `camboxes.transforms.planning.spelling`.
"""
