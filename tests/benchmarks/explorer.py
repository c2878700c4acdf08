"""The explorer in a browser: time to the first view, and from a changed window to the displayed forecast."""

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
# ms on the page's clock until the frame that shows a part: the sentence with its reasons, or what there is of a network
SHOWN = """async (part) => {
  while (!document.querySelector(part)) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now();
}"""
VIEWS = {"story": ".why li", "network": ".structure > li, .drawing svg"}

N_CHANGES = 100  # for a value of the window
# ms from the input of a value until the frame after its forecast is shown, with a pause between changes
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
    """The story of the bundled model, and of a KAN [64, 16, 1] with 20 features, and the structure of their networks.

    Then the time after a changed value in a window of the bundled model.
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
                for view, shown in (("story", "story"), ("network", "structure of the network")):
                    seconds = np.array([first_view(browser, server, name, view) for _ in range(ROUNDS)])
                    measured = f"median {np.median(seconds):.2f} s, slowest {seconds.max():.2f} s"
                    yield Row(f"explorer, {shown} of {what}, {ROUNDS} browsers", measured)
            times = change_window(browser, server)
            measured = f"median {np.median(times):.0f} ms, 95th percentile {np.percentile(times, 95):.0f} ms"
            yield Row(f"explorer, a value of the window changed, {N_CHANGES} times", measured)
        browser.close()


def first_view(browser: Browser, server: Server, name: str, view: str) -> float:
    """Seconds until a browser with an empty cache shows a view."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/explorer/#/{view}?model={name}", wait_until="commit")
    seconds: float = page.evaluate(SHOWN, VIEWS[view]) / 1e3
    page.locator("main[aria-busy=false]").wait_for(timeout=PATIENCE)  # so that nothing is computed during the next
    context.close()
    return seconds


def change_window(browser: Browser, server: Server) -> list[float]:
    """Milliseconds per change until the forecast and its explanation are shown."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/explorer/#/forecast?model={BUNDLED_NAME}")
    page.locator(".responses svg").first.wait_for(timeout=PATIENCE)  # the last one requested
    times: list[float] = page.evaluate(CHANGED, N_CHANGES)
    context.close()
    return times
