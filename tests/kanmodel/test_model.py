"""`Model` returns the results of the functions below it, by name and in original units."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from factories import make_chain, make_model, make_windows
from thorough import few_of
from torch import nn

import kanmodel
from kanmodel import CheckpointError, DataError, Model, UnknownNameError
from kanmodel.attribution.baseline import Baseline, ReferenceBaselines
from kanmodel.attribution.ledger import explain_windows
from kanmodel.checkpoint import save_checkpoint
from kanmodel.formula.formula import Formulas
from kanmodel.network.config import Transform, plain_layers
from kanmodel.questions import QUESTIONS
from kanmodel.report.report import write_report
from kanmodel.structure import questions as asking
from kanmodel.structure.ablation import extract_subnetwork
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule, Thresholds
from kanmodel.structure.topology import build_topology

NAMES = ("f0", "f1", "f2", "f3")
ROUNDING = 1e-12  # of the output's standard deviation, in float64


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.of(make_model(targets=("a", "b")))


@pytest.fixture(scope="module")
def windows(model):
    return make_windows(model, 5)


def frame_of(model, window, **more):
    """A frame of one window after ten other rows, with columns in another order."""
    rows = np.concatenate([np.full((10, 4), 1e9), window])
    return {name: rows[:, number] for number, name in reversed(list(enumerate(NAMES)))} | more


def test_import_is_light():
    """The package alone imports no torch, and neither its names nor the service's routes scipy, pandas and the like."""
    code = (
        "import sys, kanmodel\n"
        "print('torch' in sys.modules)\n"
        "for name in kanmodel.__all__: getattr(kanmodel, name)\n"
        "heavy = {'torch', 'scipy', 'sympy', 'yaml', 'polars', 'pandas', 'networkx', 'rich', 'fastapi'}\n"
        "print(*heavy & set(sys.modules))\n"
        "import service.operations.edges\n"
        "print('scipy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["False", "torch", "False"]


def test_every_exported_name_is_there():
    """Each name in `__all__` is in `dir` and defined in the package; an unknown name raises AttributeError."""
    assert all(getattr(kanmodel, name).__module__.startswith("kanmodel.") for name in kanmodel.__all__)
    assert set(kanmodel.__all__) <= set(dir(kanmodel))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kanmodel.nothing


def test_what_a_question_is_answered_with_is_public():
    """So that it can be named in annotations: of every question, and of `predict`."""
    hints = [get_type_hints(question.answer)["return"] for question in QUESTIONS.values()]
    hints.append(get_type_hints(Model.predict)["return"])
    found = set[type]()
    while hints:
        hints += get_args(hint := hints.pop())
        found |= {hint} if getattr(hint, "__module__", "").startswith("kanmodel.") else set()
    assert len(found) > 20 and {of.__name__ for of in found} <= set(kanmodel.__all__)


def test_names(model, tmp_path):
    """A model has the names of its config and the hash of its file."""
    assert [feature.name for feature in model.features] == list(NAMES)
    assert model.outputs == ("a+1", "b+1") and model.lookback == 6 and model.checkpoint is None
    path = tmp_path / "m.safetensors"
    sha256 = save_checkpoint(model, path)
    assert kanmodel.load(path).checkpoint == kanmodel.load(str(path)).checkpoint == f"sha256:{sha256}"


def test_predict_in_all_forms(model, windows):
    """An array, a tensor, lists and a mapping give the same forecasts; one window alone the same to rounding."""
    expected = model.predict(windows)
    by_name = {name: windows[..., number] for number, name in reversed(list(enumerate(NAMES)))}
    for form in (windows, torch.from_numpy(windows), windows.tolist(), by_name):
        np.testing.assert_array_equal(model.predict(form), expected)
    first = expected[:1]
    one = {name: values[0] for name, values in by_name.items()}
    noted = frame_of(model, windows[0], time=["noon"] * 16)
    minimal = type("Frame", (dict,), {"columns": [*one], "to_numpy": lambda self: np.column_stack([*one.values()])})
    for form in (windows[0], one, pl.DataFrame(noted), pd.DataFrame(noted), pd.DataFrame(one), minimal(one)):
        # one window alone takes other kernels than five together, which round otherwise
        np.testing.assert_allclose(model.predict(form), first, rtol=0, atol=ROUNDING * model.output_std.min())


@pytest.mark.parametrize("kind", ["mean", "zero", "values", "instance", "reference"])
@pytest.mark.parametrize("output", [None, "b+1"])
def test_explain_is_the_ledger(model, windows, output, kind):
    """Every figure equals that of the ledger, for each kind of baseline and an output by name."""
    number, scaled = (0 if output is None else 1), model.to_model_units(windows)
    values = {"f0": 1.0, "f1": [1.0, 2, 3, 4, 5, 6], "f2": -3, "f3": np.float32(2)}
    asked = {"values": values, "instance": pl.DataFrame(frame_of(model, windows[3]))}
    asked = {name: {name: of} for name, of in asked.items()} | {"reference": {"reference": 3, "seed": 1}}
    found = model.explain(windows, output, baseline=asked.get(kind, kind))
    of = Baseline(kind, values=values, instance=windows[3]) if kind != "reference" else ReferenceBaselines(3, 1)
    ledger = explain_windows(model, scaled, number, of)
    np.testing.assert_array_equal(found.standard_error, ledger.standard_error if kind == "reference" else None)
    for name in ("predictions", "baseline", "steps", "error", "residual", "converged", "path_nodes", "contributions"):
        np.testing.assert_array_equal(getattr(found, name), getattr(ledger, name), err_msg=name)
    assert (found.output, found.unit, found.features) == (model.outputs[number], "K", NAMES)
    assert found.baseline_prediction == ledger.baseline_prediction and found.tolerance == ledger.tolerance
    assert [layer.stage for layer in found.layers] == [layer.stage for layer in ledger.layers]
    np.testing.assert_allclose(found.predictions, model.predict(windows)[:, number], rtol=1e-9)


def test_one_window_of_an_explanation(model, windows):
    """`e[i]` equals the explanation of window i alone; slices and negative indices work; others raise IndexError."""
    found, alone = model.explain(windows), model.explain(windows[2])
    assert len(found) == 5 and len(found[2]) == 1 and len(list(found)) == 5 and len(found[1:4]) == 3
    np.testing.assert_allclose(found[2].steps, alone.steps, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found[-1].contributions, found.contributions[4:])
    for layer, whole in zip(found[-1].layers, found.layers, strict=True):
        assert (layer.nodes is None) == (whole.nodes is None) and (layer.edges is None) == (whole.edges is None)
        assert layer.nodes is None or np.array_equal(layer.nodes, whole.nodes[4:])
    for beyond in (5, -6):
        with pytest.raises(IndexError):
            found[beyond]


def test_tables_are_rows_that_frames_read(model, windows):
    """Each result's table becomes a polars frame with the numbers of the result."""
    found = model.explain(windows)
    frame = pl.DataFrame(found.table())
    np.testing.assert_array_equal(frame["contribution"].to_numpy().reshape(5, 4), found.contributions)
    importance, topology, edge = model.importance(), model.topology(), model.edge(0, 1, 2)
    assert pl.DataFrame(importance.table())["name"].to_list() == [row.name for row in importance.features]
    rows = pl.DataFrame(topology.table())
    assert len(rows) == len(topology.kan_edges) and rows["kept"].sum() == sum(e.kept for e in topology.kan_edges)
    np.testing.assert_array_equal(pl.DataFrame(edge.table())["y"].to_numpy(), edge.y)
    assert len(pl.DataFrame(model.report().table())) == 13


def test_importance_and_report_are_those_below(model):
    """Importance and report equal those of the functions below, for the named output."""
    measured = measure_importance(model, 1)
    found = model.importance("b+1")
    assert found.features == measured.features and found.output == "b+1"
    report = model.report("b+1")
    topology = build_topology(model, measured, PruningRule())
    assert report.findings == write_report(model, measured, topology).findings
    assert all(finding.answer in report.markdown() for finding in report.findings)


@pytest.mark.parametrize(
    "asked, rule",
    [
        ({}, PruningRule()),
        ({"fidelity": 0.9}, PruningRule(fidelity=0.9)),
        ({"fidelity": 1, "metric": "forward_u", "fill": "zero"}, PruningRule("forward_u", 1.0, None, "zero")),
        ({"thresholds": {"edge": 0.2}}, PruningRule(None, None, Thresholds(edge=0.2))),
        ({"thresholds": Thresholds(0.1, 0.1, 0.1)}, PruningRule(None, None, Thresholds(0.1, 0.1, 0.1))),
    ],
)
def test_topology_is_the_one_below(model, asked, rule):
    """The graph of each rule equals that of `build_topology`, and networkx gets nodes and edges with their fields."""
    below = build_topology(model, measure_importance(model, 0), rule)
    found = model.topology(**asked)
    expected = vars(below) | {"unit": "K", "name": "model", "curves": found.curves}
    expected |= {"reference": model.reference.span, "origin": "model, not saved"}
    assert vars(found) == expected
    for curve, other in zip(found.curves, below.curves, strict=True):
        assert curve.edge == other.edge and curve.origin == found.origin
        np.testing.assert_array_equal(curve.y, other.y)
    graph = found.networkx()
    assert set(graph) == {node.id for node in below.nodes} and graph.number_of_edges() == len(below.edges)
    edge = below.kan_edges[3]
    assert graph.edges[edge.source, edge.target]["contribution"] == edge.contribution
    graph.nodes["lstm:0"]["profile"].clear()
    assert vars(model.topology(**asked)) == expected


@pytest.mark.parametrize("shape", few_of(["lstm", "head", "front", "flat"], ["front"], "the same of further chains"))
def test_every_edge_by_its_ids_and_by_its_numbers(shape):
    """Each edge of a topology is found by ids and by numbers, products included, with the curve sampled below."""
    model = Model.of(make_model(shape, product=True, n_features=3, lookback=2, hidden_size=3, n_reference=20))
    topology = model.topology(metric="contribution")
    for edge in topology.kan_edges[:: max(1, len(topology.kan_edges) // 12)]:
        (below,) = sample_edges(model, [edge], points=11, span="grid")
        by_id = model.edge(edge.source, edge.target, points=11, span="grid")
        by_number = model.edge(edge.layer, np.int64(edge.i), edge.j, stage=edge.stage, points=11, span="grid")
        for found in (by_id, by_number):
            ends = (found.edge.source, found.edge.target, found.edge.masked)
            assert ends == (edge.source, edge.target, edge.masked) and found.shape == below.shape
            for name in ("x", "y", "base", "spline", "slope", "grid"):
                np.testing.assert_array_equal(getattr(found, name), getattr(below, name), err_msg=name)


def test_an_edge_needs_no_ledger(monkeypatch):
    """Sampling an edge does not compute importance."""
    monkeypatch.setattr(asking, "measure_importance", lambda *_: pytest.fail("measured"))
    assert len(Model.of(make_model()).edge("lstm:1", "head:1:2").x) == 101


def test_formula():
    """The front is that of `Formulas.of`; a layer norm is refused with its reason."""
    loaded = make_model("lstm", n_features=2, n_hidden=1, hidden_size=2)
    below = Formulas.of(loaded, 0).formulas
    found = Model.of(loaded).formula()
    assert tuple(found) == below and len(found) == len(found.table()) and found[0].complexity == 1
    assert found.simplest(-1e9) == below[0] and found.simplest(1.1) is None
    assert below[-1].expression in found.html() and below[-1].expression[:40] in repr(found)
    norm = plain_layers([4, 1], before=(Transform("layer_norm"),))
    with pytest.raises(kanmodel.ConfigError, match="layer norm"):
        Model.of(make_chain(replace(make_model("head").config, head=norm))).formula()


def test_prune_and_save(model, windows, tmp_path):
    """Pruning returns a model that keeps its fidelity and predicts the same from its file; the original stays."""
    before = model.predict(windows)
    small = model.prune(fidelity=0.95)
    below = extract_subnetwork(
        model, [measure_importance(model, number) for number in range(2)], PruningRule(fidelity=0.95)
    )
    np.testing.assert_array_equal(small.predict(windows), below.predict(windows))
    saved = small.save(str(tmp_path / "small.safetensors"))
    loaded = kanmodel.load(tmp_path / "small.safetensors")
    assert small.checkpoint is None and saved.checkpoint == loaded.checkpoint
    np.testing.assert_array_equal(loaded.predict(windows), small.predict(windows))
    np.testing.assert_array_equal(model.predict(windows), before)
    one = model.prune("a+1", thresholds={"node": 0.0, "edge": 0.0, "input": 0.0})
    assert one.outputs == model.outputs


BAD = np.zeros((6, 4))
HOSTILE = {
    "shape": (np.zeros((5, 4)), r"windows must have shape \(n, 6, 4\) or \(6, 4\), but has \(5, 4\)"),
    "transposed": (np.zeros((4, 6)), r"windows must have shape"),
    "four axes": (np.zeros((1, 1, 6, 4)), r"windows must have shape"),
    "number": (3.0, r"windows must have shape"),
    "none": (None, r"windows must"),
    "empty": (np.zeros((0, 6, 4)), r"windows is empty"),
    "empty list": ([], r"windows must have shape"),
    "ragged": ([[1.0], [1.0, 2.0]], r"windows must be an array, but its rows differ in length"),
    "text": (BAD.astype(str), r"windows must hold numbers, but holds str"),
    "complex": (BAD + 1j, r"windows must hold numbers, but holds complex128"),
    "objects": (np.full((6, 4), "3", dtype=object), r"windows\[0\]\[0\] must be a number, but is '3'"),
    "nan": (np.where(np.arange(24).reshape(6, 4) == 9, np.nan, 0), r"windows\[2\]\[1\] must be finite"),
    "huge": (np.full((6, 4), 1e400), r"windows\[0\]\[0\] must be finite"),
    "masked": (np.ma.masked_equal(np.arange(24.0).reshape(6, 4), 5), r"windows\[1\]\[1\] must be finite"),
    "dates": (np.zeros((6, 4), "datetime64[s]"), r"windows must hold numbers"),
    "lacking": ({"f0": BAD[:, 0], "f2": BAD[:, 0]}, r"windows lacks feature 'f1', 'f3'"),
    "unknown": (dict.fromkeys((*NAMES, "x"), BAD[:, 0]), r"windows has 'x', which is not a feature"),
    "steps": (dict.fromkeys(NAMES, [0.0] * 5), r"windows\['f0'\] must have shape \(n, 6\) or \(6,\)"),
    "uneven": (dict.fromkeys(NAMES, BAD[:, 0]) | {"f1": np.zeros((2, 6))}, r"windows\['f1'\] must have shape"),
    "infinite": (dict.fromkeys(NAMES, BAD[:, 0]) | {"f1": [0, 0, np.inf, 0, 0, 0]}, r"windows\['f1'\]\[2\]"),
    "short frame": (pd.DataFrame(BAD[:5], columns=NAMES), r"windows has 5 rows, but needs the 6 steps of a window"),
    "no column": (pd.DataFrame(BAD, columns=["f0", "F1", "f2", "f3"]), r"windows has no column 'f1'"),
    "numbered": (pd.DataFrame(BAD), r"windows has no column 'f0', 'f1', 'f2', 'f3'"),
    "twice": (pd.DataFrame(np.zeros((6, 5)), columns=[*NAMES, "f1"]), r"f1 is the name of 2 columns"),
    "gap": (
        pd.DataFrame(np.zeros((9, 4)), columns=NAMES).replace({"f2": {0.0: None}}),
        r"windows\['f2'\], row 3 is empty, and the model was trained without fill",
    ),
    "words": (
        pl.DataFrame(BAD, schema=NAMES).with_columns(f2=pl.lit("x")),
        r"windows\['f2'\], row 0 must be a finite number or empty, but is 'x'",
    ),
}


def test_rows_are_windows_of_one_step():
    """With lookback 1 a model accepts rows, (n, n_features) or a single one, as windows."""
    model = Model.of(make_model("head"))
    rows = np.random.default_rng(0).normal(size=(5, len(model.features)))
    expected = model.predict(rows[:, None])
    np.testing.assert_array_equal(model.predict(rows), expected)
    np.testing.assert_allclose(model.predict(rows[0]), expected[:1], rtol=0, atol=ROUNDING * model.output_std.min())
    np.testing.assert_array_equal(model.explain(rows).predictions, model.explain(rows[:, None]).predictions)
    with pytest.raises(DataError, match=r"must have shape \(n, 1, 4\), \(n, 4\) or \(4,\), but has \(5, 3\)"):
        model.predict(rows[:, :3])


@pytest.mark.parametrize("case", HOSTILE)
def test_windows_that_do_not_fit(model, case):
    """Each method with windows refuses invalid ones with one sentence that has the path."""
    windows, message = HOSTILE[case]
    for ask in (model.predict, model.explain):
        with pytest.raises(UnknownNameError if case == "unknown" else DataError, match=message) as found:
            ask(windows)
        assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "baseline, message",
    [
        ("median", 'baseline must be "mean", "zero"'),
        (None, "baseline must be"),
        (np.zeros((6, 4)), "baseline must be"),
        ({}, "baseline must be"),
        ({"values": {"f0": 1}, "seed": 3}, "baseline must be"),
        ({"values": [1, 2]}, "baseline must be"),
        ({"values": {"f0": 1}}, "baseline.values.f1 is missing"),
        ({"values": dict.fromkeys((*NAMES, "x"), 1)}, "baseline.values has no feature 'x'"),
        ({"values": dict.fromkeys(NAMES, "1")}, "baseline.values.f0 must hold numbers"),
        ({"values": dict.fromkeys(NAMES, np.nan)}, "baseline.values.f0 must be finite"),
        ({"values": {name: [1, 2] for name in NAMES}}, "baseline.values.f0 must be a number or 6 numbers"),
        ({"instance": np.zeros((2, 6, 4))}, "baseline.instance must be one window, but has 2"),
        ({"instance": np.zeros((5, 4))}, "baseline.instance must have shape"),
        ({"reference": 1}, "baseline.reference must be a whole number from 2, but is 1"),
        ({"reference": 2.5}, "baseline.reference must be a whole number"),
        ({"reference": 1000}, "baseline.reference must lie between 2 and 160"),
        ({"reference": 3, "seed": -1}, "baseline.seed must be a whole number from 0"),
    ],
)
def test_baselines_that_do_not_fit(model, windows, baseline, message):
    """An invalid baseline is refused with one sentence that has the path."""
    with pytest.raises((DataError, UnknownNameError), match=re.escape(message)):
        model.explain(windows, baseline=baseline)


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda m: m.importance("c"), "there is no output 'c'; the outputs are a+1, b+1"),
        (lambda m: m.explain(np.zeros((6, 4))).table("grupo"), "by must be one of feature, group"),
        (lambda m: m.importance(1), "output must be text or None, but is 1"),
        (lambda m: m.report("a"), "there is no output 'a'; the outputs are a+1, b+1"),
        (lambda m: m.prune(["a+1", "c"]), "there is no output 'c'"),
        (lambda m: m.prune([]), "outputs is empty"),
        (lambda m: m.topology(fidelity=1.5), "fidelity must be a number from 0 to 1, but is 1.5"),
        (lambda m: m.topology(fidelity=float("nan")), "fidelity must be a finite number or None, but is nan"),
        (lambda m: m.topology(fidelity="0.9"), "fidelity must be a finite number or None, but is '0.9'"),
        (lambda m: m.topology(metric="weight"), "metric must be one of contribution, backward, forward_n, forward_u"),
        (lambda m: m.topology(fill="median"), "fill must be one of mean, zero, but is 'median'"),
        (lambda m: m.topology(thresholds={"edges": 1}), "no threshold 'edges'; the thresholds are node, edge, input"),
        (lambda m: m.topology(thresholds={"edge": -1}), "thresholds.edge must be a number from 0, but is -1"),
        (lambda m: m.topology(thresholds=0.3), "thresholds must be a Thresholds or a mapping or None, but is 0.3"),
        (lambda m: m.topology(thresholds={}, fidelity=0.9), "fidelity and thresholds are both given: give one"),
        (lambda m: m.edge("lstm:9", "head:1:0"), "there is no edge from 'lstm:9'; edges leave lstm:0, lstm:1"),
        (lambda m: m.edge("lstm:1", "head:1:9"), "from 'lstm:1' edges lead to head:1:0, head:1:1, head:1:2"),
        (lambda m: m.edge(0, 9, 0), "there is no edge (head, 0, 9, 0); there are head layer 0: i 0 to 4, j 0 to 2"),
        (lambda m: m.edge(0, 0, 0, stage="front"), "there is no edge (front, 0, 0, 0)"),
        (lambda m: m.edge("lstm:1"), "there is no edge 'lstm:1': an id is such as 'head:0:7:3'"),
        (lambda m: m.edge("head:0:9:0"), "there is no edge (head, 0, 9, 0); there are head layer 0: i 0 to 4"),
        (lambda m: m.edge(0, -1, 0), "there is no edge (head, 0, -1, 0)"),
        (lambda m: m.topology(without=["head:2:0:0"]), "there is no edge (head, 2, 0, 0); there are head layer 0"),
        (lambda m: m.topology(without=["front:0:0:0"]), "there is no edge (front, 0, 0, 0)"),
        (lambda m: m.topology(without=[("lstm:1", "head:1:9")]), "there is no edge from 'lstm:1' to 'head:1:9'"),
        (lambda m: m.topology(without=["head:0:1:" + "9" * 5000]), "an id is such as 'head:0:7:3'"),
        (lambda m: m.ablate(BAD, without=[3]), "without[0] must be text or a tuple, but is 3"),
        (lambda m: m.prune(without=["head:0:1"]), "there is no edge 'head:0:1': an id is such as 'head:0:7:3'"),
        (lambda m: m.edge(0, 0, 0, points=1), "points must be a whole number from 2, but is 1"),
        (lambda m: m.edge(0, 0, 0, span="all"), "span must be one of support, reference, grid, but is 'all'"),
        (lambda m: m.compare(BAD), "other must be a Model or None, but is"),
        (lambda m: m.explain(BAD, tolerance=0), "tolerance must be above 0, at most 1e+06, but is 0"),
        (lambda m: m.explain(BAD, tolerance=1e308), "tolerance must be above 0, at most 1e+06, but is 1e+308"),
        (lambda m: m.explain(BAD, tolerance=float("nan")), "tolerance must be a finite number, but is nan"),
        (lambda m: m.explain(BAD, path_nodes=18), "path_nodes must be a multiple of 4 and one"),
        (lambda m: m.explain(BAD, path_nodes=17.0), "path_nodes must be a whole number, but is 17.0"),
        (lambda m: m.save("m.pt"), "m.pt must end in .safetensors"),
        (lambda m: kanmodel.load("nowhere.safetensors"), "cannot read nowhere.safetensors"),
    ],
)
def test_names_and_options_that_do_not_exist(model, ask, message):
    """An unknown name or option is refused with one sentence that lists the existing ones."""
    with pytest.raises(kanmodel.KanscopeError, match=re.escape(message)) as found:
        ask(model)
    assert "\n" not in str(found.value)


class Forecaster(nn.Module):
    """An LSTM with a Linear head."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def test_from_torch_and_from_file_give_a_model(tmp_path):
    """A live module and its file become models that predict what the module does, with the given names."""
    torch.manual_seed(0)
    net = Forecaster().eval()
    x = torch.randn(60, 5, 2)
    expected = net(x).detach().numpy()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    groups = {"air": ["temp", "wind"]}
    options = {"windows": x, "features": ["temp", "wind"], "groups": groups}
    live = kanmodel.from_torch(net, outputs=["change"], **options)
    filed = kanmodel.from_file(tmp_path / "net.pt", predictions=expected, **options)
    assert isinstance(live, Model) and live.outputs == ("change+1",)
    for model in (live, filed):
        np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)
        assert [feature.name for feature in model.features] == ["temp", "wind"]
        assert model.group_names == ("air",)


@pytest.fixture
def make_forecaster(tmp_path):
    """Makes a model from a live module or from its file, on integer windows."""
    torch.manual_seed(0)
    net = Forecaster().eval()
    x = torch.randint(-3, 4, (60, 5, 2)).float()
    torch.save(net.state_dict(), tmp_path / "net.pt")

    def make(live, windows=x, **options):
        options = {"windows": windows, "features": ["temp", "wind"], **options}
        if live:
            return kanmodel.from_torch(net, **options)
        return kanmodel.from_file(tmp_path / "net.pt", predictions=net(windows).detach().numpy(), **options)

    make.windows = x
    return make


@pytest.mark.parametrize("live", [True, False])
def test_from_torch_and_from_file_take_integer_and_fixed_features(make_forecaster, tmp_path, live):
    """Integer and fixed features are in the model and its checkpoint, and counterfactuals respect them."""
    model = make_forecaster(live, integer=["temp"], fixed=("wind",))
    model.save(tmp_path / "net.safetensors")
    for one in (model, kanmodel.load(tmp_path / "net.safetensors")):
        assert [(f.integer, f.fixed) for f in one.features] == [(True, False), (False, True)]
    window = make_forecaster.windows[:1].numpy()
    found = model.counterfactual(window, at_least=float(model.predict(window)[0, 0]) + 1e-3)[0]
    assert [change.feature for change in found.changes] == ["temp"]
    assert found.changes[0].shift == round(found.changes[0].shift) != 0
    assert (found.window[:, 1] == window[0, :, 1]).all()


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"integer": ["gust"]}, "^the call: integer has no feature 'gust'; the features are temp, wind$"),
        ({"fixed": ["gust"]}, "^the call: fixed has no feature 'gust'; the features are temp, wind$"),
        ({"fixed": "wind"}, "^fixed must be a list, but is 'wind'$"),
        ({"features": ["n" * 201, "wind"]}, "name must be printable text of at most 200 characters, but is 'nnn"),
    ],
)
def test_options_of_features_that_do_not_fit_are_refused(make_forecaster, live, options, says):
    """An unknown name, a string in place of a list, and a name that cannot be shown, each in one sentence."""
    with pytest.raises(kanmodel.KanscopeError, match=says):
        make_forecaster(live, **options)


@pytest.mark.parametrize("live", [True, False])
def test_windows_with_fractions_of_an_integer_feature_are_refused(make_forecaster, live):
    """The error has the first fraction; rounding of a float32 scaling is allowed."""
    windows = make_forecaster.windows.clone()
    windows[:, :, 1] = (windows[:, :, 1] - 0.3) / 7 * 7 + 0.3
    assert make_forecaster(live, windows, integer=["wind"]).features[1].integer
    windows[3, 2, 1] = 0.5
    with pytest.raises(CheckpointError, match=r"^windows must have whole numbers of wind, but \[3\]\[2\]\[1\] is 0.5$"):
        make_forecaster(live, windows, integer=["temp", "wind"])


def test_a_model_does_not_change():
    """Whatever is asked of it, and whatever is done to what it gives, a model predicts and explains the same."""
    model = Model.of(make_model("head", dtype="float32", targets=("a", "b")))
    windows, groups = make_windows(model, 3), {"pair": ["f0", "f1"]}
    grouped = model.with_groups(groups)
    before = model.predict(windows), model.explain(windows).contributions
    fast = model.accelerate()
    assert fast is not model and fast.network is model.network
    model.prune(), model.refine_grid(10), model.topology(), model.report()
    groups["pair"].append("f2")
    assert grouped.config.groups == {"pair": ["f0", "f1"]} and not model.config.groups
    arrays = [*model.feature_range, model.output_std, model.reference.windows, model.reference.targets]
    for array in (*arrays, model.reference_predictions):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    model.predict(windows)[:] = 0
    with pytest.raises(TypeError, match="read-only"):
        model.metrics["test_r2"] = -1.0
    np.testing.assert_array_equal(model.predict(windows), before[0])
    np.testing.assert_array_equal(model.explain(windows).contributions, before[1])
    assert model.metrics.get("test_r2") != -1.0 and model._fast_predict is None
