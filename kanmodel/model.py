"""`Model`: one checkpoint with the questions one can ask it, in original units and by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, TypeVar, Unpack, cast, get_args, overload
from warnings import warn

import numpy as np
import torch
from numpy.typing import NDArray

import kanmodel.show  # noqa: F401  (it registers the pictures of results)
from kanmodel.alternatives.counterfactual import Counterfactuals
from kanmodel.alternatives.shifts import Goal, Search
from kanmodel.alternatives.what_if import DEFAULT_POINTS, WhatIf
from kanmodel.arrays import Array, read_only
from kanmodel.attribution import explanation as attribution
from kanmodel.attribution.baseline import baseline_windows, read_baseline
from kanmodel.attribution.changes import Changes, refuse_unlinked
from kanmodel.attribution.comparison import Comparisons, match_outputs
from kanmodel.attribution.explanation import (
    Explanation,
    LedgerOptions,
    Method,
    Segments,
    complete_segments,
    explain_windows,
)
from kanmodel.attribution.explanations import Explanations
from kanmodel.attribution.paths.path import Detail
from kanmodel.attribution.shapley import Orders
from kanmodel.checkpoint import identify_checkpoint, save_checkpoint
from kanmodel.computing import Once, Progress, part, reporting, slices
from kanmodel.errors import CheckpointError, DataError, Problem, check_lowest, checked, refuse_unknown
from kanmodel.forecaster import Forecaster
from kanmodel.forecasts.backtest import Backtest
from kanmodel.forecasts.calibration import Adaptation, calibrate_intervals, read_pairs
from kanmodel.forecasts.forecasts import Forecasts
from kanmodel.formula.formula import Formulas
from kanmodel.formula.symbolic import Candidate, suggest_edge_formulas
from kanmodel.monitoring.drift import Drift
from kanmodel.monitoring.trust import Trust
from kanmodel.monitoring.watched import EXPLAINED
from kanmodel.network.config import BOUND, Groups, resolve_groups, width_of
from kanmodel.network.connections import EdgeKey
from kanmodel.network.intervals import BOUNDS, forecasts_of, name_bounds
from kanmodel.prepared import Prepared
from kanmodel.report.faithfulness import Agreement, Faithfulness, compare_baselines, measure_faithfulness
from kanmodel.report.report import Report, write_report
from kanmodel.result import ModelResult, Result, Table
from kanmodel.structure import pruning
from kanmodel.structure.ablation import Ablation, Size, extract_pruned, extract_subnetwork, measure_size
from kanmodel.structure.curves import Edge, Span, sample_edges
from kanmodel.structure.edges import TopologyEdge, find_edge, find_edge_key
from kanmodel.structure.importance import Importance, add_groups, measure_importance
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.structure.pruning import Fidelity, FidelityPoint, Fill, Metric, Pruning, PruningRule, Thresholds
from kanmodel.structure.topology import Topology
from kanmodel.tables.columns import Feature
from kanmodel.tables.table import Gaps, Places, Selection
from kanmodel.tables.windows import Windows as TableWindows
from kanmodel.tables.windows import read_stretch, read_table, read_windows
from kanmodel.text import list_some, with_unit

if TYPE_CHECKING:
    from kanmodel.onnx.export import OnnxExport

N_HASH = 12  # digits of a hash that tell checkpoints apart for people
N_KEPT = 128  # results of questions about the model as a whole
Answer = TypeVar("Answer")
Question = TypeVar("Question", bound=Callable[..., Any])
Given = TypeVar("Given", bound=ModelResult)

EdgeName = str | tuple[Any, ...]
"""An edge, as `Model.edge` takes it."""
Windows = Any
"""An array (n, lookback, n_features) or one window (lookback, n_features), oldest step first; a mapping of feature name
to array (n, lookback) or (lookback,); or a data frame of at least `lookback` rows, whose last rows are one window:
the newest, without a gap, if it has the time column of the training, or of a model without one a column ``time`` or an
index of dates, else as they stand; of many series one window of each. Its columns are those of the table in training,
if the checkpoint keeps how they become features (`config.encoding`)."""
SeriesNames = Sequence[str] | str | None
"""Names of the series of a table that are read; None for all."""


class RuleArguments(TypedDict, total=False):
    """A pruning rule in keywords; see `Model.topology`."""

    fidelity: float | None
    metric: Metric | None
    thresholds: Thresholds | Mapping[str, float] | None
    fill: Fill
    without: Sequence[EdgeName]


class ExplainOptions(TypedDict, total=False):
    """The options of `Model.explain`."""

    baseline: Any
    groups: Groups | Literal["checkpoint"] | None
    segments: Segments | None
    tolerance: float
    path_nodes: int
    halvings: int
    effects: bool | Literal["steps"]
    detail: Detail
    method: Method
    orders: int
    seed: int
    last: int | str | None
    gaps: Gaps
    series: SeriesNames
    progress: Progress


class Results(Protocol):
    """A cache of results; see `kanmodel.computing.Once`."""

    def get(self, key: Hashable, compute: Callable[[], Answer]) -> Answer:
        """Returns the result of a key, computed if there is none."""


def cached(question: Question) -> Question:
    """Caches a method of `Model` by checkpoint, output and other arguments, once for all threads that ask."""

    @wraps(question)
    def ask(self: Model, output: int, *rest: Hashable) -> Any:
        return self.results.get(self._key(output, question.__name__, *rest), lambda: question(self, output, *rest))

    return cast(Question, ask)


def reported(question: Question) -> Question:
    """Reports the progress of a method of `Model` as its argument `progress` says."""

    @wraps(question)
    def ask(*given: Any, progress: Progress = False, **options: Any) -> Any:
        with reporting(progress):
            return question(*given, **options)

    return cast(Question, ask)


def bounded(question: Question) -> Question:
    """Asks the model of a forecast's bounds if the argument `output` names one, such as ``load+24:width@0.8``."""
    arguments = signature(question)

    @wraps(question)
    def ask(self: Model, *given: Any, **options: Any) -> Any:
        output = arguments.bind(self, *given, **options).arguments.get("output")
        model, _ = self.find_output(output)
        return question(model, *given, **options)

    return cast(Question, ask)


def _times_of(windows: TableWindows | None) -> dict[str, Any]:
    """What a result states of the windows of a table."""
    return {} if windows is None else windows.named


@dataclass(frozen=True, repr=False, eq=False)
class Model(Forecaster, Result):
    """One checkpoint and the questions one can ask it. It is immutable and can be shared by threads.

    Windows, predictions and contributions are in original units. Global results, such as `importance` and `topology`,
    are computed on first use and cached, once for all threads that ask at the same time (single flight): they are to be
    read, not changed. Long computations call `kanmodel.computing.pause` between slices of the work, and report their
    `progress`: with True as a bar on stderr, or to a function, which gets the share that is done, from 0 to 1; see
    `kanmodel.computing.Progress`.

    An output is given by its name, and is the first by default. Methods raise `UnknownNameError` for an output, a
    feature, an edge or an option that does not exist, `DataError` for other arguments that cannot be used (as
    `InsufficientReferenceError` if a statistic needs more reference windows), and `NonFiniteError` if a result is not
    finite.

    Attributes:
        results: cache of the global results; models may share one.
        prepared: what of them was read beside the checkpoint, see `kanmodel.prepare`; else None.
        unprepared: why `kanmodel.load` has not read them; else None.
    """

    results: Results = field(default_factory=lambda: Once(N_KEPT), init=False)
    prepared: Prepared | None = field(default=None, init=False)
    unprepared: str | None = field(default=None, init=False)

    @classmethod
    def of(
        cls,
        forecaster: Forecaster,
        name: str | None = None,
        results: Results | None = None,
        prepared: Prepared | None = None,
        unprepared: str | None = None,
    ) -> Model:
        """The model of a forecaster, with the name that it has by default, and what is cached of it."""
        given = {of.name: getattr(forecaster, of.name) for of in fields(Forecaster) if of.init}
        model = cls(**given | ({} if name is None else {"name": name}))
        cached = {name: value for name, value in vars(forecaster).items() if name not in given}
        vars(model).update(cached, prepared=prepared, unprepared=unprepared)
        if results is not None:
            vars(model)["results"] = results
        return model

    def with_results(self, results: Results) -> Model:
        """The same model with another cache of its global results."""
        model = copy(self)
        vars(model)["results"] = results
        return model

    @property
    def features(self) -> tuple[Feature, ...]:
        """The inputs: name, unit, and mean, std, min and max over the training rows."""
        return self.config.features

    @property
    def group_names(self) -> tuple[str, ...]:
        """The checkpoint's groups, then the features without a group; empty if it has no groups."""
        groups = self.config.groups
        return resolve_groups(groups, self.config.feature_names).names if groups else ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, ``{target}+{step}``."""
        return self.config.outputs

    @property
    def lookback(self) -> int:
        """Steps of a window."""
        return self.config.lookback

    @property
    def chain(self) -> str:
        """The layers in words, such as ``LSTM of 12 units -> readout last -> head [12, 5, 1]``; parts of a graph."""
        config = self.config
        n_linear = sum(layer.is_linear for layer in config.head)
        counts = {"KAN": len(config.head) - n_linear, "Linear": n_linear}
        layers = [f"{kind} layers: {count}" for kind, count in counts.items() if count]
        parts = [
            f"graph of {len(config.graph)} nodes" if config.graph else "",
            f"front {width_of(config.front)}" if config.front else "",
            str(config.recurrent or ""),
            *map(str, config.recurrents),
            "" if config.graph else f"readout {config.readout}",
            *(layers if config.graph else [f"head {width_of(config.head)}"]),
            config.output_function or "",
        ]
        return (", " if config.graph else " -> ").join(filter(None, parts))

    @property
    def feature_range(self) -> tuple[Array, Array]:
        """Smallest and largest training value of each feature, infinite if unknown, (n_features,) each."""
        return self.feature_low, self.feature_high

    @property
    def size(self) -> Size:
        """Edges and hidden nodes."""
        return measure_size(self.network)

    @cached_property
    def reference_predictions(self) -> Array:
        """Predictions for the reference windows, (n, n_outputs), original units; those of `predict` up to rounding."""
        return read_only(self.scaling.outputs_to_original(self.reference_outputs))

    @staticmethod
    @checked
    def identify(path: str | Path) -> str:
        """The `checkpoint` of a file that can be loaded as far as its header says; its tensors are not made.

        Raises:
            CheckpointError: the file is missing, truncated or foreign.
        """
        return f"sha256:{identify_checkpoint(Path(path))}"

    @property
    def bounded_outputs(self) -> tuple[str, ...]:
        """The outputs that have intervals, as `Forecasts.outputs`; empty if the model has none."""
        return tuple(self.outputs[number] for number in forecasts_of(self.config)) if self.levels else ()

    @cached_property
    def bounds(self) -> tuple[str, ...]:
        """Names of the bounds of the intervals, such as ``load+24:lower@0.8``: outputs that can be explained."""
        return name_bounds(self.config, self.levels)

    def find_output(self, output: str | None) -> tuple[Model, int]:
        """The model that has an output, this one or that of a forecast's bounds, and its index there.

        That of bounds has the forecast and its bounds at all levels as outputs, and this one's checkpoint and results.
        """
        if not self.levels or output in self.outputs or BOUND.fullmatch(str(output)) is None:
            return self, self._number_of(output)
        refuse_unknown("output", output, (*self.outputs, *self.bounds))
        forecast, number = self._find_bound(str(output))
        return Model.of(self.bound(forecast), results=self.results), number

    def unit_of(self, output: str) -> str | None:
        """The unit of an output or a bound; None if unknown."""
        if output in self.outputs or not self.levels:
            return self.config.target_of(self._number_of(output)).unit
        refuse_unknown("output", output, (*self.outputs, *self.bounds))
        return self.config.target_of(forecasts_of(self.config)[self._find_bound(output)[0]]).unit

    @overload
    def predict(
        self,
        windows: Windows,
        *,
        intervals: None = ...,
        last: int | str | None = ...,
        gaps: Gaps = ...,
        series: SeriesNames = ...,
    ) -> Array: ...
    @overload
    def predict(
        self,
        windows: Windows,
        *,
        intervals: Literal["all"] | Sequence[float],
        last: int | str | None = ...,
        gaps: Gaps = ...,
        series: SeriesNames = ...,
    ) -> Forecasts: ...
    def predict(
        self,
        windows: Windows,
        *,
        intervals: Literal["all"] | Sequence[float] | None = None,
        last: int | str | None = None,
        gaps: Gaps = "error",
        series: SeriesNames = None,
    ) -> Array | Forecasts:
        """Forecasts, (n, n_outputs), original units, of windows in any form of `Windows`; or `Forecasts` with bounds.

        Args:
            windows: the windows.
            intervals: levels of prediction intervals, such as ``(0.8, 0.95)``, or ``"all"`` that the model has.
            last: of a data frame, how many windows, which end at its newest rows: a number, or a duration such as
                ``"7d"``, ``"36h"`` or ``"15min"``; of many series so many of each. By default one.
            gaps: whether a gap in time among these rows is an error, or the windows that span one are left out
                (``"skip"``).
            series: of a data frame, names of the series that are read; None for all. A warning names series that
                training did not have.

        Returns:
            The forecasts; with `intervals` also `times`, `series`, and the `actual` values if the frame has the
            target's column.
        """
        given, of_table = self._read(windows, last, gaps, series)
        if intervals is None:
            return super().predict(given)
        found = Forecasts.of(self, given, intervals)
        if of_table is not None:
            outcomes = [of_table.outcome(*self._place_of(output)) for output in forecasts_of(self.config)]
            found = replace(found.with_actual(outcomes), **of_table.named)
        return self._sign(found)

    @reported
    def backtest(
        self,
        frame: Any,
        target: str | None = None,
        *,
        adapt: bool | Mapping[str, Any] = False,
        last: int | str | None = None,
        gaps: Gaps = "skip",
        series: SeriesNames = None,
        places: Places | None = None,
        progress: Progress = False,
    ) -> Backtest:
        """Forecasts over a table beside what came: errors, bias and skill, overall and by horizon, series and time.

        Each forecast is that of its due time: cutting the table off after a window's last row, but for known columns,
        changes no bit of it. Skill is 1 - MAE / MAE of persistence, the last value that was known. Windows with a
        missing value, across a gap in time, or that end where the table has not all rows of the horizon yet, are left
        out, and so are forecasts without an actual value; the result states how many. Of a model with intervals it has
        their coverage, mean width and Winkler score as well.

        Args:
            frame: a data frame, or a mapping of name to column, with the columns of the training, the target among
                them, and the time if the model was trained with one: the rows of the test or new ones. Of another model
                a column ``time`` or an index of dates, if there is one, has the times.
            target: its name; None for the first.
            adapt: whether the intervals are adapted in the order of time, each forecast's by the actual values that
                were known as it was made; or an `adaptation` of an earlier backtest to go on from: actual values of
                windows up to its `last` do not count again, and forecasts made before it was have no interval. Without
                times it has no `last`: give new rows alone.
            last: how many windows, those that end at the newest rows whose whole horizon the table has: a number, or a
                duration, as in `predict`. By default all.
            gaps: whether windows across a gap in time are left out, or a gap is an error (``"error"``).
            series: as in `predict`.
            places: names of the table in errors; by default those of a data frame.
            progress: as in `explain`.
        """
        refuse_unknown("gaps", gaps, get_args(Gaps))
        names = self.config.table.targets
        target = names[0] if target is None else target
        refuse_unknown("target", target, names)
        read = frame
        if not isinstance(frame, TableWindows):
            places = places or Places("frame", self.config.time.name if self.config.time else "time")
            read = read_table(self.config.table, frame, places, Selection(last, series=series), gaps, target)
            self._warn_of_new(read)
        return self._sign(Backtest.of(self, read, target, adapt))

    @reported
    def calibrate(
        self,
        windows: Any = None,
        targets: Any = None,
        *,
        intervals: Sequence[float] | float | None = None,
        last: int | str | None = None,
        gaps: Gaps = "skip",
        series: SeriesNames = None,
        places: Places | None = None,
        progress: Progress = False,
    ) -> Model:
        """A new model with prediction intervals that are calibrated on windows that the model was not fitted on.

        Where the model has outputs of the quantiles of all levels, such as ``load@0.1`` and ``load@0.9`` of 0.8, their
        distances from the forecast are multiplied by a factor, and their widths explained by features; a model with
        intervals from training keeps what they were trained to, if its levels are asked for. Of any other model
        intervals are `constant`: of the same width in every window, for each output. See `kanmodel.network.conformal`.

        Args:
            windows: a table with the target's column, as of `backtest`; or, with `targets`, windows in any form of
                `Windows`. By default the reference windows with their targets: right only if nothing was fitted on
                them, while training chose its best epoch by them, and of an import it is for you to know.
            targets: actual values of the windows, (n, n_outputs), original units; of a model with quantiles also of its
                forecasts alone.
            intervals: levels; by default those the model has, or 0.8 and 0.95.
            last: of a table, as in `backtest`.
            gaps: of a table, as in `backtest`.
            series: of a table, as in `backtest`.
            places: names of a table in errors; by default those of a data frame.
            progress: as in `explain`.
        """
        refuse_unknown("gaps", gaps, get_args(Gaps))
        parts, actual, times = read_pairs(self, windows, targets, Selection(last, series=series), gaps, places)
        return Model.of(calibrate_intervals(self, parts, actual, intervals, times), self.name)

    def adapt(self, adaptation: Mapping[str, Any]) -> Model:
        """The same checkpoint with the intervals of a backtest's `adaptation`, which are predicted and explained.

        Args:
            adaptation: `Backtest.adaptation`, or that of an answer of the service.

        Raises:
            DataError: it is of another checkpoint, or not an adaptation.
        """
        return Model.of(Adaptation.read(adaptation, self).apply(self), self.name)

    def accelerate(self) -> Model:
        """The same model, which predicts with ONNX Runtime the batch sizes for which it is measured to be faster.

        Predictions are equal up to rounding; the weights and the cached results are shared.
        """
        from kanmodel.onnx import accelerate  # here, since onnx and ONNX Runtime are slow to import

        return accelerate(self)

    def logits(self, windows: Windows) -> Array:
        """Inputs of the output function of a classifier, (n, n_outputs); as `predict`."""
        return super().logits(self._read(windows)[0])

    def find_representable(self, values: Array) -> NDArray[np.bool_]:
        """Whether values are finite in the network's dtype, before and after scaling; (..., n_features) both.

        1e39 overflows float32 although it may fit after division by a large standard deviation.
        """
        within: NDArray[np.bool_] = np.abs(values) <= self.scaling.feature_limit
        if within.all():
            return within
        scaled = self.scaling.features_to_model(values)
        return (scaled.isfinite() & torch.from_numpy(values).to(scaled.dtype).isfinite()).numpy()

    @overload
    def explain(
        self, windows: Windows, output: str | None = ..., *, outputs: None = ..., **options: Unpack[ExplainOptions]
    ) -> Explanation: ...
    @overload
    def explain(
        self, windows: Windows, *, outputs: Literal["all"] | Sequence[str], **options: Unpack[ExplainOptions]
    ) -> Explanations: ...
    @reported
    def explain(
        self,
        windows: Windows,
        output: str | None = None,
        *,
        outputs: Literal["all"] | Sequence[str] | None = None,
        baseline: Any = "mean",
        groups: Groups | Literal["checkpoint"] | None = "checkpoint",
        segments: Segments | None = None,
        tolerance: float = LedgerOptions.tolerance,
        path_nodes: int = LedgerOptions.path_nodes,
        halvings: int = LedgerOptions.halvings,
        effects: bool | Literal["steps"] = False,
        detail: Detail = "flow",
        method: Method = "path",
        orders: int = Orders.count,
        seed: int = Orders.seed,
        last: int | str | None = None,
        gaps: Gaps = "error",
        series: SeriesNames = None,
        progress: Progress = False,
    ) -> Explanation | Explanations:
        """Contributions of each feature at each step to the forecast of one output, or of several.

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; None for the first. Of a model with intervals also a bound or a width, such as
                ``"load+24:width@0.8"``.
            outputs: names of several, or ``"all"``, for `Explanations`, whose items are the explanation of each.
            baseline: what the windows are compared with: ``"mean"`` of the reference windows, ``"zero"`` in model
                units, the mean of ``"reference"`` windows or of ``{"reference": count, "seed": number}``,
                ``{"values": {feature: a number or one per step}}`` or ``{"instance": window}``.
            groups: features that belong together, whose contributions are summed, such as
                ``{"hour": ["hour_sin", "hour_cos"]}``; a member may be another group. By default those of the
                checkpoint; None for none.
            segments: steps whose contributions are summed, by their first and last, 0 the newest:
                ``{"last six hours": (-5, 0)}``. Steps in none of them are entries of their own, such as
                ``other steps -23 to -6``.
            tolerance: largest accepted residual (convergence delta) and error, in standard deviations of the output.
            path_nodes: nodes with which the integration path starts: a multiple of 4, plus one.
            halvings: how often a part of the path may be bisected until the tolerance is reached.
            effects: whether to measure ablation effects beside the contributions: what the forecast loses without each
                feature, and what each does alone. Takes 2 forecasts for each window, baseline and feature, and as many
                for each group and segment; with ``"steps"`` also for each step of each feature, lookback times as many.
            detail: the contributions that must reach the tolerance: ``"features"``, with fewer nodes; ``"steps"`` too,
                as segments require; or also the nodes and edges of every layer, which only ``"flow"`` has.
            method: ``"shapley"`` adds Shapley values of the outermost groups and of features without one, in each
                segment if there are any: of at most 12 such parts from the forecasts of all 2^n coalitions, of more
                from random orders, with a standard error. Without groups, each feature is a part.
            orders: number of random orders, even; the forecasts of each are one less than there are parts.
            seed: of these orders.
            last: of a data frame, how many windows, as in `predict`; the explanation has their `times`, and the
                `actual` values of the forecasts if the frame has the target's column.
            gaps: what is done with a gap in time among their rows, as in `predict`.
            series: which of many series, as in `predict`.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
        asked_for = [self.find_output(name) for name in self._names_of(output, outputs)]
        options, drawn = LedgerOptions(tolerance, path_nodes, halvings), Orders(orders, seed)
        refuse_unknown("method", method, get_args(Method))
        groups, segments = self.choose_groups(groups, segments)
        if segments and detail == "features":
            detail = "steps"
        start = read_baseline(self, baseline)
        given, of_table = self._read(windows, last, gaps, series)
        scaled, found = self.to_model_units(given), list[Explanation]()
        bounds: tuple[Array, ...] = ()
        for model, number in slices(asked_for):
            with part(0.5 if method == "shapley" or effects else 1.0):
                explained = explain_windows(model, scaled, number, start, options, detail)
            explained = self._sign(explained, groups=groups, segments=segments, windows=given)
            if model is self and self.levels and number in (known := forecasts_of(self.config)):
                bounds = bounds or self.predict_bounds(given)[1:]
                lower, upper = (side[:, :, known.index(number)] for side in bounds)
                ends = zip(lower, upper, strict=True)
                explained = replace(explained, intervals=dict(zip(self.levels, ends, strict=True)))
            if (named := BOUND.fullmatch(explained.output)) and named[2] == "width":
                usual = float(np.median(model.reference_predictions[:, number]))
                explained = replace(explained, usual_width=usual)
            if of_table is not None:
                outcome = self._describe_outcome(of_table, explained.output)
                explained = replace(explained, **of_table.named, **outcome)
            asked = model, scaled, number, start
            if method == "shapley":
                explained = attribution.add_shapley(explained, *asked, drawn)
            if effects:
                explained = attribution.add_effects(explained, *asked, of_steps=effects == "steps")
            found.append(explained)
        if outputs is None:
            return found[0]
        targets = tuple(model.config.target_of(number).name for model, number in asked_for)
        about = {"times": found[0].times, "series": found[0].series}
        return Explanations(tuple(found), targets, origin=self.origin, **about)

    def choose_groups(
        self, groups: Groups | Literal["checkpoint"] | None = "checkpoint", segments: Segments | None = None
    ) -> tuple[Groups, Segments]:
        """The groups and segments that `explain` sums, with the steps that no segment holds; empty for none."""
        chosen = self.config.groups if groups == "checkpoint" else {} if groups is None else groups
        if chosen is not self.config.groups:  # its own are valid
            resolve_groups(chosen, self.config.feature_names)
        return chosen, complete_segments({} if segments is None else segments, self.lookback)

    @reported
    def changes(
        self,
        windows: Windows,
        output: str | None = None,
        *,
        ago: int = 1,
        same_time: bool = False,
        last: int | str | None = None,
        series: SeriesNames = None,
        baseline: Any = "mean",
        tolerance: float = LedgerOptions.tolerance,
        progress: Progress = False,
    ) -> Changes:
        """Why each forecast differs from the one some steps before: new rows, rows that have aged, rows that are gone.

        Args:
            windows: a data frame; or windows (n, lookback, n_features) of which each begins a step after the one before
                it, original units.
            output: name of the output, or of a bound or width; None for the first.
            ago: steps from the earlier forecast to the newer one.
            same_time: whether both are forecasts for the same time, so that the earlier one is of the output that lies
                `ago` steps further ahead; by default both are of `output`.
            last: of a data frame, how many forecasts, or those of a duration, as in `predict`. By default one.
            series: which of many series, as in `predict`.
            baseline: what both windows are compared with, as in `explain`.
            tolerance: of the explanations of both forecasts, as in `explain`.
            progress: as in `explain`.

        Raises:
            DataError: windows that do not follow each other, or fewer than `ago` and one.
            UnknownNameError: there is no output `ago` steps further ahead.
        """
        check_lowest("ago", ago, 1)
        name = self.outputs[0] if output is None else output
        further = self._name_further(name, ago) if same_time else name
        given, of_table = self._read(windows, last, "error", series, before=ago)
        if of_table is not None:
            together, newer, earlier = of_table.with_earlier(ago)
            given = together.take()
        else:
            refuse_unlinked(given, ago)
            newer, earlier = np.arange(ago, len(given)), np.arange(len(given) - ago)
        asked: dict[str, Any] = {"baseline": baseline, "tolerance": tolerance, "groups": None, "detail": "steps"}
        if further == name:
            explained = self.explain(given, name, **asked)
            both = explained[newer], explained[earlier]
        else:
            with part(0.5):
                now = self.explain(given[newer], name, **asked)
            both = now, self.explain(given[earlier], further, **asked)
        return Changes.of(*both, ago, **_times_of(of_table))

    @reported
    @bounded
    def what_if(
        self,
        windows: Windows,
        features: Sequence[str] | str | None = None,
        steps: Sequence[int] | None = None,
        shift: Sequence[float] | None = None,
        *,
        output: str | None = None,
        points: int = DEFAULT_POINTS,
        progress: Progress = False,
    ) -> WhatIf:
        """Forecasts of each window with one feature changed and all others unchanged (individual response curves).

        Every number is what `predict` returns for the changed window, up to rounding. A column of levels changes as a
        whole: each level is set with the others unset.

        Args:
            windows: in any form of `Windows`, original units.
            features: what changes, one at a time: names of features, of columns of the table, such as ``daytype``, or
                of one level, such as ``daytype=holiday``; None for all.
            steps: the first and the last step to change, 0 the newest: ``(-5, 0)`` for six; None for all.
            shift: from, to and number of points (21 by default) of constants to add, in the feature's unit; levels have
                none. Without it the feature is set to constant values from its training minimum to its maximum, whole
                numbers if it is an integer.
            output: a bound or a width, for curves of the forecast and its bounds instead of all outputs.
            points: number of these values.
            progress: as in `explain`.
        """
        given, of_table = self._read(windows)
        return self._sign(WhatIf.of(self, given, features, steps, shift, points), **_times_of(of_table))

    @reported
    @bounded
    def counterfactual(
        self,
        windows: Windows,
        output: str | None = None,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        between: Sequence[float] | None = None,
        features: Sequence[str] | str | None = None,
        steps: Sequence[int] | None = None,
        max_features: int = Search.max_features,
        within_training_range: bool = True,
        progress: Progress = False,
    ) -> Counterfactuals:
        """Searches the smallest change of each window for which its forecast reaches a goal.

        A change adds a constant to a feature at the chosen steps, or sets a level of a column there. Its size is the
        sum of the magnitudes of what is added in training standard deviations. Fixed features do not change, integer
        features stay whole, and of a column of levels one stays 1 and the others 0.

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; None for the first.
            at_least: the goal, in the target's unit; exactly one of the three must be given.
            at_most: likewise.
            between: likewise, the lowest and the highest.
            features: what may change: names of features, of columns of the table, such as ``daytype``, or of one level,
                such as ``daytype=holiday``. None for all features but the history of the targets; levels are fixed
                unless they are named here.
            steps: the first and the last step that change, 0 the newest; None for all.
            max_features: how many features may change together.
            within_training_range: whether changed values must stay within the training range of the feature.
            progress: as in `explain`.
        """
        number, goal = self._number_of(output), Goal.of(at_least, at_most, between)
        search = Search(features, steps, max_features, within_training_range)
        given, of_table = self._read(windows)
        return self._sign(Counterfactuals.of(self, given, number, goal, search), **_times_of(of_table))

    def trust(self, windows: Windows | None = None, *, last: int | str | None = None, gaps: Gaps = "error") -> Trust:
        """How unlike the reference windows each window is, by what, and whether its forecast can be relied on.

        A window that overlaps in time with reference windows is near to these anyway. Without windows, those are
        the reference windows, each compared with those of other blocks.

        Args:
            windows: in any form of `Windows`, original units; None for the reference windows.
            last: of a data frame, how many windows, as in `predict`.
            gaps: what is done with a gap in time among their rows, as in `predict`.
        """
        if windows is None:
            return self._sign(Trust.of(self))
        given, of_table = self._read(windows, last, gaps)
        return self._sign(Trust.of(self, given), **_times_of(of_table))

    @overload
    def compare(
        self,
        other: Model | None,
        windows: Windows,
        against_windows: Windows | None = ...,
        output: str | None = ...,
        *,
        tolerance: float = ...,
        progress: Progress = ...,
    ) -> Comparisons: ...
    @overload
    def compare(
        self, other: Model, *, output: str | None = ..., fidelity: float | None = ..., progress: Progress = ...
    ) -> ModelComparison: ...
    @reported
    @bounded
    def compare(
        self,
        other: Model | None = None,
        windows: Windows | None = None,
        against_windows: Windows | None = None,
        output: str | None = None,
        *,
        tolerance: float = LedgerOptions.tolerance,
        fidelity: float | None = None,
        progress: Progress = False,
    ) -> Comparisons | ModelComparison:
        """Explains the difference of forecasts of two windows, two models, or both; without windows, of two models.

        Args:
            other: the model to compare with; None for this one.
            windows: in any form of `Windows`, original units; None to compare the models on this one's reference
                windows.
            against_windows: as many windows, which the other model forecasts; None for the same.
            output: its name, in both models; None for the first.
            tolerance: of each ledger, as for `explain`.
            fidelity: without windows: the R2 to which both models are pruned before their edges are compared; 0.99 by
                default.
            progress: as in `explain`.
        """
        number, against = self._number_of(output), self if other is None else other._holder_of(output)
        if windows is None:
            if against_windows is not None:
                raise DataError.at("against_windows", "is given without windows")
            match_outputs(self, against, number)
            found = self._compare_models(number, against, PruningRule.of(fidelity))
            return replace(found, origin=self._name_both(against), name=self.name, against_name=against.name)
        if fidelity is not None:
            raise DataError.at("fidelity", "compares models as a whole, but windows are given")
        options = LedgerOptions(tolerance)
        match_outputs(self, against, number)
        (mine, of_table), theirs = self._read(windows), None
        if against_windows is not None:
            theirs, _ = read_windows(against.config.table, against_windows, "against_windows")
        theirs = mine if theirs is None else theirs
        if len(theirs) != len(mine):
            message = f"must have {len(mine)} windows as windows has, but has {len(theirs)}"
            raise DataError.at("against_windows", message)
        divided = Comparisons.of(self, mine, against, theirs, number, options)
        return replace(divided, origin=self._name_both(against), **_times_of(of_table))

    @reported
    def drift(
        self,
        reference: Any,
        current: Any,
        output: str | None = None,
        *,
        against: Model | None = None,
        false_alarms: float | None = None,
        explained: int = EXPLAINED,
        gaps: Gaps = "skip",
        series: SeriesNames = None,
        progress: Progress = False,
    ) -> Drift:
        """Whether inputs moved, whether the model uses what moved, and whether errors are worse, beyond chance.

        The forecasts and explanations of two stretches of time are compared, and what differs with what differs between
        spans of the reference that are as long as the current side.

        Args:
            reference: a data frame, or a mapping of name to column, as in `backtest`, with the target's column where
                actual values are known; or windows in any other form of `Windows`, in order of time.
            current: likewise, such as the last days.
            output: its name; None for the first. A bound or a width has no errors.
            against: the model that served the reference, whose effects are divided into a data part and a model part;
                None for this one.
            false_alarms: rate at which each question may have an alarm though nothing has changed. By default the
                lowest that the reference can hold, and at least 0.01: a reference with n spans as long as the current
                side can hold 1 / (n + 1), so 0.2 with four, and 0.01 with 99. Below that a warning says which is used.
            explained: at most how many windows of the reference are explained, chosen evenly and no denser than those
                of the current side, which are up to 256, or a 32nd of this. Each is explained to 0.02 standard
                deviations of the output, since verdicts need means.
            gaps: whether windows across a gap in time are left out, or a gap is an error (``"error"``).
            series: which of many series, as in `predict`.
            progress: as in `explain`.
        """
        refuse_unknown("gaps", gaps, get_args(Gaps))
        check_lowest("explained", explained, 1)
        if false_alarms is not None and not 0 < false_alarms < 1:
            raise DataError.at("false_alarms", f"must lie between 0 and 1, but is {false_alarms}")
        model, number = self.find_output(output)
        served = None
        if against is not None:
            other, _ = against.find_output(output or model.outputs[number])
            served = other, match_outputs(model, other, number)
        before, now = (
            read_stretch(self.config.table, given, path, gaps, series)
            for path, given in (("reference", reference), ("current", current))
        )
        self._warn_of_new(now)
        found = Drift.between(model, number, before, now, served, explained, false_alarms)
        return replace(found, origin=self._name_both(self if against is None else against))

    def baseline(self, baseline: Any = "mean") -> Array:
        """The windows of a baseline, original units, (1, lookback, n_features), or (count, ...)."""
        return baseline_windows(self, read_baseline(self, baseline))

    @reported
    @bounded
    def importance(
        self,
        output: str | None = None,
        *,
        groups: Groups | Literal["checkpoint"] | None = "checkpoint",
        progress: Progress = False,
    ) -> Importance:
        """Global importance of features and groups over the reference windows, with bootstrap intervals and verdicts.

        Args:
            output: its name; None for the first.
            groups: as in `explain`.
            progress: as in `explain`.
        """
        key = tuple((name, *members) for name, members in self.choose_groups(groups)[0].items())
        return self._sign(self._attribute(self._number_of(output), key))

    @reported
    @bounded
    def agreement(self, output: str | None = None, *, progress: Progress = False) -> tuple[Agreement, ...]:
        """Agreement of the baselines ``mean``, ``zero`` and ``reference`` on the features, for each pair."""
        return self._agreement(self._number_of(output))

    @reported
    @bounded
    def faithfulness(self, output: str | None = None, *, progress: Progress = False) -> tuple[Faithfulness, ...]:
        """Faithfulness: how well contributions predict the effect of removing features, compared with other methods."""
        return measure_faithfulness(self, self._number_of(output))

    @reported
    @bounded
    def topology(
        self, output: str | None = None, *, progress: Progress = False, **rule: Unpack[RuleArguments]
    ) -> Topology:
        """The graph of the network for one output, pruned.

        Args:
            output: its name; None for the first.
            progress: as in `explain`.
            **rule: what to keep, as below.

        Keyword Args:
            fidelity: R2 against the full model to keep on the reference windows; 0.99 if there are no thresholds.
            metric: score that ranks the edges; by default whichever keeps the fewest, and with thresholds ``backward``.
            thresholds: prune at scores instead, as pykan does: ``{"node": 0.01, "edge": 0.03, "input": 0.01}``, or
                some of them.
            fill: value of a pruned edge: its mean on the reference windows (mean ablation), or ``"zero"`` as in pykan.
            without: further edges to remove, in any form of `edge`: ``["head:0:7:3"]``, ``[("lstm:7", "head:1:3")]``.
                Nodes that only they connected are removed too; `fidelity` holds before their removal.
        """
        number = self._number_of(output)
        return self._lay_out(number, self._rule(**rule))

    @bounded
    def ablate(self, windows: Windows, output: str | None = None, **rule: Unpack[RuleArguments]) -> Ablation:
        """Forecasts of the pruned network that `topology` shows, beside those of the whole network (mean ablation).

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; the first without.
            **rule: as for `topology`.
        """
        number, chosen = self._number_of(output), self._rule(**rule)
        read, _ = self._read(windows)
        predictions = self.predict(read)[:, number]
        topology, network = self._lay_out(number, chosen), self._ablate(number, chosen)
        ablated = predictions if network is self else network.predict_output(read, number)
        return Ablation.of(topology, predictions, ablated)

    @reported
    @bounded
    def fidelity_curve(
        self,
        output: str | None = None,
        *,
        metric: Metric = "contribution",
        fill: Fill = "mean",
        progress: Progress = False,
    ) -> tuple[FidelityPoint, ...]:
        """Fidelity against the number of kept edges, from all towards none, removing the weakest first.

        Edges that are cut off go at once, and those of a large network in groups, so that some numbers have no point.
        """
        number, rule = self._number_of(output), PruningRule.of(None, metric, None, fill)
        return self._trace_fidelity(number, metric, rule.fill)

    def edge(self, *place: Any, stage: str = "head", points: int = 101, span: Span = "support") -> Edge:
        """The function on an edge, sampled, with the distribution of its inputs on the reference windows.

        Args:
            place: its id, such as ``"head:0:7:3"``; the ids of its ends, such as ``"lstm:7", "head:1:3"``; or the
                numbers ``layer, i, j``: from node i of the layer to sub-node j of the next.
            stage: ``head`` or ``front``, if numbers are given.
            points: number of samples, from 2.
            span: range of the samples: ``support``, 1st to 99th percentile of the reference inputs; ``reference``,
                their smallest to largest; ``grid``, the core interval of the grid.
        """
        check_lowest("points", points, 2)
        edge = find_edge(self.network, place[0] if len(place) == 1 else place, stage)
        return self.curves([edge], points, span)[0]

    def find_edges(self, edges: Sequence[EdgeName]) -> tuple[EdgeKey, ...]:
        """The (stage, layer, i, j) of edges in any form that `edge` takes, sorted, each once."""
        names = [edges] if isinstance(edges, str) else edges
        return tuple(sorted({find_edge_key(self.network, name) for name in names}))

    def curves(self, edges: Sequence[TopologyEdge], points: int = 101, span: Span = "support") -> list[Edge]:
        """The functions on the edges of a topology, with their scores; see `edge`."""
        check_lowest("points", points, 2)
        return sample_edges(self, edges, points, span)

    def edge_formulas(self, edge: TopologyEdge) -> list[Candidate]:
        """Formulas c f(a x + b) + d near to the function on an edge, best first; none after a layer norm."""
        return suggest_edge_formulas(self, edge)

    @reported
    @bounded
    def formula(self, output: str | None = None, *, progress: Progress = False) -> Formulas:
        """An output as formulas: of LSTM units, or of features if there is no LSTM.

        Those of a graph are also of the cells of the window that flow around its layers, and of statistics over the
        steps, such as the mean of a feature, by which a forecast is scaled back.

        Args:
            output: its name; None for the first.
            progress: as in `explain`.

        Returns:
            Formulas from a constant to all edges, each with its error through the whole model on a third of the
            reference windows, which neither the search nor the choice among the formulas has used.

        Raises:
            ConfigError: it cannot be written: there is a layer norm, an attention or another function that mixes what a
                formula would have to hold alone, or it would be too long. The sentence says which.
            InsufficientReferenceError: there are fewer than 6 reference windows.
        """
        return self._sign(self._formulas(self._number_of(output)))

    @reported
    @bounded
    def report(self, output: str | None = None, *, progress: Progress = False) -> Report:
        """What is forecast and how well, what drives it, what to read with care, and questions about the network.

        Its figures are of the reference windows. `html()` gives a page for those who use the forecasts, with pictures,
        which is two sheets of A4 when printed.

        Args:
            output: its name; None for the first.
            progress: as in `explain`.
        """
        return self._sign(self._report(self._number_of(output)))

    @reported
    def prune(
        self,
        outputs: Sequence[str] | str | None = None,
        *,
        progress: Progress = False,
        **rule: Unpack[RuleArguments],
    ) -> Model:
        """A new model in which the edges that the rule drops are masked; nodes and edges keep their ids.

        Args:
            outputs: names of the outputs that keep the fidelity; None for all.
            progress: as in `explain`.
            **rule: as for `topology`.
        """
        numbers = sorted(map(self._number_of, self._names_of(None, "all" if outputs is None else outputs)))
        with part(0.5):
            measured = [self._measure(number) for number in slices(numbers)]
        return Model.of(extract_subnetwork(self, measured, self._rule(**rule)), self.name)

    def fidelity_to(self, full: Model, output: str | None = None) -> Fidelity:
        """Fidelity of a pruned model's forecasts to those of the full model."""
        forecasts = (full.reference_outputs, self.reference_outputs)
        return Fidelity.of(full, self._number_of(output), *forecasts)

    def refine_grid(self, grid_size: int) -> Model:
        """A new model with its functions on a finer grid (grid extension, pykan's ``refine``), to be fine-tuned.

        If `grid_size` is a multiple of the number of intervals, the functions do not change, up to rounding; otherwise
        each is fitted by least squares. The provenance states the largest difference of a forecast.

        Args:
            grid_size: intervals of every B-spline.

        Raises:
            ConfigError: the model has no B-splines, or already as many intervals.
        """
        from kanmodel.training.grids import refine_model  # here, since few models are trained after they are loaded

        return Model.of(refine_model(self, grid_size), self.name)

    def with_groups(self, groups: Groups) -> Model:
        """The same model with groups of features, which its explanations sum by default; `save` stores them.

        Args:
            groups: replace the groups that it has; as for `explain`.

        Raises:
            ConfigError: they are not groups of its features.
        """
        return Model.of(self.with_config(replace(self.config, groups=groups)), self.name)

    def save(self, path: str | Path) -> Model:
        """Writes the checkpoint; an existing file is replaced atomically.

        Args:
            path: the file, ``*.safetensors``.

        Returns:
            The model with the hash of the file as its `checkpoint`.

        Raises:
            CheckpointError: the file cannot be written there, or has another suffix.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path} must end in .safetensors")
        return replace(self, sha256=save_checkpoint(self, path), name=path.stem)

    def export_onnx(self, path: str | Path) -> OnnxExport:
        """Writes the forward pass as an ONNX graph, after comparing it with the model on all reference windows.

        Its input ``instances`` (n, lookback, n_features) and its output ``predictions`` (n, n_outputs) are in original
        units; a model with an output function also has the output ``logits``. Its metadata name features, outputs,
        units and checkpoint.

        Args:
            path: the file, ``*.onnx``; replaced atomically.

        Raises:
            ExportError: a layer has no ONNX form, a prediction differs, or the file cannot be written there.
        """
        from kanmodel.onnx.export import export_onnx  # here, since onnx and ONNX Runtime are slow to import

        return export_onnx(self, Path(path))

    @cached
    def _measure(self, output: int) -> Importance:
        measure = measure_importance if self.prepared is None else self.prepared.importance
        return measure(self, output)

    @cached
    def _attribute(self, output: int, groups: tuple[tuple[str, ...], ...]) -> Importance:
        return add_groups(self, self._measure(output), {name: members for name, *members in groups})

    @cached
    def _agreement(self, output: int) -> tuple[Agreement, ...]:
        with part(0.4):
            measured = self._measure(output)
        return compare_baselines(self, measured)

    @cached
    def _prune(self, output: int, rule: PruningRule) -> Pruning:
        """The edges that a rule keeps. Rules that differ in `without` alone share one search."""
        if rule.without:
            rest = self._prune(output, replace(rule, without=()))
            return pruning.remove_edges(self, output, rest, rule.without)
        if self.prepared is not None and rule == PruningRule():
            return self.prepared.pruning(output)
        with part(0.5):
            measured = self._measure(output)
        return pruning.prune_by_rule(self, measured, rule)

    def _lay_out(self, output: int, rule: PruningRule) -> Topology:
        """The graph pruned by a rule; rules that keep the same edges share one."""
        with part(0.9):
            pruned = self._prune(output, rule)
        key = self._key(output, "graph", self.name, pruned.kept, rule.fill)  # its curves have the name
        graph = self.results.get(key, lambda: Topology.of(self, self._measure(output), pruned))
        return replace(graph, rule=pruned.rule, fidelity=pruned.fidelity)

    def _ablate(self, output: int, rule: PruningRule) -> Forecaster:
        """The model with the edges that a rule keeps; this one if it keeps every live edge."""
        pruned = self._prune(output, rule)
        if all(torch.equal(pruned.edges[place], layer.live) for place, layer in self.network.layers.items()):
            return self
        key = self._key(output, "ablated", pruned.kept, rule.fill)
        return self.results.get(key, lambda: extract_pruned(self, [pruned]))

    @cached
    def _trace_fidelity(self, output: int, metric: Metric, fill: Fill) -> tuple[FidelityPoint, ...]:
        with part(0.6):
            measured = self._measure(output)
        return pruning.trace_fidelity(self, measured, metric, fill)

    @cached
    def _formulas(self, output: int) -> Formulas:
        return Formulas.of(self, output)

    def _compare_models(self, output: int, other: Model, rule: PruningRule) -> ModelComparison:
        def compute() -> ModelComparison:
            number = match_outputs(self, other, output)
            with part(0.4):
                topology = self._lay_out(output, rule)
            with part(0.7):
                against = other._lay_out(number, rule)
            return ModelComparison.of(self, other, output, topology, against)

        identity = other.checkpoint or object()  # a model that was never saved has a key that nothing else equals
        return self.results.get(self._key(output, "comparison", identity, rule), compute)

    @cached
    def _report(self, output: int) -> Report:
        """On the default topology."""
        with part(0.4):
            measured = self.importance(self.outputs[output])
        with part(0.4):
            topology = self._lay_out(output, PruningRule())
        return write_report(self, measured, topology)

    def table(self) -> list[dict[str, Any]]:
        """A row for each feature."""
        return [asdict(feature) for feature in self.features]

    def _title(self) -> str:
        return f"Model {self.name}"

    def _tables(self) -> list[Table]:
        """The features; there is no picture, because pruning for one may take seconds: see `topology`."""
        return [Table(self.table(), ["name", "unit", "mean", "std", "min", "max"], "Features", in_text=False)]

    def _facts(self) -> dict[str, str]:
        named = [with_unit(name, self.unit_of(name)) for name in self.outputs]
        return {
            "checkpoint": self.checkpoint or "not saved",
            "graph" if self.config.graph else "chain": self.chain,
            "windows": f"{self.lookback} steps x {len(self.features)} features",
            "features": list_some([with_unit(feature.name, feature.unit) for feature in self.features]),
            "outputs": list_some(named),
            **({} if self.intervals is None else {"intervals": str(self.intervals)}),
            "reference": str(self.reference),
            "metrics": ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items()) or "-",
        }

    def _name_both(self, other: Model) -> str:
        return self.origin if other is self else f"{self.origin}, against {other.origin}"

    def _sign(self, result: Given, **about: Any) -> Given:
        return replace(result, origin=self.origin, **about)

    def _read(
        self,
        windows: Windows,
        last: int | str | None = None,
        gaps: Gaps = "error",
        series: SeriesNames = None,
        before: int = 0,
    ) -> tuple[Array, TableWindows | None]:
        """Windows, and those of the table if they are given as a data frame, with rows before the oldest of them."""
        found = read_windows(self.config.table, windows, last=last, gaps=gaps, series=series, before=before)
        if found[1] is not None:
            self._warn_of_new(found[1])
        return found

    def _warn_of_new(self, windows: TableWindows) -> None:
        if windows.table.new and windows.table.spec.series is not None:
            names, column = list_some(windows.table.new), windows.table.spec.series.name
            warn(f"training had no {column} {names}: forecasts of it rest on what others have in common", stacklevel=4)

    def _place_of(self, output: int) -> tuple[int, int]:
        """The numbers of an output's target and step."""
        step, target = divmod(output, len(self.config.targets))
        return target, step

    def _describe_outcome(self, windows: TableWindows, output: str) -> dict[str, Any]:
        """What is known of an output, or of when a bound is for, of the windows of a table."""
        if output in self.outputs:
            return windows.outcome(*self._place_of(self.outputs.index(output)))
        known = windows.outcome(*self._place_of(forecasts_of(self.config)[self._find_bound(output)[0]]))
        return {name: value for name, value in known.items() if name != "actual"}

    def _name_further(self, output: str, steps: int) -> str:
        """The name of the output, or bound, so many steps further ahead."""
        forecast, colon, aside = output.partition(":") if output in self.bounds else (output, "", "")
        number = self.outputs.index(forecast) if forecast in self.outputs else self._number_of(output)
        further = f"{self.config.name_output(number + steps * len(self.config.targets))}{colon}{aside}"
        self.find_output(further)  # refuses an unknown one
        return further

    def _key(self, output: int, *question: Hashable) -> Hashable:
        return (self.sha256, self.outputs[output], *question)

    def _rule(self, **rule: Any) -> PruningRule:
        return PruningRule.of(**rule | {"without": self.find_edges(rule.get("without", ()))})

    def _names_of(self, output: str | None, outputs: Sequence[str] | None) -> list[str]:
        if outputs is None:
            return [self.outputs[0] if output is None else output]
        if output is not None:
            raise DataError.at("outputs", "and output must not both be given")
        names = self.outputs if outputs == "all" else [outputs] if isinstance(outputs, str) else outputs
        if not names:
            raise DataError("outputs is empty", [Problem("outputs", "is empty")])
        return list(dict.fromkeys(names))

    def _number_of(self, output: str | None) -> int:
        if output is None:
            return 0
        refuse_unknown("output", output, self.outputs)
        return self.outputs.index(output)

    def _holder_of(self, output: str | None) -> Model:
        return self.find_output(output)[0] if output in self.bounds else self

    def _find_bound(self, output: str) -> tuple[int, int]:
        """The index of a bound's forecast, and its own among the outputs of `Forecaster.bound`."""
        forecast, number = divmod(self.bounds.index(output), len(BOUNDS) * len(self.levels))
        return forecast, number + 1
