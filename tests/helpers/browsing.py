"""Chromium, driven by Playwright: for the tests of the page, and for the picture on the front page.

    python tests/helpers/browsing.py step.html data/step.png

opens a page of `minipt xray` where the gradient crosses from the text back to the prompt, and saves
what the window shows.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
WINDOW = {"width": 1280, "height": 720}
CROSSING = """() => {
  const {ticks, arrays} = page.snapshot;
  const middle = Math.floor(page.step.base.layers / 3);
  page.timeline.goTo(ticks.findIndex((tick) =>
    tick.backward && arrays[tick.array].name === `text.h${middle}.attn.scores`));
}"""


@contextmanager
def chromium() -> Iterator:
    """A browser without a window. Playwright's own browsers are never fetched."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def take_picture(page: Path, picture: Path) -> None:
    with chromium() as browser:
        context = browser.new_context(viewport=WINDOW, reduced_motion="reduce")
        tab = context.new_page()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("body[data-ready]")
        tab.evaluate(CROSSING)
        tab.screenshot(path=picture)


if __name__ == "__main__":
    take_picture(*map(Path, sys.argv[1:]))
