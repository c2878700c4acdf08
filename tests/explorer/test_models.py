"""Model comparison, formulas and model cards in the explorer agree with the API."""

from __future__ import annotations

import math
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

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

HERE = "/v1/models/m"
POINTS = re.compile(r"[−+]?[\d.]+(?:e[−+]?\d+)?")


def number(text):
    return float(POINTS.match(text.strip())[0].replace("−", "-"))


def make_classifier():
    """Three classes by softmax over Linear layers with a ReLU between; no actual values."""
    config = make_model("head", n_features=3).config
    first, last = plain_layers([3, 2, 3], Line(), base="zero")
    layers = (first, replace(last, before=(Transform("relu"),)))
    targets = tuple(Target(name) for name in ("up", "same", "down"))
    model = make_chain(replace(config, targets=targets, head=layers, output_function="softmax"), n_reference=130)
    return replace(model, reference=replace(model.reference, targets=None))


@pytest.fixture(scope="module")
def pair(serve, tmp_path_factory):
    """Two versions of a model, one with the same inputs, one with others, and a classifier."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "m").mkdir()
    for version in (1, 2):
        save_checkpoint(make_model("lstm", seed=version, n_reference=130), folder / "m" / f"{version}.safetensors")
    save_checkpoint(make_model("lstm", seed=3, n_reference=130), folder / "other.safetensors")
    save_checkpoint(make_model("head", n_features=6), folder / "unlike.safetensors")
    save_checkpoint(make_classifier(), folder / "classes.safetensors")
    with serve(folder) as client:
        yield client


def test_two_versions_are_compared(pair, open_tab):
    """Features and edges have two columns and a difference from the API; edges are added, removed or changed."""
    tab = open_tab(pair)
    page = tab.show("compare?model=m")
    answer = pair.get(f"{HERE}/comparison", params={"against_version": "1"}).json()
    assert page.locator("#against > option").evaluate_all("all => all.map((one) => one.value)") == ["m/1", "other/1"]
    rows = page.get_by_role("region", name="Features of both").locator("tr[data-feature]")
    assert rows.count() == len(answer["features"])
    for row, feature in zip(rows.all(), answer["features"], strict=True):
        cells = row.locator("td").all_inner_texts()
        assert cells[0] == feature["name"]
        assert [number(cell) for cell in cells[1:4]] == pytest.approx(
            [100 * feature[name] for name in ("share", "against_share", "change")], rel=0.01, abs=0.06
        )
        assert row.locator(".cell-bar rect").count() == 3
    assert page.locator("thead").first.locator("th").all_inner_texts()[1:3] == ["version 2", "version 1"]
    lead = page.locator(".lead").inner_text()
    assert lead.startswith("The forecasts of version 2 and version 1 differ by ")
    surely = [each for each in answer["features"] if each["interval"][0] > 0 or each["interval"][1] < 0]
    assert not surely or f"In version 2, {surely[0]['name']} counts" in lead
    states = {
        (True, False): "came",
        (False, True): "went",
        (True, True): "both",
    }
    counts = dict.fromkeys(states.values(), 0)
    for edge in answer["edges"]:
        state = states.get((edge["kept"], edge["against_kept"]))
        if state:
            counts[state] += 1
    assert page.locator("tr[data-state=came]").count() == counts["came"]
    assert page.locator("tr[data-state=went]").count() == counts["went"]
    bent = [e for e in answer["edges"] if e["kept"] and e["against_kept"] and (e["curve_difference"] or 0) > 0.1]
    assert page.locator("tr[data-state='bends differently']").count() == len(bent)
    assert page.locator("tr[data-state]").count() == sum(counts.values())
    expect(page.locator(".networks svg")).to_have_count(2)
    expect(page.locator(".networks g.came")).to_have_count(counts["came"])
    expect(page.locator(".networks g.went")).to_have_count(counts["went"])
    drawn = page.locator(".networks svg").evaluate_all("all => all.map((one) => one.getScreenCTM().a)")
    assert drawn == pytest.approx([1, 1])  # in which texts have their size
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("Features of both", "What the difference is made of"):
        region = page.get_by_role("region", name=name)
        assert region.evaluate("(place) => place.scrollWidth <= place.clientWidth"), name
    assert tab.problems == []


def test_one_window_is_compared(pair, open_tab):
    """Forecasts and difference are those of :compare, whose parts sum to it; the address keeps the choice."""
    tab = open_tab(pair)
    page = tab.show("compare?model=m&against=other/1")
    page.locator("#compared-window").fill("7")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("window=ref:7"))
    page.locator("main[aria-busy=false]").wait_for()
    instance = pair.get(f"{HERE}/reference/7").json()["instance"]
    body = {"instances": [instance], "against": {"model": "other", "version": "1"}}
    (compared,) = pair.post(f"{HERE}:compare", json=body).json()["comparisons"]
    for name, key in (("m", "prediction"), ("other", "against_prediction"), ("difference", "difference")):
        found = number(page.locator(f'[data-figure="{name}"] strong').inner_text())
        assert found == pytest.approx(compared[key], abs=0.03 * abs(compared["difference"]))
    parts = [number(text) for text in page.locator(".parts td.change").all_inner_texts()]
    assert len(parts) == len(compared["model"]["contributions"]) + 1
    assert sum(parts) == pytest.approx(compared["difference"], abs=0.01 * sum(map(abs, parts)))
    expect(page.locator("main")).to_contain_text("other, version 1")
    assert tab.problems == []


def test_an_edge_of_either_side_has_a_link(pair, open_tab):
    """The link of a column opens the function in that column's model."""
    page = open_tab(pair).show("compare?model=m")
    page.locator("tr[data-state] td:nth-child(3) a").first.click()
    expect(page.locator("h1")).to_have_text("Edge")
    expect(page.locator("#model")).to_have_value("m/1")


def test_what_cannot_be_compared_says_why(pair, open_tab):
    """Models of other inputs stand apart in the choice, and the service's sentence names the first difference."""
    page = open_tab(pair).show("compare?model=unlike")
    expect(page.locator("main")).to_contain_text("no other version")
    assert page.locator("#against optgroup option").all_inner_texts() == [
        "classes, version 1",
        "m, version 2",
        "m, version 1",
        "other, version 1",
    ]
    page.locator("#against").select_option("other/1")
    expect(page.get_by_role("alert")).to_have_text(
        "These two can't be compared: other, version 1 must read the same features, but does not read f4, f5."
    )
    expect(page.locator("tr")).to_have_count(0)


def test_the_slider_selects_a_formula(pair, open_tab):
    """Each stop has a formula of the API with its figures; the address keeps it, and arrow keys reach all."""
    tab = open_tab(pair)
    page = tab.show("formula?model=m&complexity=100000")
    formulas = pair.get(f"{HERE}/formula").json()["formulas"]
    slider = page.locator("#terms")
    expect(slider).to_have_value(str(len(formulas) - 1))
    slider.focus()
    for formula in reversed(formulas):
        expect(page.locator("output[for=terms]")).to_have_text(f"complexity {formula['complexity']}")
        expect(page.locator('[data-figure="R²"] strong')).to_have_text(f"{formula['r2']:.4f}".replace("-", "−"))
        expect(page.locator('[data-figure="MAE"] strong')).to_contain_text(f"{formula['mae']:.3g}")
        symbols = [name for name in page.locator(".formula msub").all_text_contents() if name[0] != "φ"]
        assert set(symbols) == set(formula["variables"])
        page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile(rf"complexity={formulas[0]['complexity']}$|complexity={formulas[0]['complexity']}&"))
    other = open_tab(pair).page
    other.goto(page.url)
    expect(other.locator("#terms")).to_have_value("0")
    assert tab.problems == []


def test_the_formula_opens_on_the_knee(pair, open_tab):
    """It is farthest below the line from the shortest to the nearest; the front is drawn, and its points choose."""
    tab = open_tab(pair)
    page = tab.show("formula?model=m")
    formulas = pair.get(f"{HERE}/formula").json()["formulas"]
    rank = np.log([one["complexity"] for one in formulas])
    apart = np.sqrt(np.maximum(0, [1 - (one["r2"] or 0) for one in formulas]))
    below = 1 - rank / rank[-1] - (apart - apart[-1]) / (apart[0] - apart[-1])
    expect(page.locator("#terms")).to_have_value(str(below.argmax()))
    points = page.locator(".front circle")
    assert points.count() == sum(one["r2"] is not None for one in formulas)
    points.last.click()
    expect(page.locator("output[for=terms]")).to_have_text(f"complexity {formulas[-1]['complexity']}")
    for width in (390, 1280):  # nothing of the longest is cut off
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator(".formula").evaluate("(place) => place.scrollWidth <= place.clientWidth")
    first, slider = (page.locator(part).bounding_box()["y"] for part in (".formula", "#terms"))
    page.set_viewport_size({"width": 390, "height": 900})
    assert first <= slider and tab.problems == []


SLOWLY = """
  const send = window.fetch;
  window.fetch = async (url, options) => {
    const answer = await send(url, options);
    if (!answer.ok || options.headers.Accept !== "application/x-ndjson") return answer;
    const given = await answer.json(); // the whole, as it is cached
    const parts = (given.formulas ?? given.findings).map((one) => ({ [given.formulas ? "formula" : "finding"]: one }));
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
    """Each is drawn as it comes, can be chosen before the others are there, and the search can be stopped."""
    formulas = pair.get(f"{HERE}/formula").json()["formulas"]
    found = [one["r2"] for one in formulas]
    nearer = [
        sum(r2 > max([-1e9, *found[:place]]) for place, r2 in enumerate(found[:n])) for n in range(len(found) + 1)
    ]
    tab = open_tab(pair)
    page = tab.page
    page.add_init_script(SLOWLY)
    page.goto(f"{tab.base}/explorer/#/formula?model=m")
    page.wait_for_function("() => window.release")
    points = page.locator(".front circle")
    page.evaluate("release(2)")
    expect(page.locator(".formulas")).to_contain_text(f"{nearer[2]} so far; the search goes on")
    expect(points).to_have_count(nearer[2])
    expect(page.locator(".formulas")).to_have_css("opacity", "1")
    points.first.click()
    expect(page.locator("output[for=terms]")).to_have_text(f"complexity {formulas[0]['complexity']}")
    page.evaluate(f"release({len(found) - 2})")
    expect(points).to_have_count(nearer[-1])
    expect(page.locator("output[for=terms]")).to_have_text(f"complexity {formulas[0]['complexity']}")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".formulas")).to_contain_text(f"{nearer[-1]} were found before the search was stopped")
    page.evaluate("delete window.release")
    page.get_by_role("button", name="Compute it").click()
    page.wait_for_function("() => window.release")
    page.evaluate("release(-1)")
    page.locator("main[aria-busy=false]").wait_for()
    expect(points).to_have_count(sum(one["r2"] is not None for one in formulas))
    expect(page.locator(".formulas")).not_to_contain_text("so far")
    page.wait_for_url(f"**complexity={formulas[0]['complexity']}*")  # what was chosen meanwhile
    assert tab.problems == []


def test_the_report_shows_answers_as_they_are_found(pair, open_tab):
    """Each is in its place as soon as it is there, and stays when others come."""
    findings = pair.get(f"{HERE}/report").json()["findings"]
    tab = open_tab(pair)
    page = tab.page
    page.add_init_script(SLOWLY)
    page.goto(f"{tab.base}/explorer/#/report?model=m")
    page.wait_for_function("() => window.release")
    page.evaluate("release(3)")
    expect(page.locator(".finding")).to_have_count(3)
    expect(page.locator(".report")).to_have_css("opacity", "1")
    expect(page.locator(".finding").first).to_contain_text(findings[0]["question"])
    page.locator(".finding summary").first.click()
    page.evaluate("release(-1)")
    expect(page.locator(".finding")).to_have_count(len(findings))
    expect(page.locator(".finding details[open]")).to_have_count(1)
    expect(page.get_by_role("button", name="CSV")).to_be_enabled()
    assert tab.problems == []


@pytest.mark.parametrize(("name", "member"), [("Python", "python"), ("LaTeX", "latex"), ("Text", "expression")])
def test_a_formula_is_copied(pair, open_tab, name, member):
    """The copied Python, LaTeX or text is that of the API."""
    page = open_tab(pair, permissions=["clipboard-read", "clipboard-write"]).show("formula?model=m&complexity=100000")
    page.get_by_role("button", name=f"Copy {name}").click()
    expect(page.locator(".card .said")).to_have_text(f"copied as {name}")
    assert page.evaluate("navigator.clipboard.readText()") == pair.get(f"{HERE}/formula").json()["formulas"][-1][member]


MEANINGS = [
    "1.5*u3 - 2*u5/(u7 + 1) - 0.3",
    "-0.132*(1.12*u1 + 0.046)**5 - exp(-(1.26*u9 - 0.19)**2)",
    "2**-u1 - -u2**2 - (u1 - (u2 - u3))",
    "Max(sin(u1), abs(u2))*sqrt(4.5e-3 + u3**2)*1.5e2",
    "u1/u2/u3*u1 - (u1 + u2)*(u1 - u2)",
]


@pytest.mark.parametrize("expression", MEANINGS)
def test_a_formula_is_read_as_python_reads_it(pair, open_tab, expression):
    """The parsed tree that is typeset has the value of the Python text."""
    page = open_tab(pair).show("model?model=m")
    values = {"u1": 0.7, "u2": -1.3, "u3": 2.1, "u5": 0.4, "u7": 1.9, "u9": -0.2}
    found = page.evaluate(
        """([expression, values]) => import("./mathml.js").then(({ parse }) => {
          const calls = { exp: Math.exp, sin: Math.sin, abs: Math.abs, sqrt: Math.sqrt, Max: Math.max };
          const value = (tree) => {
            if (tree.kind === "leaf") return values[tree.text] ?? Number(tree.text);
            const parts = tree.parts.map(value), [a, b] = parts;
            if (tree.kind === "call") return calls[tree.text](...parts);
            if (parts.length === 1) return -a;
            return { "+": a + b, "-": a - b, "*": a * b, "/": a / b, "**": a ** b }[tree.text];
          };
          return value(parse(expression));
        })""",
        [expression, values],
    )
    names = {"exp": math.exp, "sin": math.sin, "abs": abs, "sqrt": math.sqrt, "Max": max}
    assert found == pytest.approx(eval(expression, {"__builtins__": {}}, names | values))


def test_the_card_describes_the_model(pair, open_tab):
    """Size, data, metrics, origin and verification are those of the API."""
    tab = open_tab(pair)
    page = tab.show("model?model=m")
    model = pair.get(HERE).json()
    card = page.locator("main")
    units = model["architecture"]["lstm"]["hidden_size"]
    for said in (
        f"{units} units",
        " → ".join(map(str, model["architecture"]["head"]["width"])),
        f"{len(model['features'])} features over {model['lookback']} steps",
        f"{model['reference_windows']} windows",
        "test R²",
        model["provenance"]["library"],
        model["checkpoint"],
        "2 of 2, 1",
        "on its test rows. Errors in other views are those of the reference windows, which are others",
    ):
        expect(card).to_contain_text(said)
    expect(page.locator(".verdict")).to_have_text("verified" if model["provenance"]["verified"] else "not verified")
    expect(page.get_by_role("region", name="Features").locator("tbody tr")).to_have_count(len(model["features"]))
    assert tab.problems == []


def test_a_classifier_is_told_in_its_own_terms(pair, open_tab):
    """Its card names classes and lines, its amounts are percentage points, and a ReLU is neither a spline nor a sine.

    Without actual values nothing is said of errors.
    """
    tab = open_tab(pair)
    page = tab.show("model?model=classes")
    expect(page.locator(".lead")).to_contain_text("The probability of up, same, down from 3 features of one step.")
    expect(page.locator("main")).to_contain_text("12 edges, straight lines and straight lines after relu")
    expect(page.locator("main")).not_to_contain_text("undefined")
    page = tab.show("features?model=classes&output=same%2B1")
    expect(page.locator("main")).to_contain_text("amounts in percentage points")
    expect(page.locator("main")).not_to_contain_text("Error when shuffled")
    page = tab.show("edge?model=classes&output=same%2B1&edge=head/1/0/1")
    first, *others = page.locator("code").all_inner_texts()
    assert "max(x, 0)" in first and len(others) == 1
    expect(page.locator(".drawing")).not_to_contain_text("spline")
    expect(tab.show("formula?model=classes&output=same%2B1").get_by_role("alert")).to_have_text(
        "There is no formula for it: a formula needs outputs that are functions of one node, but softmax mixes them."
    )
    assert tab.problems == []


def test_the_metrics_of_many_outputs_are_a_table(pair, open_tab):
    """Each output has a row, and each metric a column; others stand above."""
    page = open_tab(pair).show("model?model=m")
    found = page.evaluate("""() => import("./views/model.js").then(({ outputTable }) => {
      const metrics = { test_r2: 0.5, "test_r2 a+1": 0.25, "test_r2 a+2": 0.75, "test_coverage 0.8 a+1": 0.7 };
      const [place] = outputTable({ metrics, outputs: ["a+1", "a+2"], targets: [{ unit: "K" }] });
      return [...place.querySelectorAll("tr")].map((row) => [...row.children].map((cell) => cell.textContent));
    })""")
    assert found == [
        ["Output", "test R²", "test coverage of the 80 % interval"],
        ["a+1", "0.250", "70.0 %"],
        ["a+2", "0.750", ""],
    ]
