"""camboxes review as a reviewer has it: a real mongod, the real App, and a real browser."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pymongo
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import expect

from camboxes.pipeline import cli
from camboxes.transforms.decisions import read_decisions

_SECONDS = 60  # for the App to answer, on a machine that is busy


@pytest.fixture(scope="module")
def output(run, tmp_path_factory):
    """A run of five photographs that nobody has reviewed."""
    return shutil.copytree(run, tmp_path_factory.mktemp("app") / "boxes")


@pytest.fixture(scope="module")
def app(output, database, free_port, tmp_path_factory):
    """Where the App of `camboxes review` is; it is ended as a person ends it, and has to say what was decided."""
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {"FIFTYONE_DATABASE_URI": database, "HOME": str(home)}
    environment.pop("FIFTYONE_PLUGINS_DIR", None)
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
            url = said[-2].removeprefix("the App is at ").partition(";")[0]
            assert said[-1].startswith(f"from another machine: ssh -N -L {call[-1]}:127.0.0.1:{call[-1]} USER@HOST")
            assert (home / "fiftyone" / "__plugins__" / "camboxes-review" / "fiftyone.yml").is_file()
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            rest, _ = server.communicate(timeout=_SECONDS)
    assert server.returncode == 0, rest
    assert f"of 5 images; decisions stand in {output}/review.jsonl" in rest


@pytest.fixture(scope="module")
def page(app, chromium):
    """The grid of the App; nothing that it loads may come from anywhere but the App's own server."""
    opened = chromium.new_page(viewport={"width": 1400, "height": 900})
    opened.set_default_timeout(1000 * _SECONDS)
    expect.set_options(timeout=1000 * _SECONDS)
    troubles, outside = [], []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("requestfinished", lambda request: outside.append(request.url))
    opened.on("requestfailed", lambda request: outside.append(f"{request.failure} {request.url}"))
    opened.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
    opened.goto(app)
    expect(opened.locator("[data-cy=looker]")).to_have_count(5)
    yield opened
    opened.close()
    own = (app.partition("/datasets")[0], "data:", "blob:", app.replace("http", "ws").partition("/datasets")[0])
    strangers = [url for url in outside if not url.removeprefix("net::ERR_ABORTED ").startswith(own)]
    assert strangers  # the fonts that FiftyOne's own pages ask for
    assert all(url.startswith("csp ") for url in strangers), strangers
    assert not troubles


@pytest.fixture(scope="module")
def samples(database, app):
    """The samples as the database has them, by path."""
    with pymongo.MongoClient(database) as client:
        held = client["fiftyone"]
        dataset = held["datasets"].find_one({"name": app.rpartition("/")[2]})
        yield lambda: {sample["path"]: sample for sample in held[dataset["sample_collection_name"]].find()}


def _picture(locator):
    return Image.open(io.BytesIO(locator.screenshot())).convert("RGB")


def _settled(locator):
    """What an element looks like once it has stopped to change."""
    last, now = None, _picture(locator)
    while last is None or ImageChops.difference(last, now).getbbox():
        time.sleep(0.5)
        last, now = now, _picture(locator)
    return now


def _comes_to_differ(locator, before):
    """Waits until an element looks another way than it did."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if ImageChops.difference(_picture(locator), before).getbbox():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def open_image(page, app, samples):
    """Opens an image of the run by its number, from 0, and gives the panel beside it."""

    def opened(number):
        [sample] = [sample for sample in samples().values() if sample["coco_id"] == number + 1]
        page.goto(f"{app}?id={sample['_id']}")
        panel = page.locator("#camboxes-panel")
        expect(panel).to_contain_text(sample["path"])
        return panel

    return opened


def _path(panel):
    return panel.locator(".row .grow").first.inner_text()


def test_the_grid_shows_boxes(page):
    first = page.locator("[data-cy=looker]").first
    with_boxes = _settled(first)
    page.locator("[data-cy=checkbox-boxes]").click()
    assert _comes_to_differ(first, with_boxes)
    page.locator("[data-cy=checkbox-boxes]").click()


def test_decisions_reach_the_database_and_the_file(page, samples, output):
    page.locator("[data-cy=looker]").first.click()
    panel = page.locator("#camboxes-panel")
    expect(panel.locator("#camboxes-threshold")).to_be_enabled()
    accepted = _path(panel)
    panel.locator("#camboxes-accepted").click()
    expect(panel).to_contain_text("1 accepted · 0 rejected · 0 skipped · 4 left")
    expect(panel).not_to_contain_text(accepted)
    rejected = _path(panel)
    page.keyboard.press("w")
    expect(panel).to_contain_text("1 accepted · 1 rejected · 0 skipped · 3 left")
    expect(panel).not_to_contain_text(rejected)
    skipped = _path(panel)
    page.keyboard.press("n")
    expect(panel).to_contain_text("1 accepted · 1 rejected · 1 skipped · 2 left")
    expect(panel).not_to_contain_text(skipped)
    verdicts = {accepted: "accepted", rejected: "rejected", skipped: "skipped"}
    assert {path: sample["verdict"] for path, sample in samples().items() if sample["verdict"]} == verdicts
    assert {path: decision.verdict for path, decision in read_decisions(str(output)).items()} == verdicts

    page.keyboard.press("u")
    expect(panel).to_contain_text("1 accepted · 1 rejected · 0 skipped · 3 left")
    expect(panel.locator(".row .grow").first).to_have_text(skipped)
    expect(panel.locator("#camboxes-verdict")).to_have_text("undecided")
    assert [*read_decisions(str(output))] == [accepted, rejected]
    assert samples()[skipped]["verdict"] is None


def test_the_panel_beside_an_image(page, samples, open_image):
    panel = open_image(3)
    expect(panel).to_contain_text("3 left")
    sample = samples()[_path(panel)]
    [label] = sample["labels"]["classifications"]
    [box] = sample["boxes"]["detections"]
    expect(panel).to_contain_text(label["label"])
    expect(panel).to_contain_text(f"{100 * label['confidence']:.0f}%")
    expect(panel.locator("#camboxes-threshold")).to_have_value(f"{box['threshold']:.2f}".rstrip("0"))
    expect(panel.locator("#camboxes-verdict")).to_have_text("undecided")


def test_the_slider_draws_boxes_anew(page, samples, open_image):
    panel = open_image(3)
    canvas = page.locator("[data-cy=modal-looker-container] canvas").first
    slider = panel.locator("#camboxes-threshold")
    expect(slider).to_be_enabled()
    path = _path(panel)
    [before] = samples()[path]["boxes"]["detections"]
    looked = _settled(canvas)
    slider.fill("0.6")
    assert _comes_to_differ(canvas, looked)
    [after] = samples()[path]["boxes"]["detections"]
    assert (after["threshold"], after["box_uid"]) == (0.6, before["box_uid"])
    assert after["bounding_box"][2] * after["bounding_box"][3] < before["bounding_box"][2] * before["bounding_box"][3]
    page.keyboard.press(".")
    expect(slider).to_have_value("0.65")
    panel.locator("#camboxes-reset").click()
    expect(slider).to_have_value(f"{before['threshold']:.2f}".rstrip("0"))
    [again] = samples()[path]["boxes"]["detections"]
    assert again["bounding_box"] == before["bounding_box"]


def test_the_heat_map(page, open_image):
    panel = open_image(3)
    canvas = page.locator("[data-cy=modal-looker-container] canvas").first
    expect(panel.locator("#camboxes-threshold")).to_be_enabled()
    looked = _settled(canvas)
    page.keyboard.press("h")
    assert _comes_to_differ(canvas, looked)
    page.keyboard.press("h")


def test_a_decided_image_is_not_drawn_again(page, samples, open_image):
    panel = open_image(0)
    expect(panel.locator("#camboxes-verdict")).to_have_text("accepted")
    expect(panel.locator("#camboxes-threshold")).to_be_disabled()
    decided = {path: sample["boxes"] for path, sample in samples().items() if sample["verdict"]}
    panel = open_image(2)
    expect(panel.locator("#camboxes-verdict")).to_have_text("undecided")
    panel.locator("#camboxes-threshold").fill("0.5")
    expect(panel).to_contain_text("0.50")
    panel.locator("#camboxes-apply-view").click()
    expect(panel).to_contain_text("3 undecided images were drawn anew.")
    after = samples()
    assert {path: after[path]["boxes"] for path in decided} == decided
    assert {
        box["threshold"] for sample in after.values() if not sample["verdict"] for box in sample["boxes"]["detections"]
    } == {0.5}


def test_a_box_moved_in_the_annotate_tab_is_a_persons(page, samples, output, open_image):
    panel = open_image(2)
    expect(panel.locator("#camboxes-verdict")).to_have_text("undecided")
    path = _path(panel)
    sample = samples()[path]
    [box] = sample["boxes"]["detections"]
    page.locator("[data-cy=annotate]").click()
    canvas = page.locator("#lighter-singleton-canvas")
    expect(canvas).to_be_visible()
    expect(page.locator("[data-cy=modal]")).to_contain_text("Edit")
    time.sleep(2)  # the App says nowhere that the canvas takes a mouse by now
    place = canvas.bounding_box()
    width, height = sample["metadata"]["width"], sample["metadata"]["height"]
    scale = min(place["width"] / width, place["height"] / height)
    left, top = (place["width"] - scale * width) / 2, (place["height"] - scale * height) / 2
    x, y, box_width, box_height = box["bounding_box"]
    centre = (
        place["x"] + left + scale * width * (x + box_width / 2),
        place["y"] + top + scale * height * (y + box_height / 2),
    )
    page.mouse.click(*centre)  # selects the box
    time.sleep(1)
    page.mouse.move(*centre)
    page.mouse.down()
    page.mouse.move(centre[0] + 10, centre[1] + 5, steps=5)
    page.mouse.move(centre[0] + 20, centre[1] + 10, steps=5)
    page.mouse.up()
    end = time.monotonic() + _SECONDS
    while samples()[path]["boxes"]["detections"][0]["bounding_box"] == box["bounding_box"]:
        assert time.monotonic() < end, "the App saved no other box"
        time.sleep(0.2)
    panel.locator("#camboxes-verdict").hover()
    expect(panel).to_contain_text("1 box is yours")
    panel.locator("#camboxes-accepted").click()
    expect(panel).to_contain_text("2 accepted")
    decision = read_decisions(str(output))[path]
    [decided] = decision.boxes
    assert (decision.verdict, decided.source, decided.box_uid) == ("accepted", "person", box["box_uid"])
    assert decided.bbox[0] == pytest.approx(width * x + 20 / scale, abs=3)
    assert decided.bbox[1] == pytest.approx(height * y + 10 / scale, abs=3)


def test_what_was_accepted_is_exported(page, output, tmp_path):
    call = ["export", "--run", str(output), "--output", str(tmp_path / "data"), "--format", "coco"]
    assert cli.main([*call, "--include", "accepted"]) == 0
    exported = [json.loads(part.read_text()) for part in (tmp_path / "data" / "annotations").glob("instances_*.json")]
    decisions = read_decisions(str(output)).values()
    assert {a["image_id"]: a["bbox"] for part in exported for a in part["annotations"]} == {
        decision.image_id: list(decision.boxes[0].bbox) for decision in decisions if decision.verdict == "accepted"
    }
    assert sum(len(part["images"]) for part in exported) == 2
