"""One photograph, several methods, side by side: the job of `camboxes explain`."""

import dataclasses
import functools
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from camboxes.models.networks.class_names import shown
from camboxes.models.spec import DEFAULT_MAPS, Factor, MapSpec
from camboxes.pipeline.errors import blaming_the_call
from camboxes.pipeline.options.boxes import NewBoxOptions
from camboxes.pipeline.options.fields import Options, changed, option
from camboxes.pipeline.options.maps import MapOptions
from camboxes.pipeline.options.network import ClassOptions, assumed
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.pipeline.reports.method_sheet import Column, Row, figure

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from camboxes.models import Localization, Localizer

# What label's maps are set beside, where no methods are asked for.
_OTHERS = ("cam", "gradcam++", "layercam@16", "eigencam")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Photograph(Options):
    image: str = option(help="a photograph", metavar="IMAGE", positional=True)
    labels: str | None = option(
        None,
        "classes to explain, by name; they compete as an image's labels do",
        stated="the network's two most probable classes, each by itself",
        metavar="LABEL,…",
    )
    output: str = option("grid.png", "the figure, in any format that Pillow writes", metavar="FILE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainJob(NewBoxOptions, MapOptions, ClassOptions, _Photograph):
    """What to explain, and how. Its fields are the options of `camboxes explain`, whose help describes them."""

    method: str | None = changed(
        MapOptions,
        "method",
        None,
        stated=f"label's, then {', '.join(_OTHERS)}",
        metavar="[WEIGHT*]METHOD[@LAYER]+…,…",
    )

    def each_method(self, default: MapSpec = DEFAULT_MAPS) -> list[MapSpec]:
        """The maps of each method; what is left open is the default's. Raises a ValueError as `map_spec` does."""
        methods = (default.method, *_OTHERS) if self.method is None else self.method.split(",")
        compete = self.compete and self.labels is not None
        jobs = [dataclasses.replace(self, method=method.strip(), compete=compete) for method in methods]
        return [job.map_spec(default) for job in jobs]


class Explanation(NamedTuple):
    """What several methods see in a photograph."""

    output: str  # the path of the figure
    columns: list[Column]  # the methods
    rows: list[Row]  # the classes
    notes: list[str]  # what was assumed or left out


def explain(job: ExplainJob, reporter: Reporter = LOG) -> Explanation:
    """Draws the heat maps of several methods over one photograph, in one figure.

    Raises:
      CallError: the call is wrong; the message says what to change.
      Exception: the network failed.
    """
    with reporter.step("loading libraries"):
        from camboxes.transforms import storage
        from camboxes.transforms.boxes.from_map import BoxRule, boxes_from_map
        from camboxes.transforms.boxes.stored_maps import quantize
        from camboxes.transforms.planning.label_matching import LabelMatcher

    with blaming_the_call():
        job.box_rule(BoxRule())  # a wrong value is told before torch is loaded
        job.each_method()
        spec = dataclasses.replace(job.model_spec(job.scales), batch_size=1)
        _check_output(job.output, job.image)
        photograph = _read(job.image)

        with reporter.step("loading PyTorch"):
            from camboxes.models import Localizer, load_classifier
            from camboxes.models.execution.process import use_one_core

        with reporter.step(f"loading {job.model}"):
            classifier = load_classifier(spec)
        notes = assumed(job, classifier)
        methods = job.each_method(MapSpec.default_for(classifier))
        if classifier.inexact_because and job.method is None:
            notes.append(f"cam is left out: it is not exact for {classifier.spec.name}")
            methods = [maps for maps in methods if not any(Factor("cam", None) in term.factors for term in maps.terms)]
        with reporter.step("trying the methods out"):
            localizers = [Localizer(classifier, maps) for maps in methods]
        rules = [job.box_rule(BoxRule.default_for(classifier, maps)) for maps in methods]
        matcher = LabelMatcher(classifier.class_names)
        matches = [matcher.match(label) for label in job.labels.split(",")] if job.labels else []
    with reporter.step("finding its classes"):
        logits = classifier.infer(localizers[0].resize(photograph)[0][None]).logits[0]
    of_labels = list(
        dict.fromkeys(max(match, key=logits.__getitem__) for match in matches)
    )  # the most probable of each
    classes = of_labels or logits.argsort(descending=True, stable=True)[:2].tolist()
    passes = []
    with (
        ThreadPoolExecutor(1, initializer=use_one_core) as core,  # as each of label's passes has
        reporter.progress(len(localizers), "method", "drawing maps") as advance,
    ):
        for timed in core.map(functools.partial(_timed, photograph=photograph, classes=classes), localizers):
            passes.append(timed)
            advance(1)
    columns = [Column(maps.method, milliseconds) for maps, (_, milliseconds) in zip(methods, passes, strict=True)]
    rows = []
    for number, index in enumerate(classes):
        stored = [quantize(localization.maps[number]) for localization, _ in passes]
        height, width, _ = photograph.shape
        drawn = [boxes_from_map(maps, width, height, rule) for maps, rule in zip(stored, rules, strict=True)]
        name, probability = shown(classifier.class_names, index), float(passes[0][0].probabilities[index])
        rows.append(Row(index, name, probability, list(zip(stored, drawn, strict=True))))
    scales = " and ".join(map(str, localizers[0].scales)) + (", flipped too" if job.flip else "")
    refined = "refined, " if job.refine == "affinity" else ""
    below = [classifier.spec.name, f"at {scales} ({classifier.spec.aspect}), {refined}on {classifier.spec.device}"]
    if job.method is None and not classifier.inexact_because:
        below.append(f"what label draws comes first: {methods[0].method}")
    picture = figure(photograph, columns, rows, below)
    storage.write_bytes(job.output, _encoded(picture, job.output))
    return Explanation(job.output, columns, rows, notes)


def _check_output(output: str, image: str) -> None:
    """Refuses a file that could not be written when the work is done, or that is the photograph itself."""
    from PIL import Image

    from camboxes.pipeline.jobs import run_folder
    from camboxes.transforms import storage

    run_folder.check_output(output, image)
    folder = Path(output).parent
    if storage.is_local(output) and not folder.is_dir():
        raise ValueError(f"--output {output!r}: there is no folder {str(folder)!r}; make it, or choose another")
    try:
        _encoded(Image.new("RGB", (1, 1)), output)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"--output {output!r} ends in {Path(output).suffix!r}, which Pillow cannot write; expected .png, .jpg, "
            ".webp or the like"
        ) from None


def _encoded(picture: "Image.Image", output: str) -> bytes:
    """A picture in the format that the ending of a file's name asks for."""
    from PIL import Image

    file = io.BytesIO()
    picture.save(file, Image.registered_extensions()[Path(output).suffix.lower()])
    return file.getvalue()


def _read(path: str) -> "np.ndarray":
    from camboxes.transforms import storage
    from camboxes.transforms.images.decoding import BadImageError, check_not_blank, decode

    try:
        photograph = decode(storage.read_bytes(path))
        check_not_blank(photograph)
        return photograph
    except FileNotFoundError:
        raise ValueError(f"image {path!r}: there is no file at this path") from None
    except BadImageError as error:
        raise ValueError(f"image {path!r} cannot be used: {error}") from error


def _timed(localizer: "Localizer", photograph: "np.ndarray", classes: Sequence[int]) -> "tuple[Localization, float]":
    """The classes' maps, and the milliseconds of the pass; the first one, which sets things up, does not count."""
    pixels, candidates = localizer.resize(photograph), [[index] for index in classes]
    localizer.localize([pixels], [candidates])
    start = time.perf_counter()
    [localization] = localizer.localize([pixels], [candidates])
    return localization, 1000 * (time.perf_counter() - start)
