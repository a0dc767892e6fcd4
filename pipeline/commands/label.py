"""Draws pseudo-boxes for a data set with image-level labels.

DATA is a folder of class folders (DATA/LABEL/IMAGE.jpg), or of splits of them (DATA/train/LABEL/IMAGE.jpg); or a
manifest: .csv with the columns path and label, .jsonl or .parquet with path and label or a list of labels a row, .json
of COCO annotations, .csv of Open Images' labels; or containers of images: WebDataset's .tar, .tfrecord, .parquet with
a column image, a pattern in quotes ("train-*.tar") or a folder. docs/data.md tells how each is read.
Paths are relative to the manifest's folder. All may lie on a store: s3://, gs://. Any option of Apache Beam may follow,
such as --direct_num_workers=2 --direct_running_mode=multi_processing.
Started again with the same options, a run that was cut short continues.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from camboxes.models.networks.class_names import shown
from camboxes.models.spec import CELLS, DEFAULT_MAPS, LITE_MAPS, METHODS, Compilation, MapSpec, Precision, Refinement
from camboxes.pipeline.jobs.remote import Accelerator
from camboxes.pipeline.options.network import (
    add_class_arguments,
    add_model_arguments,
    assumed,
    model_spec,
    with_classes,
)
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    from apache_beam import PCollection, Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions

    from camboxes.models import Classifier, Localizer, ModelSpec
    from camboxes.transforms import BoxRule, Plan
    from camboxes.transforms.images.decoding import Limits
    from camboxes.transforms.planning.label_matching import Category
    from camboxes.transforms.planning.listing import Listing


_IMPORTED_BY_WORKERS = ("camboxes.transforms", "camboxes.models.localization.localizer", "timm", "torchvision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    add_source_arguments(parser)
    parser.add_argument("--output", required=True, metavar="OUT", help="folder for the run")
    parser.add_argument(
        "--label-map",
        metavar="FILE",
        help="JSON object: label -> class names or indices of the network (default: match names)",
    )
    model = add_model_arguments(parser)
    add_class_arguments(model)
    model.add_argument(
        "--aspect",
        choices=["squash", "keep"],
        default="keep",
        help="bring the whole image to a square, or keep its aspect ratio (default: %(default)s)",
    )
    model.add_argument(
        "--accelerator",
        type=Accelerator.parse,
        metavar="KIND[:MACHINE]",
        help="on other machines: run the network on workers with this kind of GPU, in this type of machine, such as "
        "nvidia-l4:g2-standard-8 (docs/dataflow.md)",
    )
    model.add_argument("--batch-size", type=int, metavar="N", help="default: at 224 pixels 4 on a CPU, 64 on a GPU")
    model.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="of the network's layers (default: bf16 on a GPU, a CPU with AMX or AMD's from Zen 5 on, else fp32)",
    )
    model.add_argument(
        "--compile",
        choices=get_args(Compilation),
        default="auto",
        help="fuse each convolution with what follows it, and run a pass as one program (default: wherever that gives "
        "the same maps)",
    )
    maps = add_map_arguments(
        parser,
        "[WEIGHT*]METHOD[@LAYER]+…",
        f"{DEFAULT_MAPS.method}; of EfficientNet-Lite {LITE_MAPS.method}",
        "--size and twice that",
        "on for EfficientNet-Lite, else off",
    )
    parser.set_defaults(fine_scales=None, compete=DEFAULT_MAPS.compete, refine=DEFAULT_MAPS.refine)
    maps.add_argument(
        "--keep-plain", action="store_true", help="store the maps before refinement, too, for camboxes rebox --plain"
    )
    maps.add_argument(
        "--second-look",
        action="store_true",
        help="look at four overlapping quarters of each image, too, for small objects: five times as long",
    )
    add_box_arguments(parser, "1*otsu; with --refine none 0.25, of efficientnet_lite1 and _lite2 0.15", "0", "peak")
    parser.add_argument("--shards", type=int, metavar="N", help="default: one per 64 to 256 images")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that OUT holds")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    parser.add_argument(
        "--max-reject-rate",
        type=float,
        default=0.5,
        metavar="R",
        help="share of rejected images above which the job fails, keeping what it has (default: %(default)s)",
    )
    parser.add_argument(
        "--max-bytes", type=int, metavar="N", help="size of a file above which an image is rejected (default: 256 MiB)"
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="width x height above which an image is rejected, at most 178956970 (default: 120000000)",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--retry-rejected", action="store_true", help="try the rejected images of the run in OUT again")
    again.add_argument(
        "--reuse", metavar="OUT1", help="take over what another run found for images of the same content and labels"
    )


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options that `read_source` takes."""
    parser.add_argument(
        "--input", required=True, metavar="DATA", help="class folders, a manifest or containers (see above)"
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="what paths are relative to, and nothing is read outside of (default: DATA, or the manifest's folder)",
    )


def add_map_arguments(
    parser: argparse.ArgumentParser, metavar: str, method: str, scales: str = "--size", fine_scales: str = "off"
) -> argparse._ArgumentGroup:
    """Declares the options of a MapSpec, and gives their group; the texts say what three of the defaults are."""
    maps = parser.add_argument_group("maps")
    maps.add_argument(
        "--method",
        metavar=metavar,
        help=f"{', '.join(METHODS)}, a sum of them (cam+gradcam++) or a product (cam*layercam@16); @16 reads the maps "
        f"of the last block at stride 16, @32[-2] of the last but one at 32, and of {', '.join(CELLS)}, which read the "
        f"pixels, has cells of 16 x 16 of them (default: {method})",
    )
    maps.add_argument(
        "--scales",
        type=_scales,
        default=(),
        metavar="PIXELS,…",
        help=f"short sides of the input, whose maps are fused; the first decides probabilities (default: {scales})",
    )
    maps.add_argument(
        "--fine-scales",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="take the network's last strides out at the smaller scales, so that their maps have as many cells as "
        f"those of the largest (default: {fine_scales})",
    )
    maps.add_argument(
        "--compete",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let the labels of an image share its cells out (default: %(default)s)",
    )
    maps.add_argument(
        "--refine",
        choices=get_args(Refinement),
        default="none",
        help="affinity: spread the map along the likeness of the network's own features (default: %(default)s)",
    )
    maps.add_argument("--flip", action="store_true", help="fuse the maps of the mirrored image in, too")
    return maps


def map_spec(arguments: argparse.Namespace, method: str) -> MapSpec:
    """The maps that the options of `add_map_arguments` ask for, by one method.

    Raises:
      ValueError: a value out of its range.
    """
    return MapSpec(
        method,
        arguments.scales,
        fine_scales=bool(arguments.fine_scales),
        flip=arguments.flip,
        compete=arguments.compete,
        refine=arguments.refine,
    )


def add_box_arguments(parser: argparse.ArgumentParser, threshold: str, min_area: str, boxes: str) -> None:
    """Declares the options of a BoxRule; what is not given is None, and the texts say what it is then."""
    rule = parser.add_argument_group("boxes")
    rule.add_argument(
        "--threshold",
        metavar="T",
        help="smallest foreground value of the min-max scaled map, 0 to 1; or, to suit each image, as a share of the "
        f"map's Otsu level: 0.8*otsu (default: {threshold})",
    )
    rule.add_argument(
        "--min-area",
        type=float,
        metavar="A",
        help=f"smallest component, as a share of the image (default: {min_area})",
    )
    rule.add_argument(
        "--boxes",
        choices=["largest", "peak", "all", "instances"],
        help="of each label's components: the largest, the one that holds the map's peak, all, or instances: all, "
        f"taken apart at the map's saddles, without the small ones (default: {boxes})",
    )


def box_rule(arguments: argparse.Namespace, default: "BoxRule") -> "BoxRule":
    """The rule that the options of `add_box_arguments` ask for; what is not given is the default's.

    Raises:
      ValueError: a value out of its range.
    """
    options = {name: getattr(arguments, name) for name in ("threshold", "min_area", "boxes")}
    given = {name: value for name, value in options.items() if value is not None}
    if "threshold" in given:
        given["thresholds"] = {}
        with contextlib.suppress(ValueError):  # any other text is for the rule to read
            given["threshold"] = float(given["threshold"])
    return dataclasses.replace(default, **given)


def _limits(arguments: argparse.Namespace) -> "Limits":
    """The limits that the options ask for.

    Raises:
      ValueError: a value out of its range.
    """
    from camboxes.transforms.images.decoding import Limits

    options = {name: getattr(arguments, name) for name in ("max_bytes", "max_pixels")}
    return Limits(**{name: value for name, value in options.items() if value is not None})


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from apache_beam.options.pipeline_options import StandardOptions

    from camboxes.pipeline.errors import blaming_the_call
    from camboxes.pipeline.jobs import remote, running
    from camboxes.pipeline.jobs.beam_options import beam_options, fit_processes, local_processes
    from camboxes.transforms import (
        BoxesFromMaps,
        BoxRule,
        InferClassMaps,
        Plan,
        PlanOnWorkers,
        ReadLabeledImages,
        WriteCoco,
        storage,
    )
    from camboxes.transforms.boxes_from_maps import drawing_settings
    from camboxes.transforms.planning.reuse import reusable

    with blaming_the_call():
        options = beam_options(beam_arguments)
        box_rule(arguments, BoxRule())  # a wrong value is told at once
        limits = _limits(arguments)
        if not 0 <= arguments.max_reject_rate <= 1:
            raise ValueError(f"--max-reject-rate is {arguments.max_reject_rate}; expected a share from 0 to 1")
        running.check_output(arguments.output, arguments.input, arguments.reuse)
        remote.check_stores(
            options, **{name: getattr(arguments, name) for name in ("output", "input", "root", "reuse")}
        )
        label_map = _read_label_map(arguments.label_map)
        source = _source(arguments, options)  # before torch is loaded: a wrong path is told at once
        maps, localizer = _localizer(arguments, options)
        classifier = localizer.classifier
        rule = box_rule(arguments, BoxRule.default_for(classifier, maps))
        plan = Plan(
            arguments.output,
            classifier.class_names,
            label_map=label_map,
            root=arguments.root,
            settings={**localizer.settings, **limits.settings, **drawing_settings(rule, None)},
            shards=arguments.shards,
        )
        if arguments.reuse:
            reusable(arguments.reuse, localizer.settings)
        if arguments.dry_run and source is not None:
            _describe(arguments, plan, source, localizer, str(options.view_as(StandardOptions).runner))
            return
    with contextlib.ExitStack() as held:
        with blaming_the_call():
            held.enter_context(running.locked(arguments.output))
            running.check_contents(arguments.output)
            if arguments.overwrite:
                if source is not None:
                    plan.draft(source)  # a call that cannot succeed must not cost the run that it would replace
                running.remove(arguments.output)
            read = PlanOnWorkers(arguments.input, plan) if source is None else ReadLabeledImages(source, plan)
        aside = _set_aside(arguments)
        spec = _staged(classifier, arguments.output)
        if isinstance(read, ReadLabeledImages) and spec.device == "cpu":
            images = sum(read.planned.shards[key] for key in read.planned.missing())
            fit_processes(options, images, classifier.weights_bytes)
        hints = arguments.accelerator.hints if arguments.accelerator else {}

        def job(p: "Pipeline") -> "PCollection[dict[str, Any]]":
            return (
                p
                | read.with_resource_hints(**hints)
                | InferClassMaps(
                    spec,
                    maps,
                    reuse=aside or arguments.reuse,
                    limits=limits,
                    loaded=None if source is None else localizer,  # for workers elsewhere it was not tried out here
                ).with_resource_hints(**hints)
                | BoxesFromMaps(rule.threshold, rule.min_area, rule.boxes).with_resource_hints(**hints)
                | WriteCoco(arguments.output, arguments.max_reject_rate).with_resource_hints(**hints)
            )

        running.announce(arguments.output, f"{_network(localizer)}, processes: {local_processes(options)}")
        for remark in _remarks(arguments, classifier, source, label_map or {}):
            print(remark, file=sys.stderr)
        if remote.describes_only(options):
            remote.describe(job, options)
            return
        running.execute(job, options, arguments.output)
        if aside:
            storage.delete(aside)


def _set_aside(arguments: argparse.Namespace) -> str | None:
    """Where finished shards lie whose rejected images are tried again; None where there are none."""
    from camboxes.transforms import PlannedRun

    run = PlannedRun.load(arguments.output)
    if run is None:
        return None
    if arguments.retry_rejected:
        run.set_aside()
    return run.aside if PlannedRun.load(run.aside) else None


def _source(arguments: argparse.Namespace, options: "PipelineOptions") -> "Listing | None":
    """The images and labels, where they are listed here; if they are many, workers begin to import what they need.

    Raises:
      ValueError, OSError: see `read_source`.
    """
    from camboxes.pipeline.jobs import worker_processes
    from camboxes.pipeline.jobs.beam_options import fitting_processes, workers_elsewhere
    from camboxes.transforms.planning.listing import read_source

    if workers_elsewhere(options) and not arguments.dry_run:
        source = None
    else:
        source = read_source(arguments.input, arguments.root)
        on_cpu = not arguments.dry_run and arguments.device != "cuda"  # as far as is known before torch is loaded
        if on_cpu and fitting_processes(options, source.images) > 1:
            worker_processes.import_ahead(*_IMPORTED_BY_WORKERS)
    if sys.stderr.isatty():  # as with a bar of progress: some seconds in which nothing else is said
        listed = "" if source is None else f"{source.images} images listed; "
        print(f"{listed}loading {arguments.model}", file=sys.stderr)
    return source


def _localizer(arguments: argparse.Namespace, options: "PipelineOptions") -> "tuple[MapSpec, Localizer]":
    """The maps that the options ask for, and what makes them, here or on the workers that Beam's options ask for."""
    kept = {"keep_plain": arguments.keep_plain, "second_look": arguments.second_look}
    maps = dataclasses.replace(map_spec(arguments, arguments.method or DEFAULT_MAPS.method), **kept)

    from camboxes.models import Localizer
    from camboxes.pipeline.jobs.remote import load

    spec = with_classes(model_spec(arguments, maps.scales), arguments)
    given = {name: getattr(arguments, name) for name in ("aspect", "batch_size")}
    spec = dataclasses.replace(spec, **given, **_execution(arguments))
    classifier = load(spec, options, arguments.accelerator)
    default = MapSpec.default_for(classifier)
    scales = maps.scales or default.scales
    fine = default.fine_scales if arguments.fine_scales is None else arguments.fine_scales
    if default.fine_scales and len(scales) == 1:
        fine = False
    maps = dataclasses.replace(maps, method=arguments.method or default.method, scales=scales, fine_scales=fine)
    return maps, Localizer(classifier, maps)


def _staged(classifier: "Classifier", output: str) -> "ModelSpec":
    """Writes the network into the plan, and gives the spec by which workers load it from there, and nothing else."""
    from camboxes.transforms import storage

    checkpoint = storage.join(output, "plan")
    for name, content in classifier.files().items():
        if not storage.exists(storage.join(checkpoint, name)):
            storage.write_bytes(storage.join(checkpoint, name), content)
    return dataclasses.replace(classifier.spec, name=checkpoint, weights_sha256=classifier.weights_sha256)


def _execution(arguments: argparse.Namespace) -> dict[str, Any]:
    """How the network is executed: what is left open was settled when the run was begun, maybe on another processor."""
    from camboxes.transforms import PlannedRun

    begun = None if arguments.overwrite else PlannedRun.load(arguments.output)
    then = begun.settings.get("model", {}) if begun else {}
    given = {name: getattr(arguments, name) for name in ("precision", "compile")}
    return {name: then.get(name, "auto") if value == "auto" else value for name, value in given.items()}


def _scales(text: str) -> tuple[int, ...]:
    return tuple(int(scale) for scale in text.split(","))


def _network(localizer: "Localizer") -> str:
    spec, settings = localizer.classifier.spec, localizer.settings
    scales = " and ".join(map(str, settings["scales"])) + (", equally fine" if settings["fine_scales"] else "")
    scales += ", flipped too" if settings["flip"] else ""
    refined = ", labels competing" if settings["compete"] else ""
    refined += ", refined by affinity" if settings["refine"] == "affinity" else ""
    refined += ", with a second look" if settings["second_look"] else ""
    executed = f"{spec.precision}, fused" if spec.compile == "on" else spec.precision
    return f"{settings['method']}{refined} of {spec.name} at {scales} ({spec.aspect}) on {spec.device} in {executed}"


def _remarks(
    arguments: argparse.Namespace, classifier: "Classifier", source: "Listing | None", label_map: Mapping[str, Any]
) -> Iterator[str]:
    """What a person should know before the job: of the network, and of images and labels where they are listed here."""
    from camboxes.pipeline.reports import remarks

    yield from assumed(arguments, classifier)
    if source is not None:
        yield from remarks.of_label_map(label_map, [*source.labels()])
        yield from filter(None, [remarks.look_up(source).remark()])


def _describe(
    arguments: argparse.Namespace, plan: "Plan", source: "Listing", localizer: "Localizer", runner: str
) -> None:
    """Prints a plan that is not carried out.

    Raises:
      ValueError: it would fail, for more images are missing than may be rejected.
    """
    from camboxes.pipeline.reports import remarks
    from camboxes.transforms.planning.label_matching import UnmatchedLabelsError

    classifier = localizer.classifier
    try:
        draft = plan.draft(source)
    except UnmatchedLabelsError as error:
        _describe_labels(error.matched, classifier)
        raise
    print(f"input     {draft.images} images below {draft.root}")
    print(f"          {draft.repeated} repeated rows dropped, {draft.passed_over.files} files passed over")
    names = [category.name for category in draft.categories]
    found = remarks.look_up(source)
    if found.images:
        print(f"          {found.images} images looked up, {len(found.missing)} are missing")
    of_input = remarks.of_input(draft.passed_over, names, draft.splits)
    of_map = remarks.of_label_map(plan.label_map or {}, names)
    for remark in [*of_input, *of_map, *filter(None, [found.remark()])]:
        print(f"          {remark}")
    print(f"output    {draft.output}, {len(draft.shards)} shards of {_extent(draft.shards.values())} images")
    print(f"network   {_network(localizer)}, batches of {classifier.spec.batch_size}")
    outputs = f"{len(classifier.class_names):,} classes by {'sigmoid' if classifier.multilabel else 'softmax'}"
    print(f"          weights {classifier.settings['weights_sha256'][:16]}, {outputs}")
    for note in assumed(arguments, classifier):
        print(f"          {note}")
    print(f"boxes     {', '.join(f'{name} {value}' for name, value in draft.settings['rule'].items() if value != {})}")
    print(f"runner    {runner}")
    _describe_labels(draft.categories, classifier)
    print("nothing was written: this was a dry run")
    if len(found.missing) > arguments.max_reject_rate * found.images:
        raise ValueError(f"this run would fail: {found.remark()}")


def _describe_labels(matched: Sequence["Category"], classifier: "Classifier") -> None:
    print(f"labels    {len(matched)} matched")
    for category in matched:
        names = [shown(classifier.class_names, index) for index in category.class_indices]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        meaning = ", ".join(map(on_one_line, names[:3])) + more or "no class: its images get no box of it"
        print(f"          {on_one_line(category.name)} = {meaning}")


def _extent(counts: Iterable[int]) -> str:
    found = sorted(counts)
    return f"{found[0]} to {found[-1]}" if found[0] < found[-1] else str(found[0])


def _read_label_map(path: str | None) -> dict[str, Any] | None:
    from camboxes.transforms import storage

    if path is None:
        return None
    try:
        label_map = storage.read_json(path)
    except FileNotFoundError:
        raise ValueError(f"label map {path!r}: there is no file at this path") from None
    except ValueError as error:
        raise ValueError(f"label map {path!r} is not JSON ({error})") from None
    if not isinstance(label_map, dict):
        raise ValueError(
            f'label map {path!r} holds a {type(label_map).__name__}; expected an object, as {{"dog": [151, 152]}}'
        )
    return label_map
