"""camboxes review as a reviewer has it: a real mongod, the real App, and a real browser."""

import http.client
import http.server
import io
import json
import shutil
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import expect

from camboxes.pipeline import cli
from camboxes.transforms.review.decisions import read_decisions

_SECONDS = 60  # for what the App does, on a machine that is busy


@pytest.fixture(scope="module")
def output(run, tmp_path_factory):
    """A run of five photographs that nobody has reviewed."""
    return shutil.copytree(run, tmp_path_factory.mktemp("app") / "boxes")


@pytest.fixture(scope="module")
def app(output, review, environment):
    """Where the App of `camboxes review` is."""
    with review(output) as (_, url):
        assert Path(environment["HOME"], "fiftyone", "__plugins__", "camboxes-review", "fiftyone.yml").is_file()
        yield url


@pytest.fixture(scope="module")
def page(app, new_page):
    """The grid of the App; nothing that it loads may come from anywhere but the App's own server."""
    opened, troubles = new_page()
    outside = []
    opened.on("requestfinished", lambda request: outside.append(request.url))
    opened.on("requestfailed", lambda request: outside.append(f"{request.failure} {request.url}"))
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
def samples(samples_of, app):
    """The samples as the database has them, by path."""
    return lambda: samples_of(app.rpartition("/")[2])


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


def _look_alike(locator, before):
    """Waits until an element looks as it did, but for a few pixels: the App draws edges one way or another."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        other = ImageChops.difference(_picture(locator), before).convert("L").point(lambda value: value > 0, "1")
        if other.histogram()[-1] < 10:
            return True
        time.sleep(0.1)
    return False


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
    expect(panel).not_to_contain_text("not yet written")
    verdicts = {accepted: "accepted", rejected: "rejected", skipped: "skipped"}
    assert {path: sample["verdict"] for path, sample in samples().items() if sample["verdict"]} == verdicts
    assert {path: decision.verdict for path, decision in read_decisions(str(output)).items()} == verdicts

    page.keyboard.press("u")
    expect(panel.locator(".row .grow").first).to_have_text(skipped)
    expect(panel).to_contain_text("1 accepted · 1 rejected · 0 skipped · 3 left")
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
    open_boxes = _boxes_of_undecided(samples())
    panel = open_image(2)
    expect(panel.locator("#camboxes-verdict")).to_have_text("undecided")
    panel.locator("#camboxes-threshold").fill("0.5")
    expect(panel).to_contain_text("0.50")
    panel.locator("#camboxes-apply-view").click()
    expect(panel).to_contain_text("3 undecided images were drawn again.")
    after = samples()
    assert {path: after[path]["boxes"] for path in decided} == decided
    assert {box["threshold"] for boxes in _boxes_of_undecided(after).values() for box in boxes} == {0.5}
    panel.locator("#camboxes-restore-view").click()
    end = time.monotonic() + _SECONDS
    while _boxes_of_undecided(samples()) != open_boxes:
        assert time.monotonic() < end, "the boxes are not those of the run"
        time.sleep(0.2)
    assert {path: samples()[path]["boxes"] for path in decided} == decided


def _boxes_of_undecided(samples):
    return {path: sample["boxes"]["detections"] for path, sample in samples.items() if not sample["verdict"]}


def _close(page):
    """Closes the open image, by a click beside it."""
    page.mouse.click(4, 450)
    expect(page.locator("#camboxes-panel")).not_to_be_visible()


def test_what_is_drawn_for_all_images_is_seen(page, app):
    _close(page)  # or the App may open it again with its next page
    page.goto(app)
    tiles = page.locator("[data-cy=looker]")
    expect(tiles).to_have_count(5)
    tile, beside = tiles.nth(2), tiles.nth(3)
    in_grid = _settled(beside)
    tile.click()
    panel = page.locator("#camboxes-panel")
    canvas = page.locator("[data-cy=modal-looker-container] canvas").first
    slider = panel.locator("#camboxes-threshold")
    expect(slider).to_be_enabled()
    of_run = slider.input_value()
    looked = _settled(canvas)
    slider.fill("0.8")
    assert _comes_to_differ(canvas, looked)
    redrawn = _settled(canvas)
    for _ in range(3):  # again while the App still reads what the last one changed
        panel.locator("#camboxes-restore-view").click()
        expect(slider).to_have_value(of_run)
        slider.fill("0.8")
        panel.locator("#camboxes-apply-view").click()
    assert _look_alike(canvas, redrawn)
    time.sleep(2)  # the App says nowhere that it has read the grid anew
    _close(page)
    assert _comes_to_differ(beside, in_grid)
    tile.click()
    expect(slider).to_have_value("0.8")
    panel.locator("#camboxes-restore-view").click()
    expect(slider).to_have_value(of_run)
    assert _look_alike(canvas, looked)
    time.sleep(2)
    _close(page)
    assert _look_alike(beside, in_grid)


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
    expect(panel).not_to_contain_text("not yet written")
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


def _answer(app, method, path, headers, body=None):
    """What the App's server answers to bytes of our own: the status and the body."""
    host, port = app.split("/")[2].split(":")
    asked = http.client.HTTPConnection(host, int(port), timeout=_SECONDS)
    asked.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": f"{host}:{port}", "Content-Length": str(len(body or b""))}.items():
        if headers.get(name, value) is not None:
            asked.putheader(name, headers.get(name, value))
    for name in headers.keys() - {"Host", "Content-Length"}:
        asked.putheader(name, headers[name])
    asked.endheaders(body)
    answer = asked.getresponse()
    return answer.status, answer.read()


def _call(app, operator, sample, **parameters):
    """What the panel sends to have an operator executed."""
    call = {"operator_uri": f"@camboxes/review/{operator}", "dataset_name": app.rpartition("/")[2]}
    return json.dumps(call | {"params": {"sample": str(sample["_id"]), **parameters}})


def _decide(app, sample, verdict):
    """What the panel sends to have an image decided."""
    shown = [{name: box[name] for name in ("label", "bounding_box")} for box in sample["boxes"]["detections"]]
    return _call(app, "decide", sample, verdict=verdict, boxes=shown)


JSON = {"Content-Type": "application/json"}
FORWARDED = {"Host": "localhost:9", "Origin": "http://localhost:9"}  # ssh -L 9:…


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example:5151"}, 400),
        ({"Host": "localhost.evil.example"}, 400),
        ({"Host": "0.0.0.0:5151"}, 400),
        ({"Host": ""}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://localhost"}, 403),
        (FORWARDED | {"Origin": "http://127.0.0.1:9"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),  # another server on this machine
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 403),  # a form
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "text/plain;charset=UTF-8"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "Multipart/Form-Data; boundary=x"}, 415),
        ({"Content-Type": ""}, 415),
        (FORWARDED | {"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_the_server_executes_for_its_own_pages_alone(page, app, samples, output, headers, status):
    [undecided, *_] = [sample for sample in samples().values() if not sample["verdict"]]
    call = _decide(app, undecided, "skipped").encode()
    before = read_decisions(str(output))
    assert _answer(app, "POST", "/operators/execute", JSON | headers, call)[0] == status
    decided = read_decisions(str(output)).keys() - before.keys()
    assert decided == ({undecided["path"]} if status == 200 else set())
    if decided:
        assert _answer(app, "POST", "/operators/execute", JSON, _call(app, "undo", undecided).encode())[0] == 200
        assert read_decisions(str(output)) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),  # a link
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),  # typed
    ],
)
def test_the_server_is_read_by_its_own_pages_alone(page, app, headers, status):
    path = f"/datasets/{app.rpartition('/')[2]}"
    assert _answer(app, "GET", path, headers)[0] == status
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    if status != 200 and "Sec-Fetch-Mode" not in headers:
        assert _answer(app, "GET", "/graphql", headers | upgrade)[0] == status


def test_the_server_gives_photographs_and_no_other_file(page, app, samples, output):
    def media(path):
        return _answer(app, "GET", f"/media?filepath={urllib.parse.quote(str(path))}", {})

    for sample in samples().values():
        assert media(sample["filepath"]) == (200, Path(sample["filepath"]).read_bytes())
    photograph = Path(next(iter(samples().values()))["filepath"])
    beside = photograph.with_name("beside.png")
    beside.write_bytes(photograph.read_bytes())
    for path in ("/etc/passwd", output / "plan" / "plan.json", beside, photograph.parent, "", "a\x00b"):
        assert media(path)[0] == 404, path
    beside.unlink()


def test_a_page_of_another_server_decides_nothing(page, app, samples, output, new_page):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html>")

        def log_message(self, *_):
            pass

    before = read_decisions(str(output))
    [undecided, *_] = [sample for sample in samples().values() if not sample["verdict"]]
    call, server = _decide(app, undecided, "rejected"), app.partition("/datasets")[0]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        opened, _ = new_page()
        opened.goto(f"http://localhost:{stranger.server_port}/")
        answered = opened.evaluate(
            """async ([server, call, photograph]) => {
              await fetch(`${server}/operators/execute`, {method: "POST", mode: "no-cors", body: call});
              const image = new Image();
              const shown = new Promise((resolve) => {
                image.onload = () => resolve(true);
                image.onerror = () => resolve(false);
              });
              image.src = `${server}/media?filepath=${encodeURIComponent(photograph)}`;
              return await shown;
            }""",
            [server, call, undecided["filepath"]],
        )
        opened.close()
        stranger.shutdown()
    assert answered is False, "a stranger's page shows no photograph"
    assert read_decisions(str(output)) == before
