"""Results render in terminals, in untrusted notebooks and as files."""

from __future__ import annotations

import copy
import pickle
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from functools import cached_property
from xml.etree import ElementTree

import bleach
import numpy as np
import orjson
import pytest
from factories import make_model, make_windows, with_intervals
from pictures import SVG, draw, groups
from PIL import Image

from kanmodel import DataError, Model, UnknownNameError
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import ModelConfig
from kanmodel.result import ReadOnlyDict, make_read_only
from kanmodel.show.style import DARK, LIGHT, LOOKS

NAMES = ("f0", "f1", "f2", "f3")
DIFFERENCES = ("counterfactual", "comparisons", "model comparison", "changes")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.of(make_model(targets=("a", "b")))


@pytest.fixture(scope="module")
def windows(model):
    return make_windows(model, 5)


HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>&amp;]]></style>",
    "שלום evil عالم",
    "👩‍🔬 température 温度",
    "# heading",
    "n" * 200,
)
# What JupyterLab 4 keeps of HTML in a notebook that is not trusted: packages/apputils/src/sanitizer.ts.
TAGS = """a b bdi caption code details div em figcaption figure h1 h2 h3 h4 i img li ol p pre s span strong sub summary
    sup table tbody td tfoot th thead tr ul"""
ELEMENTS = """html head meta title style body div figure img details summary table caption thead tbody tr th td p h1 h2
    h3 pre code bdi ul li strong span svg desc g rect circle path polyline text"""
ATTRIBUTES = {
    "*": ["class", "dir", "hidden", "lang", "title"],
    "details": ["open"],
    "img": ["align", "alt", "border", "height", "hspace", "src", "width"],
    "td": ["colspan", "rowspan", "scope"],
    "th": ["colspan", "rowspan", "scope"],
}


def sanitise(html):
    """The HTML that remains in a notebook that is not trusted, without the text of styles."""
    without = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    left = bleach.clean(without, tags=set(TAGS.split()), attributes=ATTRIBUTES, protocols={"data"}, strip=True)
    return re.sub("(<img [^>]*)>", r"\1/>", left)


def make_linked(windows):
    """Two windows of which the second begins a step later."""
    rows = np.concatenate(windows[:2])
    return np.stack([rows[start : start + windows.shape[1]] for start in (0, 1)])


def results_of(model, windows):
    """Every result of a model, by name."""
    explained = model.explain(windows)
    return {
        "model": model,
        "explanation": explained[0],
        "explanations": explained,
        "explanations of outputs": model.explain(windows[:1], outputs="all"),
        "importance": model.importance(),
        "topology": model.topology(fidelity=0.9),
        "edge": model.edge("lstm:1", "head:1:2"),
        "report": model.report(),
        "what if": model.what_if(windows, shift=(-1, 1, 3)),
        "ablation": model.ablate(windows, fidelity=0.9),
        "counterfactual": model.counterfactual(windows[:1], at_least=1e9),
        "comparisons": model.compare(None, windows[:2], windows[1:3]),
        "model comparison": model.compare(model),
        "changes": model.changes(make_linked(windows), last=None),
        "trust": model.trust(windows),
        "drift": model.drift(model.reference.windows, model.reference.windows[:24] + 0.5),
        "formula": Model.of(make_model("head", n_features=2, n_hidden=1)).formula(),
    }


@pytest.fixture(scope="module")
def results(model, windows):
    return results_of(model, windows)


@pytest.fixture(scope="module")
def hostile():
    """The results of a model whose names contain markup, and whose own name, a file's, control characters too."""
    loaded = make_model(n_features=len(HOSTILE), targets=(HOSTILE[0],))
    features = [replace(old, name=name) for old, name in zip(loaded.config.features, HOSTILE, strict=True)]
    target = replace(loaded.config.targets[0], unit=HOSTILE[1])
    loaded.network.config = replace(loaded.config, features=tuple(features), targets=(target,))
    named = Model.of(loaded, HOSTILE[1] + "\u202eevil\u202c \x1b[31mred\x00\ud800\n# heading")
    return {name: result for name, result in results_of(named, make_windows(loaded, 3)).items() if name != "formula"}


def tables_of(result):
    """The tables with a header in a result's page, as rows of text."""
    page = ElementTree.fromstring(result.html())
    return [
        [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
        for table in page.iter("table")
        if table.find("thead") is not None
    ]


def test_everything_shows_itself_as_a_short_table(model, windows):
    """The repr of each result fits a terminal as plain text, and names its subject."""
    shown = {
        "sha256|not saved": model,
        "for 5 windows": model.explain(windows),
        "converged": model.explain(windows[0]),
        "verdict": model.importance(),
        "edges kept": model.topology(),
        "percentile": model.edge("lstm:1", "head:1:2"),
    }
    for text, result in shown.items():
        lines = repr(result).splitlines()
        assert re.search(text, repr(result)) and len(lines) <= 20 and max(map(len, lines)) <= 160
        assert "object at 0x" not in repr(result) and "\x1b" not in repr(result)
    assert "# How the model forecasts" in repr(model.report())


@pytest.mark.parametrize("number", [0, 3])
def test_the_waterfall_goes_from_the_baseline_to_the_forecast(model, windows, number):
    """Each feature has a bar as long as its contribution, which starts where the previous one ends."""
    found = model.explain(windows)[number]
    picture = draw(found)
    steps = groups(picture, "step")
    order = np.argsort(-np.abs(found.contributions[0]))
    assert [step.get("data-feature") for step in steps] == [NAMES[feature] for feature in order]
    ends = [next(iter(picture.iter(f"{SVG}circle"))).get("cx")]
    ends += [re.match(r"M(\S+)", step.find(f"{SVG}path").get("d"))[1] for step in steps]
    ends = np.array(ends, dtype=float)
    bars = np.array([[step.find(f"{SVG}rect").get(key) for key in ("x", "width")] for step in steps], dtype=float)
    np.testing.assert_allclose(bars[:, 0], np.minimum(ends[1:], ends[:-1]), atol=0.02)
    np.testing.assert_allclose(bars[:, 1], np.maximum(np.abs(np.diff(ends)), 0.5), atol=0.02)
    amounts = found.contributions[0][order]
    np.testing.assert_allclose(np.diff(ends) / np.abs(np.diff(ends)).max(), amounts / np.abs(amounts).max(), atol=1e-3)
    last = [circle.get("cx") for circle in picture.iter(f"{SVG}circle")][-1]
    assert abs(float(last) - ends[-1]) < 0.5


def test_a_waterfall_of_many_features_counts_the_rest():
    """Beyond fifteen features the rest is one bar, and all bars sum to the whole change."""
    model = Model.of(make_model(n_features=40))
    found = model.explain(make_windows(model, 1))
    steps = [step.get("data-feature") for step in groups(draw(found), "step")]
    assert len(steps) == 16 and steps[-1] == "25 more features"


def test_several_windows_show_a_table(model, windows):
    """Several windows show tables of mean magnitudes and of the first windows; a picture needs a single one."""
    found = model.explain(windows)
    (_, *means), each = tables_of(found)
    sizes = np.abs(found.contributions).mean(axis=0)
    assert [row[0] for row in means] == [NAMES[feature] for feature in np.argsort(-sizes)]
    assert float(means[0][1]) == pytest.approx(sizes.max(), rel=1e-3)
    assert [float(row[1]) for row in each[1:]] == pytest.approx(found.predictions.tolist(), rel=1e-3)
    assert "Explanation of a+1 (K) for 5 windows" in found._repr_html_()
    with pytest.raises(DataError, match=r"shows one window, but there are 5 without times: take one, as e\[0\]"):
        found.svg()


def test_effects_are_shown_with_contributions(model, windows):
    """If requested, tables have removed, alone and together, and the waterfall shows two of them on hover."""
    found = model.explain(windows, effects=True)
    for row in found.table():
        place = row["window"], NAMES.index(row["feature"])
        assert row["removed"] == found.effects.removed[place] and row["alone"] == found.effects.alone[place]
        assert row["together"] == row["removed"] - row["alone"]
    assert "removed" not in model.explain(windows).table()[0]
    head, *rows = tables_of(found)[0]
    assert head[3:] == ["mean |removed|", "mean |alone|", "mean |together|"]
    for name, *values in rows:
        expected = np.abs(found.effects.removed[:, NAMES.index(name)]).mean()
        assert float(values[2]) == pytest.approx(expected, rel=1e-3)
    (table,) = tables_of(found[1])
    assert table[0] == repr(found[1]).splitlines()[5].split()
    assert table[0] == ["feature", "contribution", "removed", "alone", "together"]
    for group in groups(draw(found[1]), "step"):
        title, number = group.find(f"{SVG}title").text.replace("\u2212", "-"), NAMES.index(group.get("data-feature"))
        shown = re.search(r"; removed (\S+) K, alone (\S+) K; newest", title).groups()
        effects = found.effects.removed[1, number], found.effects.alone[1, number]
        assert [*map(float, shown)] == pytest.approx(effects, abs=0.01)


@pytest.mark.thorough("draws 900 edges")
def test_a_large_network_stays_under_a_megabyte():
    """With nearly all edges of a [64, 16, 1] head on 20 features the picture is below 1 MB, and has 300 curves."""
    model = Model.of(make_model(hidden_size=64, n_hidden=16, n_features=20, lookback=1, n_reference=2, dtype="float32"))
    found = model.topology(metric="contribution", thresholds={"node": 0, "edge": 0, "input": 0})
    assert sum(edge.kept for edge in found.kan_edges) > 900
    assert len(found.html()) < 1e6 and len(found._repr_html_()) < 1e6
    picture = draw(found)
    assert sum(part.get("class") == "curve" for part in picture.iter(f"{SVG}polyline")) == 300


def test_results_are_pages_and_pieces_that_run_and_load_nothing(results):
    """Each result is a page for a file and a fragment for a notebook, below 1 MB, without scripts or URLs."""
    for name, result in results.items():
        page, piece = result.html(), result._repr_html_()
        assert page.startswith("<!DOCTYPE html>") and 'charset="utf-8"' in page and "<html" not in piece, name
        for html in (page, re.sub('src="data:image/svg[^"]+"', "", piece)):
            assert len(html) < 1e6
            assert not re.search(r"<script|<link|<iframe|<foreignObject|\son\w+=|url\(|@import|href|src=", html), name
        assert set(re.findall(r"https?://[^\"]+", page)) <= {"http://www.w3.org/2000/svg"}
        assert "prefers-color-scheme:dark" in page
        whole, _ = ElementTree.fromstring(page), ElementTree.fromstring(piece)
        if name != "report" and hasattr(result, "svg") and name != "explanations":
            (inner,) = whole.iter(f"{SVG}svg")
            alone = ElementTree.fromstring(result.svg())
            assert [part.text for part in inner.iter()] == [part.text for part in alone.iter()]
        has_picture = name == "report" or hasattr(result, "svg") * (name != "explanations")
        assert ("<img" in piece) == ("<svg" in page) == has_picture


def test_a_notebook_that_is_not_trusted_shows_all(results):
    """JupyterLab's sanitiser removes svg and style elements, but the picture and all text remain."""
    for name, result in results.items():
        piece = result._repr_html_()
        left = sanitise(piece)
        assert "kanscope-result{" not in left, name
        before, after = (ElementTree.fromstring(html) for html in (piece, left))
        for style in before.iter("style"):
            style.text = ""
        assert "".join(before.itertext()) == "".join(after.itertext())
        assert [image.get("src") for image in before.iter("img")] == [image.get("src") for image in after.iter("img")]
        assert all(image.get("alt") for image in after.iter("img"))


@pytest.mark.parametrize("name", ["explanation", "importance", "topology", "edge", "what if", *DIFFERENCES])
def test_a_picture_needs_no_stylesheet(results, name):
    """Each shape and text has literal colours for its theme, and only `auto` needs a style."""
    for theme, palette in (("light", LIGHT), ("dark", DARK), ("auto", LIGHT)):
        text = results[name].svg(theme=theme)
        assert "var(" not in text and "currentColor" not in text
        root = ElementTree.fromstring(text)
        assert len(list(root.iter(f"{SVG}style"))) == (theme == "auto")
        used = {
            part.get(paint)
            for part in root.iter()
            for paint in ("fill", "stroke")
            if part.get(paint) not in (None, "none")
        }
        assert used <= set(palette.values()) and {palette["ink"], palette["paper"]} <= used
        for part in root.iter():
            if part.tag.removeprefix(SVG) in ("rect", "circle", "path", "polyline"):
                assert part.get("fill") or (part.tag == f"{SVG}path" and part.get("stroke")), part.attrib
    with pytest.raises(UnknownNameError, match="theme must be one of light, dark, auto, but is 'pink'"):
        results[name].svg(theme="pink")


@pytest.mark.skipif(
    shutil.which("rsvg-convert") is None, reason="rsvg-convert is missing: apt-get install librsvg2-bin"
)
@pytest.mark.parametrize("name", ["explanation", "importance", "topology", "edge", "what if", *DIFFERENCES])
def test_librsvg_draws_the_colours(results, name, tmp_path):
    """Outside browsers the background of a picture has the theme's colour, and most of it is empty."""
    for theme, paper in (("light", LIGHT["paper"]), ("auto", LIGHT["paper"]), ("dark", DARK["paper"])):
        results[name].svg(tmp_path / "p.svg", theme=theme)
        subprocess.run(["rsvg-convert", tmp_path / "p.svg", "-o", tmp_path / "p.png"], check=True)
        with Image.open(tmp_path / "p.png") as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        of_paper = (pixels == [int(paper[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=1)
        assert of_paper[0] and of_paper[-1] and 0.5 < of_paper.mean() < 0.99


def test_classes_of_the_explorer_are_its_own():
    """The library's pictures have no rules for CSS classes that the explorer uses."""
    assert not {"up", "down", "lit", "choosing", "flowing", "edge", "node", "feature", "output"} & set(LOOKS)


def test_results_go_into_files(results, tmp_path):
    """Methods that write files write what they return, in UTF-8."""
    found = results["topology"]
    assert found.svg(tmp_path / "n.svg") == (tmp_path / "n.svg").read_text("utf-8")
    assert found.html(str(tmp_path / "n.html"), theme="dark") == (tmp_path / "n.html").read_text("utf-8")
    assert DARK["paper"] in found.html(theme="dark") and "prefers-color-scheme" not in found.html(theme="dark")


def test_hostile_names_stay_text(hostile, tmp_path):
    """Names with markup, quotes, control or bidirectional characters, or of great length are shown literally."""
    for name, result in hostile.items():
        result.html(tmp_path / "page.html")
        for html in (result.html(), result._repr_html_()):
            tree = ElementTree.fromstring(html)
            assert {part.tag.removeprefix(SVG) for part in tree.iter()} <= set(ELEMENTS.split()), name
            assert not any(attribute.startswith("on") for part in tree.iter() for attribute in part.attrib)
            assert not re.search("[\u202a-\u202e\x00-\x08\x1b\ud800]", html)
        shown = repr(result)
        assert not re.search("[\u202a-\u202e\x00-\x08\x1b\ud800]", shown)
        if name != "report":
            assert len(shown.splitlines()) <= 20 and max(map(len, shown.splitlines())) <= 400, name


def test_the_heat_map_holds_every_step(results):
    """For any number of features and steps, the cells of the heat map sum to the contributions."""
    for n_features, lookback, n_rows, n_columns in ((64, 168, 25, 42), (4, 6, 4, 6), (25, 49, 25, 25)):
        steps = np.random.default_rng(0).normal(size=(lookback, n_features))
        names, total = tuple(f"f{i}" for i in range(n_features)), steps.sum(axis=0)
        numbers = {"contributions": total[None], "steps": steps[None], "windows": None}
        found = replace(results["explanation"], features=names, **numbers)
        picture = draw(found)
        rows = groups(picture, "row")
        assert len(rows) == n_rows and len(found.svg()) < 4e5
        assert all(n_columns - 4 <= len(list(row.iter(f"{SVG}rect"))) <= n_columns for row in rows)
        cells = [cell for row in rows for cell in row.iter(f"{SVG}rect")]
        titles = [cell.find(f"{SVG}title").text for cell in cells]
        amounts = np.array([float(re.search(r": ([+-]?[\d.e-]+)", title)[1]) for title in titles])
        opacity = [float(cell.get("fill-opacity")) for cell in cells]
        np.testing.assert_allclose(opacity, np.abs(amounts) / np.abs(amounts).max(), atol=0.01)
        assert [cell.get("fill") for cell in cells] == [LIGHT["up" if each > 0 else "down"] for each in amounts]
        assert amounts.sum() == pytest.approx(steps.sum(), abs=0.05 * np.sqrt(steps.size))
        text = "".join(picture.itertext())
        assert ("more features" in rows[-1].get("data-feature")) == (n_features > 25)
        assert ("steps together" in text) == (lookback > 48)


def test_bars_of_importance_are_as_long_as_it_is(results):
    """Each feature has a bar of its mean |contribution|, with its interval, share and verdict."""
    found = results["importance"]
    drawn = groups(draw(found), "feature")
    widths = np.array([float(group.find(f"{SVG}rect").get("width")) for group in drawn])
    values = np.array([row.mean_abs_contribution for row in found.features])
    np.testing.assert_allclose(widths / widths.max(), values / values.max(), atol=1e-3)
    for group, row in zip(drawn, found.features, strict=True):
        left = float(group.find(f"{SVG}rect").get("x"))
        ends = np.array(re.findall(r"M(\S+) \S+H(\S+)", group.find(f"{SVG}path").get("d"))[0], dtype=float)
        np.testing.assert_allclose((ends - left) / widths.max(), np.array(row.interval) / values.max(), atol=1e-3)
        assert [text.text for text in group.iter(f"{SVG}text")] == [row.name, f"{row.share:.1%}", row.verdict]


def test_many_features_are_counted_in_the_bars(results):
    """Beyond thirty features the rest is one line with its share."""
    row = results["importance"].features[0]
    rows = tuple(replace(row, name=f"f{i}", share=0.02) for i in range(50))
    picture = replace(results["importance"], features=rows).svg()
    assert picture.count('class="feature"') == 30 and "20 more features" in picture and "40.0%" in picture


def test_one_question_of_a_report(results):
    """A report returns a single question by its id, as a report."""
    report = results["report"]
    one = report["shapes"]
    assert [finding.id for finding in one.findings] == ["shapes"] and one.findings[0] in report.findings
    shown = "".join(ElementTree.fromstring(one.html()).itertext())
    assert one.findings[0].answer in shown.replace("\u00a0", " ")
    with pytest.raises(UnknownNameError, match="no question 'size'; the questions are skill, forecast, accuracy"):
        report["size"]


def test_a_formula_is_latex_too(results):
    """The LaTeX of a formula has its features as symbols, even if their names have a meaning in sympy."""
    assert re.fullmatch(r"\$\\displaystyle .*f_\{0\}.*\$", results["formula"]._repr_latex_())
    loaded = make_model("head", n_features=2, n_hidden=1)
    features = [replace(f, name=name) for f, name in zip(loaded.config.features, ("E", "I"), strict=True)]
    loaded.network.config = replace(loaded.config, features=tuple(features))
    assert "E_" in Model.of(loaded).formula()._repr_latex_()


def test_a_model_shows_its_card_without_computing(model, monkeypatch):
    """The card of a model has its figures and features, and computes nothing."""
    monkeypatch.setattr("kanmodel.structure.questions.measure_importance", lambda *_: pytest.fail("measured"))
    fresh = Model.of(model, "card")
    page = "".join(ElementTree.fromstring(fresh.html()).itertext())
    assert "LSTM of 5 units -> readout last -> head [5, 3, 2]" in page and "test_r2 0.5" in page
    ((head, *rows),) = tables_of(fresh)
    assert [row[0] for row in rows] == list(NAMES) and head[0] == "name"
    assert [row["name"] for row in fresh.table()] == list(NAMES)


def test_groups_and_segments_are_shown(model, windows):
    """Table, terminal, page and picture have them, and each window's sum is that of the features."""
    pair, segments = {"pair": ["f0", "f3"]}, {"late": (-2, 0), "early": (-5, -3)}
    grouped = model.explain(windows[:1], groups=pair, segments=segments)
    assert grouped.group_names == ("pair", "f1", "f2")
    assert grouped.contributions_by_group.shape == (1, 3, 2)
    rows = grouped.table("group")
    assert [(row["group"], row["segment"]) for row in rows[:2]] == [("pair", "late"), ("pair", "early")]
    total = sum(row["contribution"] for row in rows)
    assert total == pytest.approx(grouped.contributions.sum(), abs=1e-9)
    assert all(word in repr(grouped) for word in ("pair", "late", "early"))
    assert "f3" not in repr(grouped)
    root = draw(grouped)
    assert {step.get("data-feature") for step in groups(root, "step")} == {"pair", "f1", "f2"}
    assert {"late", "early", "Feature by segment"} <= {text.text for text in root.iter(f"{SVG}text")}
    assert "Contributions by group" in grouped.html()
    nested = model.explain(windows[:1], groups={**pair, "three": ["pair", "f1"]})
    assert {step.get("data-feature") for step in groups(draw(nested), "step")} == {"three", "f2"}  # the outermost alone
    assert nested.group_names == ("pair", "three", "f2") and grouped[0].group_names == grouped.group_names


def test_groups_are_the_checkpoints_unless_others_are_asked_for(model, windows):
    """None and an empty mapping disable groups; the contributions of features stay the same."""
    grouped = model.with_groups({"pair": ["f0", "f3"]})
    by_default = grouped.explain(windows)
    assert by_default.groups == {"pair": ("f0", "f3")}
    assert all(grouped.explain(windows, groups=none).group_names == NAMES for none in (None, {}))
    assert grouped.explain(windows, groups={"two": ["f1", "f2"]}).group_names == ("two", "f0", "f3")
    assert (by_default.contributions == model.explain(windows).contributions).all()
    assert (by_default.contributions_by_group[:, 0] == by_default.contributions[:, [0, 3]].sum(axis=1)).all()


@pytest.mark.parametrize("asked", [{"groups": "others"}, {"groups": {"g": ["z"]}}, {"segments": {"s": (-99, 0)}}])
def test_groups_that_cannot_be_are_refused_before_anything_is_computed(model, windows, asked, monkeypatch):
    """The error has the path, and nothing is computed."""
    monkeypatch.setattr("kanmodel.attribution.explanation.explain_outputs", None)
    with pytest.raises(DataError, match=r"^(groups|segments)"):
        model.explain(windows, **asked)


def test_global_results_state_the_reference_windows():
    """Text and HTML of each global result end with the span of the reference windows, and with what is unlike."""
    loaded = make_model("head", n_features=2, n_hidden=1)
    first, second = loaded.config.features
    wide = Model.of(loaded.with_config(replace(loaded.config, features=(replace(first, min=-1e3, max=1e3), second))))
    edge = wide.topology().kan_edges[0]
    results = [wide.importance(), wide.topology(), wide.report(), wide.formula(), wide.compare(wide)]
    for result in [*results, wide.edge(edge.source, edge.target)]:
        assert result.reference == wide.reference.span
        assert "f0" in [each.feature for each in result.reference.unlike_training]
        note = f"Reference: 160 windows, {wide.reference.times[0]} to {wide.reference.times[-1]}; unlike training: f0 ("
        assert repr(result).split("\n")[-1].startswith(note)
        assert note in result.html() and note in result._repr_html_()
    assert "differ in them from the training rows" in wide.report()["trust"].markdown()
    assert "unlike training: f0" in wide.compare(wide).markdown()


def list_places(value, path, seen):
    """Every array, dictionary, list, set and dataclass that is reached from a result, with where it is."""
    if id(value) in seen or isinstance(value, Forecaster | ModelConfig):
        return
    seen[id(value)] = value
    of_dataclass = {one.name: getattr(value, one.name) for one in fields(value)} if is_dataclass(value) else {}
    kind = type(value)
    cached = {of: getattr(value, of) for of in dir(kind) if isinstance(getattr(kind, of, None), cached_property)}
    for name, member in (of_dataclass | cached).items():
        if not name.startswith("_"):
            yield from list_places(member, f"{path}.{name}", seen)
    if isinstance(value, dict):
        for key, member in value.items():
            yield from list_places(member, f"{path}[{key!r}]", seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for number, member in enumerate(value):
            yield from list_places(member, f"{path}[{number}]", seen)
    if of_dataclass or isinstance(value, np.ndarray | dict | list | set):
        yield path, value


CHANGES = {
    dict: [lambda d: d.update(a=1), lambda d: d.clear(), lambda d: d.__setitem__("a", 1), lambda d: d.setdefault("a")],
    np.ndarray: [lambda a: a.__setitem__(..., a), lambda a: a.sort()],
}


def test_results_are_read_only(results, model, windows):
    """No array, dictionary or dataclass that any result leads to can be written to, and nothing is a list or a set."""
    sure = Model.of(with_intervals(make_model()))
    column = {f"f{number}": np.zeros(30) for number in range(4)} | {"y": np.arange(30.0)}
    more = {
        "forecasts": sure.predict(windows, intervals="all"),
        "backtest": sure.backtest(column),
        "effects": model.explain(windows, effects=True, groups={"pair": ["f0", "f1"]}, segments={"new": (-2, 0)}),
        "faithfulness": model.faithfulness(),
        "reference": model.reference,
        "metrics": model.metrics,
        "range": model.feature_range,
    }
    for name, result in (results | more).items():
        places = list(list_places(result, name, {}))
        assert places or isinstance(result, Model)
        for path, value in places:
            if is_dataclass(value) and not isinstance(value, Model):
                member = fields(value)[0].name if fields(value) else "member"
                with pytest.raises(FrozenInstanceError):
                    setattr(value, member, None)
            assert not isinstance(value, list | set), path
            for kind, changes in CHANGES.items():
                for change in changes if isinstance(value, kind) and (kind is dict or value.ndim) else ():
                    with pytest.raises((TypeError, ValueError), match="read-only"):
                        change(value)
                        pytest.fail(f"{path} can be changed")


def test_what_one_thread_writes_is_no_answer_of_another(model):
    """It raises, and the next one has the same numbers; copies can be changed."""
    before = model.importance().contributions.copy()
    with ThreadPoolExecutor(4) as pool:
        for writing in [pool.submit(lambda: model.importance().contributions.fill(0)) for _ in range(8)]:
            with pytest.raises(ValueError, match="read-only"):
                writing.result()
    np.testing.assert_array_equal(model.importance().contributions, before)
    model.importance().contributions.copy()[:] = 0


def test_a_callers_own_arrays_stay_writable(windows):
    """A result has a view of them."""
    mine = {"a": windows, "b": [{"c": {1}}]}
    found = make_read_only(mine)
    windows[0] += 0
    assert mine["b"] == [{"c": {1}}] and found == {"a": found["a"], "b": ({"c": frozenset({1})},)}
    assert np.shares_memory(found["a"], windows) and not found["a"].flags.writeable


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_read_only_dictionaries_are_copied_and_written(copied):
    """By copy, pickle and orjson as any dictionary; `dict` and ``|`` give one that can be changed."""
    one = make_read_only({"a": {"b": [1, 2.5]}})
    assert copied(one) == one and type(copied(one)) is ReadOnlyDict
    assert orjson.dumps(one) == b'{"a":{"b":[1,2.5]}}'
    assert type(one | {"c": 3}) is type(dict(one)) is dict


def test_pictures_and_pages_state_their_source(windows):
    """Model, checkpoint and time are below every picture, and at the end of every page."""
    model = Model.of(replace(make_model(), sha256="0123456789abcdef" * 4), "weather")
    results = [model.explain(windows[0]), model.what_if(windows[0], "f0"), model.importance()]
    results += [model.topology(fidelity=0.9), model.edge("head:0:0:0"), model.report()]
    for result in results:
        assert result.source.startswith("weather, checkpoint 0123456789ab")
        assert result.source in result.html().removesuffix("</p></div></body></html>\n")[-400:]
        if hasattr(result, "svg"):
            assert any(text.text == result.source for text in draw(result).iter(f"{SVG}text"))
    frame = {f"f{number}": windows[0, :, number] for number in range(4)}
    assert model.what_if(frame).source == "weather, checkpoint 0123456789ab"
    assert replace(results[1], times=("2026-01-01",)).source.endswith(", window of 2026-01-01")
    assert results[2].source.endswith(f", reference: {model.importance().reference}".split(";")[0])
    assert Model.of(make_model()).origin == "model, not saved"
