"""`Model`: one checkpoint with the questions one can ask it, in original units and by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import kanmodel.show  # noqa: F401  (it registers the pictures of results)
from kanmodel.alternatives import find_features, find_steps, make_goal, make_shift
from kanmodel.checkpoint import identify_checkpoint, save_checkpoint
from kanmodel.checks import checked
from kanmodel.computing import Once, pause
from kanmodel.data import Array, steps_of_rows
from kanmodel.errors import CheckpointError, DataError, Problem
from kanmodel.explain.ablation import Ablation, compare_models, extract_subnetwork
from kanmodel.explain.attribution import (
    Explanation,
    LedgerOptions,
    Segments,
    complete_segments,
    explain_expected,
    explain_windows,
    resolve_segments,
)
from kanmodel.explain.baseline import Baseline, ReferenceBaselines, baseline_window, draw_baselines
from kanmodel.explain.comparison import Comparisons, compare_forecasts, match_outputs
from kanmodel.explain.counterfactual import Counterfactual, Counterfactuals, Search, find_counterfactual, find_neighbour
from kanmodel.explain.curves import Edge, EdgeCurve, Span, sample_edges
from kanmodel.explain.effects import Effects, Part, each_cell, each_feature, measure_effects
from kanmodel.explain.faithfulness import Agreement, Faithfulness, measure_faithfulness
from kanmodel.explain.formula import Formulas
from kanmodel.explain.importance import Importance
from kanmodel.explain.model_comparison import ModelComparison
from kanmodel.explain.pruning import EdgePlace, Fidelity, FidelityPoint, Fill, Metric, PruningRule, Thresholds
from kanmodel.explain.report import Report
from kanmodel.explain.symbolic import Candidate, suggest_edge_formulas
from kanmodel.explain.topology import Topology, TopologyEdge, find_edge_at, find_place, find_places
from kanmodel.explain.what_if import DEFAULT_POINTS, Shift, WhatIf, respond
from kanmodel.inputs import read_baseline, read_windows
from kanmodel.network.config import Groups, resolve_groups
from kanmodel.overall import Overall, Results
from kanmodel.properties import ModelProperties
from kanmodel.rules import check_count, make_options, make_rule, refuse_unknown

if TYPE_CHECKING:
    from kanmodel.onnx.export import OnnxExport

N_KEPT = 128  # results of questions about the model as a whole

Place = str | tuple[Any, ...]
"""An edge, as `Model.edge` takes it."""
Windows = Any
"""An array (n, lookback, n_features) or one window (lookback, n_features), oldest step first; a mapping of feature name
to array (n, lookback) or (lookback,); or a data frame of at least `lookback` rows, whose last rows are one window:
the newest, without a gap, if it has the time column of the training or an index of dates, else as they stand."""


@dataclass(frozen=True, repr=False, eq=False)
class Model(ModelProperties):
    """One checkpoint and the questions one can ask it. It is immutable and can be shared by threads.

    Windows, predictions and contributions are in original units. Global results, such as `importance` and `topology`,
    are computed on first use and cached, once for all threads that ask at the same time (single flight): they are to be
    read, not changed. Long computations call `kanmodel.computing.pause` between slices of the work.

    Attributes:
        loaded: the network with its reference windows, for internal use; it takes model units.
        name: used in titles; the name of the file without its suffix.
        results: cache of the global results; models may share one.
    """

    results: Results = field(default_factory=lambda: Once(N_KEPT))

    @staticmethod
    @checked
    def identify(path: str | Path) -> str:
        """The `checkpoint` of a file that can be loaded as far as its header says; its tensors are not made.

        Raises:
            CheckpointError: the file is missing, truncated or foreign.
        """
        return f"sha256:{identify_checkpoint(Path(path))}"

    def predict(self, windows: Windows) -> Array:
        """Forecasts, (n, n_outputs), original units.

        Args:
            windows: in any form of `Windows`, original units.

        Raises:
            DataError: windows that do not fit, or a value that is not a finite number.
            UnknownNameError: a mapping names a feature that does not exist.
            NonFiniteError: a forecast is not finite.
        """
        return self.loaded.predict(read_windows(self.loaded, windows))

    def accelerate(self) -> Model:
        """The same model, which predicts with ONNX Runtime the batch sizes for which it is measured to be faster.

        Predictions are equal up to rounding; the weights and the cached results are shared.
        """
        return replace(self, loaded=self.loaded.accelerate())

    def logits(self, windows: Windows) -> Array:
        """Inputs of the output function of a classifier, (n, n_outputs); as `predict`."""
        return self.loaded.logits(read_windows(self.loaded, windows))

    def find_representable(self, values: Array) -> NDArray[np.bool_]:
        """Whether values are finite in the network's dtype, before and after scaling; (..., n_features) both.

        1e39 overflows float32 although it may fit after division by a large standard deviation.
        """
        within: NDArray[np.bool_] = np.abs(values) <= self.scaling.feature_limit
        if within.all():
            return within
        scaled = self.scaling.features_to_model(values)
        return (scaled.isfinite() & torch.from_numpy(values).to(scaled.dtype).isfinite()).numpy()

    def explain(
        self,
        windows: Windows,
        output: str | None = None,
        *,
        baseline: Any = "mean",
        groups: Groups | Literal["checkpoint"] | None = "checkpoint",
        segments: Segments | None = None,
        tolerance: float = LedgerOptions.tolerance,
        path_nodes: int = LedgerOptions.path_nodes,
        halvings: int = LedgerOptions.halvings,
        effects: bool | Literal["steps"] = False,
    ) -> Explanation:
        """Contributions of each feature at each step to the forecast of one output.

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; None for the first.
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
            path_nodes: nodes of the integration path: a multiple of 4, plus one.
            halvings: how often a part of the path may be bisected until the tolerance is reached.
            effects: whether to measure ablation effects beside the contributions: what the forecast loses without each
                feature, and what each does alone. Takes 2 forecasts for each window, baseline and feature, and as many
                for each group and segment; with ``"steps"`` also for each step of each feature, lookback times as many.

        Raises:
            DataError: windows, a baseline, a group, a segment or an option that cannot be used.
            UnknownNameError: an output or a feature that does not exist.
            NonFiniteError: a prediction, a residual or an error is not finite.
        """
        number = self._number_of(output)
        options = make_options(tolerance, path_nodes, halvings)
        groups, segments = self.choose_groups(groups, segments)
        start = read_baseline(self.loaded, baseline)
        scaled = self.loaded.to_model_units(read_windows(self.loaded, windows))
        if isinstance(start, ReferenceBaselines):
            ledger = explain_expected(self.loaded, scaled, number, start.count, start.seed, options)
        else:
            ledger = explain_windows(self.loaded, scaled, number, start, options)
        explained = Explanation.of(ledger, self.config.feature_names, self._unit_of(number), groups, segments)
        if not effects:
            return explained
        return self._measure_effects(explained, number, scaled, start, effects == "steps")

    def _measure_effects(
        self,
        explained: Explanation,
        number: int,
        scaled: Tensor,
        start: Baseline | ReferenceBaselines,
        of_steps: bool,
    ) -> Explanation:
        """Adds the effects of features, groups, segments and, if wanted, steps to an explanation."""

        def measure(parts: Sequence[Part], *shape: int) -> Effects:
            return measure_effects(self.loaded, scaled, number, start, parts).reshape(len(scaled), *shape)

        lookback, n_features = self.config.window_shape
        explained = replace(explained, effects=measure(each_feature(self.config), n_features))
        if explained.is_grouped:
            rows = list(resolve_segments(explained.segments, lookback).values())
            parts = [Part(members, steps) for members in explained.grouping.members for steps in rows or [slice(None)]]
            shape = (len(explained.group_names), *([len(rows)] if rows else []))
            explained = replace(explained, effects_by_group=measure(parts, *shape))
        if of_steps:
            explained = replace(explained, step_effects=measure(each_cell(self.config), lookback, n_features))
        return explained

    def choose_groups(
        self, groups: Groups | Literal["checkpoint"] | None = "checkpoint", segments: Segments | None = None
    ) -> tuple[Groups, Segments]:
        """The groups and segments that `explain` sums, with the steps that no segment holds; empty if there are none.

        Raises:
            DataError: an invalid group or segment, which the message names.
        """
        chosen = self.config.groups if groups == "checkpoint" else {} if groups is None else groups
        resolve_groups(chosen, self.config.feature_names)
        return chosen, complete_segments({} if segments is None else segments, self.lookback)

    def what_if(
        self,
        windows: Windows,
        features: Sequence[str] | str | None = None,
        steps: Sequence[int] | None = None,
        shift: Sequence[float] | Shift | None = None,
        *,
        points: int = DEFAULT_POINTS,
    ) -> WhatIf:
        """Forecasts of each window with one feature changed and all others unchanged (individual response curves).

        Every number is what `predict` returns for the changed window, up to rounding.

        Args:
            windows: in any form of `Windows`, original units.
            features: names of the features to change, one at a time; None for all.
            steps: the first and the last step to change, 0 the newest: ``(-5, 0)`` for six; None for all.
            shift: from, to and number of points (21 by default) of constants to add, in the feature's unit. Without it
                the feature is set to constant values from its training minimum to its maximum.
            points: number of these values.

        Raises:
            DataError: windows or an argument that cannot be used, or there is no shift and a feature's training range
                is unknown.
            UnknownNameError: a feature that does not exist.
            NonFiniteError: a forecast is not finite.
        """
        check_count("points", points, 2)
        chosen, place, added = find_features(self.config, features), find_steps(self.config, steps), make_shift(shift)
        read = read_windows(self.loaded, windows)
        return WhatIf.of(self.config, respond(self.loaded, read, chosen, place, added, points))

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
    ) -> Counterfactuals:
        """Searches the smallest change of each window for which its forecast reaches a goal.

        A change adds a constant to a feature at the chosen steps. Its size is the sum of the magnitudes of these
        constants in training standard deviations. Fixed features do not change, and integer features stay whole.

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; None for the first.
            at_least: the goal, in the target's unit; exactly one of the three must be given.
            at_most: likewise.
            between: likewise, the lowest and the highest.
            features: names of the features that may change; None for all.
            steps: the first and the last step that change, 0 the newest; None for all.
            max_features: how many features may change together.
            within_training_range: whether changed values must stay within the training range of the feature.

        Raises:
            DataError: windows or an argument that cannot be used.
            UnknownNameError: an output or a feature that does not exist.
            NonFiniteError: a forecast is not finite.
        """
        number, goal = self._number_of(output), make_goal(at_least, at_most, between)
        check_count("max_features", max_features, 1)
        place = find_steps(self.config, steps)
        search = Search(find_features(self.config, features), place, max_features, within_training_range)
        typical = self._overall.measure_typical_distance()
        found = []
        for window in read_windows(self.loaded, windows):
            one = find_counterfactual(self.loaded, window, number, goal, search)
            found.append(Counterfactual.of(self.loaded, one, find_neighbour(self.loaded, one.window, typical)))
            pause()
        return Counterfactuals(
            self.outputs[number], self._unit_of(number), steps_of_rows(place, self.lookback), tuple(found)
        )

    @overload
    def compare(
        self,
        other: Model | None,
        windows: Windows,
        against_windows: Windows | None = ...,
        output: str | None = ...,
        *,
        tolerance: float = ...,
    ) -> Comparisons: ...
    @overload
    def compare(self, other: Model, *, output: str | None = ..., fidelity: float | None = ...) -> ModelComparison: ...
    def compare(
        self,
        other: Model | None = None,
        windows: Windows | None = None,
        against_windows: Windows | None = None,
        output: str | None = None,
        *,
        tolerance: float = LedgerOptions.tolerance,
        fidelity: float | None = None,
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

        Raises:
            DataError: the models do not take the same windows or forecast the same output, or an argument that cannot
                be used.
            UnknownNameError: an output that does not exist.
            NonFiniteError: a prediction, a residual or an error is not finite.
        """
        number, against = self._number_of(output), self if other is None else other
        if windows is None:
            if against_windows is not None:
                raise DataError.at("against_windows", "is given without windows")
            return self._compare_models(against, number, fidelity)
        if fidelity is not None:
            raise DataError.at("fidelity", "compares models as a whole, but windows are given")
        options = make_options(tolerance, LedgerOptions.path_nodes, LedgerOptions.halvings)
        match_outputs(self.loaded, against.loaded, number)
        mine = read_windows(self.loaded, windows)
        theirs = mine if against_windows is None else read_windows(against.loaded, against_windows, "against_windows")
        if len(theirs) != len(mine):
            raise DataError.at(
                "against_windows", f"must have {len(mine)} windows as windows has, but has {len(theirs)}"
            )
        found = []
        for one, other_one in zip(mine, theirs, strict=True):
            found.append(compare_forecasts(self.loaded, one, against.loaded, other_one, number, options=options))
            pause()
        names = self.config.feature_names
        return Comparisons(self.outputs[number], self._unit_of(number), tuple(names), tuple(found))

    def _compare_models(self, other: Model, output: int, fidelity: float | None) -> ModelComparison:
        rule = make_rule(fidelity)
        assert rule.fidelity is not None, "it has a default"
        change = self._overall.compare(output, other._overall, rule)
        unit = self._unit_of(output)
        return ModelComparison(
            unit=unit,
            fidelity=rule.fidelity,
            name=self.name,
            against_name=other.name,
            reference=self.loaded.reference_span,
            **vars(change),
        )

    def baseline(self, baseline: Any = "mean") -> Array:
        """The windows of a baseline, original units, (1, lookback, n_features), or (count, ...).

        Raises:
            DataError: a baseline that cannot be used.
            UnknownNameError: a feature that does not exist.
        """
        start = read_baseline(self.loaded, baseline)
        if isinstance(start, ReferenceBaselines):
            return draw_baselines(self.loaded, start.count, start.seed)
        return baseline_window(self.loaded, start)[None]

    def importance(
        self,
        output: str | None = None,
        *,
        groups: Groups | Literal["checkpoint"] | None = "checkpoint",
    ) -> Importance:
        """Global importance of features and groups over the reference windows, with bootstrap intervals and verdicts.

        Args:
            output: its name; None for the first.
            groups: as in `explain`.

        Raises:
            DataError: groups that cannot be.
            UnknownNameError: an output that does not exist.
        """
        number = self._number_of(output)
        return self._overall.attribute(number, self.choose_groups(groups)[0])

    def agreement(self, output: str | None = None) -> tuple[Agreement, ...]:
        """Agreement of the baselines ``mean``, ``zero`` and ``reference`` on the features, for each pair.

        Raises:
            DataError: there are fewer than 2 reference windows.
            UnknownNameError: an output that does not exist.
        """
        return self._overall.compare_baselines(self._number_of(output))

    def faithfulness(self, output: str | None = None) -> tuple[Faithfulness, ...]:
        """Faithfulness: how well contributions predict the effect of removing features, compared with other methods.

        Raises:
            UnknownNameError: an output that does not exist.
        """
        return measure_faithfulness(self.loaded, self._number_of(output))

    def topology(
        self,
        output: str | None = None,
        *,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
        without: Sequence[Place] = (),
    ) -> Topology:
        """The graph of the network for one output, pruned.

        Args:
            output: its name; None for the first.
            fidelity: R2 against the full model to keep on the reference windows; 0.99 if there are no thresholds.
            metric: score that ranks the edges; by default whichever keeps the fewest, and with thresholds ``backward``.
            thresholds: prune at scores instead, as pykan does: ``{"node": 0.01, "edge": 0.03, "input": 0.01}``, or
                some of them.
            fill: value of a pruned edge: its mean on the reference windows (mean ablation), or ``"zero"`` as in pykan.
            without: further edges to remove, in any form of `edge`: ``["head:0:7:3"]``, ``[("lstm:7", "head:1:3")]``.
                Nodes that only they connected are removed too; `fidelity` holds before their removal.

        Raises:
            DataError: an invalid rule.
            UnknownNameError: an output, a metric, a threshold, a fill or an edge that does not exist.
            InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
            NonFiniteError: the output of what is left is not finite on the reference windows.
        """
        number, rule = self._number_of(output), self._rule(fidelity, metric, thresholds, fill, without)
        graph = self._overall.lay_out(number, rule)
        return Topology(
            **vars(graph),
            unit=self._unit_of(number),
            name=self.name,
            loaded=self.loaded,
            reference=self.loaded.reference_span,
        )

    def ablate(
        self,
        windows: Windows,
        output: str | None = None,
        *,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
        without: Sequence[Place] = (),
    ) -> Ablation:
        """Forecasts of the pruned network that `topology` shows, beside those of the whole network (mean ablation).

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; the first without.
            fidelity: as for `topology`, and so are the others.
            metric: likewise.
            thresholds: likewise.
            fill: likewise.
            without: likewise.

        Raises:
            DataError: windows that do not fit, or a rule that cannot be.
            UnknownNameError: as `topology`, or a mapping names a feature that does not exist.
            InsufficientReferenceError: as `topology`.
            NonFiniteError: a forecast is not finite, or as `topology`.
        """
        number, rule = self._number_of(output), self._rule(fidelity, metric, thresholds, fill, without)
        read = read_windows(self.loaded, windows)
        predictions = self.loaded.predict(read)[:, number]
        graph = self._overall.lay_out(number, rule)
        network = self._overall.ablate(number, rule)
        ablated = predictions if network is self.loaded else network.predict_output(read, number)
        return Ablation.of(graph, self._unit_of(number), predictions, ablated)

    def fidelity_curve(
        self,
        output: str | None = None,
        *,
        metric: Metric = "contribution",
        fill: Fill = "mean",
    ) -> tuple[FidelityPoint, ...]:
        """Fidelity against the number of kept edges, from all towards none, removing the weakest first.

        Edges that are cut off go at once, and those of a large network in groups, so that some numbers have no point.

        Raises:
            UnknownNameError: an output, a metric or a fill that does not exist.
            InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
        """
        number, rule = self._number_of(output), make_rule(None, metric, None, fill)
        return self._overall.trace_fidelity(number, metric, rule.fill)

    @overload
    def edge(self, edge: str, /, *, points: int = ..., span: Span = ...) -> Edge: ...
    @overload
    def edge(self, source: str, target: str, /, *, points: int = ..., span: Span = ...) -> Edge: ...
    @overload
    def edge(self, layer: int, i: int, j: int, /, *, stage: str = ..., points: int = ..., span: Span = ...) -> Edge: ...
    def edge(self, *place: Any, stage: str = "head", points: int = 101, span: Span = "support") -> Edge:
        """The function on an edge, sampled, with the distribution of its inputs on the reference windows.

        Args:
            place: its id, such as ``"head:0:7:3"``; the ids of its ends, such as ``"lstm:7", "head:1:3"``; or the
                numbers ``layer, i, j``: from node i of the layer to sub-node j of the next.
            stage: ``head`` or ``front``, if numbers are given.
            points: number of samples, from 2.
            span: range of the samples: ``support``, 1st to 99th percentile of the reference inputs; ``reference``,
                their smallest to largest; ``grid``, the core interval of the grid.

        Raises:
            UnknownNameError: there is no such edge or span.
            DataError: `points` is not a whole number from 2.
        """
        check_count("points", points, 2)
        found = find_place(self.loaded.network, place[0] if len(place) == 1 else place, stage)
        (curve,) = sample_edges(self.loaded, [find_edge_at(self.loaded.network, *found)], points, span)
        return Edge(**vars(curve), name=self.name, reference=self.loaded.reference_span)

    def find_edges(self, edges: Sequence[Place]) -> tuple[EdgePlace, ...]:
        """The (stage, layer, i, j) of edges in any form that `edge` takes, sorted, each once.

        Raises:
            UnknownNameError: one of them does not exist.
        """
        return find_places(self.loaded.network, edges)

    def curves(self, edges: Sequence[TopologyEdge], points: int = 101, span: Span = "support") -> list[EdgeCurve]:
        """The functions on the edges of a topology, with their scores; see `edge`."""
        check_count("points", points, 2)
        return sample_edges(self.loaded, edges, points, span)

    def edge_formulas(self, edge: TopologyEdge) -> list[Candidate]:
        """Formulas c f(a x + b) + d near to the function on an edge, best first; none after a layer norm."""
        return suggest_edge_formulas(self.loaded, [edge])[0]

    def formula(self, output: str | None = None) -> Formulas:
        """The head as formulas of its inputs: of LSTM units, or of features if there is no LSTM.

        Args:
            output: its name; None for the first.

        Returns:
            Formulas from a constant to all edges, each with its error through the whole model on a third of the
            reference windows, which neither the search nor the choice among the formulas has used.

        Raises:
            ConfigError: the model has a layer norm or an output function that cannot be written.
            InsufficientReferenceError: there are fewer than 6 reference windows.
            NonFiniteError: a contribution is not finite on the reference windows.
            UnknownNameError: an output that does not exist.
        """
        return self._overall.formulas(self._number_of(output))

    def report(self, output: str | None = None) -> Report:
        """Answers to common questions about the picture of a KAN, for one output.

        Raises:
            UnknownNameError: an output that does not exist.
        """
        return self._overall.report(self._number_of(output))

    def prune(
        self,
        outputs: Sequence[str] | str | None = None,
        *,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
        without: Sequence[Place] = (),
    ) -> Model:
        """A new model in which the edges that the rule drops are masked; nodes and edges keep their ids.

        Args:
            outputs: names of the outputs that keep the fidelity; None for all.
            fidelity: as for `topology`, like the other options.
            metric: likewise.
            thresholds: likewise.
            fill: likewise.
            without: likewise; the fidelity holds before they go.

        Raises:
            DataError: an invalid rule, or no output.
            UnknownNameError: an output, a metric, a threshold, a fill or an edge that does not exist.
            InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
            NonFiniteError: what is left has an output that is not finite on the reference windows.
        """
        rule = self._rule(fidelity, metric, thresholds, fill, without)
        names = [outputs] if isinstance(outputs, str) else self.outputs if outputs is None else outputs
        numbers = sorted({self._number_of(name) for name in names})
        if not numbers:
            raise DataError("outputs is empty", [Problem("outputs", "is empty")])
        measured = [self._overall.measure(number) for number in numbers]
        return Model(extract_subnetwork(self.loaded, measured, rule), self.name)

    def fidelity_to(self, full: Model, output: str | None = None) -> Fidelity:
        """Fidelity of a pruned model's forecasts to those of the full model.

        Raises:
            UnknownNameError: an output that does not exist.
            NonFiniteError: an output of the smaller model is not finite.
        """
        return compare_models(full.loaded, self.loaded, self._number_of(output))

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

        return Model(refine_model(self.loaded, grid_size), self.name)

    def with_groups(self, groups: Groups) -> Model:
        """The same model with groups of features, which its explanations sum by default; `save` stores them.

        Args:
            groups: replace the groups that it has; as for `explain`.

        Raises:
            ConfigError: they are not groups of its features.
        """
        return Model(self.loaded.with_config(replace(self.config, groups=groups)), self.name)

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
        return Model(replace(self.loaded, sha256=save_checkpoint(self.loaded, path)), path.stem)

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

        return export_onnx(self.loaded, Path(path))

    @property
    def _overall(self) -> Overall:
        return Overall(self.loaded, self.results)

    def _rule(
        self,
        fidelity: float | None,
        metric: Metric | None,
        thresholds: Thresholds | Mapping[str, float] | None,
        fill: Fill,
        without: Sequence[Place],
    ) -> PruningRule:
        return make_rule(fidelity, metric, thresholds, fill, self.find_edges(without))

    def _number_of(self, output: str | None) -> int:
        if output is None:
            return 0
        refuse_unknown("output", output, self.outputs)
        return self.outputs.index(output)
