"""A review by keys, as fast as a hand: each decision is about the picture that was on the screen, and none is lost."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

SECONDS = 60  # for what the App does, on a machine that is busy
PATHS = [f"cat/{number:02d}.png" for number in range(14)]

# In the page: which file is on the screen, above all the curtain's, whenever a key is pressed.
NOTE = """
  window.noted = { pressed: [], painted: null };
  document.addEventListener("canvas-loaded", (event) => { noted.painted = event.detail.sampleFilepath; });
  window.addEventListener("keydown", () => {
    const curtain = document.querySelector("#camboxes-curtain");
    const source = curtain && curtain.querySelector("img").src;
    noted.pressed.push(source ? new URL(source).searchParams.get("filepath") : noted.painted);
  }, true);
"""


@pytest.fixture(scope="module")
def output(drawn_run):
    """A run of fourteen pictures, whose map is 0 on the right half."""
    cells = np.zeros((24, 32), np.uint8)
    cells[:, :16] = 255
    return Path(drawn_run(PATHS, cells))


@pytest.fixture(scope="module")
def page(output, review, new_page):
    """The App as a new user sees it, at the address that the command says."""
    with review(output) as (_, url):
        opened, troubles = new_page()
        opened.add_init_script(NOTE)
        opened.goto(url + "?view=most-worth-reviewing")
        expect(opened.locator("[data-cy=looker]")).to_have_count(len(PATHS))
        expect(opened.get_by_text("Accelerate your workflow")).to_have_count(0)
        opened.locator("[data-cy=looker]").first.click()
        expect(opened.locator("#camboxes-threshold")).to_be_enabled()
        expect(opened.locator("#camboxes-curtain")).to_have_count(0)
        yield opened
        opened.close()
        assert not troubles


def _decisions(output, count):
    """Waits for so many lines in the file; gives the path and the verdict of each."""
    end = time.monotonic() + SECONDS
    while True:
        lines = (output / "review.jsonl").read_text().splitlines() if (output / "review.jsonl").is_file() else []
        if len(lines) >= count:
            return [(line["path"], line["verdict"]) for line in map(json.loads, lines)]
        assert time.monotonic() < end, lines
        time.sleep(0.1)


def _path(page):
    return page.locator("#camboxes-panel .row .grow").first.inner_text()


def test_six_keys_in_two_seconds_are_six_decisions(page, output):
    start = time.monotonic()
    for number, key in enumerate("aawana"):
        time.sleep(max(0.0, start + 0.35 * number - time.monotonic()))
        page.keyboard.press(key)
    decisions = _decisions(output, 6)
    on_the_screen = [str(Path(*Path(file).parts[-2:])) for file in page.evaluate("noted.pressed")]
    assert [path for path, _ in decisions] == on_the_screen
    assert len({*on_the_screen}) == 6
    assert [verdict[0] for _, verdict in decisions] == [*"aarasa"]
    expect(page.locator("#camboxes-counts")).to_contain_text("4 accepted · 1 rejected · 1 skipped · 8 left")
    expect(page.locator("#camboxes-counts")).not_to_contain_text("not yet written")


def test_a_key_before_the_picture_is_on_the_screen_does_not_count(page, output):
    shown = _path(page)
    page.evaluate("""() => {
      for (let key = 0; key < 2; key++) window.dispatchEvent(new KeyboardEvent("keydown", { key: "a" }));
      window.dispatchEvent(new KeyboardEvent("keydown", { key: "a", repeat: true }));
    }""")
    expect(page.get_by_role("status")).to_have_text(
        "The key came before this image was on the screen, so it did not count."
    )
    assert _decisions(output, 7)[6:] == [(shown, "accepted")]
    expect(page.locator("#camboxes-curtain")).to_have_count(0)
    expect(page.locator("#camboxes-counts")).to_contain_text("5 accepted · 1 rejected · 1 skipped · 7 left")
    assert len(_decisions(output, 7)) == 7


def test_undo_goes_back_and_the_apps_sidebar_agrees(page, output):
    shown = _path(page)
    page.keyboard.press("w")
    expect(page.locator("#camboxes-panel")).not_to_contain_text(shown)
    expect(page.locator("#camboxes-curtain")).to_have_count(0)
    page.keyboard.press("u")
    expect(page.locator("#camboxes-panel")).to_contain_text(shown)
    expect(page.locator("#camboxes-curtain")).to_have_count(0)
    assert _decisions(output, 9)[7:] == [(shown, "rejected"), (shown, "undone")]
    expect(page.locator("#camboxes-verdict")).to_have_text("undecided")
    expect(page.locator("[data-cy=sidebar-entry-verdict]").last).to_contain_text("None")


def test_a_decision_that_is_not_kept_is_shown_again(page, output):
    file, kept = output / "review.jsonl", output / "kept"
    shown = _path(page)
    file.rename(kept)
    file.mkdir()
    page.keyboard.press("a")
    expect(page.get_by_role("status")).to_have_text("Not kept: review.jsonl cannot be written: Is a directory")
    assert _path(page) == shown
    expect(page.locator("#camboxes-verdict")).to_have_text("undecided")
    expect(page.locator("#camboxes-counts")).to_contain_text("7 left")
    file.rmdir()
    kept.rename(file)
    time.sleep(1.1)  # in which no key counts: a hand may be about to press one
    page.keyboard.press("a")
    assert _decisions(output, 10)[9:] == [(shown, "accepted")]


def test_boxes_that_were_not_shown_are_not_accepted(page, output, samples_of):
    """As if another window had moved the box."""
    shown = _path(page)
    server, _, name = page.url.partition("?")[0].partition("/datasets/")
    sample = samples_of(name)[shown]
    expect(page.locator("#camboxes-curtain")).to_have_count(0)
    redraw = {"operator_uri": "@camboxes/review/redraw", "dataset_name": name}
    redraw |= {"params": {"sample": str(sample["_id"]), "threshold": 0, "min_area": 0, "boxes": "all"}}
    page.request.post(f"{server}/operators/execute", data=redraw)
    [moved] = samples_of(name)[shown]["boxes"]["detections"]
    assert moved["bounding_box"] != sample["boxes"]["detections"][0]["bounding_box"]
    page.keyboard.press("a")
    expect(page.get_by_role("status")).to_contain_text("its boxes were changed meanwhile")
    assert len(_decisions(output, 10)) == 10
    time.sleep(1.1)
    page.keyboard.press("a")
    assert _decisions(output, 11)[10:] == [(shown, "accepted")]


def test_escape_closes_and_the_grid_marks_what_was_decided(page, output):
    page.keyboard.press("Escape")
    expect(page.locator("#camboxes-panel")).to_have_count(0)
    tiles = page.locator("[data-cy=looker]")
    expect(tiles).to_have_count(len(PATHS) - 9)  # those that are undecided
    page.goto(page.url.partition("?")[0] + "?view=accepted")
    expect(tiles).to_have_count(7)
    expect(tiles.locator("[data-cy=tag-verdict]:has-text('accepted')")).to_have_count(7)
