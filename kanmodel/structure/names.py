"""Names of units and hidden nodes for people, by what they read: ``high temp_c``, ``hour near 18:00``.

The rule, in this order:

1. Features of one input (`kanmodel.tables.inputs`), such as a sine and a cosine, have as share in the node's value the
   sum of theirs. The input with the largest share names the node, with the next one if that has at least half of its
   share.
2. An input is told with its direction where the node's value shows one on the reference windows (an R2 of `LEAST_R2`):
   ``high`` or ``low`` of a number, by the correlation with its mean over the steps at which the node reads it; ``not``
   of one that is 0 or 1; of a cycle, such as an hour, its value at the newest step where the node is highest, of
   two inputs ``near 18:00`` alone.
3. A node of one input that reads it at the newest steps alone, at most half of the window, says so: ``temp_c, last 6``.
4. What does not fit into `MAX_LABEL` characters is left out: the steps, then directions, then the second input; a name
   that is still longer is shortened so that it differs from those of other inputs.
5. Nodes of a layer that would have one name also name their next input; those that still would have a number.

A node that no feature moves keeps its id as its name, and so do features, cells, outputs and sub-nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import atan2, pi

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.profiles import Lags
from kanmodel.forecaster import Forecaster
from kanmodel.text import MAX_LABEL, abbreviate, shorten_names

LEAST_R2 = 0.1  # of a node's value by an input, for a direction
SECOND = 0.5  # share of the second input, of that of the first, from which it is named


class NodeNames:
    """Names of the nodes of one layer after another."""

    def __init__(self, model: Forecaster) -> None:
        self._inputs = {one.name: one for one in model.inputs}
        self._short = shorten_names([*self._inputs], MAX_LABEL)
        self._windows = model.scaling.features_to_original(model.reference.scaled)  # (n, lookback, n_features)

    def name_layer(
        self, profiles: Sequence[Mapping[str, float]], lags: Sequence[Mapping[str, Lags]], values: Array
    ) -> list[str | None]:
        """A name for each node, from its profile, its lags and its values on the reference windows, (n, n_nodes).

        None for a node without a profile.
        """
        columns = zip(profiles, lags, values.T, strict=True)
        choices = [[*self._describe(*column)] for column in columns]
        names = [of_node[0] if of_node else None for of_node in choices]
        counts = Counter(names)
        names = [of[-1] if of and counts[name] > 1 else name for name, of in zip(names, choices, strict=True)]
        return [*_number(names)]

    def _describe(self, profile: Mapping[str, float], lags: Mapping[str, Lags], values: Array) -> Iterator[str]:
        """Yields the name of a node, and the one with its next input."""
        shares = {one.name: sum(profile.get(member, 0.0) for member in one.features) for one in self._inputs.values()}
        ranked = sorted((name for name in shares if shares[name] > 0), key=lambda name: -shares[name])[:2]
        if not ranked:
            return
        plain = [*ranked]
        told = [self._tell(name, lags, values) for name in ranked]
        short = [text.replace(f"{name} near ", "near ") for text, name in zip(told, plain, strict=True)]
        both = [", ".join(short), f"{short[0]}, {plain[1]}", ", ".join(plain)] if len(ranked) > 1 else []
        steps = self._tell_steps(ranked[0], profile, lags)
        alone = [f"{told[0]}, {steps}", told[0], plain[0]] if steps else [told[0], plain[0]]
        is_shared = len(ranked) > 1 and shares[ranked[1]] >= SECOND * shares[ranked[0]]
        for choices in ([*both, *alone] if is_shared else alone, [*both, *alone]):
            yield next((name for name in choices if len(name) <= MAX_LABEL), self._short[plain[0]])

    def _tell(self, name: str, lags: Mapping[str, Lags], values: Array) -> str:
        """An input with its direction, if there is one."""
        one, newest = self._inputs[name], self._windows[:, -1]
        if one.period is not None:
            by_sine, by_cosine, r2 = _fit(newest[:, list(one.numbers)], values)
            if r2 < LEAST_R2:
                return name
            highest = one.period * atan2(by_sine, by_cosine) / (2 * pi) + one.offset
            return f"{name} near {one.levels[round(highest) % len(one.levels)]}"
        if len(one.numbers) > 1:
            return name
        (number,), run, last = one.numbers, lags.get(one.features[0]), self._windows.shape[1]
        rows = slice(None) if run is None else slice(last - 1 - run.oldest, last - run.newest)
        read = self._windows[:, rows, number]
        slope, r2 = _fit(read.mean(axis=1, keepdims=True), values)
        if r2 < LEAST_R2:
            return name
        if set(np.unique(newest[:, number]).tolist()) <= {0.0, 1.0}:
            return name if slope > 0 else f"not {name}"
        return f"{'high' if slope > 0 else 'low'} {name}"

    def _tell_steps(self, name: str, profile: Mapping[str, float], lags: Mapping[str, Lags]) -> str:
        """``last 6 steps`` if an input is read at the newest ones alone."""
        members, lookback = self._inputs[name].features, self._windows.shape[1]
        runs = [lags[member] for member in members if profile.get(member, 0.0) > 0 and member in lags]
        oldest = max((run.oldest for run in runs), default=lookback)
        if any(run.newest for run in runs) or 2 * (oldest + 1) > lookback:
            return ""
        return "newest step" if oldest == 0 else f"last {oldest + 1} steps"


def _fit(inputs: Array, values: Array) -> list[float]:
    """The slopes of values (n,) by inputs (n, n_inputs) (least squares), and R2; 0 where nothing varies."""
    x, y = inputs - inputs.mean(axis=0), values - values.mean()
    total, spread = float(y @ y), x.std(axis=0)
    if not (np.isfinite(x).all() and np.isfinite(total) and total > 0 and (spread > 0).all()):
        return [0.0] * (inputs.shape[1] + 1)
    slopes = np.linalg.lstsq(x, y, rcond=None)[0]
    left = y - x @ slopes
    return [*slopes.tolist(), 1 - float(left @ left) / total]


def _number(names: Iterable[str | None]) -> Iterator[str | None]:
    """Yields the names, of equal ones all but the first with a number that makes them differ from all others."""
    given = [*names]
    taken: set[str | None] = set(given)
    seen: set[str] = set()
    for name in given:
        if name in seen and name is not None:
            stem, number = name, 2
            while name in taken:
                end = f" ({number})"
                name, number = abbreviate(stem, MAX_LABEL - len(end)) + end, number + 1
            taken.add(name)
        if name is not None:
            seen.add(name)
        yield name
