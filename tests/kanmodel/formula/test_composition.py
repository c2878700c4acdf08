"""What an output of a graph is computed from: symbols, edges and the operations between them, and as formulas."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thorough import examples, few_of
from torch import nn
from wired import FEATURES, LOOKBACK, PLANS, Random, forecast, make_wired, random_walks, read

import kanmodel
from kanmodel.errors import ConfigError
from kanmodel.formula.composition import FOLDED, REFUSED, Composition, _GraphComposer, notation_of
from kanmodel.formula.formula import split_reference
from kanmodel.formula.head_formula import HeadFormula
from kanmodel.network.operations import OPERATIONS

SCALING = {"mean": [3.0, -1.0, 0.5], "std": [2.0, 4.0, 0.25], "target_mean": [1.0, 2.0], "target_std": [3.0, 5.0]}


class Own:
    """The network's function on an edge, in place of a formula."""

    def __init__(self, layer, i, j):
        self.layer, self.i, self.j = layer, i, j

    def values(self, x):
        inputs = torch.zeros(np.size(x), self.layer.config.n_in, dtype=self.layer.mask.dtype)
        inputs[:, self.i] = torch.from_numpy(np.broadcast_to(x, np.size(x)).astype(np.float64))
        return self.layer.edges(inputs)[:, self.j, self.i].double().numpy()


def check_composition(model, output, windows):
    """With the network's own edges the steps compute its output."""
    composition = Composition(model.network.stages["head"], *_GraphComposer(model).compose(output))
    edges = [(n, i, j) for n in composition.rows for j, i in composition.layers[n].live.nonzero().tolist()]
    formula = HeadFormula(composition, {(n, i, j): Own(composition.layers[n], i, j) for n, i, j in edges}, {})
    trace = model.network.trace(windows)
    expected = trace.logits[:, output].double().numpy()
    found = formula.values(composition.read(windows, trace))
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(
    "name",
    few_of(
        ["SkipAroundHead", "RevIN", "HeadOnLastSteps", "FinalStates", "Pooled", "Convolved", "CellLoop", "Decoder"],
        ["RevIN", "FinalStates", "Pooled", "CellLoop"],
        "the same with other wirings",
    ),
)
def test_steps_compute_the_output(name):
    """Through skips, statistics, rows and unrolled loops, for new windows."""
    model = read(name)
    for output in range(2):
        check_composition(model, output, torch.from_numpy(random_walks(7, seed=3)).float())


@settings(max_examples=examples(15))
@given(PLANS, st.integers(0, 99))
def test_steps_compute_any_graph(plan, seed):
    """Unless a reason is given, random operations and layers are composed to what the network computes."""
    net = Random(plan, seed).double().eval()
    model = kanmodel.from_torch(net, windows=random_walks(40, seed) / 3, features=list(FEATURES))
    assume(model.config.graph)
    try:
        check_composition(model, 1, torch.from_numpy(random_walks(5, seed + 1) / 3))
    except ConfigError as error:
        assert "a formula" in str(error)


@pytest.mark.parametrize("op", [op for op, one in OPERATIONS.items() if one.function is not None and op != "matmul"])
def test_every_operation_has_a_form_or_a_reason(op):
    """Numbers and symbols give what torch does, for arguments on both sides of every kink."""
    if op in REFUSED or op in FOLDED or op == "where":
        return  # of several values
    if op in ("erf", "gelu") or op.startswith("quantile_"):
        with pytest.raises(ConfigError, match=f"{op} cannot be written as a formula"):
            notation_of(op)
        return
    x, y = torch.linspace(-4, 7, 23).double(), torch.linspace(5, -3, 23).double()
    x = x.abs() if op in ("log", "sqrt") else x
    parameter = 3.0 if op == "power" else OPERATIONS[op].parameter
    given = [x, y][: OPERATIONS[op].n_inputs] + ([] if parameter is None else [parameter])
    expected = OPERATIONS[op].function(*given).numpy()
    form = notation_of(op)
    with np.errstate(all="ignore"):
        found = form.of_numbers(x.numpy(), y.numpy(), parameter or 0.0)
        u, v = sympy.symbols("u v")
        written = sympy.lambdify((u, v), form.of_symbols(u, v, parameter or 0.0), "numpy")(x.numpy(), y.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(written, expected, atol=1e-12)


def run(formula, windows, model):
    """The value of a formula's Python text, with numpy alone, for windows in original units."""
    scope: dict[str, object] = {}
    exec(compile(formula.python, "formula", "exec"), scope)
    function = scope[next(name for name in scope if not name.startswith("__") and name != "numpy")]
    trace = model.network.trace(model.scaling.features_to_model(windows))
    columns = {}
    for symbol, variable in formula.variables.items():
        statistic, _, inner = variable.node.partition("(")
        node = inner.removesuffix(")") or variable.node
        kind, *rest = node.split(":")
        if kind == "cell":
            values = windows[:, int(rest[0]) - 1 :, FEATURES.index(rest[1])]
            columns[symbol] = values[:, 0]
            continue
        if kind in ("lstm", "gru"):
            unit, _, step = rest[1].partition(" at ")
            values = trace.recurrents[int(rest[0])].states[-1][:, :, int(unit)].double().numpy()
            values = values if inner else values[:, int(step or 0) - 1]
        else:
            values = windows[:, :, FEATURES.index(node)]
        columns[symbol] = getattr(np, statistic)(values, axis=1) if inner else values
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(function(**columns), dtype=float), len(windows))


@pytest.mark.parametrize(
    "name",
    few_of(["RevIN", "LastValueAdded", "HeadOnLastSteps", "Pooled", "TwoBranches"], {"RevIN"}, "with other wirings"),
)
def test_formulas_of_a_graph_have_the_stated_error(name):
    """In original units, through the whole model, on windows that no choice depends on; the last is the network."""
    net, windows = make_wired(name), random_walks()
    original = windows * SCALING["std"] + SCALING["mean"]
    model = kanmodel.from_torch(net, windows=original, features=list(FEATURES), scaling=SCALING)
    formulas = model.formula(model.outputs[1])
    *_, (judged, _) = split_reference(model)
    windows = judged.scaling.features_to_original(judged.reference.scaled)
    expected = 2 + 5 * forecast(net, (windows - SCALING["mean"]) / SCALING["std"])[:, 1]
    for formula in formulas:
        if formula.r2 is not None:
            lost = ((run(formula, windows, judged) - expected) ** 2).sum()
            assert formula.r2 == pytest.approx(1 - lost / ((expected - expected.mean()) ** 2).sum(), abs=1e-5)
    assert formulas[-1].r2 > 0.999


def test_a_normalised_window_is_named_by_its_statistics():
    """Around a head with RevIN the forecast is scaled back by the mean and deviation of the window, by their names."""
    formula = read("RevIN").formula()[-1]
    nodes = {symbol: variable.node for symbol, variable in formula.variables.items()}
    assert (nodes["mean_a"], nodes["std_a"]) == ("mean(a)", "std(a)")
    assert {node.split(":")[0] for node in nodes.values()} == {"mean(a)", "std(a)", "lstm"}
    assert all(variable.profile for variable in formula.variables.values() if variable.node.startswith("lstm"))
    assert "mean_a" in formula.expression and "sqrt(std_a**2" in formula.expression


def test_the_last_value_is_a_symbol():
    """y = last + head has the newest cell of the window, in the simplest formula too."""
    first, *_, last = read("LastValueAdded").formula()
    assert first.expression.startswith("a_0") and first.variables["a_0"].node == "cell:0:a"
    assert {variable.node for variable in last.variables.values()} >= {"cell:0:a", "cell:-1:a"}


def test_what_is_chosen_by_a_comparison_is_written():
    """A step function and a choice between two values are maps of numbers like others."""
    torch.manual_seed(0)
    net = Of(lambda h: torch.where(h[:, -1] > 0.1, h[:, -1] * h[:, 0], h[:, -2]))
    model = kanmodel.from_torch(net, windows=random_walks(), features=list(FEATURES))
    check_composition(model, 0, torch.from_numpy(random_walks(30, seed=3)).float())
    assert "maximum(sign(" in model.formula()[-1].expression.replace("0, sign(", "sign(")


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.lstm, self.fc, self.function = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2), function

    def forward(self, x):
        return self.fc(self.function(self.lstm(x)[0])) + x[:, -1, :2]


REASONS = {
    "a norm": (lambda h: h[:, -1] / h.std(dim=(1, 2))[:, None], "deviation, as of a norm, mixes 24 values"),
    "attention": (lambda h: (h * torch.softmax(h.sum(dim=2), dim=1)[:, :, None]).sum(dim=1), "softmax mixes 6 values"),
    "products": (lambda h: (h @ h.transpose(1, 2) @ (h @ h.transpose(1, 2)).tanh() @ h)[:, -1], "would be too long"),
    "erf": (lambda h: torch.erf(h[:, -1]), "erf cannot be written"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_no_formula_says_why(name):
    """One sentence names the operation, or the length."""
    function, says = REASONS[name]
    torch.manual_seed(0)
    model = kanmodel.from_torch(Of(function), windows=random_walks(), features=list(FEATURES))
    with pytest.raises(ConfigError, match=says):
        model.formula()


def test_statistics_of_some_steps_name_them():
    """A mean over the newest steps is not that of the window; what is one value is no statistic."""

    class Newest(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 1)

        def forward(self, x):
            return (
                self.fc(x[:, -3:, :1].mean(dim=1)) * x[:, ::2, 1].amax(dim=1, keepdim=True) + x[:, :, 2].sum(1)[:, None]
            )

    torch.manual_seed(0)
    model = kanmodel.from_torch(Newest(), windows=random_walks(), features=list(FEATURES))
    inputs = Composition.of(model, 0).inputs
    assert {one.node for one in inputs} == {"mean(a from -2 to 0)", "max(b at -5, -3, -1)", "sum(c)"}


def test_each_statistic_has_a_symbol_of_its_own():
    """A moving average takes means of one feature over several steps, whose names would be the same."""

    class Smoothed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(LOOKBACK - 2, 1)

        def forward(self, x):
            return self.fc(nn.functional.avg_pool1d(x[:, None, :, 0], 3, 1)[:, 0])

    torch.manual_seed(0)
    model = kanmodel.from_torch(Smoothed(), windows=random_walks(), features=list(FEATURES))
    formula = model.formula()[-1]
    assert formula.r2 > 0.999 and set(formula.variables) <= {"mean_a", "mean_a_2", "mean_a_3", "mean_a_4"}
    assert len({variable.node for variable in formula.variables.values()}) == len(formula.variables) > 2
