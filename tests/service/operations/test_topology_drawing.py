"""Pictures of the network and of an edge agree with the JSON of the same resource."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from factories import make_model
from hypothesis import example, given
from hypothesis import strategies as st

from kanmodel.errors import NonFiniteError
from kanmodel.show.edge import draw_edge
from kanmodel.show.layout import lay_out, spread
from kanmodel.show.network import (
    N_CURVES,
    PADDING,
    curved_edges,
    describe_cost,
    draw_topology,
    limit_links,
)
from kanmodel.show.style import DARK
from kanmodel.show.svg import scale_over
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule, Thresholds
from kanmodel.structure.topology import build_topology
from kanmodel.text import shorten_names

SVG = "{http://www.w3.org/2000/svg}"
NETWORKS = ["nyc-weather", "two", "front", "head"]


@pytest.fixture(scope="module")
def curve():
    """An edge of a head."""
    model = make_model("head")
    topology = build_topology(model, measure_importance(model, 0), PruningRule())
    return sample_edges(model, [topology.edge("head", 0, 1, 1)])[0]


def ask(service, path, **query):
    """The JSON and the picture of a resource."""
    if path.startswith("two/"):
        query["output"] = "b+2"
    answers = [service.get(f"/v1/models/{path}", params={**query, "format": f}) for f in ("json", "svg")]
    assert [answer.status_code for answer in answers] == [200, 200]
    return answers[0].json(), ElementTree.fromstring(answers[1].content)


def groups(picture, attribute):
    """The groups with a given attribute."""
    return [group for group in picture.iter(f"{SVG}g") if attribute in group.attrib]


def places(groups):
    """The fields that identify an edge, as text."""
    return Counter(
        tuple(str(group[name]) for name in ("source", "target", "stage", "layer", "i", "j")) for group in groups
    )


def edges_of(picture, kept):
    """The edges of a picture, read from its data attributes."""
    found = [
        {name.removeprefix("data-"): value for name, value in group.attrib.items()}
        for group in groups(picture, "data-source")
    ]
    return [edge for edge in found if edge["kept"] == kept]


def parts(group, tag, class_):
    """The elements of a class within a group."""
    return [part for part in group.iter(f"{SVG}{tag}") if class_ in part.get("class", "").split()]


def points_of(line):
    return np.array([point.split(",") for point in line.get("points").split()], dtype=float)


def draw(model, rule=None, n_points=25, **options):
    """The picture of a network, drawn without a server."""
    topology = build_topology(model, measure_importance(model, 0), rule or PruningRule())
    curves = sample_edges(model, [edge for edge in topology.kan_edges if edge.kept], n_points)
    return topology, ElementTree.fromstring(draw_topology(topology, curves=curves, **options))


def rename(model, names):
    """The model with its first features renamed."""
    features = [replace(feature, name=name) for feature, name in zip(model.config.features, names, strict=False)]
    model.network.config = replace(model.config, features=(*features, *model.config.features[len(names) :]))
    return model


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("query", [{}, {"fidelity": 1}, {"fidelity": 0.6, "color": "contribution"}, {"pruned": False}])
def test_parts_are_drawn_once(service, name, query):
    """The nodes and edges are those of the JSON, marked as kept or pruned; others are folded into counted groups."""
    described, picture = ask(service, f"{name}/topology", **query)
    nodes = Counter((group.get("data-node"), group.get("data-kept")) for group in groups(picture, "data-node"))
    assert nodes == Counter((node["id"], str(node["kept"]).lower()) for node in described["nodes"])
    for kept in (True, False):
        expected = [edge for edge in described["edges"] if edge["kept"] is kept]
        assert places(edges_of(picture, str(kept).lower())) == places(expected)
    assert len(picture.findall(".//*[@data-kept]")) == len(described["nodes"]) + len(described["edges"])
    folded = sum(int(group.get("data-folded")) for group in groups(picture, "data-folded"))
    counts = described["graph"]["nodes"]
    assert folded == (counts["total"] - counts["kept"] if query.get("pruned", True) else 0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scale", ["layer", "own"])
def test_a_box_holds_the_curve_of_its_edge(service, name, scale):
    """Mapped back from its box, a curve equals that of the API; link and curve have the opacity that the API states."""
    described, picture = ask(service, f"{name}/topology", scale=scale)
    edges = [edge for edge in described["edges"] if edge["kind"] == "edge"]
    opacity = {(e["source"], e["target"]): e["opacity"] for e in edges}
    query = {"points": 25, **({"output": "b+2"} if name == "two" else {})}
    curves = service.get(f"/v1/models/{name}/edges", params=query).json()["edges"]
    drawn = {
        (group.get("data-source"), group.get("data-target")): group
        for group in groups(picture, "data-source")
        if group.get("data-kind") == "edge"
    }
    assert len(drawn) == len(curves)
    spans = defaultdict(float)
    for curve in curves:
        spans[curve["stage"], curve["layer"]] = max(np.ptp(curve["y"]), spans[curve["stage"], curve["layer"]])
    for curve in curves:
        ends = curve["source"], curve["target"]
        (box,), (line,) = parts(drawn[ends], "rect", "box"), parts(drawn[ends], "polyline", "curve")
        left, top, side = (float(box.get(name)) for name in ("x", "y", "width"))
        x, y = points_of(line).T
        inner = side - 2 * PADDING
        for fitted, values in (((x - left - PADDING) / inner, "x"), ((top + side - PADDING - y) / inner, "y")):
            low, high = min(curve[values]), max(curve[values])
            span = spans[curve["stage"], curve["layer"]] if (scale, values) == ("layer", "y") else high - low
            middle = (low + high) / 2
            assert middle + (fitted - 0.5) * span == pytest.approx(curve[values], abs=0.001 * span)
        (link,) = parts(drawn[ends], "path", "link")
        for part in (link, line):
            assert float(part.get("opacity")) == pytest.approx(opacity[ends], abs=0.005)
    told = " ".join(text.text for text in parts(picture, "text", "legend"))
    assert "opacity tanh(3 x score), as in pykan" in told
    assert ("one scale" in told, "scale of its own" in told) == (scale == "layer", scale == "own")


def test_without_scores_the_contribution_is_drawn():
    """With too few reference windows for scores, links show contributions."""
    _, picture = draw(make_model("lstm", n_reference=60), PruningRule(metric="contribution"))
    assert len({link.get("stroke-width") for link in picture.iterfind(f".//{SVG}g[@data-kind='edge']/{SVG}path")}) > 1
    assert "Width is an edge's mean |contribution|" in "".join(picture.itertext())


def test_titles_have_the_figures_of_a_part(service):
    """The title of an edge or node has its name, contribution, unit and score, also for screen readers."""
    described, picture = ask(service, "nyc-weather/topology")
    edge = next(edge for edge in described["edges"] if (edge["source"], edge["target"]) == ("lstm:7", "head:1:3"))
    (group,) = picture.findall(f".//{SVG}g[@data-source='lstm:7'][@data-target='head:1:3']")
    title = group.find(f"{SVG}title").text
    low, high = edge["interval"]
    for said in (
        "lstm 7 → head 1:3",
        f"{edge['contribution']:.3g} K (95 % interval {low:.3g} to {high:.3g})",
        f"backward score {edge['scores']['backward']:.3g}",
        "linear",
    ):
        assert said in title
    assert (group.get("aria-label"), group.get("tabindex")) == (title.replace("\n", "; "), "0")
    graph = described["graph"]
    kept = f"{graph['edges']['kept']} of {graph['edges']['total']} edges keep an R2 of {graph['fidelity']['r2']:.3f}"
    assert picture.find(f"{SVG}desc").text.startswith(kept)
    assert all(group.find(f"{SVG}title").text for group in groups(picture, "tabindex"))


def test_names_that_fit_are_not_shortened():
    """Feature names of thirty characters and an output name of sixty fit inside the picture."""
    names, target = [f"{number} sensor with quite a long name" for number in range(4)], "t" * 60
    model = rename(make_model("lstm", targets=(target,)), names)
    topology, picture = draw(model)
    written = [text.text for text in picture.iter(f"{SVG}text")]
    assert {*names, f"{target}+1"} <= set(written)
    layout = lay_out(topology, fold=True)
    assert layout.tilted and layout.places[f"feature:{names[0]}"][0] > 0.75 * 6.6 * len(names[0])
    (curve,) = sample_edges(model, [topology.edge("head", 1, 0, 0)])
    edge = ElementTree.fromstring(draw_edge(curve, output=topology.output, unit="K"))
    assert f"{target}+1" in [title.text for title in edge.iterfind(f".//{SVG}text/{SVG}title")]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_paths_through_a_node_are_those_of_the_json(service, name):
    """This holds for every node of the graph; counts and cost are those of the whole, and unknown nodes are refused."""
    whole, _ = ask(service, f"{name}/topology")
    for node in whole["nodes"][:: max(1, len(whole["nodes"]) // 5)]:
        described, picture = ask(service, f"{name}/topology", through=node["id"])
        assert described["graph"] == whole["graph"]
        assert places(edges_of(picture, "true")) == places(described["edges"])
        listed = {one["id"] for one in described["nodes"]}
        assert {group.get("data-node") for group in groups(picture, "data-node")} == listed
        assert {node["id"], *(edge["source"] for edge in described["edges"])} <= listed
    query = {"through": "lstm:99", "output": service.models[name].config.outputs[-1]}
    refused = service.get(f"/v1/models/{name}/topology", params=query)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "through")


def test_many_edges_are_links_without_curves_the_strong_above_the_weak():
    """Above 300 kept edges no curve is drawn; width grows with the edge's contribution, or opacity is its score's."""
    model = make_model("lstm", hidden_size=32, n_hidden=12, lookback=2, n_reference=20)
    topology = build_topology(model, measure_importance(model, 0), PruningRule("contribution", 1.0))
    assert sum(edge.kept for edge in topology.kan_edges) > N_CURVES
    assert curved_edges(topology) == []
    picture = ElementTree.fromstring(draw_topology(topology, curves=[], color="contribution"))
    assert parts(picture, "rect", "box") == [] and parts(picture, "polyline", "curve") == []
    worth = {(edge.source, edge.target): edge.contribution for edge in topology.kan_edges}
    drawn = [group for group in groups(picture, "data-source") if group.get("data-kind") == "edge"]
    for layer in ("0", "1"):
        of_layer = [group for group in drawn if group.get("data-layer") == layer]
        order = [worth[group.get("data-source"), group.get("data-target")] for group in of_layer]
        widths = [float(group.find(f"{SVG}path").get("stroke-width")) for group in of_layer]
        assert order == sorted(order) and widths == sorted(widths) and widths[-1] > 2 * widths[0]
    assert 0 < len(curved_edges(topology.upstream().through("head:1:3"))) <= 33


@pytest.mark.parametrize(("fidelity", "pruned"), [(1.0, True), (0.5, False)])
def test_of_too_many_links_the_strongest_are_drawn(fidelity, pruned):
    """Of each kind, kept edges before pruned ones; the legend says so, and the cost is that of the whole network."""
    model = make_model("lstm", n_features=4, hidden_size=16, n_hidden=6, lookback=2, n_reference=20)
    topology = build_topology(model, measure_importance(model, 0), PruningRule("contribution", fidelity))
    part = limit_links(topology.upstream(), pruned, 40)
    picture = ElementTree.fromstring(draw_topology(topology, curves=[], pruned=pruned, n_links=40))
    drawn = Counter((group.get("data-source"), group.get("data-target")) for group in groups(picture, "data-source"))
    for kind in ("edge", "input"):
        ranked = [edge for edge in topology.edges if edge.kind == kind and (edge.kept or not pruned)]
        ranked.sort(key=lambda edge: (edge.kept, edge.contribution or edge.share or 0.0), reverse=True)
        assert len(ranked) > 40
        assert {pair for pair in drawn if pair in {(edge.source, edge.target) for edge in ranked}} == {
            (edge.source, edge.target) for edge in ranked[:40]
        }
    assert set(drawn.values()) == {1}
    assert drawn.total() == len(part.edges)
    text = " ".join(picture.itertext())
    assert "Of more than 40 links only the strongest are drawn." in text
    assert describe_cost(topology.upstream()) in text  # of the description


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("query", [{"width": 364}, {"width": 364, "curves": False}, {"width": 1000, "fidelity": 1}])
def test_a_picture_is_drawn_for_a_width(service, name, query):
    """All parts are drawn once in any width, inside of it, no node or box on another; narrow layers are columns."""
    described, picture = ask(service, f"{name}/topology", **query)
    whole = ask(service, f"{name}/topology", **{key: value for key, value in query.items() if key == "fidelity"})[1]
    for attribute in ("data-node", "data-source"):
        label = "aria-label" if query.get("curves", True) else attribute  # which has the shape of a curve
        assert sorted(part.get(label) for part in groups(picture, attribute)) == sorted(
            part.get(label) for part in groups(whole, attribute)
        )
    assert query.get("curves", True) == bool(parts(picture, "rect", "box"))
    width = float(picture.get("width"))
    assert width == query["width"] or (name == "front" and width > query["width"])  # of too many layers for it
    chips = parts(picture, "rect", "chip")
    rects = [*chips, *parts(picture, "rect", "box")]
    boxes = [[float(rect.get(name)) for name in ("x", "y", "width", "height")] for rect in rects]
    for x, y, w, h in boxes:
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= float(picture.get("height"))
    for (x, y, w, h), (x_other, y_other, w_other, h_other) in combinations(boxes, 2):
        assert x + w <= x_other or x_other + w_other <= x or y + h <= y_other or y_other + h_other <= y
    columns = {round(float(rect.get("x")) + float(rect.get("width")) / 2) for rect in chips}
    nodes = [node for node in described["nodes"] if node["kind"] not in ("feature", "subnode")]
    assert query["width"] != 364 or len(columns) == len({(node["kind"], node["layer"]) for node in nodes})


@pytest.mark.parametrize("width", [300, 760, 1100])
def test_an_edge_is_drawn_for_a_width(service, width):
    """The plot is as wide as there is room, with the legend in lines, and no text begins outside."""
    _, picture = ask(service, "nyc-weather/edges/0/7/3", width=width)
    assert float(picture.get("width")) == width
    (curve,) = parts(picture, "polyline", "main")
    assert 92 <= points_of(curve)[:, 0].min() < points_of(curve)[:, 0].max() <= width - 24
    for text in picture.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x", 0)) <= width
    keys = [text for text in picture.iter(f"{SVG}text") if text.text in ("base", "spline", "nearest line", "function")]
    assert len({(text.get("x"), text.get("y")) for text in keys}) == len(keys) == 4
    assert (len({text.get("y") for text in keys}) > 1) == (width == 300)


@given(st.lists(st.text("ab1_ é", min_size=1, max_size=24), unique=True, max_size=8), st.integers(3, 20))
@example(["plant_north_01_stator_winding_phase_u", "plant_north_01_stator_winding_phase_v"], 8)
def test_shortened_names_fit(names, length):
    """Whatever they are; names that all fit stay as they are."""
    short = shorten_names(names, length)
    assert list(short) == names
    assert all(0 < len(text) <= length for text in short.values())
    if all(len(name) <= length for name in names):
        assert short == {name: name for name in names}


def test_shortened_names_keep_whole_words():
    """Those that tell a name from the others; letters are cut only where a single word is too long."""
    parts = ("bearing_outer_ring", "bearing_inner_ring", "stator_winding_phase_u")
    names = [
        f"plant_hall_{place}_{number}_{part}" for place in ("north", "south") for number in (1, 2) for part in parts
    ]
    names += ["outside_air_temperature_of_the_weather_station_on_the_roof", "an_unusuallylongwordofmanyletters"]
    short = [*shorten_names(names, 18).values()]
    assert short[:3] == ["north_1_outer", "north_1_inner", "north_1…phase_u"]
    assert short[-2:] == ["outside_air…roof", "unusually…yletters"]
    assert len(set(short)) == len(names)


def test_names_of_columns_lose_what_all_have():
    """Of a plant's sensors the site and the unit are left out, and the title has the whole name."""
    names = [f"plant_hall_{place}_{part}_celsius" for place in ("north", "south") for part in ("oil", "ring")]
    _, picture = draw(rename(make_model("lstm"), names), width=400)
    nodes = [group for group in groups(picture, "data-node") if group.get("data-node").startswith("feature:")]
    assert [group.find(f"{SVG}text").text for group in nodes] == ["north_oil", "north_ring", "south_oil", "south_ring"]
    assert [group.find(f"{SVG}title").text.split("\n")[0] for group in nodes] == names


@pytest.mark.parametrize("path", ["nyc-weather/topology", "front/topology", "head/edges/0/1/1"])
def test_nothing_in_a_picture_is_active_or_from_elsewhere(service, path):
    """A picture has no script, event handler, link, inline style or external resource."""
    _, picture = ask(service, path)
    for element in picture.iter():
        assert element.tag.removeprefix(SVG) not in {"script", "foreignObject", "a", "image", "use", "animate", "set"}
        for name in element.attrib:
            assert not name.startswith("on") and "href" not in name and name != "style"
    (style,) = picture.iter(f"{SVG}style")
    assert not re.search(r"url\(|@import|https?:", style.text)
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", style.text)
    assert all(".kanscope" in selector for rule in rules for selector in rule.split(",")), "a rule reaches the page"


@pytest.mark.parametrize("path", ["head/topology", "head/edges/0/1/1", "head/attributions"])
def test_the_media_type_is_negotiated(service, path):
    """JSON is the default, Accept selects the picture, the query takes precedence, and Vary has Accept."""
    for accept, query, media_type in (
        (None, "", "application/json"),
        ("*/*", "", "application/json"),
        ("image/svg+xml", "", "image/svg+xml"),
        ("image/avif,image/webp,image/svg+xml,image/*,*/*;q=0.8", "", "image/svg+xml"),
        ("application/json", "?format=svg", "image/svg+xml"),
        ("text/html", "?format=svg", "image/svg+xml"),
        ("image/svg+xml", "?format=json", "application/json"),
    ):
        answer = service.get(f"/v1/models/{path}{query}", headers={"Accept": accept} if accept else {})
        assert (answer.headers["content-type"], answer.headers["vary"]) == (
            media_type,
            "Accept, Accept-Encoding, Authorization",
        )
        assert ("content-security-policy" in answer.headers) == (media_type == "image/svg+xml")
    themes = {theme: service.get(f"/v1/models/{path}?format=svg&theme={theme}") for theme in ("auto", "dark", "sepia")}
    assert themes["auto"].text == service.get(f"/v1/models/{path}?format=svg").text
    assert "prefers-color-scheme" in themes["auto"].text and "prefers-color-scheme" not in themes["dark"].text
    assert DARK["paper"] in themes["dark"].text
    assert (themes["sepia"].status_code, themes["sepia"].json()["errors"][0]["path"]) == (422, "theme")
    refused = service.get(f"/v1/models/{path}", headers={"Accept": "text/html"})
    assert refused.status_code == 406
    assert "application/json or image/svg+xml" in refused.json()["error"]
    unknown = service.get(f"/v1/models/{path}?format=png")
    assert (unknown.status_code, unknown.json()["errors"][0]["path"]) == (422, "format")


@pytest.mark.parametrize("path", ["nyc-weather/edges/0/7/3", "head/edges/0/2/1", "head/edges/1/0/0"])
@pytest.mark.parametrize("span", ["support", "reference", "grid"])
def test_the_picture_of_an_edge_shows_its_numbers(service, path, span):
    """Bars are the counts, ticks the visible knots, and the function passes through the sampled points."""
    edge, picture = ask(service, path, range=span, points=30)
    bars = groups(picture, "data-count")
    assert [int(bar.get("data-count")) for bar in bars] == edge["support"]["histogram"]["counts"]
    heights = np.array([float(bar.find(f"{SVG}rect").get("height")) for bar in bars])
    counts = np.array(edge["support"]["histogram"]["counts"])
    assert heights / heights.max() == pytest.approx(counts / counts.max(), abs=0.001)
    (line,) = parts(picture, "polyline", "main")
    x, y = points_of(line).T
    assert np.polyval(np.polyfit(x, edge["x"], 1), x) == pytest.approx(edge["x"], abs=0.001 * np.ptp(edge["x"]))
    assert np.polyval(np.polyfit(y, edge["y"], 1), y) == pytest.approx(edge["y"], abs=0.001 * np.ptp(edge["y"]))
    sampled = [*edge["x"], *edge["support"]["histogram"]["edges"]]
    in_sight = [knot for knot in edge["grid"] if min(sampled) <= knot <= max(sampled)]
    ticks = picture.findall(".//*[@data-knot]")
    assert [float(tick.get("data-knot")) for tick in ticks] == pytest.approx(in_sight, rel=1e-4)
    at = [float(re.match(r"M([\d.]+)", tick.get("d"))[1]) for tick in ticks]
    assert np.polyval(np.polyfit(x, edge["x"], 1), at) == pytest.approx(in_sight, abs=0.001 * np.ptp(sampled))


def test_the_picture_of_an_edge_has_its_shape_and_formulas(service):
    """The verdict is in words, and formulas are shown if requested."""
    edge, picture = ask(service, "nyc-weather/edges/0/7/3", formulas=True)
    text = "\n".join(picture.itertext())
    assert f"linear: a straight line has an R2 of {edge['line']['r2']:.3f}" in text
    assert edge["formulas"][0]["expression"] in text
    _, picture = ask(service, "nyc-weather/edges/0/7/3")
    assert edge["formulas"][0]["expression"] not in "\n".join(picture.itertext())


def test_each_part_of_an_edge_is_a_line_with_its_name(curve):
    """Base, spline, nearest line and function are drawn, and a fixed function if the edge has one."""
    names = ["base", "spline", "nearest line", "function"]
    for edge, expected in ((curve, names), (replace(curve, symbolic=curve.base), ["symbolic", *names])):
        picture = ElementTree.fromstring(draw_edge(edge))
        assert len(list(picture.iter(f"{SVG}polyline"))) == len(expected)
        written = [text.text for text in picture.iter(f"{SVG}text")]
        assert [name for name in written if name in ("symbolic", *names)] == expected


def test_data_outside_the_grid_is_shaded(curve):
    """Each side with data beyond the core interval has a shaded region up to its end."""
    bounds = curve.support.histogram_edges
    for core, n_shaded in (((-99.0, 99.0), 0), ((0.0, 99.0), 1), ((-0.5, 0.5), 2)):
        picture = ElementTree.fromstring(draw_edge(replace(curve, core=core)))
        shaded = [float(shade.get("width")) for shade in parts(picture, "rect", "shade")]
        assert len(shaded) == n_shaded
        beyond = [length for length in (core[0] - bounds[0], bounds[-1] - core[1]) if length > 0]
        assert np.divide(shaded, sum(shaded) or 1) == pytest.approx(np.divide(beyond, sum(beyond) or 1), abs=0.001)


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_nothing_overlaps(shape):
    """For any number of kept edges, boxes and nodes do not overlap and lie inside the picture."""
    make = partial(make_model, shape, n_features=9, lookback=2, hidden_size=9, n_hidden=8, product=True)
    importance = measure_importance(make(n_reference=20), 0)  # scores need more windows
    topology = build_topology(make(n_reference=130), importance, PruningRule(thresholds=Thresholds(edge=0.001)))
    for fold in (True, False):
        layout = lay_out(topology, fold)
        boxes = [(box.x, box.y, box.side / 2) for box in layout.boxes.values()]
        assert len(boxes) == sum(edge.kept for edge in topology.kan_edges) > 60
        for (x, y, half), (x_other, y_other, half_other) in combinations(boxes, 2):
            assert max(abs(x - x_other), abs(y - y_other)) > half + half_other - 0.01
        kept = [layout.places[node.id] for node in topology.nodes if node.kept and node.kind != "subnode"]
        for (x, y), (x_other, y_other) in combinations(kept, 2):
            assert max(abs(x - x_other), abs(y - y_other)) > 12
        for x, y in (*((x, y) for x, y, _ in boxes), *layout.places.values()):
            assert 0 < x < layout.width and 0 < y < layout.height


def test_a_result_that_is_not_finite_is_not_drawn(curve):
    """A picture never contains NaN or infinities."""
    with pytest.raises(NonFiniteError, match="must be finite"):
        draw_edge(replace(curve, y=curve.y * np.inf))


@given(st.lists(st.floats(0, 1000), max_size=20), st.floats(1, 40))
def test_positions_are_spread_in_order(wanted, pitch):
    """Positions keep their distance, order and bounds; those with enough room do not move."""
    wanted.sort()
    found = spread(wanted, pitch, 0.0, 1000.0)
    assert all(b - a >= pitch - 1e-6 for a, b in pairwise(found))
    assert all(-1e-6 <= x <= 1000 + 1e-6 for x in found)
    if all(b - a >= pitch for a, b in pairwise(wanted)):
        assert found == pytest.approx(wanted, abs=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(0.0, 5e-324)
def test_ticks_are_round_and_within_their_axis(low, length):
    """Two to seven evenly spaced values on the axis, also if all data is equal."""
    scale = scale_over([low, low + length], 0.0, 100.0)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 7
    assert all(-1e-3 <= scale.at(tick) <= 100 + 1e-3 for tick in ticks)
    assert np.ptp(np.diff(ticks)) == pytest.approx(0, abs=1e-6 * (scale.high - scale.low))
