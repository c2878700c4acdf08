"""The explorer in a browser: time to its first view, and from a changed window to its forecast on the screen."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import numpy as np
from models import NAME, WIDTH, save_large_model
from servers import Server, get_status, our_server
from table import Row

from service.models.repository import BUNDLED

try:
    from playwright.sync_api import Browser, sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = Path("/usr/bin/chromium-headless-shell")
BUNDLED_NAME = "nyc-weather"
ROUNDS = 5
PATIENCE = 120_000  # ms
# ms of the page's own clock until the frame in which the picture stands
SHOWN = """async () => {
  while (!document.querySelector(".drawing svg")) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now();
}"""

N_CHANGES = 100  # of a value of the window
# ms from the input of a value until the frame after the one in which its forecast stands, each change after a rest
CHANGED = """async (count) => {
  const [input, summary] = [document.querySelector("#edit-value"), document.querySelector(".summary")];
  const times = [];
  for (let number = 1; number <= count; number += 1) {
    const begun = performance.now();
    const shown = new Promise((resolve) => {
      const watcher = new MutationObserver(() => {
        watcher.disconnect();
        requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - begun)));
      });
      watcher.observe(summary, { childList: true });
    });
    input.value = String(number / count);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    times.push(await shown);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return times;
}"""


def rows() -> Iterator[Row]:
    """The first view of the bundled model, and of a KAN [64, 16, 1] behind 20 features; global results are known.

    Then what a changed value of a window of the bundled model takes.
    """
    if sync_playwright is None or not CHROMIUM.exists():
        yield Row("explorer, first view", "playwright or chromium is not installed")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        copy(BUNDLED / f"{BUNDLED_NAME}.safetensors", folder)
        save_large_model(Path(folder))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        browser.new_page().close()  # the browser itself has started
        with our_server(Path(folder)) as server:
            for name, what in ((BUNDLED_NAME, "the bundled model"), (NAME, f"a KAN {WIDTH} of 20 features")):
                while get_status(server.port, f"/v1/models/{name}/topology") != 200:
                    pass
                seconds = np.array([first_view(browser, server, name) for _ in range(ROUNDS)])
                measured = f"median {np.median(seconds):.2f} s, slowest {seconds.max():.2f} s"
                yield Row(f"explorer, first view of {what}, {ROUNDS} browsers", measured)
            times = change_window(browser, server)
            measured = f"median {np.median(times):.0f} ms, 95th percentile {np.percentile(times, 95):.0f} ms"
            yield Row(f"explorer, a value of the window changed, {N_CHANGES} times", measured)
        browser.close()


def first_view(browser: Browser, server: Server, name: str) -> float:
    """Seconds until a browser with nothing cached shows the network."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/explorer/#/network?model={name}", wait_until="commit")
    seconds: float = page.evaluate(SHOWN) / 1e3
    page.locator("figure.chart svg").wait_for(timeout=PATIENCE)  # so that nothing is left to compute beside the next
    context.close()
    return seconds


def change_window(browser: Browser, server: Server) -> list[float]:
    """Milliseconds that each of some changes takes until the forecast, with all that explains it, is shown."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/explorer/#/forecast?model={BUNDLED_NAME}")
    page.locator(".responses svg").first.wait_for(timeout=PATIENCE)  # the last that is asked for
    times: list[float] = page.evaluate(CHANGED, N_CHANGES)
    context.close()
    return times
