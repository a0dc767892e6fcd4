"""Groups the entries of a tar file into samples: an image and its labels.

WebDataset's rule comes first. The key of a name is its part up to the first dot after its folders. Consecutive entries
with one key are a sample: cat/7.jpg and cat/7.cls have the key cat/7. Three more cases are read:

- A name may contain dots. IMG_2024.05.11.jpg is an image with the labels of IMG_2024.05.11.cls; or, if its key has no
  other image, with those of IMG_2024.cls. Beside IMG_2024.jpg, and without a label of the same name, it is what
  WebDataset takes it for: a further field of that sample, such as a mask.
- A sample may be torn apart: all images first, then all labels. Entries without a partner among their neighbours are
  held until the end, and joined by their keys.
- A key may be repeated. The first complete sample of a key counts, with the labels beside it.

An image without a label is passed over, and so is a label without an image. No label is guessed: an image that shows
none of the labels has an empty .cls.
"""

from collections.abc import Generator, Iterator
from typing import NamedTuple

from camboxes.transforms.containers.members import ContainerError, Member, distinct
from camboxes.transforms.sources.entries import PassedOver

NO_IMAGE, NO_LABEL = "its sample has no image", "its sample has no label"
APART = "a label apart from its sample, which has others beside its image"
FURTHER, SHARED = "a further image of its sample", "one of several images that share a label"
REPEATED, AMBIGUOUS = "repeats the key of a sample before it", "separated from its labels, and its name repeats"
NEITHER = "neither an image nor a label"


class TarEntry(NamedTuple):
    """An entry of a tar file that belongs to a sample.

    Attributes:
      name: see `Member`.
      key: the name up to the first dot after its folders.
      stem: the name up to its last dot.
      is_image: whether it ends like an image.
      labels: those that it gives its sample, maybe none; None for an entry that gives no labels; an error for labels
        that cannot be understood.
      place: see `Member`.
    """

    name: str
    key: str
    stem: str
    is_image: bool
    labels: tuple[str, ...] | ContainerError | None
    place: int


class Samples:
    """Groups entries into samples.

    Holds the keys of all samples, and the entries without a partner.
    """

    def __init__(self) -> None:
        self._key = ""
        self._neighbours: dict[str, TarEntry] = {}  # by their names
        self._torn: dict[str, list[TarEntry]] = {}  # by their keys
        self._complete: set[str] = set()  # stems

    def put(self, entry: TarEntry) -> Iterator[Member | PassedOver]:
        """Takes an entry, and yields the sample that ends before it, if any.

        Raises:
          ContainerError: a label cannot be understood.
        """
        if entry.key != self._key or entry.name in self._neighbours:
            yield from self._end()
        self._key = entry.key
        self._neighbours[entry.name] = entry

    def rest(self) -> Iterator[Member | PassedOver]:
        """Yields the last sample, the samples that were torn apart, and the entries left over. Errors: see `put`."""
        yield from self._end()
        joined = [item for key, entries in self._torn.items() for item in self._joined(key, entries)]
        yield from (item for item in joined if isinstance(item, PassedOver))
        yield from sorted((item for item in joined if isinstance(item, Member)), key=lambda member: member.place)

    def _end(self) -> Iterator[Member | PassedOver]:
        entries = list(self._neighbours.values())
        self._neighbours = {}
        if entries:
            torn = yield from self._samples(entries)
            if torn:
                self._torn.setdefault(torn[0].key, []).extend(torn)

    def _samples(self, entries: list[TarEntry]) -> Generator[Member | PassedOver, None, list[TarEntry]]:
        """Yields the complete samples of consecutive entries of a key; returns images and labels without partners."""
        torn, stems = list[TarEntry](), dict[str, list[TarEntry]]()
        for entry in entries:
            stems.setdefault(entry.stem, []).append(entry)
        main = any(entry.is_image and entry.stem == entry.key for entry in entries)
        for stem, of_stem in stems.items():
            images = [entry for entry in of_stem if entry.is_image]
            labels = [entry for entry in of_stem if entry.labels is not None]
            further = images[1:]
            if images and labels:
                yield self._sample(images[0], labels)
            elif images and main and stem != images[0].key:
                further = images
            else:
                torn += images[:1] + labels
            yield from (PassedOver(image.name, FURTHER) for image in further)
        if not any(entry.is_image or entry.labels is not None for entry in entries):
            yield PassedOver(entries[0].name, NEITHER)
        return torn

    def _joined(self, key: str, entries: list[TarEntry]) -> Iterator[Member | PassedOver]:
        """Joins the entries of a key that had no partners."""
        if len({entry.name for entry in entries}) < len(entries):
            for entry in entries:
                yield PassedOver(entry.name, AMBIGUOUS if entry.is_image else NO_IMAGE)
            return
        torn = yield from self._samples(entries)
        images = [entry for entry in torn if entry.is_image]
        labels = [entry for entry in torn if not entry.is_image and entry.stem == key]
        for image in images:
            if image.stem in self._complete:
                yield PassedOver(image.name, REPEATED)
            elif key in self._complete:
                yield PassedOver(image.name, FURTHER)
            elif not labels:
                yield PassedOver(image.name, NO_LABEL)
            elif len(images) > 1:
                yield PassedOver(image.name, SHARED)
            else:
                yield self._sample(image, labels)
        for entry in torn:
            if not entry.is_image and not (images and entry in labels):
                yield PassedOver(entry.name, APART if entry.stem in self._complete else NO_IMAGE)

    def _sample(self, image: TarEntry, labels: list[TarEntry]) -> Member | PassedOver:
        if image.stem in self._complete:
            return PassedOver(image.name, REPEATED)
        self._complete.add(image.stem)
        found = list[str]()
        for entry in labels:
            if isinstance(entry.labels, ContainerError):
                raise entry.labels
            found += entry.labels or ()
        return Member(image.name, distinct(found), image.place)
