"""The picture of a forecast that flows through its model has the numbers of the explanation, at places of the model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree

import numpy as np
import pytest
from factories import make_model, make_windows
from wired import read

from kanmodel import Model
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.show.flow import SIZES, lay_out_flow, list_ids, list_ribbons

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ("<script>alert(1)</script>", "a&b\"'", "]]>", "x" * 90)
MODELS = {
    "lstm": ("lstm", {"n_features": 13, "hidden_size": 12, "targets": ("a", "b")}),
    "front with products": ("front", {"product": True}),
    "gru": ("lstm", {"cell": "gru", "n_features": 2, "hidden_size": 3, "readout": "mean"}),
    "flat": ("flat", {"lookback": 3}),
    "head": ("head", {}),
}
every = pytest.mark.parametrize("name", MODELS)


@cache
def explained(name, window=0):
    model = known(name)
    return model.explain(make_windows(model, 3)[window : window + 1], model.outputs[-1], detail="links")


@cache
def known(name):
    shape, options = MODELS[name]
    return Model.of(make_model(shape, n_reference=24, seed=5, **options), "m")


def parts(explanation):
    layers = [layer for layer in explanation.layers if layer.edges is not None]
    model = explanation.model
    layout = lay_out_flow(model, model.outputs.index(explanation.output), layers, "slide")
    return layers, layout, [*list_ribbons(layout, model.config, layers)]


def drawn(explanation, **options):
    picture = ElementTree.fromstring(explanation.flow_picture(**options))
    return picture, [path for path in picture.iter(f"{SVG}path") if path.get("data-height")]


@every
def test_ribbons_sum_at_each_node_to_its_contribution(name):
    """In and out of every node and box, with signs; the last is the change of the forecast from the baseline's."""
    explanation = explained(name)
    layers, layout, ribbons = parts(explanation)
    into, out = defaultdict(float), defaultdict(float)
    for ribbon in ribbons:
        into[ribbon.target] += ribbon.value
        out[ribbon.source] += ribbon.value
    accepted = 2 * len(layers) * explanation.tolerance
    for end in into.keys() & out.keys():
        exact = 1e-12 if end[0] == "box" else accepted
        assert into[end] == pytest.approx(out[end], abs=exact)
    (last,) = [end for end in into if end[:2] == ("node", len(layers))]
    change = explanation.predictions[0] - explanation.baseline_prediction
    assert into[last] == pytest.approx(change, abs=accepted)
    if name != "flat":  # whose first nodes are cells
        for number, node in enumerate(layout.columns[0]):
            expected = explanation.contributions[0, list(node.members)].sum()
            assert out["node", 0, number] == pytest.approx(expected, abs=accepted)
        assert sum(len(node.members) for node in layout.columns[0]) == len(explanation.features)


@every
@pytest.mark.parametrize("size", SIZES)
def test_widths_are_contributions_in_one_scale(name, size):
    """A ribbon is as high at both ends as |contribution| in one scale, and those at a node do not overlap."""
    explanation = explained(name)
    picture, paths = drawn(explanation, size=size)
    assert (float(picture.get("width")), float(picture.get("height"))) == SIZES[size]
    values = np.array([abs(float(path.get("data-value"))) for path in paths])
    heights = np.array([float(path.get("data-height")) for path in paths])
    scale = heights.max() / values.max()
    np.testing.assert_allclose(heights, scale * values, atol=1e-3)
    stacks = defaultdict(list)
    for path, height in zip(paths, heights, strict=True):
        start = float(path.get("d")[1:].split("C")[0].split()[1])
        assert f"v{height:.3f}" in path.get("d") or height == pytest.approx(
            float(path.get("d").split("v")[1].split("C")[0]), abs=1e-3
        )
        stacks[path.get("data-source")].append((start, height))
    for stack in stacks.values():
        for (start, height), (after, _) in zip(sorted(stack), sorted(stack)[1:], strict=False):
            assert after >= start + height - 0.02


@every
def test_beads_are_on_the_curves(name):
    explanation = explained(name)
    layers, layout, _ = parts(explanation)
    picture, _ = drawn(explanation)
    beads = {(float(bead.get("data-x")), float(bead.get("data-y"))) for bead in picture.iter(f"{SVG}circle")}
    stated = set()
    for layer, boxes in zip(layers, layout.boxes, strict=True):
        for box in boxes:
            if box.key is not None:
                i, j = box.key
                stated.add((float(layer.values[0, i]), float(layer.y[0, j, i])))
                inside = box.curve.x[0] <= layer.values[0, i] <= box.curve.x[-1]
                curve = np.interp(layer.values[0, i], box.curve.x, box.curve.y)
                assert not inside or curve == pytest.approx(layer.y[0, j, i], abs=0.05 * box.span)
    assert beads == stated and stated


def test_places_depend_on_the_model_alone():
    for name in MODELS:
        (_, one, _), (_, other, _) = parts(explained(name)), parts(explained(name, 2))
        places = [[(node.id, node.x, node.y) for column in of.columns for node in column] for of in (one, other)]
        assert places[0] == places[1]
        boxes = [[(box.key, box.x, box.y, box.span) for gap in of.boxes for box in gap] for of in (one, other)]
        assert boxes[0] == boxes[1]
        assert explained(name).flow_picture() == explained(name).flow_picture()


def test_no_edge_into_another_output_is_drawn():
    layers, layout, _ = parts(explained("lstm"))
    assert {box.key[1] for box in layout.boxes[-1] if box.key is not None} == {1}
    assert list_ids(known("lstm").config, layers[0])[0] == "feature:f0"
    assert layout.columns[0][-1].label == "4 more"


def test_hostile_names_are_escaped():
    forecaster = make_model("lstm", n_reference=24)
    features = tuple(
        replace(feature, name=name) for feature, name in zip(forecaster.config.features, HOSTILE, strict=True)
    )
    model = Model.of(forecaster.with_config(replace(forecaster.config, features=features)), "<b>")
    picture, _ = drawn(model.explain(make_windows(model, 1), detail="links"))
    assert not [*picture.iter(f"{SVG}script")]
    assert any(HOSTILE[0] in (title.text or "") for title in picture.iter(f"{SVG}title"))


def test_an_explanation_of_any_detail_flows():
    """The links are computed where the explanation lacks them, with its own baseline."""
    model = known("gru")
    window = make_windows(model, 1)
    whole = model.explain(window, baseline="zero", detail="links").flow_picture()
    assert model.explain(window, baseline="zero").flow_picture() == whole
    assert model.explain(window).flow_picture() != whole


def test_what_is_refused():
    model = known("gru")
    windows = make_windows(model, 2)
    with pytest.raises(DataError, match="one window"):
        model.explain(windows, detail="links").flow_picture()
    with pytest.raises(UnknownNameError, match="size"):
        explained("gru").flow_picture(size="poster")
    graph = read("RevIN")
    with pytest.raises(DataError, match="this model is a graph"):
        graph.explain(make_windows(graph, 1), detail="links").flow_picture()


@pytest.mark.parametrize("name", ["lstm", "front with products", "head"])
def test_names_differ_within_a_layer(name):
    """By what nodes read, at most 22 characters; the id stays."""
    nodes = [node for node in known(name).topology().nodes if node.profile and node.kind != "output"]
    by_layer = defaultdict(list)
    for node in nodes:
        by_layer[node.kind, node.layer].append(node.label)
        assert len(node.label) <= 22
        first = max(node.profile, key=node.profile.get)
        assert first in node.label
    assert by_layer and all(len(set(labels)) == len(labels) for labels in by_layer.values())
