"""`kanscope serve` in its own process, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest
from browsers import CHROMIUM, MISSING
from factories import make_chain, make_model, make_shop
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from processes import start_process
from waiting import poll
from wired import FEATURES, make_wired, random_walks

import kanmodel
from kanmodel.checkpoint import save_checkpoint
from kanmodel.forecaster import Forecaster
from kanmodel.network.bases import BSpline
from kanmodel.network.config import plain_layers
from kanmodel.network.network import Network
from kanmodel.tables.columns import Target
from service.models.repository import BUNDLED

# The sandbox is not available to root in a container, and a GPU in software costs time.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-software-rasterizer"]

PATIENCE = 120_000  # ms, generous for a busy machine
expect.set_options(timeout=PATIENCE)

Serve = Callable[..., AbstractContextManager[httpx2.Client]]


@pytest.fixture(scope="module")  # its event loop would block other tests
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Starts the command with environment variables for settings, such as ``KANSCOPE_KEYS="…"``."""

    @contextmanager
    def serve(*arguments: object, **variables: str) -> Iterator[httpx2.Client]:
        with start_process(tmp_path_factory.mktemp("server") / "log", *arguments, **variables) as process:
            poll(lambda: process.client.get("/readyz").status_code == 200)
            yield process.client

    return serve


@pytest.fixture(scope="session")
def server(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Serves the bundled model and one of each other shape."""
    folder = tmp_path_factory.mktemp("models")
    bundled = BUNDLED / "nyc-weather.safetensors"
    (folder / bundled.name).write_bytes(bundled.read_bytes())
    front = make_model("front", seed=4, product=True, targets=("a", "b"), n_reference=130)
    save_checkpoint(front, folder / "front.safetensors")
    save_checkpoint(make_model("head", n_features=6), folder / "head.safetensors")
    save_checkpoint(make_model("lstm", targets=("a", "b")), folder / "two.safetensors")
    with serve(folder) as client:
        yield client


def shapes_of_models() -> dict[str, Forecaster]:
    """A small model of each shape that a page finds hard to lay out."""
    lstm = make_model("lstm").config
    long = make_model("lstm", n_features=61, lookback=12, n_reference=20)
    names = [f"plant_hall_{n // 8:02d}_turbine_{n % 8:02d}_bearing_ring_temperature_celsius" for n in range(61)]
    features = tuple(replace(one, name=name) for one, name in zip(long.config.features, names, strict=True))
    renamed = Network(replace(long.config, features=features))
    renamed.load_state_dict(long.network.state_dict())
    classes = tuple(Target(name, None, 0.0, 1.0) for name in ("dry", "rain", "snow"))
    head = plain_layers((5, 4, 3), BSpline(4, 3))
    classifier = replace(lstm, targets=classes, head=head, output_function="softmax")
    return {
        "classifier": make_chain(classifier, n_reference=130),
        "deep": make_chain(replace(lstm, head=plain_layers((5, 4, 4, 4, 3, 1), BSpline(4, 3))), n_reference=130),
        "long": replace(long, network=renamed),
        "many": make_model("lstm", horizon=24, n_reference=130),
        "shop": make_shop()[0],
    }


SHAPES = ("classifier", "deep", "graph", "long", "many", "shop")


@pytest.fixture(scope="session")
def shapes(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Serves a model of each of `SHAPES`."""
    folder = tmp_path_factory.mktemp("shapes")
    for name, model in shapes_of_models().items():
        save_checkpoint(model, folder / f"{name}.safetensors")
    graph = kanmodel.from_torch(make_wired("SkipAroundHead"), windows=random_walks(), features=list(FEATURES))
    graph.save(folder / "graph.safetensors")
    with serve(folder) as client:
        yield client


@dataclass
class Tab:
    """A page of the explorer, and its errors."""

    page: Page
    base: str
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        """Keeps an error, and prints it, so that a test that fails shows it."""
        print("the page says:", problem)
        self.problems.append(problem)

    def show(self, hash: str) -> Page:
        """Loads a view and waits until it is shown."""
        self.page.goto("about:blank")  # a change of the fragment alone loads nothing
        self.page.goto(f"{self.base}/explorer/#/{hash}")
        self.page.locator("main[aria-busy=false]").wait_for()
        return self.page


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Opens the explorer of a server in its own browser context."""
    contexts: list[BrowserContext] = []

    def open_tab(server: httpx2.Client, prefix: str = "", **options: Any) -> Tab:
        # What moves while results are computed would be painted by the processors that compute them.
        usual = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**usual, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        tab = Tab(context.new_page(), str(server.base_url).rstrip("/") + prefix)
        tab.page.on("console", lambda said: said.type in ("error", "warning") and tab.note(said.text))
        tab.page.on("pageerror", lambda error: tab.note(str(error)))
        tab.page.on("requestfailed", lambda request: print("failed:", request.url, request.failure))
        tab.page.on("response", lambda answer: answer.status >= 400 and print("answered", answer.status, answer.url))
        tab.page.on("dialog", lambda dialog: (tab.note(dialog.message), dialog.dismiss()))
        return tab

    yield open_tab
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")  # requests in flight at the end of a test are ignored
        context.close()
