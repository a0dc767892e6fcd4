"""The inputs of a training: features that are computed once and kept in files, or photographs."""

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from camboxes.models import Classifier
from camboxes.models.execution.process import passes_side_by_side, use_one_core
from camboxes.models.networks.gap_conversions import GapNetwork
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.training.examples import Examples, augment
from camboxes.models.training.lightning_module import frozen_features
from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.sampling import number_of
from camboxes.pipeline.training.copies import Print, print_of
from camboxes.pipeline.training.data import TrainingData
from camboxes.transforms import storage
from camboxes.transforms.contents.image_files import locate, read_image
from camboxes.transforms.images.decoding import BadImageError, check_not_blank, decode
from camboxes.transforms.ordered_threads import OrderedMap, batched

_CHUNK = 256  # images in a file of features


class Read(NamedTuple):
    """The reason for each image that cannot be used, whose features are zeros, and the hashes of each other image."""

    rejected: dict[str, str]
    prints: dict[str, Print]


def compute_features(
    data: TrainingData, base: Classifier, network: GapNetwork, folder: Path, reporter: Reporter
) -> Read:
    """Computes the features of all images, and writes them to files of _CHUNK images; finished files are kept."""
    size, batch_size = base.preprocessing.size, base.spec.batch_size
    side_by_side = passes_side_by_side(base.spec.device)
    rejected: dict[str, str] = {}
    prints: dict[str, Print] = {}

    def read(path: str) -> torch.Tensor:
        try:
            file = read_image(locate(data.root, path))
            photograph = decode(file)
            check_not_blank(photograph)
            image = base.preprocessing.resize(photograph)
            prints[path] = print_of(file, image.permute(1, 2, 0).numpy())
            return image
        except BadImageError as error:
            rejected[path] = str(error)
            return torch.zeros((3, size, size), dtype=torch.uint8)

    def infer(images: list[torch.Tensor]) -> np.ndarray:
        batch = torch.zeros((batch_size, 3, size, size), dtype=torch.uint8)  # one shape, since bits depend on it
        batch[: len(images)] = torch.stack(images)
        return frozen_features(network, base.normalize(batch))[: len(images)].cpu().numpy()

    with (
        reporter.progress(len(data.labels), "image", "features") as advance,
        ThreadPoolExecutor(2) as readers,
        ThreadPoolExecutor(side_by_side, initializer=use_one_core) as passes,
    ):
        for number, paths in enumerate(batched(data.labels, _CHUNK)):
            file, found = (folder / f"{number:06d}{suffix}" for suffix in (".npy", ".json"))
            if file.exists():
                advance(len(paths))
            else:
                batches = batched(OrderedMap("decode", readers, read, 4 * batch_size).all(paths), batch_size)
                of_batches = []
                for of_batch in OrderedMap("forward", passes, infer, side_by_side).all(batches):
                    of_batches.append(of_batch)
                    advance(len(of_batch))
                features = np.concatenate(of_batches)
                for path, finite in zip(paths, np.isfinite(features).all((1, 2, 3)), strict=True):
                    if not finite:
                        rejected.setdefault(path, "not_finite: the network's output holds NaN or infinity")
                usable = {path: prints[path] for path in paths if path not in rejected}
                reasons = {path: rejected[path] for path in paths if path in rejected}
                storage.write_json(str(found), {"rejected": reasons, "prints": usable})
                array = io.BytesIO()
                np.save(array, features)
                storage.write_bytes(str(file), array.getvalue())  # last: it marks the chunk as done
            of_chunk = storage.read_json(str(found))
            rejected |= of_chunk["rejected"]
            prints |= {path: Print(*of_image) for path, of_image in of_chunk["prints"].items()}
    return Read(dict(sorted(rejected.items())), {path: prints[path] for path in data.labels if path not in rejected})


class CachedFeatures:
    """Reads an image's features from the files that `compute_features` wrote for all `paths`."""

    def __init__(self, folder: Path, paths: Iterable[str]):
        self._places = {path: divmod(index, _CHUNK) for index, path in enumerate(paths)}
        self._chunks = [np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))]

    def __call__(self, path: str, epoch: int | None) -> torch.Tensor:
        """Reads the features of one image; see `Examples.read`."""
        chunk, row = self._places[path]
        return torch.from_numpy(self._chunks[chunk][row].copy())


def read_view(path: str, epoch: int | None, *, root: str, preprocessing: Preprocessing, seed: int) -> torch.Tensor:
    """Reads a photograph: a random view of it that depends on the epoch, or all of it if there is no epoch."""
    photograph = decode(read_image(locate(root, path)))
    if epoch is None:
        return preprocessing.resize(photograph)
    return augment(photograph, preprocessing.size, number_of(path, f"{seed}:{epoch}") >> 200)  # 56 bits


def examples(data: TrainingData, paths: Sequence[str], read: Callable[[str, int | None], torch.Tensor]) -> Examples:
    """Makes training examples of some images of a data set, with their labels as targets."""
    index = {label: position for position, label in enumerate(data.classes)}
    if data.multilabel:
        targets = torch.zeros(len(paths), len(index))
        for row, path in zip(targets, paths, strict=True):
            row[[index[label] for label in data.labels[path]]] = 1
    else:
        targets = torch.tensor([index[data.labels[path][0]] for path in paths])
    return Examples(paths, read, targets, len(index))
