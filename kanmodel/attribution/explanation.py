"""Explanations of forecasts: the contribution of each feature, step, node and edge, complete at every layer.

For a window x, a baseline x0 and one output F, walk the straight path x(a) = x0 + a (x - x0) at the nodes a_k of a
Clenshaw-Curtis rule with weights w_k. One batched forward and one backward pass give, at every node of the path, the
values h of all nodes and edges of the network, and the gradients of F.

    feature f at step t     C = (x - x0) sum_k w_k dF/dx(a_k)                Integrated Gradients,
                                                                            Sundararajan 2017, arXiv 1703.01365, eq. 1
    node i of a layer       C_i = sum_k w_k dF/dh_i(a_k) h_i'(a_k)           conductance, Dhamdhere 2018,
                                                                            arXiv 1805.12233, eq. 3
    edge into sub-node j    C_ji = sum_k w_k dF/ds_j(a_k) edge_ji'(a_k)      the same, since s_j = sum_i edge_ji

The derivatives along the path come from the rule's differentiation matrix. All of it together is the ledger: each of
its layers sums to F(x) - F(x0) (completeness); how far it does not, and how far what enters a KAN node is not what
leaves it, is its `residual` (convergence delta). Errors of opposite sign cancel in sums, so each contribution also has
an error of its own, from the coarser rules inside the one; the largest is its `error`. Averaged over several reference
windows as baselines, these are expected gradients (Erion et al. 2019, arXiv 1906.10670).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel import html
from kanmodel.arrays import N_LISTED, Array, rows_of_steps
from kanmodel.attribution.baseline import (
    Baseline,
    ReferenceBaselines,
    baseline_windows,
    scaled_baselines,
    spread_windows,
)
from kanmodel.attribution.effects import Effects, Part, each_cell, each_feature, measure_effects
from kanmodel.attribution.paths import path
from kanmodel.attribution.paths.bisection import BATCH, Integrals, Walk
from kanmodel.attribution.paths.path import Contributions, Detail, LedgerLayer, concatenate, map_arrays, take
from kanmodel.attribution.profiles import find_lags
from kanmodel.attribution.shapley import Orders, Shapley, measure_shapley
from kanmodel.computing import part, slices
from kanmodel.errors import DataError, ExportError, IncompleteError, Problem, check_lowest, quote, refuse_unknown
from kanmodel.forecaster import Forecaster, refuse_non_finite_outputs
from kanmodel.network.chain import FrozenNetwork
from kanmodel.network.config import Grouping, Groups, resolve_groups
from kanmodel.result import Table, WindowsResult
from kanmodel.tables.instants import write_instants
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.text import with_unit, write_figure

PATH_NODES, USUAL_NODES, MORE_NODES = 9, 17, 33  # with which a path starts: the first that is enough for most,
MOST, N_TRIED = 1 / 2, 16  # of so many reference windows: of one window a second pass costs more than nodes do
FLOAT32_TOLERANCE = 2e-4  # tighter ones are taken to float64 at once: rounding alone may be a third of this
FLOAT32_HALVINGS = 10  # points of a shorter part are too close to each other for float32
FLOAT32_REACH = 8  # times a feature's largest magnitude in the reference windows: beyond it float32 rounds too coarsely

Method = Literal["path", "shapley"]
Intervals = Mapping[float, tuple[Array, Array]]
"""Lower and upper bounds, (n,) each, by level."""
Segments = Mapping[str, tuple[int, int]]
"""Name of a segment to its first and last step: 0 is the newest, -1 the one before."""

_EFFECTS = ("removed", "alone", "together")
_OF_PATH = "what a part adds as all parts move from the baseline to the window together"
_OF_ORDERS = "what a part adds on average over the orders in which the parts change one after another"
_SHAPLEY = ("shapley", "shapley_standard_error")
_BY_WINDOW = (
    *("predictions", "contributions", "steps", "layers", "error", "residual", "converged", "path_nodes"),
    *("standard_error", "effects", "effects_by_group", "step_effects", "shapley", "windows", "actual", "instants"),
)
_OF_TIME = ("times", "target_times", "series")
_OF_WINDOW = ("prediction", "actual", "largest contribution", "residual", "error", "converged")
_OF_ERRORS = ("prediction", "actual", "forecast_error", "drivers")
N_DRIVERS = 3  # contributions that a row of `largest_errors` names


@dataclass(frozen=True)
class LedgerOptions:
    """How exact an explanation must be.

    Attributes:
        tolerance: largest accepted residual and error, in standard deviations of the output on the reference windows.
        path_nodes: nodes with which the path, and each part of it, starts: a multiple of 4, and one. At least 17 where
            9 are too few for half of the reference windows, and 33 where 17 are.
        halvings: how often a part may be halved where more nodes do not reach the tolerance; with 0, every path has
            just `path_nodes`.

    Raises:
        DataError: a number that cannot be used.
    """

    tolerance: float = 1e-3
    path_nodes: int = PATH_NODES
    halvings: int = 20

    def __post_init__(self) -> None:
        if self.tolerance <= 0:
            raise DataError.at("tolerance", f"must be above 0, but is {quote(self.tolerance)}")
        check_lowest("halvings", self.halvings, 0)
        if self.path_nodes < 5 or self.path_nodes % 4 != 1:
            message = f"must be a multiple of 4 and one, such as 17, but is {self.path_nodes}"
            raise DataError.at("path_nodes", message)


class ExplainedWindows(WindowsResult):
    """Explained windows, whose picture is of one, or of several of one series over time.

    Over time these are the forecasts with the actual values, and below them the contributions. One window of one output
    is a waterfall, and below it the heat map of contributions by feature and step; of several outputs it is drawn over
    these. Top-level groups replace their features, and in the heat map segments replace steps.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def _undrawn(self) -> str | None:
        if not self._is_of_one_series:
            return "a picture shows one series, but these windows are of several: name it (series)"
        if len(self) == 1 or (len(self) > 1 and self.times is not None):
            return None
        return f"a picture shows one window, but there are {len(self)} without times: take one, as e[0]"


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(ExplainedWindows):
    """Contributions of each feature at each step to the forecasts of one output for n windows, in the target's unit.

    Completeness: the contributions of a window sum to its prediction minus the baseline's, up to its residual. They
    divide that change among the features; `effects` state what the forecast loses without each feature, and what each
    does alone. If the three differ, the feature interacts with others.

    Attributes:
        output, features: their names.
        unit: of predictions and contributions; None if unknown.
        predictions: F(x), (n,).
        baseline_prediction: F(x0); for ``reference`` the mean over the baselines.
        baseline: x0, (lookback, n_features), original units; for ``reference`` the mean of the baselines.
        contributions: (n, n_features), the signed sum over the steps.
        steps: (n, lookback, n_features), oldest step first.
        layers: contributions of all nodes and edges, in the order input, front, lstm (or gru, or cell), head, output; a
            front edge is summed over the steps. Without the flow only input and output.
        error: largest estimated error of any contribution of `detail`, (n,), not below the residual.
        residual: largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node (convergence delta), (n,), of
            all `layers`.
        tolerance: accepted error and residual.
        converged: whether both are within the tolerance, and no node jumps along the path, (n,).
        path_nodes: points at which the network was evaluated along the path, (n,).
        detail: the contributions of which `error` is the largest: those of ``features``; of their ``steps`` too; or of
            all nodes and edges as well, ``flow``.
        standard_error: of each contribution, (n, n_features), for the baseline ``reference``; else None.
        groups: features that are summed, by the name of their group; empty if there are none.
        segments: first and last step of those that are summed, by name, each step in one; empty if there are none.
        effects: effects of removing each feature, and of each alone, (n, n_features); None if not requested.
        effects_by_group: the same for the entries of `contributions_by_group`, in its shape; None without groups too.
        step_effects: the same for each step of each feature, (n, lookback, n_features); None if not requested.
        shapley: Shapley values of the `parts`, (n, n_parts), or with segments (n, n_parts, n_segments); None if not
            requested. A contribution is what a part adds as all parts move from baseline to window together; a Shapley
            value is what it adds on average over the orders in which the parts change one after another.
        windows: those explained, (n, lookback, n_features), original units; None for `explain_windows`.
        feature_units: of their values; None for an unknown unit.
        target_times: for which each forecast is, (n,), as the table writes times; None likewise, and if the target's
            column was shifted before training.
        instants: the same in seconds since 1970, UTC, or in the unit of the time column, (n,); None without times.
        zone: name of the time zone of local times; None for UTC, or times as they stand.
        rhythm: of the times; None without.
        newest: of each feature, the steps from the forecast's time to that of its newest value, negative before it: 0
            is that of a known value of the time that is forecast. Empty without times.
        actual: what came at these times, (n,), NaN where there is no value yet; None unless the windows are those of a
            data frame with the target's column.
        intervals: lower and upper bounds of the forecasts, (n,) each, by level; empty for a model without intervals,
            and for a bound or a width.
        usual_width: median over the reference windows, of the explanation of a width; else None.
    """

    output: str
    unit: str | None
    features: tuple[str, ...]
    predictions: Array
    baseline_prediction: float
    baseline: Array
    contributions: Array
    steps: Array
    layers: tuple[LedgerLayer, ...]
    error: Array
    residual: Array
    tolerance: float
    converged: NDArray[np.bool_]
    path_nodes: NDArray[np.int64]
    detail: Detail
    standard_error: Array | None = None
    groups: Groups = field(default_factory=dict)
    segments: Segments = field(default_factory=dict)
    effects: Effects | None = None
    effects_by_group: Effects | None = None
    step_effects: Effects | None = None
    shapley: Shapley | None = None
    windows: Array | None = None
    feature_units: tuple[str | None, ...] = ()
    target_times: tuple[str, ...] | None = None
    instants: Array | None = None
    zone: str | None = None
    rhythm: TimeColumn | None = None
    newest: tuple[int, ...] = ()
    actual: Array | None = None
    intervals: Intervals = field(default_factory=dict)
    usual_width: float | None = None

    @cached_property
    def grouping(self) -> Grouping:
        """The groups with the indices of their features, and the features without a group."""
        return resolve_groups(self.groups, self.features)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the contributions by group: the groups, then the features without a group."""
        return self.grouping.names

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what a forecast is divided among: outermost groups, and features without a group."""
        return self.grouping.parts

    @cached_property
    def contributions_by_part(self) -> Array:
        """Contributions of each of `parts`, (n, n_parts); they sum to those of the features."""
        whole: Array = sum_groups(self.contributions, [self.grouping.members[part] for part in self.grouping.whole])
        return whole

    @property
    def forecast_errors(self) -> Array | None:
        """Forecasts minus actual values, (n,), NaN where there is none yet; None if `actual` is."""
        errors: Array | None = None if self.actual is None else self.predictions - self.actual
        return errors

    @property
    def error_summary(self) -> str | None:
        """The mean magnitude of the forecast errors, and of how many; None if no actual value is known."""
        errors = self.forecast_errors
        known = np.empty(0) if errors is None else np.abs(errors[~np.isnan(errors)])
        return f"{known.mean():.4g}, of {len(known)} actual values" if len(known) else None

    @property
    def width_summary(self) -> str | None:
        """How a window's width compares with the usual one, and which parts make it differ from the baseline's, when.

        Parts have a share of the difference, or where much of it cancels their contribution. None unless the width of
        one window is explained.
        """
        if self.usual_width is None or len(self) != 1:
            return None
        width, parts = float(self.predictions[0]), self.contributions_by_part[0]
        unit = f" {self.unit}" if self.unit else ""
        usual = f"{write_figure(self.usual_width)}{unit}"
        ratio = f"{write_figure(width / self.usual_width)} times " if self.usual_width > 0 else "instead of "
        change, total = width - self.baseline_prediction, float(np.abs(parts).sum())
        if not total:
            return f"{ratio}the usual {usual}; nothing makes it differ from the baseline's"
        by_lag = np.abs(sum_groups(self.steps[0], [self.grouping.members[part] for part in self.grouping.whole]))[
            ::-1
        ].T
        when = [f" at {lags}" if by_lag.shape[1] > 1 else "" for lags in find_lags(by_lag.astype(np.float32))]
        is_shared = abs(change) >= total / 2
        form = "{:.0%} is {}{}" if is_shared else "{:+.3g} is {}{}"
        named = [
            form.format(value / (change if is_shared else 1.0), self.parts[part], when[part]).replace("%", " %")
            for part in np.argsort(-np.abs(parts), kind="stable")[:N_DRIVERS].tolist()
            for value in [float(parts[part])]
            if value
        ]
        start = f"{write_figure(self.baseline_prediction)}{unit}"
        return f"{ratio}the usual {usual}; {change:+.3g}{unit} from the baseline's {start}, of which {', '.join(named)}"

    @property
    def is_grouped(self) -> bool:
        """Whether there are groups or segments."""
        return bool(self.groups or self.segments)

    @property
    def segment_rows(self) -> list[slice]:
        """The rows of a window, oldest first, of each segment."""
        return [rows_of_steps(*ends, self.steps.shape[1]) for ends in self.segments.values()]

    @cached_property
    def contributions_by_group(self) -> Array:
        """Contributions of each group, (n, n_names), or with segments (n, n_names, n_segments).

        Over top-level groups, features without a group and segments they sum to those of the features.
        """
        if not self.segments:
            return sum_groups(self.contributions, self.grouping.members)
        by_segment = np.stack([self.steps[:, rows].sum(axis=1) for rows in self.segment_rows], axis=1)
        return sum_groups(by_segment, self.grouping.members).swapaxes(1, 2)

    def __len__(self) -> int:
        return len(self.predictions)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[window] for window in range(len(self)))

    def __getitem__(self, window: int | slice | NDArray[np.int64]) -> Explanation:
        """One window as an explanation of length 1, or several, by a slice or their numbers."""
        if not isinstance(window, slice | np.ndarray):
            number = range(len(self))[window]  # raises IndexError, and supports negative indices
            window = slice(number, number + 1)
        of_chosen: dict[str, Any] = {name: take(getattr(self, name), window) for name in _BY_WINDOW}
        numbers = range(len(self))[window] if isinstance(window, slice) else window.tolist()
        of_time = {name: getattr(self, name) for name in _OF_TIME}
        of_chosen |= {name: of and tuple(of[number] for number in numbers) for name, of in of_time.items()}
        of_chosen["intervals"] = {level: (low[window], high[window]) for level, (low, high) in self.intervals.items()}
        return replace(self, **of_chosen)

    def require_completeness(self, output_std: float, first: int = 0) -> None:
        """Raises if a residual is larger than F(x) - F(x0) and than the output's standard deviation on the reference.

        Raises:
            IncompleteError: a window has such a residual; the message counts the windows from `first`.
        """
        change = np.abs(self.predictions - self.baseline_prediction)
        absurd = np.flatnonzero(self.residual > np.maximum(change, output_std))
        if len(absurd):
            missed = f"the change of {change[absurd[0]]:.3g} by {self.residual[absurd[0]]:.3g}"
            message = f"has values too far out to be explained: its contributions miss {missed}"
            places = [Problem(f"instances[{first + window}]", message) for window in absurd[:N_LISTED]]
            raise IncompleteError(f"{places[0].path} {message}", places)

    def shap(self) -> Any:
        """The Shapley values, or the contributions if there are none, as a `shap.Explanation`, which shap's plots draw.

        It has a column for each of `parts`, in each segment if there are any. Its data are the newest value of a
        feature, or its mean in a segment, original units; NaN for a group of several features.

        Raises:
            ExportError: the library shap is not installed.
        """
        try:
            import shap
        except ImportError as error:
            raise ExportError("the library shap is not installed: pip install shap") from error
        whole, rows = list(self.grouping.whole), self.segment_rows or [slice(-1, None)]
        values = self.contributions_by_group[:, whole]
        if self.shapley is not None:
            values = self.shapley.values
        single = {number: members[0] for number, members in enumerate(self.grouping.members) if len(members) == 1}
        data = np.full((len(self), len(whole), len(rows)), np.nan)
        for place, number in enumerate(whole):
            if number in single and self.windows is not None:
                column = self.windows[:, :, single[number]]
                data[:, place] = np.stack([column[:, steps].mean(axis=1) for steps in rows], axis=1)
        names = [f"{part}, {segment}" for part in self.parts for segment in self.segments] or [*self.parts]
        return shap.Explanation(
            values=values.reshape(len(self), -1),
            base_values=np.full(len(self), self.baseline_prediction),
            data=data.reshape(len(self), -1),
            feature_names=names,
            output_names=with_unit(self.output, self.unit),
        )

    def value_times(self, window: int) -> list[tuple[str, ...]]:
        """The times of a window's values, of each step, oldest first, one of each feature, as the table writes times.

        The value of a column that is known may be of a later time than the window's end: that of the feature
        ``temp+24`` at the newest step is of the time of the last forecast. Empty without times.
        """
        times = self.times if self.target_times is None else self.target_times
        if self.rhythm is None or self.instants is None or not times:
            return []
        lags, distinct = np.arange(self.steps.shape[1])[::-1], dict[int, tuple[str, ...]]()
        for newest in set(self.newest):
            instants = self.rhythm.later(np.repeat(self.instants[window], len(lags)), newest - lags)
            distinct[newest] = write_instants(instants, np.array(times, dtype=object), self.zone)
        return list(zip(*(distinct[newest] for newest in self.newest), strict=True))

    def table(self, by: Literal["feature", "group", "step"] = "feature", *, wide: bool = False) -> list[dict[str, Any]]:
        """A row for each window and feature, features in the model's order; values of the window are repeated.

        `actual` is NaN where there is no value yet.

        Args:
            by: ``group`` for a row for each of `group_names` instead, and for each segment if there are any. Shapley
                values are those of `parts`: None for a member of another group, and for features if there are groups.
                ``step`` for a row for each step of each feature, oldest step first, with its `lag`, 0 at the newest,
                its value, and the time that the value is of (`value_times`).
            wide: whether there is a row for each window instead, with a column for the contribution of each feature, or
                of each of `parts` (and segment: ``hour, last six hours``), which sum to the forecast minus the
                baseline's, up to the residual. A name that another column has gets `` (contribution)`` at its end.
                Effects and Shapley values are left out.
        """
        if by == "step":
            if wide:
                raise DataError("wide is for contributions by feature or group, not by step")
            return [row for window in range(len(self)) for row in self._rows_of_steps(window)]
        if wide:
            return self._rows_of_windows(by)
        names: list[dict[str, str]] = [{by: name} for name in (self.features if by == "feature" else self.group_names)]
        columns, effects = {"contribution": self.contributions}, self.effects
        if by == "group":
            names = [name | {"segment": segment} for name in names for segment in self.segments] or names
            columns, effects = {"contribution": self.contributions_by_group}, self.effects_by_group
        if effects is not None:
            columns |= {name: getattr(effects, name) for name in _EFFECTS}
        if self.shapley is not None and (by == "group" or not self.is_grouped):
            columns |= dict(zip(_SHAPLEY, map(self._spread, self.shapley), strict=True))
        return [
            {**about, **name, **dict(zip(columns, row, strict=True)), **figures}
            for window in range(len(self))
            for about in [self._name_window(window)]
            for figures in [self._describe_window(window) | self._describe_accuracy(window)]
            for name, *row in zip(names, *(values[window].ravel().tolist() for values in columns.values()), strict=True)
        ]

    def _rows_of_steps(self, window: int) -> Iterator[dict[str, Any]]:
        """The rows of a window by step."""
        about, times = self._name_window(window), self.value_times(window)
        for step, contributions in enumerate(self.steps[window].tolist()):
            for number, contribution in enumerate(contributions):
                row = about | {"feature": self.features[number], "lag": self.steps.shape[1] - 1 - step}
                row |= {"value_time": times[step][number]} if times else {}
                row |= {} if self.windows is None else {"value": float(self.windows[window, step, number])}
                yield row | {"contribution": contribution}

    def _rows_of_windows(self, by: Literal["feature", "group"]) -> list[dict[str, Any]]:
        """The wide table."""
        names, values = [*self.features], self.contributions
        if by == "group":
            values = self.contributions_by_group[:, list(self.grouping.whole)].reshape(len(self), -1)
            names = [f"{part}, {segment}" for part in self.parts for segment in self.segments] or [*self.parts]
        taken = {"output"}
        for window in range(min(1, len(self))):
            taken |= {*self._name_window(window), *self._describe_window(window), *self._describe_accuracy(window)}
        for number, name in enumerate(names):
            while name in taken:
                name += " (contribution)"
            taken.add(name)
            names[number] = name
        return [
            {
                **self._name_window(window),
                **self._describe_window(window),
                **dict(zip(names, row, strict=True)),
                **self._describe_accuracy(window),
            }
            for window, row in enumerate(values.tolist())
        ]

    def _name_window(self, window: int) -> dict[str, Any]:
        times = {"series": self.series, "time": self.times, "target_time": self.target_times}
        return {"window": window} | {name: given[window] for name, given in times.items() if given is not None}

    def _describe_window(self, window: int) -> dict[str, Any]:
        actual = {} if self.actual is None else {"actual": float(self.actual[window])}
        forecast = {"prediction": float(self.predictions[window])}
        for level, bounds in self.intervals.items():
            forecast |= zip(name_ends(level), (float(bound[window]) for bound in bounds), strict=True)
        return forecast | actual | {"baseline_prediction": self.baseline_prediction}

    def _describe_accuracy(self, window: int) -> dict[str, Any]:
        figures = {"residual": float(self.residual[window]), "error": float(self.error[window])}
        return figures | {"converged": bool(self.converged[window])}

    def largest_errors(self, n: int = 10) -> list[dict[str, Any]]:
        """The windows whose forecasts are furthest from their actual values, furthest first.

        Args:
            n: number of rows, at most.

        Returns:
            A row for each, with `forecast_error`, which is the forecast minus the actual value, and as `drivers` the
            largest contributions of `parts`.

        Raises:
            DataError: no actual value is known.
        """
        check_lowest("n", n, 1)
        errors = self.forecast_errors
        if errors is None or np.isnan(errors).all():
            raise DataError("no actual value is known: give a data frame with the target's column, and last")
        furthest = np.argsort(-np.abs(np.nan_to_num(errors)), kind="stable")
        known = furthest[~np.isnan(errors[furthest])][:n].tolist()
        return [
            {
                **self._name_window(window),
                **self._describe_window(window),
                "forecast_error": float(errors[window]),
                "drivers": name_largest(self.parts, self.contributions_by_part[window]),
            }
            for window in known
        ]

    def _spread(self, of_parts: Array) -> Any:
        """Values of `parts` at their places among `group_names`; None for members of other groups."""
        spread = np.full((len(self), len(self.group_names), *of_parts.shape[2:]), None, dtype=object)
        spread[:, list(self.grouping.whole)] = of_parts
        return spread

    def _title(self) -> str:
        windows = f", {self.times[0]}" if self.times and len(self) == 1 else ""
        windows = windows if len(self) == 1 else f" for {len(self)} windows"
        return f"Explanation of {with_unit(self.output, self.unit)}{windows}"

    def _details(self) -> str:
        return ("" if len(self) == 1 else html.write_heading(self._title())) + super()._details()

    def _facts(self) -> dict[str, str]:
        baseline = f"{self.baseline_prediction:.4g}"
        if len(self) != 1:
            errors = {} if (error := self.error_summary) is None else {"mean |forecast error|": error}
            return {"baseline": baseline} | errors | {"converged": f"{int(self.converged.sum())} of {len(self)}"}
        shapley = {} if self.shapley is None else {"contribution": _OF_PATH, "shapley": _OF_ORDERS}
        return shapley | {
            "prediction": f"{self.predictions[0]:.4g}",
            **({"width": self.width_summary} if self.width_summary else {}),
            **({"interval": describe_intervals(self.intervals)} if self.intervals else {}),
            **({} if self.actual is None or np.isnan(self.actual[0]) else {"actual": f"{self.actual[0]:.4g}"}),
            "baseline": baseline,
            "residual": f"{self.residual[0]:.2g}, error {self.error[0]:.2g}, tolerance {self.tolerance:.2g}",
            "converged": "yes" if self.converged[0] else "no",
        }

    def _tables(self) -> list[Table]:
        effects = _EFFECTS if self.effects is not None else ()
        if len(self) != 1:
            columns = ["feature", "mean |contribution|", "mean contribution", *(f"mean |{name}|" for name in effects)]
            by_feature = Table(self._means(columns[1:]), columns, in_text=False)
            name = "time" if self.times else "window"
            rows = self._windows()
            ends = [end for level in self.intervals for end in name_ends(level)]
            columns = [column for column in (_OF_WINDOW[0], *ends, *_OF_WINDOW[1:]) if rows and column in rows[0]]
            tables = [by_feature, Table(rows, [name, *columns], "Window by window")]
            if self.error_summary is not None:
                tables.append(Table(self.largest_errors(), [name, *_OF_ERRORS], "Largest errors", in_text=False))
            return tables
        columns, shapley = ["contribution", *effects], [] if self.shapley is None else ["shapley"]
        rows, grouped = _largest_first(self.table()), self.is_grouped
        of_features = ["feature", *columns, *([] if grouped else shapley)]
        tables = [Table(rows, of_features, "All contributions", in_text=not grouped)]
        if grouped:
            named = ["group", "segment"] if self.segments else ["group"]
            of_groups = [*named, *columns, *shapley]
            tables.append(Table(_largest_first(self.table("group")), of_groups, "Contributions by group"))
        return tables

    def _means(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each feature, by the mean magnitude of its contributions."""
        if not len(self):
            return []
        means = [np.abs(self.contributions).mean(axis=0), self.contributions.mean(axis=0)]
        if self.effects is not None:
            means += [np.abs(getattr(self.effects, name)).mean(axis=0) for name in _EFFECTS]
        return [
            {"feature": self.features[number]}
            | {column: float(values[number]) for column, values in zip(columns, means, strict=True)}
            for number in np.argsort(-means[0], kind="stable").tolist()
        ]

    def _windows(self) -> list[dict[str, Any]]:
        """A row for each window."""
        largest = np.abs(self.contributions).argmax(axis=1).tolist()
        return [
            {
                **self._name_window(window),
                **self._describe_window(window),
                "largest contribution": self.features[feature],
                **self._describe_accuracy(window),
            }
            for window, feature in enumerate(largest)
        ]


def name_ends(level: float) -> tuple[str, str]:
    """The columns of an interval: ``lower@0.8`` and ``upper@0.8``."""
    return f"lower@{level:g}", f"upper@{level:g}"


def describe_intervals(intervals: Intervals) -> str:
    """The intervals of the first window: ``between 850 and 930 (80 %), 820 and 960 (95 %)``."""
    ends = {level: (float(low[0]), float(high[0])) for level, (low, high) in intervals.items()}
    size = 3 * min(high - low for low, high in ends.values())  # two digits of the narrowest or more
    return "between " + ", ".join(
        f"{write_figure(low, size)} and {write_figure(high, size)} ({100 * level:g} %)"
        for level, (low, high) in ends.items()
    )


def name_largest(names: Sequence[str], values: Array, form: str = "+.3g") -> str:
    """The names of the largest values by magnitude with these, ``temp +3.1, hour -2``; of (n_names,)."""
    largest = np.argsort(-np.abs(values), kind="stable")[:N_DRIVERS].tolist()
    return ", ".join(f"{names[number]} {values[number]:{form}}" for number in largest)


def _largest_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -abs(row["contribution"]))


def explain_windows(
    model: Forecaster,
    windows: Tensor,
    output: int,
    baseline: Baseline | ReferenceBaselines | None = None,
    options: LedgerOptions | None = None,
    detail: Detail = "flow",
) -> Explanation:
    """Explains one output for windows, in the target's unit, without groups and effects.

    Args:
        model: the model.
        windows: (n, lookback, n_features), model units, as `Forecaster.to_model_units` gives them.
        output: index of the output.
        baseline: what to compare with; default ``mean``. Of `ReferenceBaselines`, the contributions are means over the
            baselines, `residual`, `error` and `path_nodes` are the largest, and `converged` holds if all do.
        options: tolerance and path nodes, of each baseline.
        detail: of the contributions whose errors and sums must be within the tolerance; see `Explanation`.

    Raises:
        DataError: there is no window, or the baseline cannot be used.
        UnknownNameError: a detail, or a feature in the baseline, that does not exist.
        NonFiniteError: a prediction, a residual or an error is not finite.
    """
    if not len(windows):
        raise DataError("windows is empty")
    refuse_unknown("detail", detail, get_args(Detail))
    starts, options = baseline_windows(model, baseline or Baseline()), options or LedgerOptions()
    found = [_explain_from(model, windows, output, start, options, detail) for start in slices(starts)]
    return _average(found) if isinstance(baseline, ReferenceBaselines) else found[0]


def add_effects(
    explained: Explanation,
    model: Forecaster,
    windows: Tensor,
    output: int,
    baseline: Baseline | ReferenceBaselines,
    of_steps: bool = False,
) -> Explanation:
    """Adds the effects of features, groups and segments, and of steps if wanted, to what `explain_windows` returned."""

    def measure(parts: Sequence[Part], *shape: int) -> Effects:
        return measure_effects(model, windows, output, baseline, parts).reshape(len(windows), *shape)

    by_group = of_step = None
    if explained.is_grouped:
        rows = explained.segment_rows or [slice(None)]
        parts = [Part(members, steps) for members in explained.grouping.members for steps in rows]
        by_group = measure(parts, *explained.contributions_by_group.shape[1:])
    if of_steps:
        of_step = measure(each_cell(model.config), *model.config.window_shape)
    effects = measure_effects(model, windows, output, baseline, each_feature(model.config))
    return replace(explained, effects=effects, effects_by_group=by_group, step_effects=of_step)


def add_shapley(
    explained: Explanation,
    model: Forecaster,
    windows: Tensor,
    output: int,
    baseline: Baseline | ReferenceBaselines,
    orders: Orders,
) -> Explanation:
    """Adds the Shapley values of `Explanation.parts`, in each segment, to what `explain_windows` returned."""
    members = [explained.grouping.members[number] for number in explained.grouping.whole]
    parts = [Part(tuple(of_part), rows) for of_part in members for rows in explained.segment_rows or [slice(None)]]
    found = measure_shapley(model, windows, output, baseline, parts, orders)
    of_segments = (len(explained.segments),) if explained.segments else ()
    return replace(explained, shapley=found.reshape(len(windows), len(members), *of_segments))


def _average(explanations: Sequence[Explanation]) -> Explanation:
    """Expected gradients, with the standard error of each feature's mean contribution."""

    def of(name: str) -> Array:
        return np.array([getattr(each, name) for each in explanations])  # (n_baselines, ...)

    steps: Array = of("steps").mean(axis=0)
    return replace(
        explanations[0],
        baseline=of("baseline").mean(axis=0),
        baseline_prediction=float(of("baseline_prediction").mean()),
        contributions=steps.sum(axis=1),
        steps=steps,
        layers=map_arrays(lambda *arrays: np.mean(arrays, axis=0), *(each.layers for each in explanations)),
        **{name: of(name).max(axis=0) for name in ("residual", "error", "path_nodes")},
        converged=np.asarray(of("converged").all(axis=0)),
        standard_error=of("contributions").std(axis=0, ddof=1) / np.sqrt(len(explanations)),
    )


def _explain_from(
    model: Forecaster, windows: Tensor, output: int, start: Array, options: LedgerOptions, detail: Detail
) -> Explanation:
    """Explains windows (n, lookback, n_features), model units, from a baseline (lookback, n_features), original."""
    scaled_start = model.to_model_units(start[None], "baseline")[0]
    scale, mean = float(model.scaling.output_scale[output]), float(model.scaling.output_mean[output])
    batches = slices(torch.split(windows, BATCH))
    explained = concatenate([_explain_batch(model, batch, scaled_start, output, options, detail) for batch in batches])
    output_std = float(model.output_std[output])
    residual, error = explained.residual * scale, explained.error * scale
    contributions = map_arrays(lambda values: values * scale, explained.values)
    predictions = (explained.values.start + explained.values.change) * scale + mean
    for values in (predictions, residual, error):
        refuse_non_finite_outputs(values)
    return Explanation(
        output=model.config.outputs[output],
        unit=model.config.target_of(output).unit,
        features=model.config.feature_names,
        feature_units=tuple(feature.unit for feature in model.config.features),
        predictions=predictions,
        baseline_prediction=float(explained.values.start[0]) * scale + mean,
        baseline=start,
        contributions=contributions.steps.sum(axis=1),
        steps=contributions.steps,
        layers=path.list_layers(model.network, output, contributions),
        error=error,
        residual=residual,
        tolerance=options.tolerance * output_std,
        converged=explained.within(options.tolerance * (output_std / scale)),
        path_nodes=explained.n_nodes,
        detail=detail,
    )


def _explain_batch(
    model: Forecaster, windows: Tensor, start: Tensor, output: int, options: LedgerOptions, detail: Detail
) -> Integrals[Contributions]:
    """Explains in the model's type, and in float64 what float32 cannot hold."""
    spread = float(model.output_std[output]) / float(model.scaling.output_scale[output])

    def explain(network: FrozenNetwork, windows: Tensor, halvings: int) -> Integrals[Contributions]:
        n_nodes = options.path_nodes
        if halvings:
            n_nodes = max(n_nodes, model.facts.get(("nodes", output, detail), find_usual_nodes))
        asked = (output, spread, detail, n_nodes, halvings)
        walk = Walk(network, model.node_ranges, windows, start.to(windows.dtype), *asked)
        return walk.explain(options.tolerance * spread)

    def find_usual_nodes() -> int:
        few, mean = spread_windows(model, N_TRIED), scaled_baselines(model)[0]
        walk = Walk(model.frozen, model.node_ranges, few, mean, output, spread, detail, PATH_NODES, 0)
        accepted = LedgerOptions.tolerance * spread
        for n_nodes in (PATH_NODES, USUAL_NODES):
            tried = walk._replace(n_nodes=n_nodes).explain(accepted)
            if np.mean(tried.error > accepted) <= MOST:
                return n_nodes
        return MORE_NODES

    if windows.dtype == torch.float64 or options.tolerance < FLOAT32_TOLERANCE:
        return explain(model.frozen_float64, windows.double(), options.halvings)
    # A path far from the data: rounding its points to float32 moves gates and nodes. No estimate sees this error, since
    # the rules agree on the rounded points, and sums hold there too.
    largest = torch.maximum(windows.abs(), start.abs())
    again = (largest > FLOAT32_REACH * model.reference.magnitude).flatten(1).any(dim=1).numpy()  # (n,)
    if again.all():
        return explain(model.frozen_float64, windows.double(), options.halvings)
    with part(0.6):  # the rest may be windows that need float64
        near = explain(model.frozen, take(windows, ~again), min(options.halvings, FLOAT32_HALVINGS))
    converged, tried = near.within(options.tolerance * spread), np.zeros(len(windows), dtype=np.int64)
    tried[~again], again[~again] = near.n_nodes, ~converged
    if not again.any():
        return near
    far = explain(model.frozen_float64, take(windows, again).double(), options.halvings)
    far = far._replace(n_nodes=far.n_nodes + tried[again])
    return path.merge_rows(again, far, take(near, converged))


def sum_groups(contributions: Array, groups: Iterable[Sequence[int]]) -> Array:
    """The contribution of each group of features, which are given by numbers, (..., n_features) -> (..., n_groups)."""
    return np.stack([contributions[..., list(members)].sum(axis=-1) for members in groups], axis=-1)


def complete_segments(segments: object, lookback: int) -> Segments:
    """The segments, and an entry for each run of steps that none of them holds, so that they sum to the whole window.

    Such a run is called ``other steps -47 to -6`` by its first and last. Without segments there are none.

    Raises:
        DataError: not a mapping of names to pairs; a segment is not a range of steps, overlaps with another, or has the
            name of such a run.
    """
    if not isinstance(segments, Mapping) or not all(isinstance(name, str) and name for name in segments):
        raise DataError.at("segments", f"must be an object of pairs of steps by their names, but is {quote(segments)}")
    taken: dict[int, str] = {}
    for name, ends in segments.items():
        match ends:
            case [int() as first, int() as last] if 1 - lookback <= first <= last <= 0 and bool not in map(type, ends):
                steps = range(first, last + 1)
            case _:
                message = f"must be two steps from {1 - lookback} to 0, first and last, but is {quote(ends)}"
                raise DataError.at(f"segments.{name}", message)
        for step in steps:
            if step in taken:
                raise DataError.at(f"segments.{name}", f"shares step {step} with {quote(taken[step])}")
            taken[step] = name
    complete = dict(segments)
    for is_held, run in groupby(range(1 - lookback, 1) if segments else (), taken.__contains__):
        first, *_, last = [*run] * 2
        name = f"other steps {first} to {last}" if first < last else f"other step {first}"
        if not is_held and name in segments:
            raise DataError.at(f"segments.{name}", "has the name of steps that no segment holds")
        if not is_held:
            complete[name] = (first, last)
    return complete
