"""Trains, and keeps the result in the plan of the new run: the regressor, and selftraining.json beside it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from camboxes.models.training.selftraining import FeatureReader
from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.selftraining import rounds
from camboxes.pipeline.selftraining.examples import sample
from camboxes.transforms import BoxRule, PlannedRun, storage

REGRESSOR, RECORD = "regressor.safetensors", "selftraining.json"  # the record is written last


def asked_of(run: PlannedRun, most_rounds: int, size: int | None) -> dict[str, Any]:
    """The settings that decide a self-training.

    The entry of the run is a hash of its plan and its annotations. It changes when rejected images are tried again, or
    more images are reviewed.
    """
    found = hashlib.sha256(json.dumps(run.fingerprints, sort_keys=True).encode())
    for name in storage.names(run.output, ".json"):
        if name.startswith("annotations"):
            found.update(storage.read_bytes(storage.join(run.output, name)))
    return {"run": found.hexdigest(), "rounds": most_rounds, "size": size}


def read_record(output: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record that an earlier call for the same job left in the output; None where there is none.

    Raises:
      ValueError: the output holds another run.
    """
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


def learn(
    run: PlannedRun, output: str, asked: Mapping[str, Any], reader: FeatureReader, reporter: Reporter
) -> dict[str, Any]:
    """Trains on a sample of the run, and writes the regressor, the network and the record into the output's plan.

    Raises:
      CallError: there is nothing to learn from.
    """
    sampled = sample(run, reader, reporter)
    own, regressed = rule_of(run, regressed=False), rule_of(run, regressed=True)
    learnt = rounds.train_rounds(sampled, own, regressed, asked["rounds"], reporter)
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


def rule_of(run: PlannedRun, *, regressed: bool) -> BoxRule:
    """The rule for boxes: the run's own; for the maps of a regressor, with a threshold that suits these."""
    rule = BoxRule(**run.settings["rule"])
    return dataclasses.replace(rule, threshold=rounds.THRESHOLD, thresholds={}) if regressed else rule
