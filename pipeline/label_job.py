"""Pseudo-boxes for a data set with image-level labels: the job of `camboxes label`."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from camboxes.models.spec import DEFAULT_MAPS, Compilation, Execution, MapSpec, Precision
from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.jobs.remote import Accelerator
from camboxes.pipeline.options.boxes import NewBoxOptions
from camboxes.pipeline.options.data import SourceOptions, background_option
from camboxes.pipeline.options.fields import option, option_names
from camboxes.pipeline.options.maps import MapOptions
from camboxes.pipeline.options.network import ClassOptions, assumed
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.pipeline.reports.settings_in_words import maps_in_words
from camboxes.pipeline.run import Run

if TYPE_CHECKING:
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions

    from camboxes.models import Classifier, Localizer, ModelSpec
    from camboxes.models.localization.measured import Measured
    from camboxes.transforms import BoxRule, Plan, PlannedRun, PlanOnWorkers, ReadLabeledImages
    from camboxes.transforms.images.decoding import Limits
    from camboxes.transforms.planning.label_matching import LabelMap
    from camboxes.transforms.planning.listing import Listing

_network_option = functools.partial(option, group="network")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Folders(SourceOptions):
    output: str = option(help="folder for the run", metavar="OUT")
    label_map: str | Mapping[str, Any] | None = option(
        None,
        "JSON object: label -> class names or indices of the network",
        stated="match names",
        metavar="FILE",
    )
    background: tuple[str, ...] = background_option(stated="what the checkpoint of --model was trained with")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Network(ClassOptions):
    accelerator: Accelerator | None = _network_option(
        None,
        "on other machines: run the network on workers with this kind of GPU, in this type of machine, such as "
        "nvidia-l4:g2-standard-8 (docs/how-to/dataflow.md)",
        type=Accelerator.parse,
        metavar="KIND[:MACHINE]",
    )
    batch_size: int | None = _network_option(
        None, "images in a forward pass", stated="at 224 pixels 4 on a CPU, 64 on a GPU", type=int, metavar="N"
    )
    precision: Precision = _network_option(
        "auto",
        "of the network's layers",
        stated="the fastest one here that gives nearly the same maps",
        choices=get_args(Precision),
    )
    compile: Compilation = _network_option(
        "auto",
        "fuse each convolution with what follows it",
        stated="where that gives the same maps, and is faster here",
        choices=get_args(Compilation),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Maps(MapOptions):
    keep_plain: bool = option(False, "also store the maps before refinement, for camboxes rebox --plain", group="maps")
    second_look: bool = option(
        False,
        "also map four overlapping quarters of each image, for small objects; takes five times as long",
        group="maps",
    )

    def map_spec(self, default: MapSpec = DEFAULT_MAPS) -> MapSpec:
        """See `MapOptions.map_spec`."""
        maps = super().map_spec(default)
        return dataclasses.replace(maps, keep_plain=self.keep_plain, second_look=self.second_look)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelJob(NewBoxOptions, _Maps, _Network, _Folders):
    """What to label, and how. Its fields are the options of `camboxes label`, whose help describes them."""

    shards: int | None = option(
        None,
        "number of files that the run is divided into",
        stated="one per 64 to 256 images; of containers, one per 128 or more neighbours",
        type=int,
        metavar="N",
    )
    overwrite: bool = option(False, "replace the run that OUT holds")
    dry_run: bool = option(False, "print the plan, write nothing")
    max_reject_rate: float = option(
        0.5, "share of rejected images above which the job fails; its results are kept", type=float, metavar="R"
    )
    max_bytes: int | None = option(
        None, "size of a file above which an image is rejected", stated="256 MiB", type=int, metavar="N"
    )
    max_pixels: int | None = option(
        None,
        "width x height above which an image is rejected, at most 178956970",
        stated="120000000",
        type=int,
        metavar="N",
    )
    retry_rejected: bool = option(False, "try the rejected images of the run in OUT again", one_of="again")
    reuse: str | None = option(
        None,
        "take the results of another run for images with the same content and labels",
        one_of="again",
        metavar="OUT1",
    )

    def limits(self) -> "Limits":
        """How large an image may be; raises a ValueError where a value is out of its range."""
        from camboxes.transforms.images.decoding import Limits

        options = {"max_bytes": self.max_bytes, "max_pixels": self.max_pixels}
        return Limits(**{name: value for name, value in options.items() if value is not None})


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A job that has been checked, and of which nothing is written yet."""

    options: "PipelineOptions"
    source: "Listing | None"  # None where the workers list the images
    maps: MapSpec
    localizer: "Localizer"
    measured: "Measured | None"  # by which the localizer is executed so
    rule: "BoxRule"
    plan: "Plan"

    def describe_network(self) -> str:
        """The maps, the network and how it is executed, on one line."""
        spec, settings = self.localizer.classifier.spec, self.localizer.settings
        method = settings["method"]
        method += ", labels competing" if settings["compete"] else ""
        method += ", refined by affinity" if settings["refine"] == "affinity" else ""
        method += ", with a second look" if settings["second_look"] else ""
        scales = " and ".join(map(str, settings["scales"]))
        scales += ", fine scales" if settings["fine_scales"] else ""
        scales += ", flipped too" if settings["flip"] else ""
        executed = str(self.localizer.classifier.execution)
        if self.measured:
            times = "; ".join(f"{way}: {time:.0f} ms" for way, time in self.measured.milliseconds.items())
            executed += f" ({'measured now' if self.measured.now else 'measured before'}: {times})"
        return f"{method} of {spec.name} at {scales} ({spec.aspect}) on {spec.device} in {executed}"


def label(job: LabelJob, beam_options: Sequence[str] = (), reporter: Reporter = LOG) -> Run:
    """Draws pseudo-boxes for a data set with image-level labels.

    Called again for the same job, it continues where it was cut short.

    Args:
      job: what to label, and how.
      beam_options: of Apache Beam, as on the command line: ["--direct_num_workers=2"].
      reporter: receives remarks and progress.

    Returns:
      The run. Where a flex template's launcher asked only for a description of the job, there is nothing in it yet.

    Raises:
      CallError: the call is wrong; the message says what to change.
      TooManyRejectedError: more images were rejected than `max_reject_rate` allows; all files are written.
      Exception: the job failed.
    """
    if job.dry_run:
        raise CallError("dry_run is for the command, which prints the plan; leave it out")
    with reporter.step("loading Apache Beam"):
        from camboxes.pipeline.jobs import execution, progress, remote, run_folder
        from camboxes.pipeline.jobs.beam_options import fit_processes, local_processes
        from camboxes.pipeline.jobs.begun_run import naming_rebox
        from camboxes.transforms import BoxesFromMaps, InferClassMaps, PlannedRun, WriteCoco, storage

    ready = prepare(job, beam_options, reporter)
    options, localizer, rule = ready.options, ready.localizer, ready.rule
    with contextlib.ExitStack() as held:
        with blaming_the_call():
            held.enter_context(run_folder.locked(job.output, reporter))
            with naming_rebox(job.output), reporter.step("planning"):
                planned, read = _reading(job, ready)
        run = planned or PlannedRun.load(job.output)
        if run and job.retry_rejected:
            run.set_aside()
        aside = run.aside if run and PlannedRun.load(run.aside) else None  # finished shards, to take results over from
        spec = _staged(localizer.classifier, job.output)
        if planned is not None and spec.device == "cpu":
            images = sum(planned.shards[key] for key in planned.missing())
            fit_processes(options, images, localizer.classifier.weights_bytes)
        hints = job.accelerator.hints if job.accelerator else {}
        infer = InferClassMaps(
            spec,
            ready.maps,
            reuse=aside or job.reuse,
            limits=job.limits(),
            loaded=None if ready.source is None else localizer,  # for workers elsewhere it was not tried out here
        )
        boxes = BoxesFromMaps(rule.threshold, rule.min_area, rule.boxes)
        write = WriteCoco(job.output, job.max_reject_rate)

        def build(p: "Pipeline") -> None:
            rows: Any = p
            for step in (read, infer, boxes, write):
                rows |= step.with_resource_hints(**hints)

        exactly = f"{ready.describe_network()}, processes: {local_processes(options)}"
        progress.announce(job.output, maps_in_words(localizer.settings), reporter, exactly)
        with reporter.step("looking the images up"):
            remarks = [*_remarks(job, ready)]
        for remark in remarks:
            reporter.say(remark)
        if remote.described(build, options):
            return Run(job.output)
        execution.execute(build, options, job.output, reporter, ready.measured)
        if aside:
            storage.delete(aside)
    return Run(job.output)


def prepare(job: LabelJob, beam_options: Sequence[str] = (), reporter: Reporter = LOG) -> Prepared:
    """Checks a job, lists its images and loads its network. Arguments: see `label`.

    Raises:
      CallError: the call is wrong; the message says what to change.
    """
    with reporter.step("loading Apache Beam"):
        from camboxes.pipeline.jobs import beam_options as beams
        from camboxes.pipeline.jobs import remote, run_folder
        from camboxes.transforms import BoxRule, Plan
        from camboxes.transforms.boxes_from_maps import drawing_settings
        from camboxes.transforms.planning.reuse import reusable

    with blaming_the_call():
        options = beams.beam_options(beam_options, option_names(type(job)))
        job.box_rule(BoxRule())  # a wrong value is told at once
        limits = job.limits()
        if not 0 <= job.max_reject_rate <= 1:
            raise ValueError(f"--max-reject-rate is {job.max_reject_rate}; expected a share from 0 to 1")
        run_folder.check_output(job.output, job.input, job.reuse)
        run_folder.check_folder(job.output)
        run_folder.check_contents(job.output)
        remote.check_stores(options, output=job.output, input=job.input, root=job.root, reuse=job.reuse)
        label_map = _read_label_map(job.label_map)
        if job.reuse:
            reusable(job.reuse, {})
        job.map_spec()
        job.model_spec(job.scales)
        source = _source(job, options, reporter)
        _check_begun(job, source)
        if not job.dry_run:  # which says of all labels what they stand for, and then what is wrong
            _check_labels(job, source, label_map)
        # What follows takes seconds: what can be told without the network was told before.
        maps, localizer, measured = _localizer(job, options, 0 if source is None else source.images, reporter)
        rule = job.box_rule(BoxRule.default_for(localizer.classifier, maps))
        plan = Plan(
            job.output,
            localizer.classifier.class_names,
            label_map=label_map,
            root=job.root,
            settings={**localizer.settings, **limits.settings, **drawing_settings(rule, None)},
            shards=job.shards,
            columns=job.columns(),
            background=job.background,
            known_background=localizer.classifier.training_record.get("settings", {}).get("background") or (),
        )
        if job.reuse:
            reusable(job.reuse, localizer.settings)
    return Prepared(options, source, maps, localizer, measured, rule, plan)


def _check_begun(job: LabelJob, source: "Listing | None") -> None:
    """Refuses a folder with another run, as far as that can be told without the network."""
    from camboxes.pipeline.jobs.begun_run import naming_rebox, network_settings
    from camboxes.transforms import BoxRule, PlannedRun
    from camboxes.transforms.boxes_from_maps import drawing_settings
    from camboxes.transforms.planning.plan import refuse_changes

    begun = None if job.overwrite else PlannedRun.load(job.output)
    if begun is None or "model" not in begun.settings:
        return
    execution = {name: getattr(job, name) for name in ("batch_size", "precision", "compile")}
    model = network_settings(begun, dataclasses.replace(job.model_spec(job.scales), **execution))
    asked = {**begun.asked, "model": model}
    if model["name"] == begun.settings["model"]["name"]:
        maps = job.map_spec(MapSpec.default_of(model["name"], model["size"]))
        rule = job.box_rule(BoxRule.default_of(model["name"], maps))
        asked |= dataclasses.asdict(maps) | job.limits().settings | drawing_settings(rule, None)
    images = None if source is None or source.images == begun.images else source.images
    with naming_rebox(job.output):
        refuse_changes(begun, asked, images)


def _check_labels(job: LabelJob, source: "Listing | None", label_map: "LabelMap | None") -> None:
    """Refuses labels and a label map that do not match, where the classes' names are known without the network."""
    from camboxes.transforms import Plan

    names = job.known_class_names()
    if names is None or job.classes is not None:  # the network tells first whether a file has a name for each output
        return
    known = job.known_background()
    plan = Plan(job.output, names, label_map, background=job.background, known_background=known)
    if source is None:  # the workers list the labels
        plan.matcher()
    else:
        plan.categories(source.labels(), source.containers)


def _reading(job: LabelJob, ready: Prepared) -> "tuple[PlannedRun | None, PlanOnWorkers | ReadLabeledImages]":
    """Deletes what --overwrite replaces, and plans the run.

    Returns:
      The plan, None where the workers make it; and the step that reads it.
    """
    from camboxes.pipeline.jobs import run_folder
    from camboxes.transforms import PlanOnWorkers, ReadLabeledImages

    if job.overwrite:
        if ready.source is not None:
            ready.plan.draft(ready.source)  # a call that cannot succeed must not cost the run that it would replace
        run_folder.remove(job.output)
    if ready.source is None:
        read = PlanOnWorkers(job.input, ready.plan)
        read.check()
        return None, read
    reader = ReadLabeledImages(ready.source, ready.plan)
    return reader.check(), reader


def _source(job: LabelJob, options: "PipelineOptions", reporter: Reporter) -> "Listing | None":
    """The images and labels, where they are listed here; if they are many, workers begin to import what they need."""
    from camboxes.pipeline.jobs import worker_processes
    from camboxes.pipeline.jobs.beam_options import fitting_processes, workers_elsewhere
    from camboxes.transforms.planning.listing import read_source
    from camboxes.transforms.sources.background import check_background

    if workers_elsewhere(options) and not job.dry_run:
        source = None
    else:
        with reporter.step(f"listing {job.input}"):
            source = read_source(job.input, job.root, job.columns())
        check_background(job.background, source.labels())
        on_cpu = not job.dry_run and job.device != "cuda"  # as far as is known before torch is loaded
        if on_cpu and fitting_processes(options, source.images) > 1:
            localizer = "camboxes.models.localization.localizer"
            worker_processes.import_ahead("camboxes.transforms", "camboxes.models.without_compiler", localizer)
    return source


def _localizer(
    job: LabelJob, options: "PipelineOptions", images: int, reporter: Reporter
) -> "tuple[MapSpec, Localizer, Measured | None]":
    """The maps that are asked for, and what makes them, here or on the workers that Beam's options ask for."""
    with reporter.step("loading PyTorch"):  # a wrong option was told before
        from camboxes.models import Localizer
        from camboxes.models.localization.measured import measured
        from camboxes.pipeline.jobs.beam_options import workers_elsewhere
        from camboxes.pipeline.jobs.remote import load
        from camboxes.transforms import PlannedRun

    # What is left open was settled when the run was begun, or the one to take rows from, maybe on another processor.
    begun = None if job.overwrite else PlannedRun.load(job.output)
    begun = begun or (PlannedRun.load(job.reuse) if job.reuse else None)
    settled = begun.settings.get("model", {}) if begun else {}
    asked = Execution(job.precision, job.compile)
    asked = Execution(*(settled.get(name, "auto") if way == "auto" else way for name, way in asked._asdict().items()))
    spec = dataclasses.replace(job.model_spec(job.scales), batch_size=job.batch_size, **asked._asdict())
    with reporter.step(f"loading {job.model}"):
        classifier = load(spec, options, job.accelerator)
    maps = job.map_spec(MapSpec.default_for(classifier))
    with reporter.step(f"trying {maps.method} out"):
        localizer = Localizer(classifier, maps)
    if workers_elsewhere(options):
        return maps, localizer, None
    with reporter.step(f"timing {maps.method}"):
        return maps, *measured(localizer, asked, images)


def _staged(classifier: "Classifier", output: str) -> "ModelSpec":
    """Writes the network into the plan, and gives the spec by which workers load it from there, and nothing else."""
    from camboxes.transforms import storage

    checkpoint = storage.join(output, "plan")
    for name, content in classifier.files().items():
        if not storage.exists(storage.join(checkpoint, name)):
            storage.write_bytes(storage.join(checkpoint, name), content)
    return dataclasses.replace(classifier.spec, name=checkpoint, weights_sha256=classifier.weights_sha256)


def _remarks(job: LabelJob, ready: Prepared) -> Iterator[str]:
    """What a person should know before the job: of the network, and of images and labels where they are listed here."""
    from camboxes.pipeline.reports import remarks

    yield from assumed(job, ready.localizer.classifier)
    if ready.source is not None:
        labels = ready.source.labels()
        yield from remarks.of_label_map(ready.plan.label_map or {}, labels)
        matched = [category.name for category in ready.plan.categories(labels) if category.id]  # 0: background
        yield from remarks.of_assumed(matched, ready.plan.matcher())
        yield from remarks.of_doubtful(matched, ready.plan.matcher())
        yield from filter(None, [remarks.look_up(ready.source).remark()])


def _read_label_map(label_map: str | Mapping[str, Any] | None) -> "LabelMap | None":
    from camboxes.transforms import storage

    if label_map is None or isinstance(label_map, Mapping):
        return label_map
    try:
        found = storage.read_json(label_map)
    except FileNotFoundError:
        raise ValueError(f"label map {label_map!r}: there is no file at this path") from None
    except ValueError as error:
        raise ValueError(f"label map {label_map!r} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(
            f'label map {label_map!r} holds a {type(found).__name__}; expected an object, as {{"dog": [151, 152]}}'
        )
    return found
