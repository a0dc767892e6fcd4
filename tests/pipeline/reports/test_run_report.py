"""The report in a real browser. It needs Chromium: on Debian and Ubuntu `apt install chromium`."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camboxes.pipeline.reports import run_report
from camboxes.transforms import Plan, PlannedRun, storage
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.write import merge

SETTINGS = {
    "method": "cam",
    "model": {"name": "none", "size": 224, "aspect": "squash"},
    "rule": {"threshold": 0.25, "min_area": 0.0, "boxes": "largest"},
}

HOSTILE = (
    "<script>window.ran = 'script'</script>",
    '"><img src=x onerror="window.ran=\'attribute\'">',
    "'><svg onload=alert(1)>",
    "</style></title></script><script>alert(2)</script>",
    "javascript:alert(3)",
    "{{7*7}}{% raw %}",
    "&lt;b&gt;",
)


class Visit:
    """An open page, and what it did besides being looked at."""

    def __init__(self, chromium, path, **options):
        self.page = chromium.new_page(**options)
        self.requests, self.troubles = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.goto(Path(path).as_uri())

    def _dialog(self, dialog):
        self.troubles.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def visible(self, selector):
        """The texts of the elements that can be seen, in the order of the page."""
        return [item.inner_text().strip() for item in self.page.locator(selector).all() if item.is_visible()]

    def cards(self):
        """The paths of the cards that can be seen."""
        return self.visible("figure .path")


@pytest.fixture
def visit(chromium):
    """Opens a page; at the end of the test nothing but the file and its own data may have been asked for."""
    visits = []

    def open_page(path, **options):
        visits.append(Visit(chromium, path, **options))
        return visits[-1]

    yield open_page
    for opened in visits:
        opened.page.close()
        assert opened.requests
        assert not [url for url in opened.requests if not url.startswith(("file://", "data:"))]


def synthetic_run(folder, images, shards=2):
    """A finished run with its report, made without a network.

    Args:
      folder: where photographs/ and run/ go.
      images: for each path its `labels`, and what differs from an image of 80 x 60 pixels with status ok and no boxes:
        `status`, `reason`, `size`, `maps`, and `boxes` as (label, bbox, score, calibrated score).
      shards: how many.
    """
    names = sorted({label for image in images.values() for label in image["labels"]})
    photographs, output = folder / "photographs", folder / "run"
    photographs.mkdir(exist_ok=True)
    manifest = photographs / "manifest.jsonl"
    manifest.write_text(
        "".join(json.dumps({"path": path, "labels": image["labels"]}) + "\n" for path, image in images.items())
    )
    classes = [(f"class {number}",) for number in range(len(names))]
    label_map = {name: number for number, name in enumerate(names)}
    plan = Plan(str(output), classes, label_map=label_map, settings=SETTINGS, shards=shards)
    planned = plan.make(str(manifest))
    files = [path for path in photographs.rglob("*") if path.is_file()]
    one = {path.stat().st_ino: path for path in files}  # of those that are hard links to one file
    digest = {number: hashlib.sha256(path.read_bytes()).hexdigest() for number, path in one.items()}
    digests = {str(path.relative_to(photographs)): digest[path.stat().st_ino] for path in files}
    for key in planned.shards:
        rows = [labeled(row, images[row["path"]]) for row in planned.planned_rows(key).to_pylist()]
        for row in rows:
            row["digest"] = digests.get(row["path"], "")
        storage.write_table(shard_file(str(output), key), table(rows, LABELED, SETTINGS))
    merge([], str(output))
    run_report.write(str(output))
    return output / "report.html"


def labeled(planned, image):
    """A planned row as it would stand in a shard file."""
    ids = {label["label"]: label["category_id"] for label in planned["labels"]}
    status = image.get("status", "ok")
    width, height = (None, None) if status == "rejected" else image.get("size", (80, 60))
    boxes = [
        {
            "category_id": ids[label],
            "bbox": bbox,
            "score": score,
            "calibrated_score": calibrated,
            "rank": 1,
            "box_uid": "0" * 16,
            "component_area": 0.1,
            "threshold": 0.25,
        }
        for label, bbox, score, calibrated in image.get("boxes", [])
    ]
    return {
        "image_id": planned["image_id"],
        "path": planned["path"],
        "width": width,
        "height": height,
        "status": status,
        "reason": image.get("reason"),
        "labels": [{"label": name, "category_id": ids[name], "probability": 0.5} for name in image["labels"]],
        "top5": [],
        "maps": [
            {
                "category_id": 1,
                "height": len(cells),
                "width": len(cells[0]),
                "cells": np.uint8(cells).tobytes(),
                "rectangle": [0, 0, width, height],
            }
            for cells in image.get("maps", [])
        ],
        "boxes": boxes,
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The report of a run with every status; two of its seven photographs exist."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "photographs" / "a").mkdir(parents=True)
    Image.new("RGB", (80, 60), "teal").save(folder / "photographs" / "a" / "one.png")
    Image.new("RGB", (80, 60), "olive").save(folder / "photographs" / "a" / "two.jpg")
    images = {
        "a/one.png": {"labels": ["cat"], "boxes": [("cat", [8, 6, 40, 30], 0.91, None)], "maps": [[[0, 255], [0, 0]]]},
        "a/two.jpg": {
            "labels": ["cat", "dog"],
            "boxes": [("cat", [0, 0, 80, 60], 0.31, None), ("dog", [0, 0, 8, 6], 0.52, None)],
        },
        "b/three.png": {
            "labels": ["bird", "dog"],
            "reason": "constant_map: bird",
            "boxes": [("dog", [0, 0, 40, 60], 0.2, 0.77)],
        },
        "b/four.png": {
            "labels": ["dog"],
            "status": "no_box",
            "reason": "nowhere_positive: the map is nowhere positive",
        },
        "c/five.png": {"labels": ["bird"], "status": "skipped", "reason": "no_class: its labels stand for no class"},
        "d/six.png": {"labels": ["cat"], "status": "rejected", "reason": "truncated: 20 bytes are missing"},
        "d/seven.png": {"labels": ["bird"], "status": "rejected", "reason": "missing: there is no such file"},
    }
    return synthetic_run(folder, images)


ONE, TWO, THREE, FOUR, FIVE = "a/one.png", "a/two.jpg", "b/three.png", "b/four.png", "c/five.png"
BY_PATH = [ONE, TWO, FOUR, THREE, FIVE]


def test_what_the_page_says(small, visit):
    page = visit(small)
    assert page.page.locator("h1").inner_text() == "4 pseudo-boxes on 7 images"
    counts = [text.split("\n") for text in page.visible(".counts li")]
    assert counts == [["3", "with boxes"], ["1", "without a box"], ["1", "skipped"], ["2", "rejected"]]
    assert small.read_text().count("<figure>") == 5
    assert page.cards() == BY_PATH
    captions = [" ".join(text.split()) for text in page.visible("figcaption")]
    assert captions == [
        "cat 0.91 p 0.50 a/one.png",
        "cat 0.31 p 0.50 dog 0.52 p 0.50 a/two.jpg",
        "dog p 0.50 without a box: nowhere_positive: the map is nowhere positive b/four.png",
        "bird p 0.50 dog 0.77 p 0.50 b/three.png",
        "bird p 0.50 skipped: no_class: its labels stand for no class c/five.png",
    ]
    assert page.visible("tr[data-status]") == [
        "d/seven.png\tmissing: there is no such file",
        "d/six.png\ttruncated: 20 bytes are missing",
    ]
    assert page.visible(".gone") == ["the photograph is gone, or its file was replaced since the run"] * 3
    assert page.troubles == []


def test_the_charts_count_every_box(small, visit):
    scores, areas = visit(small).page.locator(".chart").all()
    assert [count for count in bars(scores) if not count.endswith(": 0")] == [
        "0.3 to 0.35: 1",
        "0.5 to 0.55: 1",
        "0.75 to 0.8: 1",  # calibrated, so not 0.2
        "0.9 to 0.95: 1",
    ]
    assert [count for count in bars(areas) if not count.endswith(": 0")] == [
        "0% to 5%: 1",  # 8 x 6 of 80 x 60
        "25% to 30%: 1",  # 40 x 30
        "50% to 55%: 1",  # 40 x 60
        "95% to 100%: 1",  # the whole image
    ]


def bars(chart):
    return [title.text_content() for title in chart.locator("title").all()]


def test_toggles(small, visit):
    page = visit(small).page
    box, heat = page.locator(".picture rect").first, page.locator(".heat")
    assert box.is_visible()
    assert heat.is_visible()
    page.get_by_role("checkbox", name="boxes").uncheck()
    assert not box.is_visible()
    assert heat.is_visible()
    page.get_by_role("checkbox", name="heat maps").uncheck()
    assert not heat.is_visible()
    page.get_by_role("checkbox", name="boxes").check()
    assert box.is_visible()
    assert page.locator("figure img").first.is_visible()


def test_filters(small, visit):
    page = visit(small)
    status, label = page.page.get_by_label("Status"), page.page.get_by_label("Label")
    cases = [
        ("with boxes", "all", [ONE, TWO, THREE], []),
        ("without a box", "all", [FOUR], []),
        ("skipped", "all", [FIVE], []),
        ("rejected", "all", [], ["d/seven.png", "d/six.png"]),
        ("all", "cat", [ONE, TWO], ["d/six.png"]),
        ("all", "dog", [TWO, FOUR, THREE], []),
        ("with boxes", "dog", [TWO, THREE], []),
        ("rejected", "bird", [], ["d/seven.png"]),
        ("skipped", "cat", [], []),
        ("all", "all", BY_PATH, ["d/seven.png", "d/six.png"]),
    ]
    for status_name, label_name, cards, rejected in cases:
        status.select_option(label=status_name)
        label.select_option(label=label_name)
        assert page.cards() == cards, (status_name, label_name)
        assert page.visible("tr[data-status] td:first-child") == rejected, (status_name, label_name)
        left = len(cards) + len(rejected)
        assert page.visible("#left") == ([] if left == 7 else [f"{left or 'none'} shown"]), (status_name, label_name)
        assert bool(page.visible(".sampled h2")) == bool(rejected)


def test_sorting(small, visit):
    page = visit(small)
    order = page.page.get_by_label("Sort by")
    order.select_option(label="highest score")
    assert page.cards() == [ONE, THREE, TWO, FOUR, FIVE]
    order.select_option(label="lowest score")
    assert page.cards() == [TWO, THREE, ONE, FOUR, FIVE]
    page.page.get_by_label("Label").select_option(label="dog")
    assert page.cards() == [TWO, THREE, FOUR]
    order.select_option(label="path")
    assert page.cards() == [TWO, FOUR, THREE]
    page.page.get_by_label("Label").select_option(label="all")
    order.select_option(label="most worth reviewing")
    assert page.cards() == BY_PATH, "these rows have no priority"


def test_a_click_enlarges_a_picture(small, visit):
    page = visit(small)
    enlarged = page.page.locator("#enlarged")
    assert not enlarged.is_visible()
    first = page.page.locator("#sheet .frame").first
    before = first.bounding_box()["width"]
    first.click()
    assert page.visible("#enlarged .path") == [ONE]
    assert enlarged.locator(".picture").bounding_box()["width"] > 2 * before
    shown = enlarged.locator(".picture").bounding_box()
    assert shown["width"] / shown["height"] == pytest.approx(80 / 60, rel=0.01)
    for key, path in (("ArrowRight", TWO), ("ArrowLeft", ONE), ("ArrowLeft", BY_PATH[-1])):
        page.page.keyboard.press(key)
        assert page.visible("#enlarged .path") == [path]
    page.page.keyboard.press("Escape")
    assert not enlarged.is_visible()
    page.page.get_by_label("Label").select_option(label="cat")
    first.press("Enter")
    page.page.keyboard.press("ArrowLeft")
    assert page.visible("#enlarged .path") == [TWO], "what the filter leaves"
    enlarged.locator(".picture").click()
    assert not enlarged.is_visible()
    assert page.troubles == []


def test_the_filter_bar_stays_with_what_it_filters(tmp_path, visit):
    images = {f"{number:02}.jpg": {"labels": [f"label {number}"]} for number in range(40)}
    page = visit(synthetic_run(tmp_path, images), viewport={"width": 1200, "height": 500}).page
    bar = page.locator(".bar")
    page.locator("#sheet li").nth(20).scroll_into_view_if_needed()
    assert bar.bounding_box()["y"] == pytest.approx(0, abs=1)
    page.locator("footer").scroll_into_view_if_needed()
    page.mouse.wheel(0, 10_000)
    page.wait_for_function("scrollY + innerHeight >= document.body.scrollHeight - 2")
    assert bar.bounding_box()["y"] + bar.bounding_box()["height"] <= page.locator("h2").last.bounding_box()["y"]


def test_labels_of_one_image_fold(small, tmp_path, visit):
    images = {f"{number}.jpg": {"labels": ["often" if number < 2 else f"once {number}"]} for number in range(5)}
    page = visit(synthetic_run(tmp_path, images))
    assert page.page.locator("summary").inner_text() == "3 labels of one image each"
    assert page.page.locator("details p").inner_text() == ""
    page.page.locator("summary").click()
    assert page.page.locator("details p").inner_text() == "once 2, once 3, once 4"
    assert page.page.locator("table").last.inner_text().split("\n")[1].split("\t")[:2] == ["often", "2"]


def test_the_page_of_a_label(small, visit, tmp_path):
    run = PlannedRun.load(str(small.parent))
    path = tmp_path / "dog.html"
    assert run_report.write_of_label(run, "dog", 10, str(path)) == 2, "photographs are gone"
    page = visit(path)
    assert page.cards() == [FOUR, TWO, THREE], "without a box, 0.52, 0.77"
    assert page.page.locator("h1").inner_text() == "dog: 2 pseudo-boxes on 3 images"
    assert page.page.locator(".chart").count() == 0
    assert run_report.write_of_label(run, "dog", 2, str(path)) == 1
    page = visit(path)
    assert page.cards() == [FOUR, TWO]
    assert "the 2 worst of 3" in page.page.locator("h2 .soft").first.inner_text()


def test_without_script_it_can_be_read(small, visit):
    page = visit(small, java_script_enabled=False)
    assert page.cards() == BY_PATH
    assert len(page.visible("tr[data-status]")) == 2
    assert page.visible("select") == []
    page.page.get_by_role("checkbox", name="heat maps").uncheck()
    assert not page.page.locator(".heat").is_visible()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The report of a run whose labels, paths and reasons would all like to be markup."""
    folder = tmp_path_factory.mktemp("hostile")
    images = {}
    for number, text in enumerate(HOSTILE):
        boxes = [(text, [8, 6, 40, 30], 0.5, None)]
        images[f"{text}/{number}.png"] = {"labels": [text], "boxes": boxes}
        images[f"{number}/{text}"] = {"labels": [text], "status": "no_box", "reason": f"why: {text}"}
        images[f"{number} {text}"] = {"labels": [text], "status": "rejected", "reason": f"{text}: {text}"}
    (folder / "photographs" / "7").mkdir(parents=True)
    Image.new("RGB", (80, 60)).save(folder / "photographs" / "7" / '"onload=window.ran=7 x=".png')
    images['7/"onload=window.ran=7 x=".png'] = {"labels": [HOSTILE[0]]}
    return synthetic_run(folder, images)


def test_labels_paths_and_reasons_are_shown_and_never_run(hostile, small, visit):
    page = visit(hostile)
    paths = page.page.locator("figure .path").all_text_contents()
    expected = [f"{text}/{number}.png" for number, text in enumerate(HOSTILE)]
    expected += [f"{number}/{text}" for number, text in enumerate(HOSTILE)]
    assert paths == sorted([*expected, '7/"onload=window.ran=7 x=".png'])
    assert set(page.page.locator("figure .name").all_text_contents()) == set(HOSTILE)
    assert page.page.locator("#label option").all_text_contents() == ["all", *sorted(HOSTILE)]
    assert set(page.page.locator("table:not(.sampled table) td:first-child").all_text_contents()) == set(HOSTILE)
    cells = page.page.locator("tr[data-status] td").all_text_contents()
    assert sorted(cells[::2]) == sorted(f"{number} {text}" for number, text in enumerate(HOSTILE))
    assert sorted(cells[1::2]) == sorted(f"{text}: {text}" for text in HOSTILE)
    titles = page.page.locator(".picture title").all_text_contents()
    assert sorted(titles) == sorted(f"{text}: score 0.50, 25% of the image, threshold 0.25" for text in HOSTILE)
    assert page.page.locator("img").evaluate_all("found => found.map(image => image.alt)") == [
        '7/"onload=window.ran=7 x=".png'
    ]
    for text in HOSTILE:
        page.page.get_by_label("Label").select_option(label=text)
    page.page.get_by_label("Sort by").select_option(label="highest score")
    assert page.page.evaluate("window.ran") is None
    assert page.troubles == []
    assert scripts(hostile) == scripts(small)


LONG = "<&\"'" + "x" * 100_000

# The longest text and the longest attribute of a page, but for pictures and what is ours.
LONGEST = """() => {
  const own = (node) => ["SCRIPT", "STYLE"].includes(node.parentElement?.tagName);
  const texts = document.createTreeWalker(document, NodeFilter.SHOW_TEXT);
  let longest = 0;
  for (let node = texts.nextNode(); node; node = texts.nextNode())
    if (!own(node)) longest = Math.max(longest, node.data.length);
  for (const element of document.body.querySelectorAll("*"))
    for (const { name, value } of element.attributes)
      if (name !== "src") longest = Math.max(longest, value.length);
  return longest;
}"""


def test_long_names_and_reasons_are_shortened(tmp_path, visit):
    folder = "d/" * 50_000  # a path, and no name of a file
    images = {f"{folder}{number}": {"labels": [LONG]} for number in range(3)}
    images[f"{folder}0"]["boxes"] = [(LONG, [8, 6, 40, 30], 0.5, None)]
    images[f"{folder}1"] |= {"status": "no_box", "reason": f"why: {LONG}"}
    images[f"{folder}2"] |= {"status": "rejected", "reason": f"{LONG}: {LONG}"}
    path = synthetic_run(tmp_path, images)
    assert path.stat().st_size < 60_000
    page = visit(path)
    assert page.page.locator("figure .name").all_text_contents() == [f"{LONG[:500]}…"] * 2
    assert page.page.locator("tr[data-status] td").all_text_contents() == [f"{folder[:500]}…", f"{LONG[:500]}…"]
    assert page.page.evaluate(LONGEST) < 600
    assert page.troubles == []


def test_an_image_of_many_labels_is_found_by_each_of_them(tmp_path, visit):
    labels = [f"label {number:03}" for number in range(300)]  # their numbers take more than 500 characters
    page = visit(synthetic_run(tmp_path, {"a.png": {"labels": labels}, "b.png": {"labels": labels[:1]}}))
    page.page.get_by_label("Label").select_option(label="label 299")
    assert page.cards() == ["a.png"]


def scripts(path):
    found = re.findall(r"<script.*?</script>", path.read_text(), re.DOTALL)
    assert len(found) == 1
    return found


INJECTED = (
    "<script>window.ran = 1</script><img src='data:,' onerror='window.ran = 2'>"
    "<link rel=stylesheet href='http://127.0.0.1:9/'><img src='http://127.0.0.1:9/'>"
)


def test_what_slipped_through_the_escaping_would_not_run_either(small, chromium, tmp_path):
    text = small.read_text().replace("<header>", f"<header>{INJECTED}")
    (tmp_path / "guarded.html").write_text(text)
    guarded = Visit(chromium, tmp_path / "guarded.html")
    guarded.page.get_by_label("Status").select_option(label="skipped")
    assert guarded.cards() == [FIVE], "our own script runs"
    assert guarded.page.evaluate("window.ran") is None
    assert len([text for text in guarded.troubles if "Content Security Policy" in text]) == 4
    (tmp_path / "bare.html").write_text(re.sub("<meta http-equiv=.*?>", "", text))
    bare = Visit(chromium, tmp_path / "bare.html")
    assert bare.page.evaluate("window.ran") == 2, "it would, but for the policy"
    guarded.page.close()
    bare.page.close()


def test_on_a_phone(hostile, small, visit, tmp_path):
    long = "unbroken" * 40
    images = {f"{long}.png": {"labels": [long], "boxes": [(long, [8, 6, 40, 30], 0.5, None)]}}
    images |= {f"{long}2.png": {"labels": [long], "status": "rejected", "reason": f"missing: {long}"}}
    for path in (small, hostile, synthetic_run(tmp_path, images)):
        page = visit(path, viewport={"width": 390, "height": 844}).page
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        right = page.locator("figure, select, td, .chart").evaluate_all(
            "all => Math.max(...all.map(element => element.getBoundingClientRect().right))"
        )
        assert right <= 390


def test_dark_and_light(small, visit):
    page = visit(small).page
    brightness = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate(
            "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
        )
        brightness[scheme] = [np.mean([int(part) for part in re.findall(r"\d+", colour)]) for colour in colours]
    assert brightness["light"][0] > 230
    assert brightness["light"][1] < 60
    assert brightness["dark"][0] < 40
    assert brightness["dark"][1] > 200


def test_a_run_of_20_000_images(tmp_path, visit):
    """40 labels, 500 images of each, 20 of them rejected, 20 without a box, 20 skipped."""
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)  # what a JPEG shrinks least
    Image.fromarray(noise).save(photographs / "0.png")
    maps = [np.random.default_rng(1).integers(0, 256, (7, 7)).tolist()]
    images = {}
    for number in range(20_000):
        label, turn = f"label {number % 40}", number // 40
        image = {"labels": [label], "maps": maps, "size": (400, 400)}
        if turn < 20:
            code = "missing" if number else "too_large"
            image |= {"status": "rejected", "reason": f"{code}: not here"}
        elif turn < 40:
            image |= {"status": "no_box", "reason": "nowhere_positive: nowhere"}
        elif turn < 60:
            image |= {"status": "skipped", "reason": "no_class: none"}
        else:
            image["boxes"] = [(label, [0, 0, 100, 100 + turn % 300], turn / 500, None)]
        images[f"{number}.png"] = image
        if number:
            (photographs / f"{number}.png").hardlink_to(photographs / "0.png")
    path = synthetic_run(tmp_path, images, shards=80)
    assert path.stat().st_size < 8_000_000
    page = visit(path)
    cards = page.page.locator("#sheet > li").evaluate_all(
        "all => all.map(card => [card.dataset.status, card.dataset.labels])"
    )
    pairs = {(status, str(label)) for status in ("ok", "no_box", "skipped") for label in range(1, 41)}
    assert len(cards) == 120
    assert {tuple(card) for card in cards} == pairs, "each pair of a status and a label once"
    reasons = page.page.locator("tr[data-status] td:last-child").all_text_contents()
    assert sorted(reasons) == ["missing: not here"] * 199 + ["too_large: not here"]
    headings = " ".join(page.visible("h2 .soft"))
    assert "120 of 19,200, drawn evenly from every status and label" in headings
    assert "200 of 800, drawn evenly from every reason: missing 799, too_large 1" in headings
    assert page.page.locator("figure img:not(.heat)").count() == 120


def test_the_sample_depends_on_the_paths_alone(tmp_path):
    images = {f"{number}.png": {"labels": [f"label {number % 3}"]} for number in range(300)}
    pages = []
    for shards in (2, 5):
        folder = tmp_path / str(shards)
        folder.mkdir()
        pages.append(synthetic_run(folder, images, shards).read_bytes())
    assert pages[0] == pages[1]
    assert pages[0].count(b"<figure>") == 120


def test_another_file_of_the_same_name_is_not_shown_with_the_boxes(tmp_path):
    (tmp_path / "photographs").mkdir()
    for name in ("same.jpg", "replaced.jpg"):
        Image.new("RGB", (80, 60), "teal").save(tmp_path / "photographs" / name)
    images = {f"{name}.jpg": {"labels": ["cat"]} for name in ("same", "replaced", "gone")}
    page = synthetic_run(tmp_path, images)
    assert page.read_text().count("data:image/jpeg") == 2
    Image.new("RGB", (80, 60), "olive").save(tmp_path / "photographs" / "replaced.jpg")
    assert run_report.write(str(page.parent)) == 2
    assert page.read_text().count("data:image/jpeg") == 1


def test_photographs_stand_upright(tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    stored = Image.new("RGB", (1200, 800), "red")
    stored.paste("blue", (0, 400, 1200, 800))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the red upper half comes to the right
    stored.save(photographs / "turned.jpg", exif=exif)
    path = synthetic_run(tmp_path, {"turned.jpg": {"labels": ["flag"], "size": (800, 1200)}})
    [data] = re.findall(r'src="data:image/jpeg;base64,(.*?)"', path.read_text())
    thumbnail = Image.open(io.BytesIO(base64.b64decode(data)))
    assert thumbnail.size == (320, 480)
    np.testing.assert_allclose(thumbnail.getpixel((200, 180)), (255, 0, 0), atol=8)
    np.testing.assert_allclose(thumbnail.getpixel((40, 180)), (0, 0, 255), atol=8)
