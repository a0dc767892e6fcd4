"""Makes the pictures of the docs from the demo's photographs.

    python docs/make_pictures.py

Needs Chromium at /usr/bin/chromium, for the report and for FiftyOne's App. docs/pictures/speed.png is left out:
benchmarks/speed_curves.py makes it, from timings.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, sync_playwright

import camboxes
from camboxes.pipeline import ExplainJob, explain
from camboxes.pipeline.commands import demo

PICTURES = Path(__file__).parent / "pictures"
PORT = 5198

# Photographs, and labels whose boxes show what goes wrong (docs/explanation/refinement.md).
FAILURES = {
    "camera.png": ["tripod"],
    "grace_hopper.jpg": ["military uniform", "suit"],
    "motorcycle_left.png": ["disk brake"],
    "rocket.jpg": ["missile"],
}


def main() -> None:
    """Makes all of them."""
    with tempfile.TemporaryDirectory() as folder:
        photographs, run = Path(folder, "photographs"), Path(folder, "boxes")
        demo.gather(photographs)
        camboxes.label(str(photographs), str(run))
        of = {path.name: path for path in photographs.glob("*/*")}
        explain(ExplainJob(image=of["camera.png"], labels="tripod,binoculars", output=PICTURES / "explain.jpg"))
        plain = {"scales": "224", "aspect": "squash", "refine": "none", "labels": "Egyptian cat"}
        methods = "cam,occlusion,guidedbackprop"
        explain(ExplainJob(image=of["chelsea.png"], method=methods, output=PICTURES / "pixels.jpg", **plain))
        failures(of)
        with sync_playwright() as playwright:
            flags = ["--headless", "--no-sandbox", "--disable-gpu"]
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
            report(browser, run)
            review(browser, run, folder)
            browser.close()
    sheet = Image.open(PICTURES / "explain.jpg")
    sheet.thumbnail((1640, 1640))
    sheet.save(PICTURES / "explain.jpg", quality=85)
    for name in ("report", "review_grid", "review_panel"):
        path = PICTURES / f"{name}.png"
        Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def failures(of: dict[str, Path]) -> None:
    """failures.jpg: photographs beside each other, with the boxes of some labels."""
    import skimage

    of = of | {"rocket.jpg": Path(skimage.__file__).parent / "data" / "rocket.jpg"}
    images = [Image.open(of[name]).convert("RGB") for name in FAILURES]
    found = camboxes.find_boxes(images, list(FAILURES.values()))
    height, gap, font = 300, 8, ImageFont.load_default(16)
    widths = [round(height * image.width / image.height) for image in images]
    sheet, left = Image.new("RGB", (sum(widths) + gap * (len(widths) - 1), height), "white"), 0
    for image, width, boxes in zip(images, widths, found, strict=True):
        scale, small = height / image.height, image.resize((width, height))
        pen = ImageDraw.Draw(small)
        for box, colour in zip(boxes, ("#e5484d", "#30a46c"), strict=False):
            x, y, wide, high = (scale * value for value in box.bbox)
            pen.rectangle((x, y, x + wide - 1, y + high - 1), outline=colour, width=3)
            pen.text((x + 5, y + 5), box.label, colour, font, stroke_width=2, stroke_fill="black")
        sheet.paste(small, (left, 0))
        left += width + gap
    sheet.save(PICTURES / "failures.jpg", quality=85)


def report(browser: Browser, run: Path) -> None:
    """report.png: the page of the run, down to the first row of photographs, those of the highest scores."""
    page = browser.new_page(viewport={"width": 1240, "height": 880})
    page.goto((run / "report.html").as_uri())
    page.locator("#order").select_option("highest")
    page.screenshot(path=PICTURES / "report.png")
    page.close()


def review(browser: Browser, run: Path, home: str) -> None:
    """review_grid.png and review_panel.png: FiftyOne's App over the run."""
    with app(run, home) as address:
        page = browser.new_page(viewport={"width": 1400, "height": 860})
        page.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
        page.goto(address)
        tiles = page.locator("[data-cy=looker]")
        tiles.first.wait_for(timeout=120_000)
        page.wait_for_timeout(5000)  # until the photographs are drawn
        page.screenshot(path=PICTURES / "review_grid.png", clip={"x": 0, "y": 0, "width": 1400, "height": 640})
        tiles.first.click()
        panel = page.locator("#camboxes-panel")
        while "espresso" not in panel.inner_text():
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(3000)
        page.locator("#camboxes-threshold:enabled").wait_for()
        page.keyboard.press("h")
        page.wait_for_timeout(5000)
        page.screenshot(path=PICTURES / "review_panel.png")
        page.close()


@contextlib.contextmanager
def app(run: Path, home: str) -> Iterator[str]:
    """The address of the App while `camboxes review` runs, with a database of its own."""
    call = [sys.executable, "-m", "camboxes.pipeline.cli", "review", "--run", str(run), "--no-browser"]
    told = os.environ | {"HOME": home}
    with subprocess.Popen([*call, "--port", str(PORT)], env=told, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = next(line for line in server.stdout or () if line.startswith("the App is at "))
            yield line.removeprefix("the App is at ").partition(";")[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate()


if __name__ == "__main__":
    main()
