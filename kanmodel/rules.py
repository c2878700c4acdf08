"""Checks of the arguments of `kanmodel.model.Model`; an error names the argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite

from kanmodel.errors import DataError, Problem, UnknownNameError, quote
from kanmodel.explain.attribution import LedgerOptions
from kanmodel.explain.pruning import Fill, Metric, PruningRule, Thresholds
from kanmodel.explain.structure import EdgeKey

DEFAULT_FIDELITY = 0.99


def make_rule(
    fidelity: float | None = None,
    metric: Metric | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    fill: Fill = "mean",
    without: tuple[EdgeKey, ...] = (),
) -> PruningRule:
    """The pruning rule of a call.

    Raises:
        DataError: fidelity and thresholds are both given, or a number is out of range.
        UnknownNameError: a threshold that does not exist.
    """
    if thresholds is None:
        kept = _check("fidelity", DEFAULT_FIDELITY if fidelity is None else fidelity, 1.0)
        return PruningRule(metric, kept, None, fill, without)
    if fidelity is not None:
        raise DataError("fidelity and thresholds are both given: give one", [Problem("fidelity", "is given twice")])
    given = vars(thresholds) if isinstance(thresholds, Thresholds) else thresholds
    for name, value in given.items():
        refuse_unknown("threshold", name, ("node", "edge", "input"))
        _check(f"thresholds.{name}", value, inf)
    return PruningRule(metric, None, Thresholds(**given), fill, without)


def make_options(tolerance: float, path_nodes: int, halvings: int) -> LedgerOptions:
    """The integration options of an explanation.

    Raises:
        DataError: a number that cannot be used.
    """
    if tolerance <= 0:
        raise DataError.at("tolerance", f"must be above 0, but is {quote(tolerance)}")
    check_count("path_nodes", path_nodes, 5)
    check_count("halvings", halvings, 0)
    return LedgerOptions(tolerance, path_nodes, halvings)


def check_count(name: str, value: int, lowest: int) -> None:
    """Checks that a whole number is large enough.

    Raises:
        DataError: it is not.
    """
    if value < lowest:
        raise DataError.at(name, f"must be a whole number from {lowest}, but is {quote(value)}")


def refuse_unknown(kind: str, name: object, known: Sequence[str]) -> None:
    """Refuses a name that does not exist.

    Raises:
        UnknownNameError: it does not; the message lists those that do.
    """
    if name not in known:
        raise UnknownNameError(f"there is no {kind} {quote(name)}; the {kind}s are {', '.join(known)}")


def _check(name: str, value: float, highest: float) -> float:
    if 0 <= value <= highest:
        return float(value)
    message = f"must be a number from 0{f' to {highest:g}' if isfinite(highest) else ''}, but is {quote(value)}"
    raise DataError.at(name, message)
