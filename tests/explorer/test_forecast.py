"""The forecast opens as one sentence whose numbers are the API's, with what is to be known first."""

from __future__ import annotations

import json
import re

import pytest
from factories import make_model, with_intervals
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint

MODEL = "/v1/models/nyc-weather"
WORTHLESS = "This model has learned nothing that repeating the last value does not know; do not read its reasons."


@pytest.fixture(scope="module")
def sure(serve, tmp_path_factory):
    """Serves a model that forecasts one of its features at four steps with intervals."""
    folder = tmp_path_factory.mktemp("models")
    ahead = make_model("lstm", targets=("f1",), horizon=4)
    save_checkpoint(with_intervals(ahead), folder / "sure.safetensors")
    with serve(folder) as client:
        yield client


def numbers(text):
    return [float(each.replace(",", "").replace("−", "-")) for each in re.findall(r"[−-]?\d[\d,]*\.?\d*", text)]


def told(tab, hash):
    """The page of a forecast, as soon as its reasons are told."""
    page = tab.show(hash)
    page.locator("h1 .reasons").wait_for()
    return page


def judge(page, verdict, reason):
    """The page is told this verdict on the skill of each model."""

    def tell(route):
        answer = route.fetch()
        body = answer.json()
        skill = {"verdict": verdict, "reason": reason, "mae": None, "baselines": [], "better_by": None}
        route.fulfill(response=answer, json={**body, "skill": {**skill, "interval": None}})

    page.route(re.compile(r"/v1/models/[^/:?]+(\?.*)?$"), tell)


def test_the_first_sentence_has_the_numbers_of_the_api(server, open_tab):
    """The forecast, the sum of an input's features, and what came, with the newest reference window."""
    page = told(open_tab(server), "forecast?model=nyc-weather")
    window = server.get(f"{MODEL}/reference/511").json()
    body = {"instances": [window["instance"]], "output": ["dtemp_6h+1"]}
    answer = server.post(f"{MODEL}:explain", json=body).json()["explanations"][0]
    said = page.locator("h1").inner_text()
    assert said.startswith("Newark's temperature change over the next six hours: ")
    assert numbers(said)[0] == pytest.approx(answer["prediction"], abs=0.051)
    hour = answer["contributions"]["hour_sin"] + answer["contributions"]["hour_cos"]
    adds = re.search(r"hour \d\d:\d\d (adds|takes) ([\d.]+)", said)
    assert float(adds[2]) == pytest.approx(abs(hour), abs=0.051)
    assert adds[1] == ("adds" if hour > 0 else "takes")
    expect(page.locator("main")).to_contain_text(f"What came was {str(window['target'][0]).replace('-', '−')} K")


def test_values_are_told_in_the_terms_of_the_table(server, open_tab):
    """An hour is 16:00 wherever it stands; no sine of one is on the page, whatever is asked of it."""
    page = told(open_tab(server), "forecast?model=nyc-weather")
    expect(page.get_by_role("button", name="hour 16:00")).to_be_visible()
    for question in page.get_by_role("tab").all():
        question.click()
        expect(page.locator("#asked .muted", has_text="…")).to_have_count(0)
        assert not re.search("_(sin|cos)", page.locator("body").inner_text())
    expect(page.get_by_role("slider", name="hour", exact=True)).to_have_attribute("aria-valuetext", "16:00")


def test_a_worthless_model_is_called_one_first(server, open_tab):
    """The warning is the sentence's beginning, its skill is not praised, and its reasons have no bars."""
    tab = open_tab(server)
    judge(tab.page, "red", WORTHLESS)
    page = told(tab, "forecast?model=nyc-weather")
    assert page.locator("h1").inner_text().startswith(WORTHLESS)
    assert "better than" not in page.locator("h1").inner_text()
    expect(page.locator(".dials .lift:visible")).to_have_count(0)
    expect(page.locator(".trust .judged")).to_have_text("No.")  # the question that is open at first
    page.get_by_role("tab", name="When did it matter?").click()
    expect(page.locator("#asked .refused")).to_have_text(WORTHLESS)


def test_a_hardly_better_model_says_so(server, open_tab):
    """Amber asks to read reasons with care."""
    tab = open_tab(server)
    judge(tab.page, "amber", "This model may be no better than a ridge regression.")
    said = told(tab, "forecast?model=nyc-weather").locator("h1").inner_text()
    assert said.startswith("This model may be no better than a ridge regression. Read its reasons with care.")


def test_a_bound_is_told_as_one(sure, open_tab):
    """The forecast stands in its interval; a bound and a width name what they are of, and are no forecast."""
    tab = open_tab(sure)
    page = told(tab, "forecast?model=sure&window=ref:5&output=f1%2B2")
    window = sure.get("/v1/models/sure/reference/5").json()["instance"]
    answer = sure.post("/v1/models/sure:predict", json={"instances": [window], "intervals": "all"}).json()
    low, high = (answer["intervals"][0][end][0][1] for end in ("lower", "upper"))
    expect(page.locator(".sentence .band")).to_be_visible()
    ends = numbers(page.locator(".sentence .band").get_attribute("data-tip"))
    assert ends[1:3] == [pytest.approx(low, abs=0.051), pytest.approx(high, abs=0.051)]

    page = told(tab, "forecast?model=sure&window=ref:5&output=f1%2B2:upper@0.8")
    said = page.locator("h1").inner_text()
    assert re.match("The upper bound of the 80 % interval of .* is .*: a bound, not the forecast, which is ", said)
    body = {"instances": [window], "output": ["f1+2:upper@0.8"]}
    bound = sure.post("/v1/models/sure:explain", json=body).json()["explanations"][0]["prediction"]
    assert numbers(page.locator("h1 .figure").inner_text())[0] == pytest.approx(bound, abs=0.051)
    page = told(tab, "forecast?model=sure&window=ref:5&output=f1%2B2:width@0.8")
    assert re.match("The width of the 80 % interval of .* around the forecast of ", page.locator("h1").inner_text())


def test_a_date_without_windows_is_refused(server, open_tab):
    """It leads nowhere, and offers the nearest windows before and after."""
    page = told(open_tab(server), "forecast?model=nyc-weather&window=ref:100")
    expect(page.get_by_role("button", name="Largest errors")).to_be_visible()  # the windows are known
    before, said = page.url, page.locator("h1").inner_text()
    page.get_by_label("Date of the window").fill("2013-02-04")
    expect(page.locator(".refused")).to_contain_text("No window ends on 4 Feb 2013.")
    assert page.url == before
    assert page.locator("h1").inner_text() == said
    windows = server.get(f"{MODEL}/reference", params={"limit": 1000}).json()["windows"]
    after = next(one["index"] for one in windows if one["time"] > "2013-02-04")
    page.locator(".refused").get_by_role("button").nth(1).click()
    page.wait_for_url(re.compile(f"window=ref:{after}(&|$)"))
    page.locator("h1").click()
    page.keyboard.press("Shift+ArrowLeft")
    page.wait_for_url(re.compile(f"window=ref:{after - 1}(&|$)"))


def test_a_bad_paste_keeps_the_view(server, open_tab):
    """What can't be read is said, and the forecast stays."""
    page = told(open_tab(server), "forecast?model=nyc-weather&window=ref:100")
    before, said = page.url, page.locator("h1").inner_text()
    page.evaluate(
        """() => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text/plain", "temp_c,dewp_c\\n1,warm\\n2,3");
          document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }"""
    )
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    assert page.url == before
    assert page.locator("h1").inner_text() == said


def test_a_word_lights_its_input(server, open_tab):
    """Under the pointer for now, and by Enter until Escape; the address has what was picked."""
    page = told(open_tab(server), "forecast?model=nyc-weather")
    word = page.get_by_role("button", name="hour 16:00")
    dial = page.locator(".dial", has=page.get_by_role("slider", name="hour", exact=True))
    word.hover()
    expect(dial).to_have_class(re.compile("lit"))
    word.press("Enter")
    page.wait_for_url(re.compile("pick=input:hour"))
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("pick="))


def test_what_does_not_answer_is_said_in_words(server, open_tab):
    """No error of the browser itself is shown, and the view is there as soon as the service answers again."""
    tab = open_tab(server)
    tab.page.route("**/v1/models/nyc-weather:explain", lambda route: route.abort())
    page = tab.show("forecast?model=nyc-weather")
    expect(page.locator(".status")).to_contain_text("the service does not answer")
    assert "Failed to fetch" not in page.locator("body").inner_text()
    page.unroute("**/v1/models/nyc-weather:explain")
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("h1 .reasons")).to_be_visible()


def test_without_reference_windows_it_asks_for_one(serve, open_tab, tmp_path):
    """Where the service hides them, the page says how to give one's own."""
    save_checkpoint(make_model("head", n_features=6), tmp_path / "head.safetensors")
    with serve(tmp_path, KANSCOPE_REFERENCE_WINDOWS="false") as client:
        page = open_tab(client).show("forecast?model=head")
        expect(page.locator("main")).to_contain_text("This service shows no windows of its own")


def test_a_window_of_one_step_has_no_map(server, open_tab):
    """Nor is there a step at which an input mattered."""
    page = told(open_tab(server), "forecast?model=head")
    expect(page.locator("#asked")).to_have_text("The window is a single step.")


def test_the_map_has_the_contributions_of_the_api(server, open_tab):
    """By input and step; arrow keys lead through the cells, which are told."""
    page = told(open_tab(server), "forecast?model=nyc-weather&window=ref:100")
    instance = server.get(f"{MODEL}/reference/100").json()["instance"]
    body = {"instances": [instance], "output": ["dtemp_6h+1"], "detail": "steps"}
    steps = server.post(f"{MODEL}:explain", json=body).json()["explanations"][0]["steps"]
    names = [one["name"] for one in server.get(MODEL).json()["features"]]
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    cell = page.locator("#asked [role=status]")
    expect(cell).to_have_text(re.compile(": [+−]?[\\d.]+ K$"))
    name = cell.inner_text().split(" (")[0]
    places = [place for place, one in enumerate(names) if re.sub("_(sin|cos)$", "", one) == name]
    if places:
        assert numbers(cell.inner_text())[-1] == pytest.approx(sum(steps[-2][place] for place in places), abs=0.051)


def test_the_questions_are_in_the_address(server, open_tab):
    """A link restores the question that is open and the forecast that is wanted."""
    page = told(open_tab(server), "forecast?model=nyc-weather&ask=change&target=at_most:-3&most=1")
    expect(page.get_by_role("tab", selected=True)).to_have_text("What would change it?")
    expect(page.locator("table.found tbody tr").first).to_be_visible()
    body = {
        "instances": [server.get(f"{MODEL}/reference/511").json()["instance"]],
        "target": {"at_most": -3},
        "max_features": 1,
    }
    found = server.post(f"{MODEL}:counterfactual", json=body).json()["counterfactuals"][0]
    assert found["reached"], json.dumps(found["changes"])
    row = page.locator("table.found tbody tr").first
    assert numbers(row.locator("td").first.inner_text())[0] == pytest.approx(-3, abs=0.15)
    row.get_by_role("button", name="Use it").click()
    page.wait_for_url(re.compile("edit="))
    expect(page.locator("main")).to_contain_text("As recorded it was")


def test_values_outside_the_training_range_are_listed_folded(server, open_tab):
    """Each in the terms of the table; the warnings of the service, of what readers know."""
    page = told(open_tab(server), "forecast?model=nyc-weather&edit=temp_c:60")
    warnings = page.locator("details.warnings")
    expect(warnings.locator("summary")).to_contain_text("about the values of this window")
    said = warnings.locator("li", has_text="temp_c")
    expect(said).to_be_hidden()
    warnings.locator("summary").click()
    expect(said).to_contain_text("is outside the training range")
    expect(said).to_contain_text("°C")
    page = told(open_tab(server), "forecast?model=nyc-weather")
    expect(page.locator("details.warnings")).to_have_count(0)


def test_how_far_ahead_is_told_in_steps_where_no_time_is_known(server, open_tab):
    """As of business days, whose dates do not follow from a step; a step has the name that the table gives it."""
    page = open_tab(server).show("forecast?model=nyc-weather")
    named = page.evaluate(
        """async () => {
          const at = document.querySelector('script[src$="app.js"]').src.replace("app.js", "forecast/sentence.js");
          const { nameForecast } = await import(at);
          const targets = [{ name: "price", title: "The price" }];
          const of = (step, ahead) => ({ targets, horizon: 1, ahead, table: step && { step } });
          const name = (step, ahead) => nameForecast({ info: of(step, ahead), forecast: `price+${ahead}` }, undefined);
          return [name("1 business day", 3), name("1 business day", 1), name("15 minutes", 2), name(undefined, 2)];
        }"""
    )
    assert named == [
        "The price, 3 business days ahead",
        "The price, 1 business day ahead",
        "The price, 2 steps ahead",
        "The price, 2 steps ahead",
    ]
