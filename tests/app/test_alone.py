"""The plugin in somebody's own FiftyOne: no `camboxes review`, but FiftyOne's own App, and data sets of others."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from camboxes.pipeline.review import app_server
from camboxes.transforms.review.decisions import read_decisions

SECONDS = 60  # for the App to answer, on a machine that is busy

# Our data set, and one of somebody's own.
LOAD = """
import sys
import fiftyone as fo
from camboxes.pipeline.review import load_dataset
load_dataset(sys.argv[1], "ours")
sample = fo.Sample(sys.argv[2], thing=fo.Detections(detections=[fo.Detection(label="x", bounding_box=[0, 0, 1, 1])]))
fo.Dataset("theirs", persistent=True).add_sample(sample)
"""


@pytest.fixture(scope="module")
def output(run, tmp_path_factory):
    """A run of five photographs that nobody has reviewed."""
    return shutil.copytree(run, tmp_path_factory.mktemp("alone") / "boxes")


@pytest.fixture(scope="module")
def app(output, photographs, environment, free_port, tmp_path_factory):
    """Where an App that `fiftyone app launch` started is; the plugin was copied to its folder."""
    plugins = tmp_path_factory.mktemp("plugins")
    shutil.copytree(Path(app_server.__file__).parent / "plugin", plugins / "camboxes-review")
    told = environment | {"FIFTYONE_PLUGINS_DIR": str(plugins), "FIFTYONE_DO_NOT_TRACK": "1"}
    told |= {"FIFTYONE_DATABASE_VALIDATION": "false"}
    photograph = next(photographs.glob("*/*.png"))
    subprocess.run([sys.executable, "-c", LOAD, str(output), str(photograph)], env=told, check=True)
    port = free_port()
    call = ["app", "launch", "ours", "--remote", "--address", "127.0.0.1", "--port", str(port), "--wait", "-1"]
    with subprocess.Popen(
        [sys.executable, "-c", "from fiftyone.core.cli import main; main()", *call],
        env=told, stdin=subprocess.DEVNULL, start_new_session=True,
    ) as server:  # fmt: skip
        try:
            _wait_for(f"http://127.0.0.1:{port}/fiftyone")
            yield f"http://127.0.0.1:{port}/datasets"
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def _wait_for(url):
    end = time.monotonic() + SECONDS
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def page(app, new_page):
    """A page that asks nobody but the App's own server: FiftyOne's own pages would load a stranger's fonts."""
    opened, troubles = new_page()
    opened.route(lambda url: not url.startswith(app.partition("/datasets")[0]), lambda route: route.abort())
    yield opened
    opened.close()
    assert not troubles


def test_a_decision_in_an_app_of_ones_own(app, page, samples_of, output):
    page.goto(f"{app}/ours")
    expect(page.locator("[data-cy=looker]")).to_have_count(5)
    page.locator("[data-cy=looker]").first.click()
    panel = page.locator("#camboxes-panel")
    expect(panel.locator("#camboxes-threshold")).to_be_enabled()
    path = panel.locator(".row .grow").first.inner_text()
    [box] = samples_of("ours")[path]["boxes"]["detections"]
    panel.locator("#camboxes-accepted").click()
    expect(panel).to_contain_text("1 accepted · 0 rejected · 0 skipped · 4 left")
    expect(panel).not_to_contain_text(path)
    expect(panel).not_to_contain_text("not yet written")
    assert {path: sample["verdict"] for path, sample in samples_of("ours").items() if sample["verdict"]} == {
        path: "accepted"
    }
    [decision] = read_decisions(str(output)).values()
    assert (decision.path, decision.verdict) == (path, "accepted")
    assert [decided.box_uid for decided in decision.boxes] == [box["box_uid"]]
    page.mouse.click(4, 450)  # beside the image: closes it, or the App may open it again with its next page
    expect(panel).not_to_be_visible()


def _tabs(page):
    """The panels beside the open image, its own among them."""
    return page.locator("[data-cy=modal] [data-cy^=panel-tab]")


def _is_alone(page):
    """Waits until the open image is there; whether no panel stands beside it, also no empty one."""
    expect(page.locator("[data-cy=modal-looker-container] canvas").first).to_be_visible()
    expect(page.locator("[data-cy=modal]")).to_contain_text("thing")
    expect(_tabs(page)).to_have_count(1)
    return page.locator(".camboxes").count() == 0


def test_a_data_set_that_is_no_runs_has_no_panel(app, page):
    page.goto(f"{app}/ours")
    expect(page.locator("[data-cy=looker]")).to_have_count(5)
    page.locator("[data-cy=looker]").first.click()
    expect(page.locator("#camboxes-panel")).to_be_visible()
    expect(_tabs(page)).to_have_count(2)
    page.goto(f"{app}/theirs")
    page.locator("[data-cy=looker]").first.click()
    assert _is_alone(page)

    page.goto(f"{app}/ours")
    expect(page.locator("[data-cy=looker]")).to_have_count(5)
    page.locator("[data-cy=looker]").first.click()
    expect(page.locator("#camboxes-panel")).to_be_visible()
    expect(_tabs(page)).to_have_count(2)
