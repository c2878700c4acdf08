"""The page's state, and its behaviour while the service is slow, failing, unreachable or has another model."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from factories import make_model
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint

pytestmark = pytest.mark.thorough("steps through states; test_shell loads every destination")

NAMES = ("constructor", "toString", "__proto__", "hasOwnProperty")  # of what every object in JavaScript inherits


@pytest.fixture(scope="module")
def several(serve, tmp_path_factory):
    """A model twice, one with other features and two outputs, and an invalid file."""
    folder = tmp_path_factory.mktemp("several")
    first = make_model("lstm", n_reference=130)
    for name in ("first", "second"):
        save_checkpoint(first, folder / f"{name}.safetensors")
    save_checkpoint(make_model("lstm", n_features=3, targets=("a", "b"), n_reference=130), folder / "two.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no checkpoint")
    with serve(folder) as client:
        yield client


def settled(page):
    page.locator("main[aria-busy=false]").wait_for()


def model_of(page):
    return page.get_by_role("combobox", name="Model")


def problem(page):
    return page.get_by_role("alert").filter(has_text="This can't be shown")


@pytest.mark.parametrize("name", NAMES)
def test_an_address_may_hold_what_objects_inherit(several, open_tab, name):
    """As a destination, a setting, an edit or a part such a name is one that does not exist."""
    tab = open_tab(several)
    page = tab.show(f"{name}?model=first&{name}=1&pick={name}&edit={name}:1")
    expect(page).to_have_title("Forecast of first · Kanscope")
    model_of(page).select_option("two")
    page.wait_for_url(re.compile("model=two"))
    settled(page)
    expect(problem(page)).to_have_count(0)
    assert tab.problems == []


@pytest.mark.parametrize(
    ("model", "reason"), [("broken", "could not be loaded"), ("nothing", "nothing"), ("two/9", "9")]
)
def test_the_address_of_a_failed_or_unknown_model_has_an_error(several, open_tab, model, reason):
    """The reason is shown, and ready models can be selected in the card and in the bar."""
    page = open_tab(several).show(f"model?model={model}")
    expect(problem(page)).to_contain_text(reason)
    if model == "broken":
        details = {one["name"]: one for one in several.get("/v1/models").json()["details"]}
        expect(problem(page)).to_contain_text(details["broken"]["reason"])
        expect(model_of(page).locator("option[value=broken]")).to_have_text("broken (failed)")
    assert problem(page).get_by_role("link").all_inner_texts() == ["first", "second", "two"]
    model_of(page).select_option("two")
    expect(page).to_have_title("Model of two · Kanscope")
    expect(problem(page)).to_have_count(0)
    page.go_back()
    expect(problem(page)).to_contain_text(reason)


def test_failed_requests_are_retried(server, open_tab):
    """If the service is not ready or unreachable, the page retries; meanwhile it says so, and dims the old model."""
    tab = open_tab(server)
    page = tab.show("model?model=nyc-weather")
    answers = ["503", "gone"]

    def fail(route):
        if not answers:
            route.continue_()
        elif answers.pop(0) == "503":
            body = {"error": "the model is being read", "code": "not_ready"}
            route.fulfill(status=503, headers={"Retry-After": "1"}, body=json.dumps(body))
        else:
            route.abort()

    page.route(re.compile(r"/v1/models/head$"), fail)
    model_of(page).select_option("head")
    status = page.locator(".status")
    expect(status).to_contain_text("the model is being read")
    expect(page.locator("main")).to_have_attribute("aria-busy", "true")
    expect(page.locator("main > *").first).to_have_css("opacity", "0.45")
    expect(status).to_contain_text("the service does not answer")
    status.get_by_role("button", name="Try now").click()
    settled(page)
    expect(page.locator("main > *").first).to_have_css("opacity", "1")
    expect(page).to_have_title("Model of head · Kanscope")
    assert answers == []


def test_slow_requests_show_elapsed_seconds_and_can_be_stopped(server, open_tab):
    """What was stopped can be tried again."""
    tab = open_tab(server)
    page = tab.show("model?model=nyc-weather")
    page.route(re.compile(r"/v1/models/head$"), lambda _: None)  # never answered
    model_of(page).select_option("head")
    status = page.locator(".status")
    expect(status).to_contain_text(re.compile("computing, [1-9] s so far"))
    status.get_by_role("button", name="Stop").click()
    expect(problem(page)).to_contain_text("Stopped.")
    page.unroute_all()
    problem(page).get_by_role("button", name="Try again").click()
    expect(problem(page)).to_have_count(0)
    settled(page)


def test_no_number_of_one_model_shows_under_another(several, open_tab):
    """While another model is loaded nothing is asked of it with the windows, features or outputs of the one before."""
    tab, asked = open_tab(several), []
    tab.page.on("response", lambda answer: answer.status >= 400 and asked.append(answer.url))
    page = tab.show("forecast?model=first&window=ref:5")
    page.route(re.compile("/v1/models/two"), lambda route: (page.wait_for_timeout(150), route.continue_()))
    for name in ("two", "first", "two"):
        model_of(page).select_option(name)
        page.wait_for_url(re.compile(f"model={name}"))
        settled(page)
        page.wait_for_load_state("networkidle")
    assert asked == []
    assert tab.problems == []


def test_a_replaced_model_is_told(serve, open_tab, tmp_path):
    """A banner says so, all numbers are those of the new one, and the address stays."""
    models = [make_model("lstm", seed=seed, n_reference=130) for seed in (1, 2)]
    for number, model in enumerate(models):
        save_checkpoint(model, tmp_path / f"{number}.safetensors")
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(tmp_path / "0.safetensors", folder / "m.safetensors")
    with serve(folder, KANSCOPE_POLL_SECONDS="0.2") as client:
        tab = open_tab(client)
        page = tab.show("forecast?model=m&window=ref:3")
        page.wait_for_load_state("networkidle")
        before, first = page.locator("main").inner_text(), client.get("/v1/models/m").json()["checkpoint"]
        (tmp_path / "1.safetensors").rename(folder / "m.safetensors")
        for _ in range(100):
            if client.get("/v1/models/m").json()["checkpoint"] != first:
                break
            page.wait_for_timeout(100)
        page.get_by_role("link", name="Model", exact=True).click()
        expect(page.locator(".banner")).to_contain_text("The model m was replaced while you looked at it")
        page.get_by_role("link", name="Forecast", exact=True).click()
        settled(page)
        expect(page.locator("main")).not_to_have_text(before)
        page.get_by_role("button", name="Understood").click()
        expect(page.locator(".banner")).to_have_count(0)
        assert tab.problems == []


def test_reference_windows_may_be_hidden(serve, open_tab, tmp_path):
    """The page says how to give a window of one's own, and the model is shown."""
    save_checkpoint(make_model("lstm", n_reference=130), tmp_path / "m.safetensors")
    with serve(tmp_path / "m.safetensors", KANSCOPE_REFERENCE_WINDOWS="false") as client:
        tab = open_tab(client)
        page = tab.show("forecast")
        expect(page.locator("main")).to_contain_text(re.compile("paste or drop", re.IGNORECASE))
        page.get_by_role("link", name="Model", exact=True).click()
        settled(page)
        expect(page).to_have_title("Model of m · Kanscope")
        expect(problem(page)).to_have_count(0)
