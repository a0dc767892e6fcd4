"""Trains a small network on a run's own confident boxes and draws the run's boxes again from the maps that it gives.

No box is asked of anybody: the network learns what objects look like to the run's classifier, of whatever class. After
each round the maps are compared with those before, and the better ones are kept; where no round is better, the new run
has the maps of the old one. The photographs are read again. Started again with the same options, a call that was cut
short continues. What was decided in a review (OUT/review.jsonl) is carried over.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from camboxes.pipeline.reporter import TERMINAL

if TYPE_CHECKING:
    import apache_beam as beam

    from camboxes.models import ModelSpec
    from camboxes.models.training.selftraining import FeatureReader
    from camboxes.transforms import BoxRule, PlannedRun

REGRESSOR, RECORD = "regressor.safetensors", "selftraining.json"  # in OUT2/plan; the record goes last

_REMEDY = "run camboxes label once more and start from its --output, which keeps the network"
TAKES_BEAM_OPTIONS = True
_ROUNDS = 3
_SIZE = 448  # pixels: smaller photographs give features that are too coarse to learn outlines from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--run", required=True, metavar="OUT", help="a finished run's folder")
    parser.add_argument("--output", required=True, metavar="OUT2", help="folder for the new run")
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        default=_ROUNDS,
        help="how many times to train, at most; it ends earlier where a round is no better (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that OUT2 holds")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed.
    """
    from camboxes.pipeline.commands.conclusion import concluded
    from camboxes.pipeline.errors import blaming_the_call
    from camboxes.pipeline.jobs import execution, progress, run_folder
    from camboxes.pipeline.jobs.beam_options import beam_options
    from camboxes.transforms import BoxesFromMaps, ReadShards, WriteCoco, storage
    from camboxes.transforms.inference.selftrained_maps import RegressMaps
    from camboxes.transforms.review.decisions import carry_decisions, check_carried
    from camboxes.transforms.review.keep_decided import KeepDecided, decided

    with blaming_the_call():
        options = beam_options(beam_arguments)
        if arguments.rounds < 1:
            raise ValueError(f"--rounds is {arguments.rounds}; expected at least 1")
        for name in ("run", "output"):
            if not storage.is_local(getattr(arguments, name)):
                raise ValueError(
                    f"--{name} {getattr(arguments, name)!r} is on a store; expected a local folder: copy the run to one"
                )
        run_folder.check_output(arguments.output, arguments.run)
        source = run_folder.finished(arguments.run)
        decisions = decided(source)
    with contextlib.ExitStack() as held:
        with blaming_the_call():
            held.enter_context(run_folder.locked(arguments.output))
            run_folder.check_contents(arguments.output)
            check_carried(arguments.run, arguments.output)
            spec = _network(source)
            asked = {"run": _fingerprint(source), "rounds": arguments.rounds, "size": spec.size}
            record = None if arguments.overwrite else _learnt_before(arguments.output, asked)
            if record is None:
                reader = _load(source, spec)
        if arguments.overwrite:
            run_folder.remove(arguments.output)
        if record is None:
            record = _learn(source, arguments.output, asked, reader)
        rule = _rule(source, regressed=record["kept"] > 0)
        settings = _settings(source, rule, record)
        with blaming_the_call():
            planned = source.copy(arguments.output, settings)
        carry_decisions(arguments.run, arguments.output)
        checkpoint = storage.join(arguments.output, "plan")
        changed = {name: value for name, value in settings.items() if source.settings.get(name) != value}
        regress = RegressMaps(
            source.root,
            dataclasses.replace(spec, name=checkpoint),
            storage.join(checkpoint, REGRESSOR),
            changed,
        )
        _tell(record)
        progress.announce(
            arguments.output, f"round {record['kept']}" if record["kept"] else "the run's own maps", TERMINAL
        )

        # No limit to what is rejected: the run that the images come from had its own.
        def build(p: "beam.Pipeline") -> None:
            shards = p | ReadShards(arguments.run, planned.missing())
            if record["kept"]:
                shards |= regress
            boxes = BoxesFromMaps(rule.threshold, rule.min_area, rule.boxes, rule.thresholds)
            shards | boxes | KeepDecided(decisions) | WriteCoco(arguments.output, max_reject_rate=1)

        with concluded(arguments.output):
            execution.execute(build, options, arguments.output, TERMINAL)


def _rule(source: "PlannedRun", *, regressed: bool) -> "BoxRule":
    """How the new run's maps are cut: the run's own rule, for a regressor's maps with another threshold."""
    from camboxes.pipeline.selftraining.rounds import THRESHOLD
    from camboxes.transforms import BoxRule

    rule = BoxRule(**source.settings["rule"])
    return dataclasses.replace(rule, threshold=THRESHOLD, thresholds={}) if regressed else rule


def _settings(source: "PlannedRun", rule: "BoxRule", record: Mapping[str, Any]) -> dict[str, Any]:
    """The new run's: those of the run, and what is drawn otherwise."""
    from camboxes.transforms.boxes_from_maps import drawing_settings
    from camboxes.transforms.inference.selftrained_maps import selftrained

    settings = {**source.settings, **drawing_settings(rule, None)}
    if record["kept"]:
        settings["method"] = selftrained(source.settings["method"])
        settings["selftraining"] = {name: record[name] for name in ("kept", "size", "regressor_sha256")}
    return settings


def _network(source: "PlannedRun") -> "ModelSpec":
    """The run's own network, squashing photographs to a size at which features tell outlines.

    Raises:
      ValueError: the run keeps no network, and the library's of this name has other weights, or there is none.
    """
    from camboxes.models import ModelSpec
    from camboxes.models.networks.checkpoints import DESCRIPTION
    from camboxes.transforms import storage

    model = source.settings["model"]
    folder = storage.join(source.output, "plan")
    kept = storage.exists(storage.join(folder, DESCRIPTION))
    return ModelSpec(
        folder if kept else model["name"],
        size=max(_SIZE, *source.settings["scales"]),
        map_stride=model["map_stride"],
        device="cpu" if model["device"] == "cpu" else "auto",
        # As the run's, settled for all workers; a run without them was made when there was no other way.
        precision=model.get("precision", "fp32"),
        compile=model.get("compile", "off"),
    )


def _load(source: "PlannedRun", spec: "ModelSpec") -> "FeatureReader":
    """The network of the run, made sure that it is the same.

    Raises:
      ValueError: it is not to be had, or has no block at stride 16.
    """
    from camboxes.models import load_classifier
    from camboxes.models.training.selftraining import FeatureReader

    try:
        classifier = load_classifier(spec)
    except (ValueError, OSError) as error:
        raise ValueError(f"the network of --run {source.output!r} cannot be had: {error}; {_REMEDY}") from error
    now, then = classifier.settings["weights_sha256"], source.settings["model"]["weights_sha256"]
    if now != then:
        raise ValueError(
            f"the network of --run {source.output!r} had weights {then[:16]}, {spec.name!r} has {now[:16]}; {_REMEDY}"
        )
    return FeatureReader(classifier)


def _learnt_before(output: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier call with the same options has learnt and left in the output; None where there was none.

    Raises:
      ValueError: the output holds another run.
    """
    from camboxes.transforms import PlannedRun, storage

    file = storage.join(output, "plan", RECORD)
    if storage.exists(file):
        before = storage.read_json(file)
        if before["asked"] == asked:
            return before
    if storage.exists(file) or PlannedRun.load(output) is not None:
        raise ValueError(
            f"output {output!r} holds another run, or one of this that was made with other options. Choose another "
            "--output, or replace the run with --overwrite"
        )
    return None


def _learn(source: "PlannedRun", output: str, asked: Mapping[str, Any], reader: "FeatureReader") -> dict[str, Any]:
    """Trains, and writes what came of it into the output's plan.

    Raises:
      CallError: there is nothing to learn from.
    """
    from camboxes.pipeline.selftraining.examples import sample
    from camboxes.pipeline.selftraining.rounds import learn
    from camboxes.transforms import storage

    sampled = sample(source, reader)
    learnt = learn(sampled, _rule(source, regressed=False), _rule(source, regressed=True), asked["rounds"])
    weights = learnt.regressor.safetensors() if learnt.regressor else b""
    record = {
        "schema_version": 1,
        "asked": dict(asked),
        "size": asked["size"],
        "images": len(sampled.rows),
        "maps": len(sampled.entries),
        "unread": sampled.unread,
        "kept": learnt.kept,
        "regressor_sha256": hashlib.sha256(weights).hexdigest() if learnt.regressor else None,
        "history": learnt.history,
    }
    folder = storage.join(output, "plan")
    if learnt.regressor:
        storage.write_bytes(storage.join(folder, REGRESSOR), weights)
    for name, content in reader.classifier.files().items():
        storage.write_bytes(storage.join(folder, name), content)
    storage.write_json(storage.join(folder, RECORD), record)
    return record


def _fingerprint(run: "PlannedRun") -> str:
    """SHA-256 of a run's plan and annotations: it changes when rejected images were tried again, or others reviewed."""
    from camboxes.transforms import storage

    found = hashlib.sha256(json.dumps(run.fingerprints, sort_keys=True).encode())
    for name in storage.names(run.output, ".json"):
        if name.startswith("annotations"):
            found.update(storage.read_bytes(storage.join(run.output, name)))
    return found.hexdigest()


def _tell(record: Mapping[str, Any]) -> None:
    """Says how the rounds went, and which one is kept."""
    _say(f"learnt from {record['maps']} maps of {record['images']} images, {len(record['unread'])} images left out")
    for found in record["history"]:
        figures = ", ".join(f"{name} {found[name]:.3f}" for name in ("agreement", "coherence", "score"))
        _say(f"round {found['round']}: {figures}, IoU with the run's own boxes {found['iou']:.2f}: {found['verdict']}")
    if record["kept"]:
        _say(f"kept: the maps of round {record['kept']}")
    else:
        _say("kept: the run's own maps, for no round made better ones; the new run has the boxes of the old one")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
