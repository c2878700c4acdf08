"""The explorer in a browser: time to the first sentence and to the picture, and frames while an input is dragged."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import numpy as np
from models import NAME, WIDTH, save_large_model
from servers import Server, finish_background, our_server
from table import Row, print_table

from service.models.repository import BUNDLED

try:
    from playwright.sync_api import Browser, sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = Path("/usr/bin/chromium-headless-shell")
BUNDLED_NAME = "nyc-weather"
ROUNDS = 5
PATIENCE = 120_000  # ms
# ms on the page's clock until the frame that shows a part
SHOWN = """async (part) => {
  while (!document.querySelector(part)) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now();
}"""
PARTS = {"first sentence": "h1 .figure", "reasons in it": "h1 .reasons", "picture with its beads": "svg.picture .bead"}

N_MOVES = 200  # of the pointer
# keeps the ms between frames until it is told to stop
WATCH = """() => {
  window.frames = [];
  let last = performance.now();
  const next = (now) => {
    window.frames.push(now - last);
    last = now;
    window.watching = requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
}"""


def rows() -> Iterator[Row]:
    """What a forecast shows first, of the bundled model and of a KAN [64, 16, 1] with 20 features; then a drag."""
    if sync_playwright is None or not CHROMIUM.exists():
        yield Row("explorer, first view", "playwright or chromium is not installed")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        copy(BUNDLED / f"{BUNDLED_NAME}.safetensors", folder)
        save_large_model(Path(folder))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        browser.new_page().close()  # the browser itself has started
        with our_server(Path(folder)) as server:
            models = {BUNDLED_NAME: "the bundled model", NAME: f"a KAN {WIDTH} of 20 features"}
            for name in models:
                finish_background(server.port, name)
            for name, what in models.items():
                for shown, part in PARTS.items():
                    seconds = np.array([first_view(browser, server, name, part) for _ in range(ROUNDS)])
                    measured = f"median {np.median(seconds):.2f} s, slowest {seconds.max():.2f} s"
                    yield Row(f"explorer, {shown} of {what}, {ROUNDS} browsers", measured)
            frames = drag_input(browser, server)
            measured = f"median {np.median(frames):.1f} ms, 95th percentile {np.percentile(frames, 95):.1f} ms"
            yield Row(f"explorer, frames while an input of the bundled model is dragged, {N_MOVES} moves", measured)
        browser.close()


def first_view(browser: Browser, server: Server, name: str, part: str) -> float:
    """Seconds until a browser with an empty cache shows a part of the forecast."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/explorer/#/forecast?model={name}", wait_until="commit")
    seconds: float = page.evaluate(SHOWN, part) / 1e3
    page.locator("main[aria-busy=false]").wait_for(timeout=PATIENCE)  # so that nothing is computed during the next
    context.close()
    return seconds


def drag_input(browser: Browser, server: Server) -> list[float]:
    """Milliseconds from each frame to the next while the pointer moves an input to and fro."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/explorer/#/forecast?model={BUNDLED_NAME}")
    page.locator("svg.picture .bead").first.wait_for(timeout=PATIENCE)
    box = page.get_by_role("slider", name="temp_c", exact=True).bounding_box()
    assert box is not None
    at = box["y"] + 9
    page.mouse.move(box["x"] + box["width"] / 2, at)
    page.mouse.down()
    page.wait_for_timeout(500)  # until what a drag needs is loaded
    page.evaluate(WATCH)
    for turn in range(4):
        page.mouse.move(box["x"] + box["width"] * (0.9, 0.1)[turn % 2], at, steps=N_MOVES // 4)
    frames: list[float] = page.evaluate("() => (cancelAnimationFrame(window.watching), window.frames)")
    page.mouse.up()
    context.close()
    return frames


if __name__ == "__main__":
    print_table(rows())
