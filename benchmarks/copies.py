"""Which pictures `camboxes train` takes for copies: by how many bits two hashes may differ.

    python benchmarks/copies.py DATA_FOLDER [DATA_FOLDER ...]

Of all images below each folder, as the network sees them: how many pairs look alike at each distance, with the first of
them to look at; and how many images are found again when they are encoded anew (JPEG, quality 60), resized to half
their sides, or both.
"""

import argparse
import io
import itertools
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.pipeline.training.copies import print_of

DISTANCES = (0, 2, 4, 6)  # bits
NETWORK = Preprocessing((0.5,) * 3, (0.5,) * 3, 224, "bicubic")  # EfficientNet-Lite0's


def look(image: Image.Image) -> int | None:
    pixels = NETWORK.resize(np.array(image.convert("RGB")))
    return print_of(b"", pixels.permute(1, 2, 0).numpy()).look


def anew(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file)


def looks(path: Path) -> list[int | None]:
    image = Image.open(path).convert("RGB")
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
    return [look(each) for each in (image, anew(image), half, anew(half))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    for folder in parser.parse_args().data:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        with ProcessPoolExecutor() as processes:
            found = list(processes.map(looks, paths, chunksize=16))
        print(f"{folder}: {len(paths)} images")
        own = [(path, one[0]) for path, one in zip(paths, found, strict=True) if one[0] is not None]
        pairs = [((a ^ b).bit_count(), p.name, q.name) for (p, a), (q, b) in itertools.combinations(own, 2)]
        for distance in DISTANCES:
            alike = [pair for pair in pairs if pair[0] <= distance]
            shares = [
                np.mean([None not in (a, b) and (a ^ b).bit_count() <= distance for a, b in zip(*columns, strict=True)])
                for columns in ([[one[0] for one in found], [one[kind] for one in found]] for kind in (1, 2, 3))
            ]
            again = ", ".join(
                f"{what} {100 * share:.1f}%" for what, share in zip(("anew", "half", "both"), shares, strict=True)
            )
            print(f"  {distance} bits: {len(alike)} pairs, such as {alike[:3]}; found again: {again}")


if __name__ == "__main__":
    main()
