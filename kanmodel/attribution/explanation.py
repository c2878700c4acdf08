"""`Explanation`: the ledger of some windows with all that was asked beside it, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kanmodel import html
from kanmodel.arrays import N_LISTED, Array, rows_of_steps
from kanmodel.attribution.baseline import Baselines
from kanmodel.attribution.effects import Effects, each_cell, each_feature, measure_effects, select_cells
from kanmodel.attribution.ledger import Ledger, LedgerOptions, explain_outputs, find_incomplete, sum_groups
from kanmodel.attribution.paths.path import Detail, map_arrays, take
from kanmodel.attribution.profiles import find_lags
from kanmodel.attribution.shapley import Orders, Shapley, measure_shapley
from kanmodel.computing import progress_share, tracked
from kanmodel.errors import DataError, IncompleteError, Problem, check_lowest, needs_package, quote
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import BOUND, Grouping, Groups, resolve_groups
from kanmodel.result import Pictured, Table, Theme, WindowsResult
from kanmodel.tables.inputs import InputValue
from kanmodel.tables.instants import write_instants
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.text import with_unit, write_figure

Method = Literal["path", "shapley"]
Bounds = Mapping[float, tuple[Array, Array]]
"""Lower and upper bounds of forecasts, (n,) each, by level."""
Segments = Mapping[str, tuple[int, int]]
"""Name of a segment to its first and last step: 0 is the newest, -1 the one before."""

N_DRIVERS = 3  # contributions that a row of `largest_errors` names
_EFFECTS = ("removed", "alone", "together")
_OF_PATH = "what a part adds as all parts move from the baseline to the window together"
_OF_ORDERS = "what a part adds on average over the orders in which the parts change one after another"
_BY_WINDOW = (
    *("predictions", "contributions", "steps", "layers", "error", "residual", "converged", "path_nodes"),
    *("standard_error", "effects", "effects_by_group", "step_effects", "shapley", "windows", "actual", "instants"),
)


@dataclass(frozen=True)
class ExplanationOptions:
    """What is asked of explanations."""

    baseline: Baselines
    groups: Groups  # features that are summed, by the name of their group
    segments: Segments  # steps that are summed, complete; see `complete_segments`
    accuracy: LedgerOptions
    detail: Detail  # of the contributions that must be so accurate; with segments those of steps at least
    effects: bool | Literal["steps"]  # whether to measure those of features, groups and segments, or of steps as well
    orders: Orders | None  # for Shapley values; None without these


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Ledger, WindowsResult):
    """Contributions of each feature at each step to the forecasts of one output for n windows, in the target's unit.

    Completeness: the contributions of a window sum to its prediction minus the baseline's, up to its residual. They
    divide that change among the features; `effects` state what the forecast loses without each feature, and what each
    does alone. If the three differ, the feature interacts with others. The picture of one window is a waterfall above a
    heat map of contributions by feature (or outermost group) and step (or segment); that of several is over time.

    Attributes:
        predictions, baseline_prediction, contributions, ...: see `Ledger`.
        groups: features that are summed, by the name of their group; empty if there are none.
        segments: first and last step of those that are summed, by name, each step in one; empty if there are none.
        effects: of removing each feature, and of each alone, (n, n_features); None if not requested.
        effects_by_group: the same for the entries of `contributions_by_group`, in its shape; None without groups too.
        step_effects: the same for each step of each feature, (n, lookback, n_features); None if not requested.
        shapley: Shapley values of the `parts`, (n, n_parts), or with segments (n, n_parts, n_segments); None if not
            requested. A contribution is what a part adds as all parts move from baseline to window together; a Shapley
            value is what it adds on average over the orders in which the parts change one after another.
        windows: those explained, (n, lookback, n_features), original units.
        target_times: for which each forecast is, (n,), as the table writes times; None without times, and if the
            target's column was shifted before training.
        instants: the same in seconds since 1970, UTC, or in the unit of the time column, (n,); None without times.
        zone: name of the time zone of local times; None for UTC, or times as they stand.
        rhythm: of the times; None without.
        newest: of each feature, the steps from the forecast's time to that of its newest value, negative before it.
        actual: what came at these times, (n,), NaN where there is no value yet; None without the target's column.
        intervals: lower and upper bounds of the forecasts, (n,) each, by level; empty if the output has none.
        usual_width: median over the reference windows, of the explanation of a width; else None.
        model: what was explained; None if the explanation was not made of a model.
        with_links: explains the same with detail ``links``.
    """

    groups: Groups = field(default_factory=dict)
    segments: Segments = field(default_factory=dict)
    effects: Effects | None = None
    effects_by_group: Effects | None = None
    step_effects: Effects | None = None
    shapley: Shapley | None = None
    windows: Array | None = None
    target_times: tuple[str, ...] | None = None
    instants: Array | None = None
    zone: str | None = None
    rhythm: TimeColumn | None = None
    newest: tuple[int, ...] = ()
    actual: Array | None = None
    intervals: Bounds = field(default_factory=dict)
    usual_width: float | None = None
    model: Forecaster | None = field(default=None, repr=False)
    with_links: Callable[[], Explanation] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, model: Forecaster, windows: Array, known: Mapping[int, Mapping[str, Any]], options: ExplanationOptions
    ) -> list[Explanation]:
        """Explains outputs, by their numbers, of windows (n, lookback, n_features), original units, oldest step first.

        A bound is an output of `Forecaster.bound`. Known attributes of each output are the `intervals` of forecasts and
        what a table says of the windows: `times`, `series`, and those of `Windows.outcome`. Raises as
        `explain_outputs`.
        """
        scaled = model.to_model_units(windows)
        detail = "steps" if options.segments and options.detail == "features" else options.detail
        with progress_share(0.5 if options.effects or options.orders else 1.0):
            ledgers = explain_outputs(model, scaled, list(known), options.baseline, options.accuracy, detail)
        linked = replace(options, detail="links", effects=False, orders=None)

        def usual_width(output: int, name: str) -> float | None:
            named = BOUND.fullmatch(name)
            is_width = named is not None and named[2] == "width"
            return float(np.median(model.reference_predictions[:, output])) if is_width else None

        return [
            cls(
                **vars(ledger),
                **_measure_beside(model, scaled, output, options),
                groups=options.groups,
                segments=options.segments,
                windows=windows,
                model_inputs=model.inputs,
                usual_width=usual_width(output, ledger.output),
                origin=model.origin,
                skill=model.skill,
                model=model,
                with_links=partial(_explain_one, model, windows, output, linked),
                **of_output,
            )
            for ledger, (output, of_output) in tracked(zip(ledgers, known.items(), strict=True))
        ]

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

    @property
    def is_grouped(self) -> bool:
        """Whether there are groups or segments."""
        return bool(self.groups or self.segments)

    @property
    def segment_rows(self) -> list[slice]:
        """The rows of a window, oldest first, of each segment."""
        return [rows_of_steps(*ends, self.steps.shape[1]) for ends in self.segments.values()]

    @cached_property
    def contributions_by_part(self) -> Array:
        """Contributions of each of `parts`, (n, n_parts); they sum to those of the features."""
        return sum_groups(self.contributions, [self.grouping.members[number] for number in self.grouping.whole])

    @cached_property
    def contributions_by_group(self) -> Array:
        """Contributions of each group, (n, n_names), or with segments (n, n_names, n_segments).

        Over top-level groups, features without a group and segments they sum to those of the features.
        """
        if not self.segments:
            return sum_groups(self.contributions, self.grouping.members)
        by_segment = np.stack([self.steps[:, rows].sum(axis=1) for rows in self.segment_rows], axis=1)
        return sum_groups(by_segment, self.grouping.members).swapaxes(1, 2)

    @cached_property
    def shown(self) -> Mapping[str, tuple[int, ...]]:
        """What texts and pictures divide a forecast among: `parts`, with the features of one input as one.

        By their labels, the places of their features.
        """
        found = dict[str, tuple[int, ...]]()
        for number in self.grouping.whole:
            name, members = self.grouping.names[number], self.grouping.members[number]
            one = self.model_inputs.of_feature.get(name)
            label = one.label if one else self.model_inputs.label(name)
            found[label] = (*found.get(label, ()), *members)
        return found

    @property
    def contributions_shown(self) -> Array:
        """Contributions of what is `shown`, (n, n_shown); they sum to those of the features."""
        return sum_groups(self.contributions, self.shown.values())

    @property
    def values(self) -> list[tuple[InputValue, ...]]:
        """Of each window, the newest values of the inputs, in the terms of the table."""
        return [()] * len(self) if self.windows is None else self.model_inputs.decode(self.windows[:, -1])

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
        """How the width of one window compares with the usual one, and which parts make it differ from the baseline's.

        Parts have a share of the difference, or where much of it cancels their contribution. None of anything else.
        """
        if self.usual_width is None or len(self) != 1:
            return None
        width, names, parts = float(self.predictions[0]), [*self.shown], self.contributions_shown[0]
        unit = f" {self.unit}" if self.unit else ""
        usual = f"{write_figure(self.usual_width)}{unit}"
        ratio = f"{write_figure(width / self.usual_width)} times " if self.usual_width > 0 else "instead of "
        change, total = width - self.baseline_prediction, float(np.abs(parts).sum())
        if not total:
            return f"{ratio}the usual {usual}; nothing makes it differ from the baseline's"
        by_lag = np.abs(sum_groups(self.steps[0], self.shown.values()))[::-1].T.astype(np.float32)
        when = [f" at {lags}" if by_lag.shape[1] > 1 else "" for lags in find_lags(by_lag)]
        is_shared = abs(change) >= total / 2
        named = []
        for number in np.argsort(-np.abs(parts), kind="stable")[:N_DRIVERS].tolist():
            if value := float(parts[number]):
                amount = f"{100 * (value / change):.0f} %" if is_shared else f"{value:+.3g}"
                named.append(f"{amount} is {names[number]}{when[number]}")
        start = f"{write_figure(self.baseline_prediction)}{unit}"
        return f"{ratio}the usual {usual}; {change:+.3g}{unit} from the baseline's {start}, of which {', '.join(named)}"

    @property
    def _undrawn(self) -> str | None:
        if not self._is_of_one_series:
            return "a picture shows one series, but these windows are of several: name it (series)"
        if len(self) == 1 or (len(self) > 1 and self.times is not None):
            return None
        return f"a picture shows one window, but there are {len(self)} without times: take one, as e[0]"

    def __iter__(self) -> Iterator[Explanation]:
        return (self[window] for window in range(len(self)))

    def __getitem__(self, window: int | slice | NDArray[np.int64]) -> Explanation:
        """One window as an explanation of length 1, or several, by a slice or their numbers."""
        if not isinstance(window, slice | np.ndarray):
            number = range(len(self))[window]  # raises IndexError, and supports negative indices
            window = slice(number, number + 1)
        chosen: dict[str, Any] = {name: take(getattr(self, name), window) for name in _BY_WINDOW}
        numbers = np.arange(len(self))[window].tolist()
        for name in ("times", "target_times", "series"):
            chosen[name] = (of := getattr(self, name)) and tuple(of[number] for number in numbers)
        chosen["intervals"] = {level: take(bounds, window) for level, bounds in self.intervals.items()}
        return replace(self, **chosen)

    def flow_picture(
        self, path: str | Path | None = None, *, theme: Theme = "light", size: Literal["slide", "page"] = "slide"
    ) -> str:
        """The picture of one forecast that flows through the curves of a chain, as SVG.

        Ribbons are as wide as contributions and sum at each node; a bead is where the window is on a curve. Places
        depend on the model alone; see `kanmodel.show.flow.lay_out_flow`. An explanation of another detail than
        ``links`` is computed again with it.

        Args:
            path: to which it is also written.
            theme: its colours.
            size: ``slide``, 16:9, or ``page``, A4.

        Raises:
            DataError: there are several windows, or the model is a graph.
            UnknownNameError: a theme or a size that does not exist.
            ExportError: the file cannot be written.
        """
        explained = self
        if self.detail != "links" and len(self) == 1 and self.with_links and self.model and not self.model.config.graph:
            explained = self.with_links()
        return FlowPicture(explained, origin=self.origin).svg(path, theme=theme, size=size)

    def require_completeness(self, output_std: float, first: int = 0) -> None:
        """Raises `IncompleteError` if a residual is above F(x) - F(x0) and the output's deviation on the reference.

        The message counts the windows from `first`.
        """
        incomplete = np.flatnonzero(find_incomplete(self, output_std))
        if len(incomplete):
            change = abs(self.predictions[incomplete[0]] - self.baseline_prediction)
            missed = f"the change of {change:.3g} by {self.residual[incomplete[0]]:.3g}"
            message = f"has values too far out to be explained: its contributions miss {missed}"
            places = [Problem(f"instances[{first + window}]", message) for window in incomplete[:N_LISTED]]
            raise IncompleteError(f"{places[0].path} {message}", places)

    def shap(self) -> Any:
        """The Shapley values, or else the contributions, as a `shap.Explanation`, which the plots of shap draw.

        It has a column for each of `parts`, in each segment if there are any. Its data are the newest value of a
        feature, or its mean in a segment, original units; NaN for a group of several features. Raises `ConfigError` if
        shap is not installed.
        """
        with needs_package("a plot of shap", "shap"):
            import shap
        names, values = self._columns_of_parts()
        if self.shapley is not None:
            values = self.shapley.values.reshape(len(self), -1)
        rows = self.segment_rows or [slice(-1, None)]
        data = np.full((len(self), len(self.parts), len(rows)), np.nan)
        for place, number in enumerate(self.grouping.whole):
            members = self.grouping.members[number]
            if len(members) == 1 and self.windows is not None:
                column = self.windows[:, :, members[0]]
                data[:, place] = np.stack([column[:, steps].mean(axis=1) for steps in rows], axis=1)
        return shap.Explanation(
            values=values,
            base_values=np.full(len(self), self.baseline_prediction),
            data=data.reshape(len(self), -1),
            feature_names=names,
            output_names=with_unit(self.output, self.unit),
        )

    def value_times(self, window: int) -> list[tuple[str, ...]]:
        """The times of a window's values, of each step, oldest first, one of each feature; empty without times.

        That of a known column may be later than the window's end: ``temp+24`` is of the time of the last forecast.
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

        Args:
            by: ``group`` for a row for each of `group_names` instead, and for each segment if there are any. Shapley
                values are those of `parts`: None for a member of another group, and for features if there are groups.
                ``step`` for a row for each step of each feature, oldest first, with its `lag`, its value, and the time
                of that (`value_times`).
            wide: whether there is a row for each window instead, without effects and Shapley values, with a column for
                the contribution of each feature, or of each of `parts` (and segment: ``hour, last six hours``). A name
                that another column has gets `` (contribution)`` at its end.
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
            columns |= {"shapley": self._spread(self.shapley.values)}
            columns |= {"shapley_standard_error": self._spread(self.shapley.standard_error)}
        rows = []
        for window in range(len(self)):
            named, forecast, accuracy = self._describe(window)
            for name, *row in zip(names, *(of[window].ravel().tolist() for of in columns.values()), strict=True):
                rows.append(named | name | dict(zip(columns, row, strict=True)) | forecast | accuracy)
        return rows

    def _describe(self, window: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """What rows on a window have in common: which it is, its forecast, and how accurate the ledger is."""
        times = {"series": self.series, "time": self.times, "target_time": self.target_times}
        named = {"window": window} | {name: given[window] for name, given in times.items() if given is not None}
        forecast = {"prediction": float(self.predictions[window])}
        for level, bounds in self.intervals.items():
            forecast |= zip(name_columns(level), (float(bound[window]) for bound in bounds), strict=True)
        forecast |= {} if self.actual is None else {"actual": float(self.actual[window])}
        forecast["baseline_prediction"] = self.baseline_prediction
        accuracy = {"residual": float(self.residual[window]), "error": float(self.error[window])}
        return named, forecast, accuracy | {"converged": bool(self.converged[window])}

    def _rows_of_steps(self, window: int) -> Iterator[dict[str, Any]]:
        """The rows of a window by step."""
        (named, *_), times = self._describe(window), self.value_times(window)
        for step, contributions in enumerate(self.steps[window].tolist()):
            for number, contribution in enumerate(contributions):
                row = named | {"feature": self.features[number], "lag": self.steps.shape[1] - 1 - step}
                row |= {"value_time": times[step][number]} if times else {}
                row |= {} if self.windows is None else {"value": float(self.windows[window, step, number])}
                yield row | {"contribution": contribution}

    def _columns_of_parts(self) -> tuple[list[str], Array]:
        """Names and contributions, (n, n_columns), of `parts`, in each segment if there are any."""
        names = [f"{part}, {segment}" for part in self.parts for segment in self.segments] or [*self.parts]
        return names, self.contributions_by_group[:, list(self.grouping.whole)].reshape(len(self), -1)

    def _rows_of_windows(self, by: Literal["feature", "group"]) -> list[dict[str, Any]]:
        """The wide table."""
        names, values = self._columns_of_parts() if by == "group" else ([*self.features], self.contributions)
        described = [self._describe(window) for window in range(len(self))]
        taken = {"output"}.union(*(described[0] if described else ()))
        for number, name in enumerate(names):
            while name in taken:
                name += " (contribution)"
            taken.add(name)
            names[number] = name
        return [
            named | forecast | dict(zip(names, row, strict=True)) | accuracy
            for row, (named, forecast, accuracy) in zip(values.tolist(), described, strict=True)
        ]

    def largest_errors(self, n: int = 10) -> list[dict[str, Any]]:
        """At most `n` windows whose forecasts are furthest from their actual values, furthest first.

        A row has the `forecast_error`, forecast minus actual value, and as `drivers` the largest contributions of
        `parts`. Raises `DataError` if no actual value is known.
        """
        check_lowest("n", n, 1)
        errors = self.forecast_errors
        if errors is None or np.isnan(errors).all():
            raise DataError("no actual value is known: give a data frame with the target's column, and last")
        furthest, rows = np.argsort(-np.abs(np.nan_to_num(errors)), kind="stable"), []
        for window in furthest[~np.isnan(errors[furthest])][:n].tolist():
            named, forecast, _ = self._describe(window)
            drivers = name_drivers(self, window)
            rows.append(named | forecast | {"forecast_error": float(errors[window]), "drivers": drivers})
        return rows

    def _spread(self, of_parts: Array) -> Any:
        """Values of `parts` at their places among `group_names`; None for members of other groups."""
        spread = np.full((len(self), len(self.group_names), *of_parts.shape[2:]), None, dtype=object)
        spread[:, list(self.grouping.whole)] = of_parts
        return spread

    def _title(self) -> str:
        windows = f" for {len(self)} windows" if len(self) != 1 else f", {self.times[0]}" if self.times else ""
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
        return self._tables_of_one() if len(self) == 1 else self._tables_of_several()

    def _tables_of_one(self) -> list[Table]:
        columns = ["contribution", *(_EFFECTS if self.effects is not None else ())]
        shapley, grouped = [] if self.shapley is None else ["shapley"], self.is_grouped
        of_features = ["feature", *columns, *([] if grouped else shapley)]
        rows = self.model_inputs.merge_rows(self.table(), ["contribution"])
        tables = [Table(_largest_first(rows), of_features, "All contributions", in_text=not grouped)]
        if grouped:
            of_groups = ["group", *(["segment"] if self.segments else []), *columns, *shapley]
            rows = self.model_inputs.merge_rows(self.table("group"), ["contribution"], "group")
            tables.append(Table(_largest_first(rows), of_groups, "Contributions by group"))
        return tables

    def _tables_of_several(self) -> list[Table]:
        of_inputs = self.model_inputs.merge(self.features)
        names, contributions = [*of_inputs], sum_groups(self.contributions, [*of_inputs.values()])
        means = {"mean |contribution|": np.abs(contributions), "mean contribution": contributions}
        if self.effects is not None and len(names) == len(self.features):
            means |= {f"mean |{name}|": np.abs(getattr(self.effects, name)) for name in _EFFECTS}
        by_feature, by_window = list[dict[str, Any]](), list[dict[str, Any]]()
        if len(self):
            means = {name: values.mean(axis=0) for name, values in means.items()}
            for number in np.argsort(-means["mean |contribution|"], kind="stable").tolist():
                of_feature = {name: float(values[number]) for name, values in means.items()}
                by_feature.append({"feature": names[number]} | of_feature)
        for window, largest in enumerate(np.abs(contributions).argmax(axis=1).tolist()):
            named, forecast, accuracy = self._describe(window)
            by_window.append(named | forecast | {"largest contribution": names[largest]} | accuracy)
        first = "time" if self.times else "window"
        ends = [end for level in self.intervals for end in name_columns(level)]
        columns = [first, "prediction", *ends, "actual", "largest contribution", "residual", "error", "converged"]
        known = [first, *(name for name in columns[1:] if by_window and name in by_window[0])]
        tables = [Table(by_feature, ["feature", *means], in_text=False), Table(by_window, known, "Window by window")]
        if self.error_summary is not None:
            columns = [first, "prediction", "actual", "forecast_error", "drivers"]
            tables.append(Table(self.largest_errors(), columns, "Largest errors", in_text=False))
        return tables


@dataclass(frozen=True, repr=False, eq=False)
class FlowPicture(Pictured):
    """The picture of an explanation of one window that flows through its model."""

    explanation: Explanation

    def _title(self) -> str:
        return self.explanation._title()

    def _facts(self) -> dict[str, str]:
        return self.explanation._facts()

    def _tables(self) -> list[Table]:
        return []


def name_drivers(explanation: Explanation, window: int) -> str:
    """The largest contributions to a window by what is `shown`: ``temp +3.1, hour -2``."""
    return name_largest([*explanation.shown], explanation.contributions_shown[window])


def _explain_one(model: Forecaster, windows: Array, output: int, options: ExplanationOptions) -> Explanation:
    return Explanation.of(model, windows, {output: {}}, options)[0]


def _measure_beside(model: Forecaster, windows: Tensor, output: int, options: ExplanationOptions) -> dict[str, Any]:
    """The effects and Shapley values that are asked for, by the attributes that hold them; windows in model units."""
    config, asked, found = model.config, (model, windows, output, options.baseline), dict[str, Any]()
    grouping = resolve_groups(options.groups, config.feature_names)
    rows = [rows_of_steps(*ends, config.lookback) for ends in options.segments.values()]

    def of_groups(measured: Any) -> Any:
        shape = (len(rows),) if rows else ()
        return map_arrays(lambda values: values.reshape(len(windows), -1, *shape), measured)

    if options.orders is not None:
        players = select_cells(config, [grouping.members[number] for number in grouping.whole], rows or [slice(None)])
        found["shapley"] = of_groups(measure_shapley(*asked, players, options.orders))
    if options.effects and (options.groups or options.segments):
        cells = select_cells(config, grouping.members, rows or [slice(None)])
        found["effects_by_group"] = of_groups(measure_effects(*asked, cells))
    if options.effects == "steps":
        of_steps = measure_effects(*asked, each_cell(config))
        found["step_effects"] = map_arrays(lambda values: values.reshape(windows.shape), of_steps)
    if options.effects:
        found["effects"] = measure_effects(*asked, each_feature(config))
    return found


def name_columns(level: float) -> tuple[str, str]:
    """The columns of an interval's bounds: ``lower@0.8`` and ``upper@0.8``."""
    return f"lower@{level:g}", f"upper@{level:g}"


def describe_intervals(intervals: Bounds) -> str:
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


def complete_segments(segments: object, lookback: int) -> Segments:
    """The segments, and an entry for each run of steps that none of them holds, so that they sum to the whole window.

    Such a run is called ``other steps -47 to -6`` by its first and last. Without segments there are none.

    Raises:
        DataError: no mapping, no range of steps, overlapping segments, or one with the name of such a run.
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
