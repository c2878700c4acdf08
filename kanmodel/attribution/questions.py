"""The questions of this room: explain, changes, compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import read_baseline
from kanmodel.attribution.changes import Changes, refuse_unlinked
from kanmodel.attribution.explanation import (
    Bounds,
    Explanation,
    ExplanationOptions,
    Method,
    Segments,
    complete_segments,
)
from kanmodel.attribution.explanations import Explanations
from kanmodel.attribution.ledger import LedgerOptions
from kanmodel.attribution.paths.path import Detail
from kanmodel.attribution.shapley import Orders
from kanmodel.computing import progress_share, tracked
from kanmodel.errors import DataError, Problem, check_lowest
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import Groups, resolve_groups
from kanmodel.question import Question, SeriesNames, Windows
from kanmodel.tables.table import Gaps
from kanmodel.tables.windows import name_windows


@dataclass(frozen=True)
class ExplanationQuestion(Question[Explanation | Explanations]):
    """Contributions of each feature at each step to the forecast of one output, or of several.

    Attributes:
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
            as segments require; with ``"flow"`` also the nodes and edges of every layer; with ``"links"`` also the
            edges from features to the units of a recurrent chain, which takes 3 to 7 times as long.
        method: ``"shapley"`` adds Shapley values of the outermost groups and of features without one, in each
            segment if there are any: of at most 12 such parts from the forecasts of all 2^n coalitions, of more
            from random orders, with a standard error. Without groups, each feature is a part.
        orders: number of random orders, even; the forecasts of each are one less than there are parts.
        seed: seed of these orders.
        last: of a data frame, how many windows, as in `predict`; the explanation has their `times`, and the
            `actual` values of the forecasts if the frame has the target's column.
        gaps: what is done with a gap in time among their rows, as in `predict`.
        series: which of many series, as in `predict`.
    """

    with_answer: ClassVar = ("outputs", Explanations)
    windows: Windows
    output: str | None = None
    _: KW_ONLY
    outputs: Literal["all"] | Sequence[str] | None = None
    baseline: Any = "mean"
    groups: Groups | Literal["checkpoint"] | None = "checkpoint"
    segments: Segments | None = None
    tolerance: float = LedgerOptions.tolerance
    path_nodes: int = LedgerOptions.path_nodes
    halvings: int = LedgerOptions.halvings
    effects: bool | Literal["steps"] = False
    detail: Detail = "flow"
    method: Method = "path"
    orders: int = Orders.count
    seed: int = Orders.seed
    last: int | str | None = None
    gaps: Gaps = "error"
    series: SeriesNames = None

    def answer(self, model: Forecaster) -> Explanation | Explanations:
        """Raises `DataError` if both `output` and `outputs` are given, or windows that cannot be used."""
        names = self._names(model)
        asked_for = [model.find_output(name) for name in names]
        groups, segments = choose_groups(model, self.groups, self.segments)
        options = ExplanationOptions(
            baseline=read_baseline(model, self.baseline),
            groups=groups,
            segments=segments,
            accuracy=LedgerOptions(self.tolerance, self.path_nodes, self.halvings),
            detail=self.detail,
            effects=self.effects,
            orders=Orders(self.orders, self.seed) if self.method == "shapley" else None,
        )
        given, of_table = model.read_newest(self.windows, self.last, self.gaps, self.series)
        bounds, known = _bounds_of(model, given, names), dict[str, dict[str, Any]]()
        for name, (holder, _) in zip(names, asked_for, strict=True):
            known[name] = {"intervals": bounds.get(name, {})}
            if of_table is not None:
                known[name] |= of_table.named | of_table.outcome(*model.target_place(name))
            if holder is not model:
                known[name].pop("actual", None)  # of a forecast, not of its bounds
        holders, found = {id(holder): holder for holder, _ in asked_for}, dict[str, Explanation]()
        for holder in tracked([*holders.values()]):
            of_holder = {number: name for name, (each, number) in zip(names, asked_for, strict=True) if each is holder}
            asked = {number: known[name] for number, name in of_holder.items()}
            found |= zip(of_holder.values(), Explanation.of(holder, given, asked, options), strict=True)
        if self.outputs is None:
            return found[names[0]]
        targets = [holder.config.target_of(number).name for holder, number in asked_for]
        return Explanations.of([found[name] for name in names], targets)

    def _names(self, model: Forecaster) -> list[str]:
        """The names of the outputs that are explained, each once."""
        if self.outputs is None:
            return [model.outputs[0] if self.output is None else self.output]
        if self.output is not None:
            raise DataError.at("outputs", "and output must not both be given")
        return names_of(model, self.outputs)


def _bounds_of(model: Forecaster, windows: Array, names: Sequence[str]) -> dict[str, Bounds]:
    """The bounds of those of the outputs that have intervals."""
    if not set(model.bounded_outputs).intersection(names):
        return {}
    _, lower, upper = model.predict_bounds(windows)  # (n_levels, n, n_forecasts) each
    ends = zip(model.bounded_outputs, np.moveaxis(lower, 2, 0), np.moveaxis(upper, 2, 0), strict=True)
    return {name: dict(zip(model.levels, zip(*of, strict=True), strict=True)) for name, *of in ends}


def names_of(model: Forecaster, outputs: Literal["all"] | Sequence[str]) -> list[str]:
    """The names of some outputs, each once; raises `DataError` if there are none."""
    names = model.outputs if outputs == "all" else [outputs] if isinstance(outputs, str) else outputs
    if not names:
        raise DataError("outputs is empty", [Problem("outputs", "is empty")])
    return list(dict.fromkeys(names))


def choose_groups(
    model: Forecaster, groups: Groups | Literal["checkpoint"] | None = "checkpoint", segments: Segments | None = None
) -> tuple[Groups, Segments]:
    """The groups and segments that are summed, with the steps that no segment holds; empty for none."""
    chosen = model.groups if groups == "checkpoint" else {} if groups is None else groups
    if groups != "checkpoint":  # its own are valid
        resolve_groups(chosen, model.config.feature_names)
    return chosen, complete_segments({} if segments is None else segments, model.lookback)


@dataclass(frozen=True)
class ChangesQuestion(Question[Changes]):
    """Why each forecast differs from the one some steps before: new rows, rows that have aged, rows that are gone.

    Attributes:
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

    Raises:
        DataError: windows that do not follow each other, or fewer than `ago` and one.
        UnknownNameError: there is no output `ago` steps further ahead.
    """

    windows: Windows
    output: str | None = None
    _: KW_ONLY
    ago: int = 1
    same_time: bool = False
    last: int | str | None = None
    series: SeriesNames = None
    baseline: Any = "mean"
    tolerance: float = LedgerOptions.tolerance

    def answer(self, model: Forecaster) -> Changes:
        """The changes of the forecasts."""
        check_lowest("ago", self.ago, 1)
        name = model.outputs[0] if self.output is None else self.output
        further = name_further(model, name, self.ago) if self.same_time else name
        given, of_table = model.read(self.windows, self.last, "error", self.series, before=self.ago)
        if of_table is not None:
            together, newer, earlier = of_table.with_earlier(self.ago)
            given = together.take()
        else:
            refuse_unlinked(given, self.ago)
            newer, earlier = np.arange(self.ago, len(given)), np.arange(len(given) - self.ago)

        def explain(windows: Array, output: str) -> Explanation:
            question = ExplanationQuestion(
                windows, output, baseline=self.baseline, tolerance=self.tolerance, groups=None, detail="steps"
            )
            explained = question.answer(model)
            assert isinstance(explained, Explanation)
            return explained

        if further == name:
            explained = explain(given, name)
            both = explained[newer], explained[earlier]
        else:
            with progress_share(0.5):
                now = explain(given[newer], name)
            both = now, explain(given[earlier], further)
        return Changes.of(*both, self.ago, **name_windows(of_table))


def name_further(model: Forecaster, output: str, steps: int) -> str:
    """The name of the output, or bound, so many steps further ahead; raises `UnknownNameError` if there is none."""
    forecast, colon, aside = output.partition(":") if output in model.bounds else (output, "", "")
    number = model.outputs.index(forecast) if forecast in model.outputs else model.number_of(output)
    further = f"{model.config.name_output(number + steps * len(model.config.targets))}{colon}{aside}"
    model.find_output(further)
    return further
