"""How long a person waits for the next image after a decision: python benchmarks/review_keys.py [DECISIONS].

Chromium presses A, W and N in `camboxes review`: a third of the decisions as soon as the next image is on the screen,
the others every 350 ms. The wait is the time from a key to the frame with the next image, by the clock of the page. At
the end review.jsonl is compared with what was on the screen at each key. The run is made as in benchmarks/review.py.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import review
from playwright.sync_api import sync_playwright

PORT = 5199
RHYTHM = 0.35  # s
VERDICTS = {"a": "accepted", "w": "rejected", "n": "skipped"}

# In the page: which file is on the screen, in every frame, and at every key.
WATCH = """
  window.watched = { keys: [], frames: [] };
  let painted = null;
  const shown = () => {
    const curtain = document.querySelector("#camboxes-curtain");
    if (!curtain) return painted;
    const picture = curtain.querySelector("img");
    return picture && picture.complete ? new URL(picture.src).searchParams.get("filepath") : null;
  };
  document.addEventListener("canvas-loaded", (event) => {
    if (event.target.closest("[data-cy=modal-looker-container]")) painted = event.detail.sampleFilepath;
  });
  window.addEventListener("keydown", ({ timeStamp, key }) => watched.keys.push([timeStamp, key, shown()]), true);
  const look = (now) => {
    const file = shown();
    if (file && file !== watched.frames.at(-1)?.[1]) watched.frames.push([now, file]);
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
"""


def main(decisions: int) -> None:
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    review.SIDE = 480
    with tempfile.TemporaryDirectory() as folder:
        run = Path(review.make(Path(folder), decisions + 50, np.random.default_rng(0)).output)
        call = [sys.executable, "-m", "camboxes.pipeline.cli", "review", "--run", str(run), "--no-browser"]
        told = os.environ | {"HOME": folder}
        with subprocess.Popen([*call, "--port", str(PORT)], env=told, stdout=subprocess.PIPE, text=True) as server:
            line = next(line for line in server.stdout if line.startswith("the App is at "))
            try:
                watched = pressed(line.removeprefix("the App is at ").partition(";")[0], decisions)
            finally:
                server.send_signal(signal.SIGINT)
                server.communicate()
        lines = [json.loads(line) for line in (run / "review.jsonl").read_text().splitlines()]
    for what, part in (("as soon as it is seen", slice(decisions // 3)), ("every 350 ms", slice(decisions // 3, None))):
        report(what, watched["keys"][part], watched["frames"])
    asked = [(str(Path(*Path(file or "").parts[-2:])), VERDICTS[key]) for _, key, file in watched["keys"]]
    found = [(line["path"], line["verdict"]) for line in lines]
    right = len({*asked} & {*found})
    print(f"{len(asked)} keys, {len(found)} decisions, {right} of them about the image that was on the screen")
    print(f"load average {os.getloadavg()[0]:.1f}")


def pressed(url: str, decisions: int) -> dict[str, list]:
    """Presses the keys; gives what the page watched."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
        page.add_init_script(WATCH)
        page.goto(url)
        page.locator("[data-cy=looker]").first.click(timeout=120_000)
        page.locator("#camboxes-threshold:enabled").wait_for()
        page.wait_for_timeout(3000)
        for number in range(decisions // 3):
            seen = page.evaluate("watched.frames.length")
            page.keyboard.press("awn"[number % 3])
            page.wait_for_function("(seen) => watched.frames.length > seen", arg=seen, polling="raf")
        page.wait_for_timeout(3000)
        start = time.monotonic()
        for number in range(decisions - decisions // 3):
            time.sleep(max(0.0, start + RHYTHM * number - time.monotonic()))
            page.keyboard.press("awn"[number % 3])
        page.wait_for_timeout(5000)  # until all is written
        watched = page.evaluate("watched")
        browser.close()
    return watched


def report(what: str, keys: list, frames: list) -> None:
    waits = sorted(
        next((at - time for at, file in frames if at > time and file != shown), float("inf")) for time, _, shown in keys
    )
    middle, most = waits[len(waits) // 2], waits[int(0.95 * len(waits))]
    print(f"{what}: {len(waits)} keys, median {middle:.0f} ms, 95% within {most:.0f} ms, longest {waits[-1]:.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
