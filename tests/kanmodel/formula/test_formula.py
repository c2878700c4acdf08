"""The front of head formulas, from a constant to the whole network."""

from __future__ import annotations

import ast
import builtins
import keyword
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import sympy
import torch
from factories import make_chain, make_model
from hypothesis import example, given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.computing import pausing
from kanmodel.errors import ConfigError, InsufficientReferenceError
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.formula import formula as formula_module
from kanmodel.formula.composition import Composition
from kanmodel.formula.formula import (
    LOW,
    MUCH,
    Formulas,
    Writer,
    find_front,
    find_knee,
    make_identifiers,
    split_reference,
)
from kanmodel.formula.symbolic import suggest_formulas
from kanmodel.network.config import Transform, plain_layers
from kanmodel.text import UNPRINTABLE

HOSTILE = (
    "phi_0_0_0",
    "lambda",
    "wind-speed",
    "2m temp",
    "température",
    "I",
    "E",
    "sin",
    "numpy",
    "x",
    "温度",
    "wind_speed",
)
MORE = pytest.mark.thorough("the same search for another model")
NAMES = st.text(min_size=1, max_size=4).filter(lambda name: not UNPRINTABLE.search(name))


def formulas_of(model, output=0):
    return Formulas.of(model, output).formulas


@cache
def tiny(shape, **options):
    model = make_model(shape, **{"n_features": 3, "n_hidden": 2, "hidden_size": 3, "lookback": 3} | options)
    return model, formulas_of(model)


def run(model, formula):
    """The value of a formula's Python text on the reference windows, with numpy alone."""
    scope: dict[str, object] = {}
    exec(compile(formula.python, "formula", "exec"), scope)
    (function,) = (value for name, value in scope.items() if callable(value) and not name.startswith("__"))
    nodes = model.network.encode(model.reference.scaled).double().numpy()
    originals = model.scaling.features_to_original(model.reference.scaled)
    columns = {}
    for symbol, variable in formula.variables.items():
        kind, *rest = variable.node.split(":")
        if kind == "feature":
            columns[symbol] = originals[:, -1, model.config.feature_names.index(":".join(rest))]
        elif kind == "cell":
            step, name = rest[0], ":".join(rest[1:])
            columns[symbol] = originals[:, int(step) - 1, model.config.feature_names.index(name)]
        else:
            columns[symbol] = nodes[:, int(rest[-1])]
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(function(**columns), dtype=float), (len(nodes),))


def check_stated_error(model, formula, output=0):
    *_, (model, _) = split_reference(model)
    full = model.scaling.outputs_to_original(model.reference_outputs)[:, output]
    found = run(model, formula)
    assert formula.r2 == pytest.approx(1 - ((full - found) ** 2).sum() / ((full - full.mean()) ** 2).sum(), abs=1e-6)
    if model.reference.targets is None:
        assert formula.mae is None
    else:
        assert formula.mae == pytest.approx(np.abs(found - model.reference.targets[:, output]).mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        pytest.param("head", {}, marks=MORE),
        ("head", {"product": True, "dtype": "float32"}),
        ("lstm", {}),
        pytest.param("lstm", {"cell": "gru", "with_targets": False}, marks=MORE),
        pytest.param("front", {"seed": 1}, marks=MORE),
        pytest.param("flat", {}, marks=MORE),
    ],
)
def test_the_python_runs_alone_and_has_the_stated_error(shape, options):
    """This holds for every formula of the front, on the windows that neither the search nor the choice used."""
    model, formulas = tiny(shape, **options)
    for formula in formulas:
        check_stated_error(model, formula)


@pytest.mark.parametrize("shape", ["head", pytest.param("lstm", marks=MORE), pytest.param("flat", marks=MORE)])
def test_formulas_are_pareto_optimal(shape):
    """Starting from a constant, each is more complex and on the windows that choose nearer than the one before."""
    model, formulas = tiny(shape)
    assert formulas[0].complexity == 1 and not formulas[0].variables
    (searched, _), (chosen, _), _ = split_reference(model)
    for (one, r2), (next_one, next_r2) in pairwise(find_front(searched, chosen, 0, Composition.of(model, 0))):
        assert one.complexity < next_one.complexity and r2 < next_r2


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ("head", {}),
        pytest.param("head", {"product": True, "dtype": "float32"}, marks=MORE),
        pytest.param("lstm", {"n_hidden": 5}, marks=MORE),
        pytest.param("front", {"seed": 1}, marks=MORE),
        pytest.param("flat", {}, marks=MORE),
    ],
)
def test_the_last_formula_is_the_network(shape, options):
    """With its edges as tables, or a shorter one as near, little is lost, also with nodes without inputs."""
    model, formulas = tiny(shape, **options)
    assert formulas[-1].r2 > 0.9995
    network = deepcopy(model.network)
    first = network.head[0]
    with torch.no_grad():
        first.mask[0] = 0  # a hidden node, or a factor, that is constant
    cut = replace(model, network=network)
    written = formulas_of(cut)
    assert written[-1].r2 > 0.9995
    for formula in written:
        check_stated_error(cut, formula)


@pytest.mark.parametrize("shape", ["head", pytest.param("lstm", marks=MORE), pytest.param("flat", marks=MORE)])
def test_what_judges_decides_nothing(shape):
    """With other windows and targets in the judged part, only R2 and error change, to the last bit."""
    model, formulas = tiny(shape)
    (_, searched), (_, chosen), (judging, judged) = split_reference(model)
    first = searched.windows + chosen.windows
    assert first + judged.windows == len(model.reference.scaled)
    windows, targets = model.reference.scaled.clone(), model.reference.targets.copy()
    windows[first:] = 3 * torch.randn(windows[first:].shape, generator=torch.Generator().manual_seed(1))
    targets[first:] += 1
    others = formulas_of(replace(model, reference=replace(model.reference, scaled=windows, targets=targets)))
    assert [replace(one, r2=0, mae=0) for one in others] == [replace(one, r2=0, mae=0) for one in formulas]
    assert others[0].mae != formulas[0].mae and others[-1].r2 != formulas[-1].r2
    assert judging.reference.scaled.equal(model.reference.scaled[first:])


@pytest.mark.parametrize(("step", "lookback"), [(1, 1), (1, 5), (2, 5), (7, 5)])
def test_the_parts_share_no_step(step, lookback):
    """Windows of a part that share rows with an earlier part are left out, and each part states its span."""
    rows = torch.randn(1 + 90 * step + lookback, 3, dtype=torch.float64)
    ends = torch.arange(90) * step + lookback - 1
    windows = rows[ends[:, None] + torch.arange(1 - lookback, 1)]
    model = make_model("head", n_features=3, lookback=lookback, with_targets=False)
    times = tuple(f"row {end}" for end in ends.tolist())
    model = replace(model, reference=replace(model.reference, scaled=windows, times=times))
    parts = [part for _, part in split_reference(model)]
    spans = [tuple(int(time.split()[1]) for time in (part.first, part.last)) for part in parts]
    assert spans[0][0] == lookback - 1 and spans[-1][1] == ends[-1] and all(part.separate for part in parts)
    for (_, last), (first, _) in pairwise(spans):
        assert last < first - lookback + 1 <= last + step + (step == 2)
    assert sum(part.windows for part in parts) == 90 - 2 * -(-(lookback - step) // step) * (lookback > step)


def test_each_part_has_blocks_of_all_seasons():
    """Of many windows each part has four blocks in turn, and no row of one is in a window of another."""
    rows = torch.randn(520 + 4, 3, dtype=torch.float64)
    windows = rows[torch.arange(520)[:, None] + torch.arange(5)]
    model = make_model("head", n_features=3, lookback=5, with_targets=False)
    times = tuple(f"{row:03}" for row in range(520))
    models, parts = zip(
        *split_reference(replace(model, reference=Reference(windows, model.config, None, times))), strict=True
    )
    chosen = [[int(time) for time in one.reference.times] for one in models]
    assert sum(map(len, chosen)) == 520 - 11 * 4 and all(part.separate for part in parts)
    for number, of_part in enumerate(chosen):
        assert max(of_part) - min(of_part) > 0.7 * 520
        others = {row + step for other in chosen[:number] + chosen[number + 1 :] for row in other for step in range(5)}
        assert not others & {row + step for row in of_part for step in range(5)}


def test_a_formula_without_a_value_has_no_error():
    """Where a formula is not finite on a judged window, its R2 and error are None rather than a number."""
    model, formulas = tiny("head")
    (searched, _), (chosen, _), (judged, _) = split_reference(model)
    windows = judged.reference.scaled.clone()
    windows[-1] = torch.nan
    composition = Composition.of(model, 0)
    writer = Writer(searched, replace(judged, reference=replace(judged.reference, scaled=windows)), 0, composition)
    written = [writer.write(formula) for formula, _ in find_front(searched, chosen, 0, composition)]
    assert [(one.r2, one.mae) for one in written[1:]] == [(None, None)] * (len(formulas) - 1)


def test_parts_that_cannot_be_separate_say_so():
    """Of windows that all overlap half of each part stays; of fewer than 6 there are no formulas."""
    model = make_model("head", n_features=2, n_reference=9, with_targets=False)
    still = replace(model, reference=replace(model.reference, scaled=torch.ones(9, 3, 2)))
    assert [(part.windows, part.separate) for _, part in split_reference(still)] == [(3, True), (2, False), (2, False)]
    with pytest.raises(InsufficientReferenceError, match="formulas need 6 reference windows"):
        formulas_of(make_model("head", n_features=2, n_reference=5))


@pytest.mark.thorough("writes formulas of a large network")
def test_a_large_network_is_not_written_out():
    """A network with more than 300 edges has no formula as a whole."""
    config = replace(make_model("head", n_features=4).config, head=plain_layers([4, 40, 4, 1]))
    formulas = formulas_of(make_chain(config, n_reference=12))
    assert "phi" not in formulas[-1].expression


def test_the_edges_of_a_deep_network_are_counted_and_not_its_paths():
    """Nine layers of twelve nodes use all edges, but have five billion paths when expanded."""
    model = make_chain(
        replace(make_model("head", n_features=12).config, head=plain_layers([*[12] * 9, 1])), n_reference=2
    )
    layers = enumerate(model.network.head)
    edges = [(number, i, j) for number, layer in layers for j in range(layer.config.n_out) for i in range(12)]
    for layer in model.network.head:
        layer.mask.fill_(1)
    found = Composition.of(model, 0).find_used(edges)
    assert found == (sorted(edges), sum(12**depth for depth in range(1, 10)), 0)


def test_the_search_pauses_before_each_edge(monkeypatch):
    """Between the fits of two edges there is a pause, at which the search can be ended."""
    pauses, fits = [], []

    def suggest(x, y):
        fits.append(len(pauses))
        return suggest_formulas(x, y, ["x^2"])

    monkeypatch.setattr(formula_module, "suggest_formulas", suggest)
    with pausing(lambda: pauses.append(None)):
        formulas_of(make_model("head", n_features=3, n_hidden=2))
    assert len(fits) > 3 and len(set(fits)) == len(fits)


def test_a_linear_model_is_found_exactly():
    """A head of lines gives one line of its features, with R2 1."""
    config = replace(make_model("head", n_features=3).config, head=plain_layers([3, 2, 1]))
    network = make_chain(config).network
    with torch.no_grad():
        for layer in network.head:
            layer.coef[:] = 0
            layer.mask[:] = 1
            layer.scale_base[:] = 0.7
    linear = plain_layers([3, 2, 1], base="identity")
    model = _with(network, replace(config, head=linear), make_model("head", n_features=3))
    assert formulas_of(model)[-1].r2 == pytest.approx(1, abs=1e-4)
    assert "*" in formulas_of(model)[-1].expression and "(" not in formulas_of(model)[-1].expression


def _with(network, config, model) -> Forecaster:
    other = type(network)(config)
    other.load_state_dict(network.state_dict())
    return Forecaster(other, model.reference, {}, model.provenance)


@settings(max_examples=examples(5))
@given(
    st.lists(NAMES | st.sampled_from(HOSTILE), min_size=2, max_size=3, unique=True),
    st.integers(0, 2**16),
    st.sampled_from(["head", "flat"]),
)
def test_any_names_any_model(names, seed, shape):
    """For any printable feature names the Python text parses, runs, and has the stated error."""
    model = make_model(shape, seed, n_features=len(names), n_hidden=1, lookback=2, n_reference=60)
    features = tuple(replace(f, name=name) for f, name in zip(model.config.features, names, strict=True))
    model = _with(model.network, replace(model.config, features=features), model)
    for formula in formulas_of(model):
        check_stated_error(model, formula)


def test_each_output_has_its_own_formulas():
    """The formulas of the second output are evaluated against the second output."""
    model = make_model("head", n_features=2, targets=("a", "b"), n_hidden=1)
    for output, name in enumerate(model.config.outputs):
        for formula in formulas_of(model, output):
            assert formula.output == name
            check_stated_error(model, formula, output)


def test_an_output_function_is_part_of_the_formula():
    """For a sigmoid the text contains it, and the error is that of the probability."""
    model = make_model("head", n_features=2, n_hidden=1)
    model = _with(model.network, replace(model.config, output_function="sigmoid"), model)
    for formula in formulas_of(model):
        check_stated_error(model, formula)
    assert "exp(" in formulas_of(model)[-1].expression


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head": plain_layers([2, 2, 1], before=(Transform("layer_norm"),))}, "layer norm mixes"),
        ({"output_function": "softmax"}, "softmax mixes"),
        ({"output_function": "gelu"}, "gelu cannot be written"),
    ],
)
def test_a_model_without_formula_is_refused(change, says):
    """The error names the reason."""
    model = make_chain(replace(make_model("head", n_features=2).config, **change))
    with pytest.raises(ConfigError, match=says):
        formulas_of(model)


@given(st.lists(st.text(min_size=1, max_size=5) | st.sampled_from(["a-b", "a_b", "a b", "E", "sin", "x"]), unique=True))
@example([*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *sympy.__all__])
@example(
    ["a-b", "a_b", "a b", "a_b_", "a_b_2", "lambda", "lambda_", "ﬁ", "fi", "K", "\u212a"]
)  # a ligature, and the Kelvin sign
def test_each_name_has_an_identifier_of_its_own(names):
    """For any feature names, identifiers differ, parse, and are not reserved in Python or sympy."""
    identifiers = make_identifiers(names)
    assert len(set(identifiers)) == len(identifiers) == len(names)
    for name, identifier in zip(names, identifiers, strict=True):
        assert ast.parse(identifier, mode="eval").body.id == identifier
        assert not keyword.iskeyword(identifier) and not keyword.issoftkeyword(identifier)
        assert not hasattr(builtins, identifier) and identifier not in sympy.__all__
        assert sympy.sympify(identifier) == sympy.Symbol(identifier)
        if name == identifier:
            assert name.isascii()


@pytest.mark.parametrize(
    ("names", "identifiers"),
    [
        (["temp", "x0"], ["temp", "x0"]),
        (
            ["wind-speed", "lambda", "température", "2m temp", "温度"],
            ["wind_speed", "lambda_", "temperature", "x2m_temp", "x"],
        ),
        (["a-b", "a b", "a_b"], ["a_b_2", "a_b_3", "a_b"]),
        (["E", "I", "S", "sin", "abs", "match"], ["E_", "I_", "S_", "sin_", "abs_", "match_"]),
    ],
)
def test_identifiers_are_near_their_names(names, identifiers):
    """A name that is a valid identifier stays, in any position; others keep as much as possible."""
    assert make_identifiers(names) == identifiers


@pytest.mark.parametrize(
    ("complexities", "r2s", "expected"),
    [
        ([1, 4, 9, 30, 900], [-0.016, 0.76, 0.8, 0.85, 1.0], 1),  # the front that opened at its constant
        ([1, 4, 9, 30, 900], [-0.016, 0.02, 0.76, 0.85, 1.0], 2),
        ([1, 3, 200], [-0.5, -0.1, 1.0], 2),  # nothing above the line: the only one that says something
        ([1, 3, 200], [None, None, None], 0),
        ([1, 3, 200], [-1.0, -0.5, -0.1], 0),
        ([1, 3, 200], [0.0, None, 0.9], 2),
        ([1], [0.3], 0),
        ([1, 2, 3], [0.0, 0.3, 0.9], 2),  # low, and the next is much better
        ([1, 2, 3, 1000], [0.1, 0.9, 0.2, 0.95], 1),  # one that got worse on the judged windows
        ([1, 10, 100, 1000], [0.0, 0.97, 0.98, 0.99], 1),
        ([5, 5, 5], [0.0, 0.5, 0.6], 2),  # without a length
    ],
)
def test_the_knee_of_a_front(complexities, r2s, expected):
    assert find_knee(complexities, r2s) == expected


@given(st.lists(st.tuples(st.integers(1, 10**6), st.none() | st.floats(-1e6, 1)), min_size=1, max_size=12))
def test_the_knee_is_never_worthless_if_another_is_not(front):
    """Neither at R2 <= 0 while another is above, nor low while the next one on the front is much better."""
    complexities, r2s = sorted(complexity for complexity, _ in front), [r2 for _, r2 in front]
    knee = find_knee(complexities, r2s)
    best = max(r2 or 0.0 for r2 in r2s)
    assert best <= 0 or (r2s[knee] or 0.0) > 0
    further = next((r2 for r2 in r2s[knee + 1 :] if max(r2 or 0.0, 0.0) > max(r2s[knee] or 0.0, 0.0)), None)
    assert further is None or (r2s[knee] or 0.0) >= LOW or further < (r2s[knee] or 0.0) + MUCH
