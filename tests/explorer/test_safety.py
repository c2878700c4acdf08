"""The explorer with hostile names, behind a prefix, and with API keys."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from factories import make_model, make_windows
from playwright.sync_api import expect
from thorough import few_of
from waiting import poll

from kanmodel.checkpoint import save_checkpoint
from kanmodel.network.network import Network
from service.telemetry.record import RESPONSE

HOSTILE = "<img src=x onerror=alert(1)>"
KEY = "0mBq3bTzY1sD5vX8kPnR"
PLACES = ["forecast", "model", "history"]


def hostile_model():
    """A model with markup in the names of a feature, a unit and the target."""
    model = make_model("lstm", targets=(HOSTILE,))
    config = model.config
    features = (replace(config.features[0], name=HOSTILE, unit=HOSTILE), *config.features[1:])
    network = Network(replace(config, features=features))
    network.load_state_dict(model.network.state_dict())
    return replace(model, network=network)


@pytest.fixture(scope="module")
def hostile(serve, tmp_path_factory) -> Iterator[httpx2.Client]:
    folder = tmp_path_factory.mktemp("hostile")
    save_checkpoint(hostile_model(), folder / "m.safetensors")
    with serve(folder) as client:
        yield client


@pytest.mark.thorough("every destination once more")
@pytest.mark.parametrize("place", PLACES)
def test_names_with_markup_stay_text(hostile, open_tab, place):
    """Names are shown literally, no element is created from them, and nothing runs."""
    tab = open_tab(hostile)

    def disguise(route):
        """Replaces the model's name in responses, as the service refuses such names."""
        answer = route.fetch(url=route.request.url.replace(quote(HOSTILE, safe="()"), "m"))
        route.fulfill(response=answer, body=answer.text().replace('"m"', f'"{HOSTILE}"'))

    tab.page.route("**/v1/models**", disguise)
    tab.page.route("**/v1/models/**", disguise)
    page = tab.show(place)
    page.locator("h1").first.wait_for()
    expect(page.get_by_role("combobox", name="Model")).to_have_value(HOSTILE)
    for part in page.locator("[data-tip]").all()[:6]:
        part.dispatch_event("pointerover")
    page.keyboard.press("/")
    page.keyboard.type("img")
    expect(page.locator(".palette [role=option]").filter(has_text=HOSTILE).first).to_be_visible()
    assert HOSTILE in page.content().replace("&lt;", "<").replace("&gt;", ">")
    assert page.locator("img:not([src$='icon.svg'])").count() == 0
    assert tab.problems == []


def test_the_policy_keeps_foreign_code_out(hostile, open_tab):
    """Injected markup can neither run scripts nor load nor send anything."""
    tab = open_tab(hostile)
    page = tab.show("model")
    page.evaluate(
        """() => {
          const place = document.querySelector("main");
          place.innerHTML = "<img src=x onerror='document.title = 1'><style>body{color:red}</style>";
          const script = document.createElement("script");
          script.textContent = "document.title = 2";
          place.append(script);
        }"""
    )
    expect(page.locator("main img")).to_have_count(1)
    assert page.evaluate("fetch('http://localhost:9/').then(() => 'sent', () => 'kept')") == "kept"
    kinds = {"inline event handler", "inline style", "inline script", "connect"}

    def are_refused() -> bool:
        page.evaluate("0")  # takes what the browser has logged meanwhile
        refused = [problem for problem in tab.problems if "Content Security Policy" in problem]
        return all(any(kind in problem for problem in refused) for kind in kinds)

    poll(are_refused)
    assert "Kanscope" in page.title()


def read_the_documentation(tab):
    """Opens an operation of Swagger UI, sends a request, and returns its answer."""
    page = tab.page
    page.goto(f"{tab.base}/docs")
    operation = page.locator("#operations-models-list_models")
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .microlight").first
    expect(answer).to_contain_text('"details"')
    return answer.inner_text()


def test_the_documentation_works_under_its_policy(hostile, open_tab):
    """/docs shows and sends requests without a script, style or image that its policy forbids, and runs no other."""
    policy = hostile.get("/docs").headers["content-security-policy"]
    assert "unsafe" not in policy and "://" not in policy and "*" not in policy
    tab = open_tab(hostile)
    assert '"m"' in read_the_documentation(tab)
    assert tab.problems == []
    tab.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'run'";
          document.body.append(script);
        }"""
    )
    poll(lambda: tab.page.evaluate("0") == 0 and any("inline script" in problem for problem in tab.problems))
    assert tab.page.title() == "Kanscope - Swagger UI"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small model whose results take a second."""
    path = tmp_path_factory.mktemp("small")
    save_checkpoint(make_model("lstm", n_reference=130), path / "m.safetensors")
    return path


@contextmanager
def proxy(target: str, prefix: str) -> Iterator[str]:
    """The address of a proxy that serves a server below a prefix."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix + "/"):
                self.send_error(404)
                return
            self.forward("GET", None)

        def do_POST(self) -> None:
            self.forward("POST", self.rfile.read(int(self.headers["Content-Length"])))

        def forward(self, method: str, body: bytes | None) -> None:
            kept = {name: value for name, value in self.headers.items() if name.lower() in ("accept", "content-type")}
            answer = httpx2.request(
                method, target + self.path.removeprefix(prefix), headers=kept, content=body, timeout=60
            )
            self.send_response(answer.status_code)
            for name in ("content-type", "content-security-policy", "location"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def outside(serve, folder) -> Iterator[httpx2.Client]:
    """A client of a server below a proxy's prefix."""
    with (
        serve(folder, KANSCOPE_ROOT_PATH="/kanscope") as client,
        proxy(str(client.base_url).rstrip("/"), "/kanscope") as address,
        httpx2.Client(base_url=address) as outside,
    ):
        yield outside


def test_the_documentation_works_behind_a_prefix(outside, open_tab):
    """Its files, the document and its requests are below the prefix, and its policy knows the script that says so."""
    tab = open_tab(outside, prefix="/kanscope")
    assert '"m"' in read_the_documentation(tab)
    assert tab.problems == []


@pytest.mark.parametrize("place", few_of(PLACES, PLACES[:1], "every destination once more"))
def test_it_works_behind_a_prefix(outside, open_tab, place):
    """All requests of the page are below the proxy's prefix."""
    tab = open_tab(outside, prefix="/kanscope")
    address = f"{str(outside.base_url).rstrip('/')}/kanscope/explorer"
    tab.page.goto(f"{address}#/{place}")
    expect(tab.page).to_have_title(f"{place.capitalize()} of m · Kanscope")
    expect(tab.page.locator("h1")).to_be_visible()
    assert tab.page.url.startswith(f"{address}/#/")
    assert tab.problems == []


def test_a_key_is_asked_for_once(serve, folder, open_tab):
    """A wrong key is refused, the right one is kept for the session only, and no copied command contains it."""
    with serve(folder, KANSCOPE_KEYS=f"reader explain {KEY}") as client:
        tab = open_tab(client, permissions=["clipboard-read", "clipboard-write"])
        page = tab.page
        page.goto(f"{tab.base}/explorer/")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This service requires an API key")
        page.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("does not know that key")
        page.get_by_label("Key", exact=True).fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_be_visible()
        page.reload()
        expect(page.locator("h1")).to_be_visible()
        expect(dialog).to_have_count(0)
        page.get_by_role("button", name="More", exact=True).click()
        page.get_by_role("button", name="Copy the requests as curl").click()
        expect(page.locator(".said[role=status]")).to_have_text("The requests are copied.")
        command = page.evaluate("navigator.clipboard.readText()")
        assert "Authorization: Bearer $KANSCOPE_KEY" in command
        assert KEY not in command + page.url
        other = page.context.new_page()
        other.goto(f"{tab.base}/explorer/")
        expect(other.get_by_role("dialog")).to_contain_text("requires an API key")


def test_what_is_looked_at_is_not_counted(serve, open_tab, tmp_path):
    """Views that forecast, and a window outside the training range: drift has none, and the record marks each."""
    save_checkpoint(model := make_model("lstm", n_reference=130), tmp_path / "m.safetensors")
    with serve(tmp_path / "m.safetensors", KANSCOPE_RECORD=str(tmp_path / "record")) as client:
        tab = open_tab(client)
        for place in ("model", "history", "forecast?window=ref:3"):
            tab.show(place)
        page = tab.page
        page.get_by_role("button", name="More", exact=True).click()
        page.get_by_role("button", name="Paste a window or table").click()
        page.locator("#paste").fill(json.dumps((1e3 * make_windows(model, 1)[0]).tolist()))
        page.get_by_role("button", name="Show it").click()
        page.wait_for_url("**window=z:**")
        page.get_by_text("Can it be trusted here?").click()
        expect(page.locator("main")).to_contain_text("outside the training range")
        assert tab.problems == []
        metrics = client.get("/metrics").text
        assert 'kanscope_forecasts_total{model="m",use="explored",version="1"}' in metrics
        assert 'use="answer"' not in metrics and "kanscope_inputs_outside_range_total{" not in metrics
        assert client.get("/v1/models/m/drift").json()["forecasts"] == 0

        def events():
            lines = "".join(path.read_text() for path in (tmp_path / "record").iterdir()).splitlines()
            return [event for event in map(json.loads, lines) if event["type"] == RESPONSE]

        poll(lambda: events())
        assert {event["purpose"] for event in events()} == {"explore"}
