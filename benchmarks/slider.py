"""How long it takes in a real browser from moving the slider to boxes on the screen: python benchmarks/slider.py URL.

The URL is the one that `camboxes review --no-browser` prints. The slider of one image is moved a hundred times, and for
each move the pixels of the App's canvas are watched, frame by frame, until they change; no box is accepted.
"""

import sys

from playwright.sync_api import sync_playwright

MOVES = 100
PATIENCE = 4000  # ms

# Nine rows of pixels are watched: the sides of a box cross most of them. To read all would slow down what is timed.
MOVE = """async ([value, patience]) => {
  const canvas = [...document.querySelectorAll("[data-cy=modal-looker-container] canvas")].pop();
  const context = canvas.getContext("2d");
  const rows = [...Array(9).keys()].map((row) => Math.round((0.28 + 0.055 * row) * canvas.height));
  const look = () => rows.map((row) => context.getImageData(0, row, canvas.width, 1).data.join()).join();
  const before = look();
  const slider = document.querySelector("#camboxes-threshold");
  const setValue = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
  const start = performance.now();
  setValue.call(slider, value);
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  while (performance.now() - start < patience) {
    await new Promise(requestAnimationFrame);
    if (look() !== before) return performance.now() - start;
  }
  return null;
}"""


def main(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.add_init_script("localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true')")
        page.goto(url)
        page.locator("[data-cy=looker]").first.click()
        page.locator("#camboxes-threshold:enabled").wait_for()
        page.wait_for_timeout(3000)
        found = []
        for move in range(MOVES):
            found.append(page.evaluate(MOVE, [f"{0.2 + 0.02 * (move % 25):.2f}", PATIENCE]))
            page.wait_for_timeout(1000)
        page.locator("#camboxes-reset").click()
        page.wait_for_timeout(1000)
        browser.close()
    seen = sorted(milliseconds for milliseconds in found if milliseconds is not None)
    print(
        f"{len(seen)} of {MOVES} moves changed the picture within {PATIENCE} ms: median {seen[len(seen) // 2]:.0f} ms, "
        f"95% within {seen[int(0.95 * len(seen)) - 1]:.0f} ms"
    )


if __name__ == "__main__":
    main(sys.argv[1])
