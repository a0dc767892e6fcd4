"""Many images are drawn by FiftyOne's delegated worker, which `camboxes review` starts and ends: in the real App."""

import time

import numpy as np
import psutil
import pymongo
import pytest
from playwright.sync_api import expect

from camboxes.transforms.review.decisions import Decision, append_decision

WIDTH, HEIGHT = 32, 16
CATS = 1002  # one of them decided: 1,001 are left, one more than the App draws while it waits
DECIDED = "cat/0007.png"
SECONDS = 60  # for the worker, on a machine that is busy

# As large as the image, so that nothing is interpolated: at 0.25 three quarters of the width are foreground, at 0.75
# half of it.
CELLS = np.zeros((HEIGHT, WIDTH), np.uint8)
CELLS[:, :24], CELLS[:, :16] = 128, 255
IN_THE_RUN, REDRAWN = (0.0, 0.0, 0.75, 1.0), (0.0, 0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def output(drawn_run):
    """A run of 1,002 cats and a dog, with a map each; one cat is rejected."""
    output = drawn_run([*(f"cat/{number:04d}.png" for number in range(CATS)), "dog/one.png"], CELLS)
    append_decision(output, Decision(DECIDED, 8, "rejected"))
    return output


def test_a_class_of_more_than_a_thousand_images(output, review, new_page, samples_of, database):
    with review(output) as (server, url), pymongo.MongoClient(database) as client:
        [worker] = [child for child in psutil.Process(server.pid).children() if "delegated" in child.cmdline()]
        name = url.rpartition("/")[2]
        operations = client["fiftyone"]["delegated_ops"]

        def boxes_after(count):
            """The boxes of the 1,001 cats, each shape once, and those of the others, when the worker did so much."""
            end = time.monotonic() + SECONDS
            done = {"context.request_params.dataset_name": name, "run_state": "completed"}
            while operations.count_documents(done) < count:
                assert time.monotonic() < end, f"the worker completed nothing: {[*operations.find()]}"
                time.sleep(0.2)
            boxes = {
                path: tuple(tuple(box["bounding_box"]) for box in sample["boxes"]["detections"])
                for path, sample in samples_of(name).items()
            }
            others = [boxes.pop(DECIDED), boxes.pop("dog/one.png")]
            assert len(boxes) == 1001
            return {*boxes.values()}, others

        page, troubles = new_page()
        page.goto(f"{url}?id={samples_of(name)['cat/0000.png']['_id']}")
        panel = page.locator("#camboxes-panel")
        expect(panel).to_contain_text("cat/0000.png")
        expect(panel.locator("#camboxes-threshold")).to_have_value("0.25")
        panel.locator("#camboxes-threshold").fill("0.75")
        expect(panel).to_contain_text("0.75")
        panel.locator("#camboxes-apply-class").click()
        expect(panel).to_contain_text("These images are drawn in the background; the App's Runs show the progress.")
        assert boxes_after(1) == ({(REDRAWN,)}, [(IN_THE_RUN,), (IN_THE_RUN,)])

        panel.locator("#camboxes-restore-class").click()
        assert boxes_after(2) == ({(IN_THE_RUN,)}, [(IN_THE_RUN,), (IN_THE_RUN,)])
        page.close()
        assert not troubles
    assert not worker.is_running()
