"""The App as a reviewer has it: processes of its own beside a real mongod, and pages in a real browser."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys

import apache_beam as beam
import pymongo
import pytest
from PIL import Image
from playwright.sync_api import expect

from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.transforms import BoxesFromMaps, Plan, Shard, WriteCoco
from camboxes.transforms.records import MAPPED, table

SECONDS = 60  # for the App to answer, on a machine that is busy


@pytest.fixture(scope="module")
def environment(database, tmp_path_factory):
    """What a process of FiftyOne's is told: the database, and a home where nobody has anything yet."""
    home = tmp_path_factory.mktemp("home")
    told = os.environ | {"FIFTYONE_DATABASE_URI": database, "HOME": str(home)}
    told.pop("FIFTYONE_PLUGINS_DIR", None)
    return told


@pytest.fixture(scope="module")
def review(environment, free_port):
    """Runs `camboxes review` over a run; gives the process, and where the App is.

    It is ended as a person ends it, and has to say what was decided.
    """

    @contextlib.contextmanager
    def reviewing(output):
        call = ["review", "--run", str(output), "--remote", "--port", str(free_port())]
        with subprocess.Popen(
            [sys.executable, "-m", "camboxes.pipeline.cli", *call],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as server:  # fmt: skip
            try:
                said = [server.stdout.readline()]
                while said[-1] and not said[-1].startswith("from another machine"):
                    said.append(server.stdout.readline())
                assert said[-1], "".join(said)
                assert said[-1].startswith(f"from another machine: ssh -N -L {call[-1]}:127.0.0.1:{call[-1]} USER@HOST")
                yield server, said[-2].removeprefix("the App is at ").partition(";")[0].partition("?")[0]
            finally:
                server.send_signal(signal.SIGINT)
                rest, _ = server.communicate(timeout=SECONDS)
        assert server.returncode == 0, rest
        assert f"images; decisions are in {output}/review.jsonl" in rest

    return reviewing


@pytest.fixture(scope="module")
def drawn_run(tmp_path_factory):
    """Makes a run of drawn pictures CLASS/NAME.png of cats and dogs, as large as the one map that all of them have."""

    def made(paths, cells):
        folder = tmp_path_factory.mktemp("drawn")
        height, width = cells.shape
        for number, path in enumerate(paths):
            (folder / "pictures" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (width, height), (number % 256, number // 256, 150)).save(folder / "pictures" / path)
        settings = {"rule": {"threshold": 0.25, "boxes": "all"}}
        planned = Plan(str(folder / "run"), [("cat",), ("dog",)], settings=settings).make(str(folder / "pictures"))
        found = {"height": height, "width": width, "raw_min": 0.0, "raw_max": 1.0, "cells": cells.tobytes()}
        found |= {"rectangle": [0, 0, width, height], "method": "cam"}
        shards = []
        for key in planned.shards:
            rows = []
            for row in planned.planned_rows(key).to_pylist():
                [label] = row["labels"]
                data = (folder / "pictures" / row["path"]).read_bytes()
                rows.append(
                    {"image_id": row["image_id"], "path": row["path"], "width": width, "height": height, "status": "ok"}
                    | {"digest": hashlib.sha256(data).hexdigest()}
                    | {"labels": [label | {"class_index": 0, "probability": 0.5}]}
                    | {"maps": [found | {"category_id": label["category_id"]}]}
                )
            shards.append(Shard(key, table(rows, MAPPED, {"method": "cam"})))
        with beam.Pipeline(options=beam_options([])) as pipeline:
            pipeline | beam.Create(shards) | BoxesFromMaps(0.25, boxes="all") | WriteCoco(planned.output)
        return planned.output

    return made


@pytest.fixture(scope="module")
def new_page(chromium):
    """Opens an empty page; gives it, and the list of its scripts' errors."""
    expect.set_options(timeout=1000 * SECONDS)

    def opened():
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(1000 * SECONDS)
        troubles = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        return page, troubles

    return opened


@pytest.fixture(scope="module")
def samples_of(database):
    """Reads a dataset's samples as the database has them, by path."""
    with pymongo.MongoClient(database) as client:
        held = client["fiftyone"]

        def read(name):
            dataset = held["datasets"].find_one({"name": name})
            return {sample["path"]: sample for sample in held[dataset["sample_collection_name"]].find()}

        yield read
