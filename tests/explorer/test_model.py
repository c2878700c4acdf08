"""The model's page agrees with the API: importance, formulas, card, report, comparison; it prints on two pages."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from factories import make_chain, make_model
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint
from kanmodel.network.bases import Line
from kanmodel.network.config import Transform, plain_layers
from kanmodel.tables.columns import Target

HERE = "/v1/models/m"
MODEL = "/v1/models/nyc-weather"
NUMBER = re.compile(r"[−+]?[\d.]+(?:e[−+]?\d+)?")
N_ROWS = 14  # of the swarm, and of the table at first
SKILL = {
    "verdict": "red",
    "mae": 2.0,
    "baselines": [{"name": "the value 24 steps before", "season": 24, "mae": 1.5}],
    "better_by": -0.33,
    "interval": [-0.4, -0.2],
    "reason": "This model has learned nothing that repeating the last value does not know; do not read its reasons.",
}


def number(text):
    return float(NUMBER.match(text.strip())[0].replace("−", "-"))


def ask(client, path, **params):
    """An answer of the API, however long a busy machine takes."""
    return client.get(path, params=params, headers={"X-Request-Timeout": "300"}, timeout=300)


def section(page, name):
    """A part of the page, once it has what it loads."""
    part = page.get_by_role("region", name=name, exact=True).first
    part.wait_for()
    page.evaluate("(name) => document.querySelector(`section[aria-label='${name}']`)?.scrollIntoView()", name)
    return part


def make_classifier():
    """Three classes by softmax over Linear layers with a ReLU between; no actual values."""
    config = make_model("head", n_features=3).config
    first, last = plain_layers([3, 2, 3], Line(), base="zero")
    layers = (first, replace(last, before=(Transform("relu"),)))
    targets = tuple(Target(name) for name in ("up", "same", "down"))
    model = make_chain(replace(config, targets=targets, head=layers, output_function="softmax"), n_reference=130)
    return replace(model, reference=replace(model.reference, targets=None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two versions of a model, one with the same inputs, one with others, and a classifier."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "m").mkdir()
    for version in (1, 2):
        save_checkpoint(make_model("lstm", seed=version, n_reference=130), folder / "m" / f"{version}.safetensors")
    save_checkpoint(make_model("lstm", seed=3, n_reference=130), folder / "other.safetensors")
    save_checkpoint(make_model("head", n_features=6), folder / "unlike.safetensors")
    save_checkpoint(make_classifier(), folder / "classes.safetensors")
    return folder


@pytest.fixture(scope="module")
def pair(serve, folder):
    with serve(folder, KANSCOPE_POLL_SECONDS="0.2") as client:
        yield client


@pytest.fixture(scope="module")
def merged(server):
    """The attributions of the inputs, those of several features as one."""
    inputs = server.get(MODEL).json()["inputs"]
    groups = {one["label"]: one["features"] for one in inputs if len(one["features"]) > 1}
    found = ask(server, f"{MODEL}/attributions", groups=json.dumps(groups)).json()
    labels = {one["features"][0]: one["label"] for one in inputs}
    return [{**row, "label": labels.get(row["name"], row["name"])} for row in found["groups"]]


def test_the_verdict_stands_before_every_reason(server, open_tab):
    """Of a model without skill the warning comes first, beside the errors of simpler forecasts."""

    def answer(route):
        found = route.fetch().json()
        route.fulfill(json={**found, "skill": SKILL})

    tab = open_tab(server)
    tab.page.route(re.compile(rf"{MODEL}(\?.*)?$"), answer)
    page = tab.show("model?model=nyc-weather")
    warning = page.locator(".model-page").get_by_role("alert")
    expect(warning).to_contain_text(SKILL["reason"])
    expect(warning.locator("tr")).to_have_count(2)
    below = section(page, "Importance")
    assert warning.bounding_box()["y"] < below.bounding_box()["y"]
    assert page.locator(".model-page > section").first.get_attribute("aria-label") == "Skill"


def test_inputs_are_told_whole_by_importance(server, open_tab, merged):
    """Rows have the API's shares, intervals and verdicts, a sine and a cosine as one; columns sort, by the address."""
    tab = open_tab(server)
    page = tab.show("model?model=nyc-weather")
    part = section(page, "Importance")
    rows = part.locator("table.importance tbody tr")
    expect(rows).to_have_count(N_ROWS)
    part.get_by_role("button", name=f"All {len(merged)}").click()
    expect(rows).to_have_count(len(merged))
    for row, told in zip(rows.all(), merged, strict=True):
        expect(row.locator("td").first).to_contain_text(told["label"])
        share = row.locator("[data-column=share]").inner_text().split("\n")
        ends = [number(end) for end in share[1].split(" to ")]
        assert number(share[0]) == pytest.approx(100 * told["share"], abs=0.06)
        assert ends == pytest.approx([100 * end for end in told["share_interval"]], abs=0.06)
        expect(row.locator(".verdict")).to_have_text(told["verdict"])
        shuffled = row.locator("[data-column=permutation]").inner_text()
        assert number(shuffled) == pytest.approx(told["permutation_mae_increase"], abs=0.006)
    colors = rows.locator("i").evaluate_all("all => all.map((one) => one.style.background)")
    assert len(set(colors)) == len(merged)
    expect(part).to_contain_text(f"{merged[0]['share']:.1%} of all contributions".replace("%", " %"))
    part.get_by_role("button", name="Moves it by").click()
    page.wait_for_url("**sort=contribution**")
    expect(part.locator("th[aria-sort=descending]")).to_contain_text("Moves it by")
    part.get_by_role("button", name="Moves it by").click()
    page.wait_for_url("**sort=contribution:up**")
    expect(rows.first.locator("td").first).to_contain_text(
        min(merged, key=lambda one: one["mean_abs_contribution"])["label"]
    )
    part.get_by_role("button", name="groups").click()
    groups = ask(server, f"{MODEL}/attributions").json()["groups"]
    expect(rows).to_have_count(len(groups))
    assert tab.problems == []


@pytest.mark.parametrize("width", [390, 820, 1920])
def test_many_inputs_with_long_names_do_not_widen_the_page(shapes, open_tab, width):
    """61 features: of the first each figure has its name beside it on a phone, and names differ where they are cut."""
    tab = open_tab(shapes, viewport={"width": width, "height": 844})
    page = tab.show("model?model=long")
    part = section(page, "Importance")
    expect(part.locator("table.importance tbody tr")).to_have_count(N_ROWS)
    expect(part.locator(".swarm .row-name")).to_have_count(N_ROWS)
    assert len(set(part.locator(".swarm .row-name").all_text_contents())) == N_ROWS
    for name in ("Network", "Formula", "Card", "Questions and answers"):
        section(page, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        shown = part.locator("tbody td[data-column=share]").first
        assert shown.evaluate("(cell) => getComputedStyle(cell, '::before').content") == '"Share"'
        expect(part.get_by_label("Sorted by")).to_be_visible()


def swarm(page):
    return section(page, "Importance").get_by_role("group", name=re.compile("^Contributions in all windows"))


def test_each_dot_is_a_window_and_leads_to_it(server, open_tab, merged):
    """Dots stand at the sums of the API's contributions; rings mark the window; keys and clicks open one."""
    windows = ask(server, f"{MODEL}/reference", contributions=True).json()["windows"]
    features = [one["name"] for one in server.get(MODEL).json()["features"]]
    sums = np.array(
        [
            [sum(row["contributions"][features.index(f)] for f in one["members"]) for row in windows]
            for one in merged[:N_ROWS]
        ]
    )
    tab = open_tab(server)
    page = tab.show("model?model=nyc-weather&window=ref:100")
    dots = swarm(page).locator("g:not(.tick) > circle")
    expect(dots).to_have_count(sums.size)
    x = np.array(dots.evaluate_all("all => all.map((dot) => Number(dot.getAttribute('cx')))")).reshape(sums.shape)
    np.testing.assert_allclose(x, np.interp(sums, (sums.min(), sums.max()), (x.min(), x.max())), atol=0.11)
    expect(swarm(page).locator("[data-ring]")).to_have_count(N_ROWS)
    swarm(page).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    meant = swarm(page).locator(".meant")
    expect(meant).to_be_focused()
    order = np.argsort(sums[0], kind="stable")
    at = order[list(order).index(0) + 1]
    expect(meant).to_have_attribute(
        "data-tip", re.compile(re.escape(windows[at]["time"].replace("T", " ").removesuffix("Z")))
    )
    expect(page.get_by_role("tooltip")).to_contain_text(merged[1]["label"])
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"forecast.*window=ref:{at}(&|$)"))
    page.go_back()
    dots.first.hover(force=True)
    dots.first.click(force=True)
    page.wait_for_url(re.compile("forecast.*window=ref:"))
    assert tab.problems == []


def test_the_slider_selects_a_formula(pair, open_tab):
    """It opens where the service says; each stop has a formula of the API, kept by the address; points choose too."""
    tab = open_tab(pair)
    page = tab.show("model?model=m&at=formula")
    part, answer = section(page, "Formula"), ask(pair, f"{HERE}/formula").json()
    formulas, slider = answer["formulas"], page.locator("#terms")
    expect(slider).to_have_attribute("max", str(len(formulas) - 1))
    expect(slider).to_have_value(str(answer["knee"]))
    part.locator(".choice circle").last.click()
    page.wait_for_url(f"**complexity={formulas[-1]['complexity']}*")
    slider.focus()
    for formula in reversed(formulas):
        expect(part.locator("[data-figure=complexity] dd")).to_have_text(str(formula["complexity"]))
        expect(part.locator("[data-figure=R²] dd")).to_contain_text(f"{100 * max(0, formula['r2']):.1f} %")
        expect(part).to_contain_text(f"{formula['r2']:.4f}".replace("-", "−"))
        shown = {text for text in part.locator(".formula msub").all_text_contents() if text[0] != "φ"}
        assert shown == {text for text in part.locator(".symbols .symbol msub").all_text_contents()}
        assert len(shown) == len(formula["variables"])
        assert part.locator(".formula").evaluate("(place) => place.scrollWidth <= place.clientWidth")
        page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile(rf"complexity={formulas[0]['complexity']}(&|$)"))
    assert tab.problems == []


SLOWLY = """
  const send = window.fetch;
  window.fetch = async (url, options) => {
    const answer = await send(url, options);
    const isGrowing = options.headers.Accept === "application/x-ndjson" && String(url).includes("/formula");
    if (!answer.ok || !isGrowing) return answer;
    const given = JSON.parse((await answer.text()).trim().split("\\n").pop()); // the whole
    const parts = given.formulas.map((formula) => ({ formula }));
    let next;
    const body = new ReadableStream({ start: (one) => (next = one) });
    options.signal.addEventListener("abort", () => next.error(options.signal.reason));
    window.release = (count) => {
      for (const one of parts.splice(0, count)) next.enqueue(new TextEncoder().encode(`${JSON.stringify(one)}\\n`));
      if (count > 0) return;
      next.enqueue(new TextEncoder().encode(`${JSON.stringify(given)}\\n`));
      next.close();
    };
    return new Response(body);
  };
"""


def test_the_front_grows_while_formulas_are_found(pair, open_tab):
    """Each is drawn as it comes, can be chosen before the others are there, and the search can be stopped and go on."""
    formulas = ask(pair, f"{HERE}/formula").json()["formulas"]
    found = [one["r2"] for one in formulas]
    nearer = [sum(r2 > max([-1e9, *found[:n]]) for n, r2 in enumerate(found[:size])) for size in range(len(found) + 1)]
    tab = open_tab(pair)
    page = tab.page
    page.add_init_script(SLOWLY)
    page.goto(f"{tab.base}/explorer/#/model?model=m&at=formula")
    page.wait_for_function("() => window.release")
    part, points = section(page, "Formula"), page.locator(".choice circle")
    page.evaluate("release(2)")
    expect(part.get_by_role("status").first).to_contain_text(f"{nearer[2]} found so far; the search goes on")
    expect(points).to_have_count(nearer[2])
    points.first.click()
    expect(part.locator("[data-figure=complexity] dd")).to_have_text(str(formulas[0]["complexity"]))
    page.evaluate(f"release({len(found) - 2})")
    expect(points).to_have_count(nearer[-1])
    part.get_by_role("button", name="Stop the search").click()
    expect(part).to_contain_text(f"{nearer[-1]} were found before the search ended")
    page.evaluate("delete window.release")
    part.get_by_role("button", name="Search on").click()
    page.wait_for_function("() => window.release")
    page.evaluate("release(-1)")
    expect(points).to_have_count(sum(one["r2"] is not None for one in formulas))
    expect(part).not_to_contain_text("so far")
    expect(part.locator("[data-figure=complexity] dd")).to_have_text(str(formulas[0]["complexity"]))
    assert tab.problems == []


@pytest.mark.parametrize(("name", "member"), [("Python", "python"), ("LaTeX", "latex"), ("text", "expression")])
def test_a_formula_is_copied(pair, open_tab, name, member):
    """The copied Python, LaTeX or text is that of the API."""
    page = open_tab(pair, permissions=["clipboard-read", "clipboard-write"]).show(
        "model?model=m&complexity=100000&at=formula"
    )
    expect(section(page, "Formula")).not_to_contain_text("so far")
    page.get_by_role("button", name=f"Copy {name}").click()
    expect(section(page, "Formula")).to_contain_text(f"copied as {name}")
    assert (
        page.evaluate("navigator.clipboard.readText()") == ask(pair, f"{HERE}/formula").json()["formulas"][-1][member]
    )


def test_mathematics_is_all_that_a_formula_puts_into_the_page(pair, open_tab):
    """Texts of MathML's elements alone are taken: no attribute, no other element, and nothing that is no XML."""
    page = open_tab(pair).show("model?model=m")
    name = "performance.getEntriesByType('resource').find(({ name }) => name.endsWith('/model/mathml.js')).name"
    module = page.evaluate(name)
    take = """([module, text]) => import(module).then(({ setMathematics }) =>
      setMathematics(text).map((one) => one.outerHTML).join(""))"""
    assert page.evaluate(take, [module, "<mrow><mi onclick='x()'>a</mi><mo>+</mo><mi>&lt;b&gt;</mi></mrow>"]) == (
        '<math><mi>a</mi><mo form="infix">+</mo><mi>&lt;b&gt;</mi></math>'
    )
    for text in (
        "<mi><script>x()</script></mi>",
        '<img xmlns="http://www.w3.org/1999/xhtml" src="x"/>',
        "<mi>",
        "<mtext>a</mtext>",
    ):
        said = page.evaluate(f"(given) => ({take})(given).catch((error) => error.message)", [module, text])
        assert said.startswith(("A formula has no <", "The formula of the service is no MathML"))


def test_the_card_describes_the_model(pair, open_tab):
    """Size, data, metrics, origin and verification are those of the API."""
    page = open_tab(pair).show("model?model=m&at=card")
    model, card = pair.get(HERE).json(), section(page, "Card")
    for said in (
        f"{model['architecture']['lstm']['hidden_size']} units",
        " → ".join(map(str, model["architecture"]["head"]["width"])),
        f"{len(model['features'])} features, over {model['lookback']} steps",
        f"{model['reference_windows']} reference windows",
        "test R²",
        model["provenance"]["library"],
        model["checkpoint"],
        "2 of 2, 1",
    ):
        expect(card).to_contain_text(said)
    expect(card.locator("[data-verified]")).to_have_text(
        "verified" if model["provenance"]["verified"] else "not verified"
    )
    card.get_by_text("The inputs, over the training rows").click()
    expect(card.locator("tr[data-input]")).to_have_count(len(model["inputs"]))


def test_a_classifier_is_told_in_its_own_terms(pair, open_tab):
    """Its card names classes and lines, its amounts are percentage points, and it has no formula; of errors nothing."""
    page = open_tab(pair).show("model?model=classes&output=same%2B1")
    expect(page.locator(".skill-first")).to_contain_text("The probability of up, same, down from 3 inputs of one step.")
    expect(section(page, "Importance")).to_contain_text("amounts in percentage points")
    expect(section(page, "Importance")).not_to_contain_text("Error if shuffled")
    expect(section(page, "Formula")).to_contain_text(
        "There is no formula for it: a formula needs outputs that are functions of one node, but softmax mixes them."
    )
    amounts = section(page, "Network").locator("g.edge[data-edge] .amount")
    expect(amounts.first).to_have_text(re.compile(r"^[\d.]+ points$"))
    expect(section(page, "Network").locator("svg.picture")).not_to_contain_text("%")
    expect(section(page, "Card")).to_contain_text("12 edges, straight lines and straight lines after relu")
    expect(page.locator("main")).not_to_contain_text("undefined")


def test_each_answer_is_folded_and_leads_to_where_it_shows(server, open_tab):
    """Questions and answers are those of the report, with numbers below; each link leads to a part that is there."""
    tab = open_tab(server)
    page = tab.show("model?model=nyc-weather&at=report")
    findings = ask(server, f"{MODEL}/report").json()["findings"]
    part = section(page, "Questions and answers")
    expect(part.locator(".answer")).to_have_count(len(findings))
    for finding in findings:
        answer = part.locator(f"[data-finding={finding['id']}]")
        expect(answer.locator("> summary")).to_contain_text(finding["question"])
        expect(answer.locator("> p a")).to_be_hidden()
        href = answer.locator("> p a").get_attribute("href")
        assert re.match(r"#/(forecast|history|model\?.*at=(skill|importance|network))", href), href
    answer = part.locator("[data-finding=independence]")
    answer.locator("> summary").click()
    answer.get_by_role("link").click()
    page.wait_for_url("**at=importance**")
    expect(page.locator("th[aria-sort]")).to_contain_text("Could be replaced by")
    expect(section(page, "Importance")).to_be_in_viewport()
    assert tab.problems == []


def test_the_report_leaves_the_page(server, open_tab):
    """As Markdown it is a file with what the API answers, and as HTML a page of its own."""
    page = open_tab(server).show("model?model=nyc-weather&at=report")
    part = section(page, "Questions and answers")
    with page.expect_download() as download:
        part.get_by_role("button", name="Save as Markdown").click()
    assert download.value.suggested_filename == "nyc-weather-report.md"
    written = ask(server, f"{MODEL}/report", format="markdown").text
    assert download.value.path().read_text(encoding="utf-8").splitlines()[0] == written.splitlines()[0]
    with page.context.expect_page() as opened:
        part.get_by_role("link", name="Report as a page").click()
    expect(opened.value.locator("h1")).to_be_visible()


def test_two_versions_are_compared(pair, open_tab):
    """Shares have two columns and a difference from the API; edges came, went or changed; a window has parts."""
    tab = open_tab(pair)
    page = tab.show("model?model=m")
    choice = page.get_by_label("Compare with")
    expect(choice.locator("option").nth(2)).to_have_attribute("value", "other/1")
    offered = choice.locator("option").evaluate_all("all => all.map((one) => one.value)")
    assert offered[:3] == ["", "m/1", "other/1"] and set(offered[3:]) == {"classes/1", "unlike/1"}
    choice.select_option("m/1")
    page.wait_for_url("**versus=m/1*")
    part, answer = section(page, "Comparison"), ask(pair, f"{HERE}/comparison", against_version="1").json()
    rows = part.locator("tr[data-input]")
    expect(rows).to_have_count(len(answer["features"]))
    for row, feature in zip(rows.all(), answer["features"], strict=True):
        cells = row.locator("td").all_inner_texts()
        assert [number(cell) for cell in cells] == pytest.approx(
            [100 * feature[name] for name in ("share", "against_share", "change")], rel=0.01, abs=0.06
        )
    expect(part.locator(".lead")).to_contain_text("The forecasts of version 2 and version 1 differ by ")
    part.get_by_text("The edges that either keeps").click()
    kept = [(edge["kept"], edge["against_kept"]) for edge in answer["edges"]]
    assert part.locator("tr[data-state=came]").count() == kept.count((True, False))
    assert part.locator("tr[data-state=went]").count() == kept.count((False, True))
    instance = pair.get(f"{HERE}/reference/129").json()["instance"]
    body = {"instances": [instance], "against": {"model": "m", "version": "1"}}
    (compared,) = pair.post(f"{HERE}:compare", json=body).json()["comparisons"]
    shown = float(part.locator("[data-difference]").get_attribute("data-difference"))
    assert shown == pytest.approx(compared["difference"])
    expect(part.locator(".disagreements li")).to_have_count(len(compared["model"]["contributions"]))
    part.get_by_role("button", name="End the comparison").click()
    expect(page.get_by_role("region", name="Comparison")).to_have_count(0)
    assert tab.problems == []


def test_shares_are_compared_by_input(server, open_tab):
    """The sine and the cosine of an hour are one row, with the sum of their shares."""
    page = open_tab(server).show("model?model=nyc-weather&versus=nyc-weather/1")
    part = section(page, "Comparison")
    against = {"against_model": "nyc-weather", "against_version": "1", "fidelity": 0.99}
    answer = ask(server, f"{MODEL}/comparison", **against).json()
    shares = {feature["name"]: feature["share"] for feature in answer["features"]}
    inputs = server.get(MODEL).json()["inputs"]
    rows = part.locator("tr[data-input]")
    expect(rows).to_have_count(len(inputs), timeout=120_000)
    for one in inputs:
        shown = part.locator(f'tr[data-input="{one["name"]}"] td').first.inner_text()
        assert number(shown) == pytest.approx(100 * sum(shares[name] for name in one["features"]), abs=0.06)


def test_what_cannot_be_compared_says_why(pair, open_tab):
    """The service's sentence names the first difference, and all else of the model stays."""
    page = open_tab(pair).show("model?model=unlike&versus=other/1")
    expect(section(page, "Comparison")).to_contain_text(
        "These two can’t be compared: other must read the same features, but does not read f4, f5."
    )
    expect(section(page, "Importance").locator("table")).to_be_visible()


@pytest.mark.parametrize("model", ["nyc-weather", "two"])
def test_the_page_prints_on_two_pages(server, open_tab, model):
    """A4, from skill to card, with nothing cut off at the side."""
    page = open_tab(server).show(f"model?model={model}")
    for name in ("Importance", "Network", "Formula", "Card"):
        section(page, name)
    expect(section(page, "Formula").locator("#terms")).to_be_visible()
    expect(section(page, "Formula")).not_to_contain_text("so far")
    expect(section(page, "Network").locator("svg").first).to_be_visible()
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf(format="A4"))) == 2
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 711, "height": 1040})
    assert page.evaluate("document.documentElement.scrollWidth") <= 711


def test_a_model_that_is_replaced_is_noticed(pair, folder, open_tab):
    """All numbers are those of the new file, and a banner says so."""
    page = open_tab(pair).show("model?model=other")
    before = pair.get("/v1/models/other").json()["checkpoint"]
    expect(section(page, "Card")).to_contain_text(before)
    save_checkpoint(make_model("lstm", seed=9, n_reference=130), folder / "other.safetensors")
    for _ in range(100):
        after = pair.get("/v1/models/other").json()["checkpoint"]
        if after != before:
            break
        page.wait_for_timeout(100)
    page.get_by_role("button", name="Moves it by").click()
    page.get_by_label("Compare with").select_option("m/1")  # asks the service for something new
    expect(page.get_by_text("was replaced while you looked at it")).to_be_visible()
    expect(section(page, "Card")).to_contain_text(after)
    expect(section(page, "Card")).not_to_contain_text(before)
