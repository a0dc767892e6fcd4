"""Words remarks for a person: on an input before a run, on rejected images and on copies. Each says what to do."""

import itertools
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from camboxes.models.counts import counted
from camboxes.pipeline.untrusted_text import on_one_line
from camboxes.transforms import storage
from camboxes.transforms.contents.image_files import locate
from camboxes.transforms.planning.unmatched import described
from camboxes.transforms.sources.background import CONTRADICTION
from camboxes.transforms.sources.class_folders import NO_IMAGE
from camboxes.transforms.sources.entries import Split
from camboxes.transforms.sources.label_values import called_background, called_missing, joined_labels, near_twins
from camboxes.transforms.sources.passed_over import REST, Count, Tally
from camboxes.transforms.sources.splits import split_called

if TYPE_CHECKING:
    from camboxes.transforms.planning.label_matching import LabelMatcher
    from camboxes.transforms.planning.listing import Listing

_ENDINGS = 5  # named for each reason
_LABELS = 10  # named in each remark
_ASSUMED = 1000  # characters of an assumption, at most
_LOOKED_UP, _LOOKED_UP_ON_A_STORE = 1000, 20  # images, at most

_PHOTOGRAPHS = {  # lost unless somebody converts them
    ".heic .heif .hif": "convert them to JPEG: ImageMagick's magick mogrify -format jpg *{ending}, or pillow-heif",
    ".cr2 .cr3 .nef .arw .dng .orf .rw2 .raf .pef .srw .x3f": "develop them to JPEG: darktable-cli, or Python's rawpy",
    ".jxl .jp2 .j2k": "convert them to JPEG: ImageMagick's magick mogrify -format jpg *{ending}",
}
_OTHERS = {
    ".psd .svg .eps .tga .ico .exr .hdr": "convert them to PNG: ImageMagick's magick mogrify -format png *{ending}",
    ".dcm .dicom .nii": "write their pixels to PNG: Python's pydicom or nibabel",
    ".mp4 .mov .avi .mkv .webm .m4v .mpg .mpeg .mts": "take frames out of them: ffmpeg -i FILE %05d.jpg",
    ".zip .gz .tgz .rar .7z .bz2 .xz": "unpack them",
    ".tar .tfrecord .tfrec .parquet": "containers are an input of their own: name them, in quotes: '*{ending}'",
}
_REMEDY = {ending: remedy for endings, remedy in (_PHOTOGRAPHS | _OTHERS).items() for ending in endings.split()} | {
    "": "if they are images, name them in a table, which may name any file"
}
_LOSSES = frozenset(ending for endings in _PHOTOGRAPHS for ending in endings.split())


def of_input(
    passed_over: Tally, labels: Collection[str], splits: Mapping[str, Split], assumed: Sequence[str] = ()
) -> Iterator[str]:
    """Remarks on an input; the arguments are those of its `Listing`. WARNING: images or labels may be lost."""
    yield from (on_one_line(text, _ASSUMED) for text in assumed)
    if splits:
        found = ", ".join(f"{on_one_line(folder)} ({split})" for folder, split in sorted(splits.items()))
        yield f"folders of splits: {found}" + ("" if assumed else "; labels are the folders inside them")
    if gone := passed_over.without(labels).labels:
        yield "WARNING: labels without an image, because no file in their folders is read: " + _several(
            f"{on_one_line(label)} ({count.files}, such as {on_one_line(count.example)})"
            for label, count in sorted(gone.items())
        )
    for twins in near_twins(labels)[:_LABELS]:
        yield (
            f"WARNING: {' and '.join(repr(on_one_line(label)) for label in twins)} are different labels that differ "
            "only in case, spaces or accents; if they mean the same, write them alike"
        )
    for label, sign in joined_labels({*labels})[:1]:
        yield (
            f"WARNING: {on_one_line(label)!r} is read as one label, but its parts are labels; if it means several, "
            f"write one row for each, or name the separator of a table: --label-separator {sign!r}"
        )
    if len(called := sorted(filter(split_called, labels))) > 1:
        yield (
            f"WARNING: {', '.join(map(on_one_line, called))} are read as labels, and are named like splits; if they "
            "are splits, remove the folders beside them, or use one of them as the input (docs/how-to/inputs.md)"
        )
    if missing := called_missing(labels):
        yield (
            f"WARNING: {', '.join(map(repr, missing))} is read as a label, but programs write it for a missing "
            "value: leave the cell empty if there is no label"
        )
    for label in map(on_one_line, called_background(labels)):
        option = f"--background {shlex.quote(label)}"
        yield f"{label!r} is read as a class; if its images show none of the other classes: {option}"
    for reason, endings in sorted(passed_over.kinds.items()):
        yield from _of_reason(reason, endings)


def of_label_map(label_map: Collection[str], labels: Collection[str]) -> Iterator[str]:
    """Warnings about unused names of a label map that nearly equal a label that the map lacks."""
    for twins in near_twins({*label_map, *labels}):
        unused, unmapped = ([name for name in twins if name in here and name not in there]
                            for here, there in ((label_map, labels), (labels, label_map)))  # fmt: skip
        if unused and unmapped:
            yield (
                f"WARNING: the label map has {on_one_line(unused[0])!r}, and the label is {on_one_line(unmapped[0])!r}:"
                " it is not mapped; write them alike"
            )


def of_assumed(labels: Collection[str], matcher: "LabelMatcher") -> Iterator[str]:
    """What labels were taken for that are not written as the name of a class."""
    read = {label: matcher.read(label) for label in sorted(labels)}
    assumed = {label: match.classes for label, match in read.items() if match.meaning or match.name}
    if assumed:
        yield "labels matched by their meaning (--dry-run lists all): " + _several(
            f"{on_one_line(label)} = "
            + (f"{len(classes)} classes" if len(classes) > 1 else on_one_line(matcher.words.shown(classes)))
            for label, classes in assumed.items()
        )


def of_doubtful(labels: Collection[str], matcher: "LabelMatcher") -> Iterator[str]:
    """Warnings about labels that may mean something else than what they were taken for."""
    read = {label: matcher.read(label) for label in sorted(labels)}
    doubtful = {label: match for label, match in read.items() if match.others}
    for label, match in itertools.islice(doubtful.items(), _LABELS):
        others = "; ".join(described(meaning, matcher.words) for meaning in match.others)
        yield (
            f"WARNING: {on_one_line(label)} is taken for {matcher.words.shown(match.classes)}; the word may also mean: "
            f"{others}"
        )
    if rest := list(doubtful)[_LABELS:]:
        yield f"WARNING: other words may mean something else, too: {_several(map(on_one_line, rest))}"


class Lookup(NamedTuple):
    """The result of looking up some images."""

    images: int  # number of images that were looked up
    missing: Sequence[str]  # the paths of images that do not exist
    root: str  # see `Listing`

    def remark(self) -> str | None:
        """A warning if some are missing, else None."""
        if not self.missing:
            return None
        return (
            f"WARNING: not there: {len(self.missing):,} of {counted(self.images, 'image')} that were looked up, "
            f"such as {on_one_line(self.missing[0])}; paths are relative to {on_one_line(self.root)}: if files lie "
            f"elsewhere, "
            "name it with --root DIR"
        )


def look_up(source: "Listing") -> Lookup:
    """Looks up at most 1,000 images, 20 on a store. Skips members of containers: these were opened to list them."""
    most = _LOOKED_UP if storage.is_local(source.root) else _LOOKED_UP_ON_A_STORE
    paths = [image.path for image in itertools.islice(source, most) if image.place is None]
    places = {path: locate(source.root, path) for path in paths}
    missing = [path for path, place in places.items() if place is not None and not storage.exists(place)]
    return Lookup(len(paths), missing, source.root)


def of_background(images: int, labels: Collection[str]) -> Iterator[str]:
    """A remark on the images of a run that were skipped as background; none where there are none."""
    if images:
        names = _several(map(on_one_line, labels))
        yield f"background: {counted(images, 'image')} without any of the classes, labelled {names}"


def of_rejected(codes: Collection[str], root: str) -> Iterator[str]:
    """Remarks on images that were rejected for reasons with these codes."""
    if "missing" in codes:
        yield f"missing: paths are looked up below {on_one_line(root)}; if files lie elsewhere, name it with --root DIR"
    if "outside_root" in codes:
        yield f"outside_root: nothing outside of {on_one_line(root)} is read; --root DIR can name a wider folder"
    if CONTRADICTION in codes:
        yield (
            f"{CONTRADICTION}: an image with a background label and a class's label gets no box and does not "
            "count as an empty image; keep the label that is right"
        )
    if "too_large" in codes:
        yield "too_large: --max-bytes and --max-pixels set the limits"


def of_copies(images: int, example: Sequence[str]) -> str:
    """A remark on images that are copies of others; `example` is a copy and its original."""
    path, other = map(on_one_line, example)
    return f"copies of other images: {images}, such as {path} of {other}"


def of_other_labels(images: int, example: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A warning about copies with different labels; `example` has the path and the labels of two of them."""
    path, other = (f"{on_one_line(path)} ({_several(map(on_one_line, its)) or 'no label'})" for path, its in example)
    return (
        f"WARNING: images of the same bytes with other labels: {images}, such as {path} and {other}; if one label is "
        "wrong, remove that copy; if both are right, name the image once, with both labels, in a table"
    )


def _of_reason(reason: str, endings: Mapping[str, Count]) -> Iterator[str]:
    files = sum(count.files for count in endings.values())
    found = sorted(endings.items(), key=lambda item: (item[0] not in _LOSSES, item[0] == REST, -item[1].files))
    kinds = [f"{_kind(count, ending)} ({on_one_line(count.example)})" for ending, count in found[:_ENDINGS]]
    kinds += [counted(len(found) - _ENDINGS, "more kind")] if len(found) > _ENDINGS else []
    yield f"{counted(files, 'file')} passed over, {reason}: {', '.join(kinds)}"
    if reason == NO_IMAGE:
        for ending, count in found[:_ENDINGS]:
            if remedy := _REMEDY.get(ending):
                warning = "WARNING: " if ending in _LOSSES else ""
                yield f"{warning}{_kind(count, ending)}: {remedy.format(ending=ending)}"


def _kind(count: Count, ending: str) -> str:
    return f"{count.files} {ending or 'without an ending'}"


def _several(items: Iterator[str]) -> str:
    found = list(items)
    return ", ".join(found[:_LABELS]) + (f" and {len(found) - _LABELS} more" if len(found) > _LABELS else "")
