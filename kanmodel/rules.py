"""Checks of the arguments of `kanmodel.model.Model`; an error names the argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from numbers import Integral, Real

from kanmodel.errors import DataError, Problem, UnknownNameError, quote
from kanmodel.explain.paths.ledger import LedgerOptions
from kanmodel.explain.structure.replay import Fill
from kanmodel.explain.topology.metrics import Metric
from kanmodel.explain.topology.pruning import EdgePlace, PruningRule
from kanmodel.explain.topology.thresholds import Thresholds

DEFAULT_FIDELITY = 0.99


def make_rule(
    fidelity: float | None = None,
    metric: Metric | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    fill: Fill = "mean",
    without: tuple[EdgePlace, ...] = (),
) -> PruningRule:
    """The pruning rule of a call.

    Raises:
        DataError: fidelity and thresholds are both given, or a number is out of range.
        UnknownNameError: a metric, a threshold or a fill that does not exist.
    """
    if metric is not None:
        refuse_unknown("metric", metric, ("contribution", "backward", "forward_n", "forward_u"))
    refuse_unknown("fill", fill, ("mean", "zero"))
    if thresholds is None:
        kept = _check("fidelity", DEFAULT_FIDELITY if fidelity is None else fidelity, 1.0)
        return PruningRule(metric, kept, None, fill, without)
    if fidelity is not None:
        raise DataError("fidelity and thresholds are both given: give one", [Problem("fidelity", "is given twice")])
    given = vars(thresholds) if isinstance(thresholds, Thresholds) else thresholds
    if not isinstance(given, Mapping):
        message = f'must be a mapping such as {{"edge": 0.03}}, but is {quote(given)}'
        raise DataError.at("thresholds", message)
    for name, value in given.items():
        refuse_unknown("threshold", name, ("node", "edge", "input"))
        _check(f"thresholds.{name}", value, inf)
    return PruningRule(metric, None, Thresholds(**given), fill, without)


def make_options(tolerance: float, path_nodes: int, halvings: int) -> LedgerOptions:
    """The integration options of an explanation.

    Raises:
        DataError: a number that cannot be used.
    """
    if not isinstance(tolerance, Real) or not 0 < tolerance < inf:
        message = f"must be a number above 0, but is {quote(tolerance)}"
        raise DataError.at("tolerance", message)
    check_count("path_nodes", path_nodes, 5)
    check_count("halvings", halvings, 0)
    return LedgerOptions(tolerance, path_nodes, halvings)


def check_count(name: str, value: int, lowest: int) -> None:
    """Checks that a value is a whole number, and large enough.

    Raises:
        DataError: it is not.
    """
    if not isinstance(value, Integral) or value < lowest:
        message = f"must be a whole number from {lowest}, but is {quote(value)}"
        raise DataError.at(name, message)


def check_effects(effects: object) -> None:
    """Checks the argument `effects`.

    Raises:
        DataError: it is not True, False or ``"steps"``.
    """
    if not isinstance(effects, bool) and effects != "steps":
        message = f'must be True, False or "steps", but is {quote(effects)}'
        raise DataError.at("effects", message)


def refuse_unknown(kind: str, name: object, known: Sequence[str]) -> None:
    """Refuses a name that does not exist.

    Raises:
        UnknownNameError: it does not; the message lists those that do.
    """
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(f"there is no {kind} {quote(name)}; the {kind}s are {', '.join(known)}")


def _check(name: str, value: float, highest: float) -> float:
    if isinstance(value, Real) and isfinite(value) and 0 <= value <= highest:
        return float(value)
    message = f"must be a number from 0{f' to {highest:g}' if isfinite(highest) else ''}, but is {quote(value)}"
    raise DataError.at(name, message)
