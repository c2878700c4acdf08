from __future__ import annotations

import pytest
from factories import make_model, make_windows

from kanmodel import Model
from kanmodel.errors import MAX_MESSAGE, MAX_PATH, MAX_QUOTED, KanscopeError, Problem, quote

LONG = "x" * 100_000
MODEL = Model.of(make_model(n_features=2, hidden_size=2, n_hidden=1, n_reference=20))
WINDOWS = make_windows(MODEL, 1)


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


@pytest.mark.parametrize(
    "ask",
    [
        lambda: MODEL.explain(WINDOWS, groups={"g": [LONG]}),
        lambda: MODEL.explain(WINDOWS, groups={LONG: []}),
        lambda: MODEL.explain(WINDOWS, segments={LONG: (0, 1)}),
        lambda: MODEL.explain(WINDOWS, segments={"s": LONG}),
        lambda: MODEL.explain(WINDOWS, baseline=LONG),
        lambda: MODEL.explain(WINDOWS, baseline={"values": {LONG: 0}}),
        lambda: MODEL.explain(WINDOWS, output=LONG),
        lambda: MODEL.explain(WINDOWS, tolerance=LONG),
        lambda: MODEL.predict({LONG: [0]}),
        lambda: MODEL.what_if(WINDOWS, [LONG]),
        lambda: MODEL.what_if(WINDOWS, steps=[0] * 100_000),
        lambda: MODEL.what_if(WINDOWS, shift=[0] * 100_000),
        lambda: MODEL.counterfactual(WINDOWS, between=[0] * 100_000),
        lambda: MODEL.prune(without=[LONG]),
        lambda: MODEL.edge(LONG),
        lambda: MODEL.topology().through(LONG),
    ],
)
def test_an_error_quotes_a_long_argument_in_part(ask):
    """The message of every argument is short, however long the argument is."""
    with pytest.raises(KanscopeError) as refused:
        ask()
    assert len(str(refused.value)) <= MAX_PATH + MAX_MESSAGE
