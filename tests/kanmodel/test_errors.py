from __future__ import annotations

import inspect
from functools import cache, partial
from inspect import Parameter, isfunction, signature
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factories import make_model, make_windows, with_intervals
from torch import nn

import kanmodel
from kanmodel import DataError, ExportError, Model, UnknownNameError
from kanmodel.errors import (
    MAX_ERROR,
    MAX_MESSAGE,
    MAX_PATH,
    MAX_QUOTED,
    KanscopeError,
    Problem,
    _parameters,
    checked,
    quote,
)
from kanmodel.forecaster import Forecaster
from kanmodel.result import Result

LONG = "x" * 100_000


@pytest.mark.parametrize(
    "value",
    [LONG, [[LONG] * 9] * 9, {LONG: {LONG: LONG}}, 10**4000, pytest.param(10**5000, id="5001 digits"), b"x" * 10_000],
)
def test_a_value_is_quoted_in_part(value):
    """A long value, nested or not, is quoted by its two ends."""
    assert len(quote(value)) <= MAX_QUOTED
    assert quote("short") == "'short'"


def test_a_problem_is_short():
    """The path keeps its end, where an index is."""
    problem = Problem(f"{LONG}[3]", LONG)
    assert len(problem.path) == MAX_PATH and problem.path.endswith("x[3]")
    assert len(problem.message) == MAX_MESSAGE


WRONG = (
    *(None, True, 0, -1, 2.5, 10**400, float("nan"), float("inf"), np.float64(3), np.int64(-7), Path("/nonexistent/x")),
    *("nonsense", "", "\0", b"x", [], [3], [None], ["f0", "f0"], [2.5, float("nan")], (), set(), object(), print),
    *({}, {"f0": 35}, {"f0": object()}, {3: 4}, {"edge": "x"}, {"s": (0, 9)}),
    *(np.zeros(2), np.array(3), np.array([["a"]])),
)


FOREIGN = object()


INTERNAL = [member for member in vars(Forecaster).values() if isfunction(member)]


@cache
def model() -> Model:
    return Model.of(make_model("lstm", n_features=2, hidden_size=2, n_hidden=1, lookback=3, n_reference=40))


@cache
def windows():
    return make_windows(model(), 1)


def frame():
    rows = np.random.default_rng(0).normal(size=(90, 2))
    return {"f0": rows[:, 0], "f1": rows[:, 1]}


QUICK = {"epochs": 1, "lookback": 2, "hidden": 1, "patience": 1, "reference_windows": 20, "progress": False}


FUNCTIONS = {
    "train": lambda: {"frame": frame(), "target": "f0", "ahead": 1, **QUICK},
    "fine_tune": lambda: {"model": model(), "frame": frame(), "epochs": 0},
    "load": dict,
    "from_torch": lambda: {"net": nn.Linear(2, 1), "windows": windows(), "features": ["f0", "f1"]},
    "from_file": lambda: {"path": "x.pt", "windows": windows(), "predictions": [1.0], "features": ["f0", "f1"]},
}


def call_usual(function, **given):
    """The answer of a function to its usual arguments, changed as given."""
    return getattr(kanmodel, function)(**FUNCTIONS[function]() | given)


STATED = ["outputs", "targets", "scaling", "horizon", "ahead", "groups", "integer", "fixed"]


OPTIONS = {
    "train": ["lookback", "horizon", "hidden", "cell", "width", "front", "grid", "lamb", "batch", "seed", "noise"],
    "from_torch": STATED,
    "from_file": [*STATED, "tolerance", "strict"],
}


@cache
def results() -> dict[str, Result]:
    one, window = model(), windows()
    return {
        "Model": one,
        "Explanation": one.explain(window),
        "Explanations": one.explain(window, outputs="all"),
        "Forecasts": with_intervals(one).predict(window, intervals="all"),
        "WhatIf": one.what_if(window, ["f0"], shift=(-1, 1)),
        "Counterfactuals": one.counterfactual(window, at_least=-1e3),
        "Counterfactual": one.counterfactual(window, at_least=-1e3)[0],
        "Backtest": one.backtest(**BASE["backtest"]()),
        "Drift": one.drift(**BASE["drift"]()),
        "Changes": one.changes(np.zeros((2, *window.shape[-2:]))),
        "Comparisons": one.compare(None, window, window),
        "ModelComparison": one.compare(one),
        "Importance": one.importance(),
        "Topology": one.topology(),
        "Ablation": one.ablate(window),
        "Attention": one.attention(window),
        "Edge": one.edge("head:0:0:0"),
        "Trust": one.trust(window),
        "Formulas": one.formula(),
        "Report": one.report(),
    }


BASE = {
    "windows": windows,
    "backtest": lambda: {"frame": frame() | {"y": np.zeros(90)}},
    "compare": lambda: {"other": model()},
    "counterfactual": lambda: {"at_least": 1e3, "max_features": 1},
    "curves": lambda: {"edges": model().topology().kan_edges},
    "drift": lambda: dict.fromkeys(("reference", "current"), frame() | {"y": np.zeros(90)}),
    "edge_formulas": lambda: {"edge": model().topology().kan_edges[0]},
    "fidelity_to": lambda: {"full": model()},
    "find_edges": lambda: {"edges": ["head:0:0:0"]},
    "find_representable": lambda: {"values": windows()},
    "push_to_hub": lambda: {"repo_id": "who/load"},
    "refine_grid": lambda: {"grid_size": 7},
    "require_completeness": lambda: {"output_std": 1.0},
    "simplest": lambda: {"r2": 0.5},
    "with_groups": lambda: {"groups": {"g": ["f0"]}},
}


def methods() -> list[tuple[str, str]]:
    """Every public method of `Model`, its `Forecaster` aside, and of the results, once for each class that has it."""
    kinds = [getattr(kanmodel, name) for name in kanmodel.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Result)]
    return [
        (kind.__name__, name)
        for kind in kinds
        for name in sorted(dir(kind))
        if not name.startswith("_") and isfunction(method := getattr(kind, name)) and method not in INTERNAL
    ]


def refused(call, name, value) -> bool:
    """Whether a call refuses an argument; any other exception than a `KanscopeError` is raised."""
    try:
        call(**{name: value})
    except KanscopeError as error:
        assert str(error) and "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize(("kind", "name"), methods())
def test_methods_refuse_wrong_arguments(kind, name, tmp_path, monkeypatch):
    """Whatever is given, a method answers or raises a `KanscopeError`; a foreign object it refuses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    method = getattr(results()[kind], name)
    own = signature(method).parameters.values()
    named = [one.name for one in own if one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    arguments = {*named, *_parameters(inspect.unwrap(method))[1]} - {"self"}
    base = BASE[name]() if name in BASE else {}
    if kind == "Topology":
        base = {"edge": {"stage": "head", "layer": 0, "i": 0, "j": 0}, "through": {"node": "lstm:0"}}.get(name, {})
    if "windows" in signature(method).parameters and name != "compare":
        base = {"windows": windows(), **base}
    place = ("head:0:0:0",) if (kind, name) == ("Model", "edge") else ()
    for argument in sorted(arguments):
        for value in (*WRONG, FOREIGN):
            found = refused(lambda **given: method(*place, **base | given), argument, value)
            assert found or value is not FOREIGN, argument


@pytest.mark.parametrize(
    "ask",
    [
        lambda: model().explain(windows(), groups={"g": [LONG]}),
        lambda: model().explain(windows(), groups={LONG: []}),
        lambda: model().explain(windows(), segments={LONG: (0, 1)}),
        lambda: model().explain(windows(), segments={"s": LONG}),
        lambda: model().explain(windows(), baseline=LONG),
        lambda: model().explain(windows(), baseline={"values": {LONG: 0}}),
        lambda: model().explain(windows(), output=LONG),
        lambda: model().explain(windows(), tolerance=LONG),
        lambda: model().predict({LONG: [0]}),
        lambda: model().what_if(windows(), [LONG]),
        lambda: model().what_if(windows(), steps=[0] * 100_000),
        lambda: model().what_if(windows(), shift=[0] * 100_000),
        lambda: model().counterfactual(windows(), between=[0] * 100_000),
        lambda: model().prune(without=[LONG]),
        lambda: model().edge(LONG),
        lambda: model().topology().through(LONG),
    ],
)
def test_an_error_quotes_a_long_argument_in_part(ask):
    """The message of every argument is short, however long the argument is."""
    with pytest.raises(KanscopeError) as refused:
        ask()
    assert len(str(refused.value)) <= MAX_PATH + MAX_MESSAGE


@pytest.mark.parametrize(
    "ask",
    [
        lambda: kanmodel.load(LONG),
        lambda: Model.identify(LONG),
        lambda: model().save(LONG),
        lambda: model().export_onnx(LONG),
        lambda: model().push_to_hub(LONG),
        lambda: model().topology().svg(LONG),
        lambda: model().topology().html(LONG),
        lambda: model().topology().edge("head", 0, LONG, LONG),
    ],
)
def test_an_error_quotes_a_long_name_by_its_ends(ask):
    """A name of a file or of an edge may be quoted at more length, but not whole."""
    with pytest.raises(KanscopeError) as refused:
        ask()
    assert len(str(refused.value)) <= MAX_ERROR


@pytest.mark.parametrize(
    "ask",
    [
        lambda odd: kanmodel.load(odd),
        lambda odd: model().save(f"/nonexistent/{odd}"),
        lambda odd: model().export_onnx(f"/nonexistent/{odd}.onnx"),
        lambda odd: model().topology().svg(f"/nonexistent/{odd}.svg"),
        lambda odd: kanmodel.train(pd.DataFrame({odd: np.arange(100.0)}), target="y"),
        lambda odd: kanmodel.train(pd.DataFrame({"y": np.arange(400.0), odd: ["same"] * 400}), target="y"),
        lambda odd: model().explain(windows(), segments={odd: (0, 99)}),
    ],
)
def test_an_error_is_printable(ask):
    """It is shown in terminals, which act on control characters that the name of a file or of a column may have."""
    with pytest.raises(KanscopeError) as refused:
        ask("wind\x1b[31m\n\u202e")
    assert "wind�[31m��" in str(refused.value) and str(refused.value).isprintable()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_wrong_arguments(name):
    """Whatever is given for an argument or an option, a function answers or raises a `KanscopeError`."""
    for argument in {*signature(getattr(kanmodel, name)).parameters, *OPTIONS.get(name, ())} - {"options"}:
        for value in (*WRONG, FOREIGN):
            assert refused(partial(call_usual, name), argument, value) or value is not FOREIGN, argument


@pytest.mark.parametrize("name", sorted({name for _, name in methods()} & {"svg", "html"}))
@pytest.mark.parametrize("path", ["/nonexistent/x.svg", "/", "a\0b"])
def test_a_file_that_cannot_be_written_is_named(name, path):
    """The error of a picture, a page or a checkpoint names its path."""
    with pytest.raises(ExportError, match="cannot write"):
        getattr(results()["Importance"], name)(path)
    with pytest.raises(kanmodel.CheckpointError, match="nonexistent"):
        model().save("/nonexistent/x.safetensors")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.explain(windows(), tolerance=True), DataError, "tolerance must be a finite number, but is True"),
        (lambda m: m.what_if(windows(), {"temp": 35}), DataError, "features must be a list or text or None, but is"),
        (lambda m: m.explain(windows()).table("grupo"), UnknownNameError, "by must be one of feature, group"),
        (lambda m: m.importance().svg(theme="pink"), UnknownNameError, "theme must be one of light, dark, auto"),
        (lambda m: m.counterfactual(windows(), at_least="5"), DataError, "at_least must be a finite number"),
        (lambda m: m.counterfactual(windows(), between=5), DataError, "between must be"),
        (lambda m: m.topology(without=[3]), DataError, r"without\[0\] must be text or a tuple, but is 3"),
        (lambda m: m.topology(thresholds={"edge": "a"}), DataError, "thresholds.edge must be a finite number"),
        (lambda m: m.explain(windows(), segments={"s": (-1.5, 0)}), DataError, "segments.s must be 2 values"),
        (lambda m: call_usual("train", batch=2.5), DataError, "batch must be a whole number, but is 2.5"),
        (lambda m: call_usual("train", features=[]), DataError, "features"),
        (lambda m: call_usual("train", width=(1, "a")), DataError, r"width\[1\] must be"),
    ],
)
def test_what_is_said_of_a_wrong_argument(call, error, message):
    """The message names the argument, states what it must be and what it is."""
    with pytest.raises(error, match=message):
        call(model())


def test_what_is_accepted():
    """NumPy's scalars and arrays are numbers and sequences, whole numbers are numbers, and lists are tuples."""

    @checked
    def call(a: float, b: int | None = None, c: tuple[int, ...] = (), *, d: bool = False) -> None: ...

    call(np.int64(1), np.int32(2), [1, 2], d=np.bool_(True))
    call(3, c=np.array([1, 2]))
    for wrong in ({"a": True}, {"a": 1, "b": 2.0}, {"a": 1, "c": "12"}, {"a": 1, "d": 1}, {"a": float("nan")}):
        with pytest.raises(DataError):
            call(**wrong)
