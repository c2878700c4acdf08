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

from kanmodel.alternatives import find_features, find_steps, make_goal, make_shift
from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import CheckpointError, DataError, Problem
from kanmodel.explain.alternatives.comparison import compare_forecasts, match_outputs
from kanmodel.explain.alternatives.counterfactuals import Search, find_counterfactual
from kanmodel.explain.alternatives.effects import Effects, Part, each_cell, each_feature, measure_effects
from kanmodel.explain.alternatives.nearest import find_neighbour
from kanmodel.explain.alternatives.responses import DEFAULT_POINTS, Shift, respond
from kanmodel.explain.functions.curves import EdgeCurve, Span, sample_edges
from kanmodel.explain.functions.formulas import suggest_edge_formulas
from kanmodel.explain.functions.symbolic import Candidate
from kanmodel.explain.importance.agreement import Agreement
from kanmodel.explain.importance.faithfulness import Faithfulness, measure_faithfulness
from kanmodel.explain.paths.baseline import Baseline, baseline_window
from kanmodel.explain.paths.expected import ReferenceBaselines, draw_baselines, explain_expected
from kanmodel.explain.paths.grouping import Segments, resolve_segments
from kanmodel.explain.paths.ledger import LedgerOptions, explain_windows
from kanmodel.explain.structure.replay import Fidelity, Fill
from kanmodel.explain.topology.graph import TopologyEdge
from kanmodel.explain.topology.lookup import find_edge_at, find_place, find_places
from kanmodel.explain.topology.metrics import Metric
from kanmodel.explain.topology.pruning import EdgePlace, FidelityPoint, PruningRule
from kanmodel.explain.topology.subnetwork import compare_models, extract_subnetwork
from kanmodel.explain.topology.thresholds import Thresholds
from kanmodel.facts import Facts
from kanmodel.inputs import read_baseline, read_windows
from kanmodel.network.config.groups import Groups, resolve_groups
from kanmodel.once import Once
from kanmodel.overall import Overall, Results
from kanmodel.pausing import Pause, go_on
from kanmodel.results import (
    Ablation,
    Comparisons,
    Counterfactual,
    Counterfactuals,
    Edge,
    Explanation,
    Formulas,
    Importance,
    ModelComparison,
    Report,
    Topology,
    WhatIf,
)
from kanmodel.rules import check_count, check_effects, make_options, make_rule, refuse_unknown
from kanmodel.scaling import Array
from kanmodel.windows import steps_of_rows

if TYPE_CHECKING:
    from kanmodel.export import OnnxExport

N_KEPT = 128  # results of questions about the model as a whole

Place = str | tuple[Any, ...]
"""An edge, as `Model.edge` takes it."""
Windows = Any
"""An array (n, lookback, n_features) or one window (lookback, n_features), oldest step first; a mapping of feature name
to array (n, lookback) or (lookback,); or a data frame of at least `lookback` rows, whose last rows are one window."""


@dataclass(frozen=True, repr=False, eq=False)
class Model(Facts):
    """One checkpoint and the questions one can ask it. Shared by threads: nothing changes it.

    Windows, predictions and contributions are in original units. What holds for the model as a whole, such as
    `importance` and `topology`, is computed when first asked for, once however many threads ask. What may take long
    takes a `pause`, which is called between slices of the work; see `kanmodel.pausing.Pause`.

    Attributes:
        loaded: the network with its reference windows, for the library itself; it reads model units.
        name: for titles of pictures; that of the file, without its suffix.
        results: where the answers to questions about the model as a whole are kept; models may share one.
    """

    results: Results = field(default_factory=lambda: Once(N_KEPT))

    def predict(self, windows: Windows) -> Array:
        """Forecasts, (n, n_outputs), original units.

        Args:
            windows: in any form of `Windows`, original units.

        Raises:
            DataError: windows that do not fit, or a value that is no finite number.
            UnknownNameError: a mapping names a feature that does not exist.
            NonFiniteError: a forecast is not finite.
        """
        return self.loaded.predict(read_windows(self.loaded, windows))

    def accelerate(self) -> None:
        """Has ONNX Runtime predict the batches for which it is faster, as measured here; the same to rounding."""
        self.loaded.accelerate()

    def logits(self, windows: Windows) -> Array:
        """What the output function of a classifier is applied to, (n, n_outputs); as `predict`."""
        return self.loaded.logits(read_windows(self.loaded, windows))

    def find_representable(self, values: Array) -> NDArray[np.bool_]:
        """Whether values stay finite in the network's type, as they are and scaled; (..., n_features) both.

        1e39 is a double, but no float32; divided by a large standard deviation it may pass for one.
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
        pause: Pause = go_on,
    ) -> Explanation:
        """What each feature of each step added to the forecast of one output.

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; the first without.
            baseline: what the windows are compared with: ``"mean"`` of the reference windows, ``"zero"`` in model
                units, the mean of ``"reference"`` windows or of ``{"reference": count, "seed": number}``,
                ``{"values": {feature: a number or one per step}}`` or ``{"instance": window}``.
            groups: features that mean one thing, whose contributions are summed, such as
                ``{"hour": ["hour_sin", "hour_cos"]}``; a member may be another group. By default those of the
                checkpoint; None for none.
            segments: steps whose contributions are summed, by their first and last, 0 the newest:
                ``{"last six hours": (-5, 0)}``.
            tolerance: largest accepted residual and error, in standard deviations of the output.
            path_nodes: nodes of the integration path: a multiple of 4, and one.
            halvings: how often a part of the path may be halved where the tolerance is not reached.
            effects: whether to measure, beside the contributions, what the forecast loses without each feature, and
                what each does alone: 2 forecasts for each window, baseline and feature, and as many for what groups and
                segments sum; with ``"steps"`` also of each step of each feature, for lookback times as many more.
            pause: called between passes.

        Raises:
            DataError: windows, a baseline, a group, a segment or an option that cannot be used.
            UnknownNameError: an output or a feature that does not exist.
            NonFiniteError: a prediction, a residual or an error is not finite.
        """
        number = self._number_of(output)
        options = make_options(tolerance, path_nodes, halvings)
        check_effects(effects)
        groups, segments = self.choose_groups(groups, segments)
        start = read_baseline(self.loaded, baseline)
        scaled = self.loaded.to_model_units(read_windows(self.loaded, windows))
        if isinstance(start, ReferenceBaselines):
            ledger = explain_expected(self.loaded, scaled, number, start.count, start.seed, options, pause)
        else:
            ledger = explain_windows(self.loaded, scaled, number, start, options, pause)
        explained = Explanation.of(ledger, self.config.feature_names, self._unit_of(number), groups, segments)
        if not effects:
            return explained
        return self._measure_effects(explained, number, scaled, start, effects == "steps", pause)

    def _measure_effects(
        self,
        explained: Explanation,
        number: int,
        scaled: Tensor,
        start: Baseline | ReferenceBaselines,
        of_steps: bool,
        pause: Pause,
    ) -> Explanation:
        """An explanation with the effects of its features, of its groups and segments, and of its steps."""

        def measure(parts: Sequence[Part], *shape: int) -> Effects:
            return measure_effects(self.loaded, scaled, number, start, parts, pause).reshape(len(scaled), *shape)

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
        """The groups and segments that `explain` sums, empty where there are none.

        Raises:
            DataError: groups or segments that cannot be; the message names the one.
        """
        chosen = self.config.groups if groups == "checkpoint" else {} if groups is None else groups
        resolve_groups(chosen, self.config.feature_names)
        resolve_segments({} if segments is None else segments, self.lookback)
        return chosen, segments or {}

    def what_if(
        self,
        windows: Windows,
        features: Sequence[str] | str | None = None,
        steps: Sequence[int] | None = None,
        shift: Sequence[float] | Shift | None = None,
        *,
        points: int = DEFAULT_POINTS,
        pause: Pause = go_on,
    ) -> WhatIf:
        """What each window's forecasts would be if one feature were different, and all else as it is.

        Every number is what `predict` gives for the changed window.

        Args:
            windows: in any form of `Windows`, original units.
            features: names of those that differ, one at a time; all without.
            steps: the first and the last step that change, 0 the newest: ``(-5, 0)`` for six; all without.
            shift: from, to, and how many points (21 without): constants that are added, in the feature's own unit.
                Without it the feature takes constant values from its training minimum to its maximum.
            points: how many of these values.
            pause: called between features.

        Raises:
            DataError: windows or an argument that cannot be used, or there is no shift and a feature's training range
                is unknown.
            UnknownNameError: a feature that does not exist.
            NonFiniteError: a forecast is not finite.
        """
        check_count("points", points, 2)
        chosen, place, added = find_features(self.config, features), find_steps(self.config, steps), make_shift(shift)
        read = read_windows(self.loaded, windows)
        return WhatIf.of(self.config, respond(self.loaded, read, chosen, place, added, points, pause))

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
        pause: Pause = go_on,
    ) -> Counterfactuals:
        """What must change for the forecast of each window to become another.

        A change adds a constant to a feature at the chosen steps. The smallest that is found is given, in the sum of
        magnitudes in training standard deviations; features that are fixed stay, and whole numbers stay whole.

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; the first without.
            at_least: the goal: one of the three must be given, in the target's unit.
            at_most: likewise.
            between: likewise, the lowest and the highest.
            features: names of those that may change; all without.
            steps: the first and the last step that change, 0 the newest; all without.
            max_features: how many may change together.
            within_training_range: whether changed values keep within the smallest and the largest of training.
            pause: called between batches of forecasts.

        Raises:
            DataError: windows or an argument that cannot be used.
            UnknownNameError: an output or a feature that does not exist.
            NonFiniteError: a forecast is not finite.
        """
        number, goal = self._number_of(output), make_goal(at_least, at_most, between)
        check_count("max_features", max_features, 1)
        place = find_steps(self.config, steps)
        search = Search(find_features(self.config, features), place, max_features, within_training_range)
        typical = self._overall.measure_typical_distance(pause)
        found = []
        for window in read_windows(self.loaded, windows):
            one = find_counterfactual(self.loaded, window, number, goal, search, pause)
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
        pause: Pause = ...,
    ) -> Comparisons: ...
    @overload
    def compare(
        self, other: Model, *, output: str | None = ..., fidelity: float | None = ..., pause: Pause = ...
    ) -> ModelComparison: ...
    def compare(
        self,
        other: Model | None = None,
        windows: Windows | None = None,
        against_windows: Windows | None = None,
        output: str | None = None,
        *,
        tolerance: float = LedgerOptions.tolerance,
        fidelity: float | None = None,
        pause: Pause = go_on,
    ) -> Comparisons | ModelComparison:
        """Why forecasts differ: another window, another model, or both. Without windows: how the two models differ.

        Args:
            other: the model that is compared with; this one without.
            windows: in any form of `Windows`, original units; without them the reference windows of this model.
            against_windows: as many, which the other forecasts; the same without.
            output: its name, in both models; the first without.
            tolerance: as for `explain`, of each ledger.
            fidelity: without windows: the R2 that the topologies keep, whose edges come and go; 0.99 without.
            pause: called between slices of the work.

        Raises:
            DataError: the models do not read the same windows or forecast the same output, or an argument that cannot
                be used.
            UnknownNameError: an output that does not exist.
            NonFiniteError: a prediction, a residual or an error is not finite.
        """
        number, against = self._number_of(output), self if other is None else other
        if windows is None:
            return self._compare_models(against, number, fidelity, pause)
        if fidelity is not None:
            raise DataError.at("fidelity", "is of models as a whole, and windows are given")
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
            found.append(
                compare_forecasts(self.loaded, one, against.loaded, other_one, number, options=options, pause=pause)
            )
            pause()
        names = self.config.feature_names
        return Comparisons(self.outputs[number], self._unit_of(number), tuple(names), tuple(found))

    def _compare_models(self, other: Model, output: int, fidelity: float | None, pause: Pause) -> ModelComparison:
        rule = make_rule(fidelity)
        assert rule.fidelity is not None, "it has a default"
        change = self._overall.compare(output, other._overall, rule, pause)
        unit = self._unit_of(output)
        return ModelComparison(
            unit=unit, fidelity=rule.fidelity, name=self.name, against_name=other.name, **vars(change)
        )

    def baseline(self, baseline: Any = "mean") -> Array:
        """The windows that a baseline stands for, original units, (1, lookback, n_features), or (count, ...).

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
        pause: Pause = go_on,
    ) -> Importance:
        """How much each feature counts over the reference windows, and each group, with intervals and verdicts.

        Args:
            output: its name; may be left out where there is only one.
            groups: as in `explain`.
            pause: called between parts of the computation.

        Raises:
            DataError: groups that cannot be.
            UnknownNameError: an output that does not exist.
        """
        number = self._number_of(output)
        return self._overall.attribute(number, self.choose_groups(groups)[0], pause)

    def agreement(self, output: str | None = None, *, pause: Pause = go_on) -> tuple[Agreement, ...]:
        """How far the baselines ``mean``, ``zero`` and ``reference`` agree on the features, pair by pair.

        Raises:
            DataError: there are fewer than 2 reference windows.
            UnknownNameError: an output that does not exist.
        """
        return self._overall.compare_baselines(self._number_of(output), pause)

    def faithfulness(self, output: str | None = None, *, pause: Pause = go_on) -> tuple[Faithfulness, ...]:
        """How well contributions predict what happens when features go, beside other ways of weighing features.

        Raises:
            UnknownNameError: an output that does not exist.
        """
        return measure_faithfulness(self.loaded, self._number_of(output), pause=pause)

    def topology(
        self,
        output: str | None = None,
        *,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
        without: Sequence[Place] = (),
        pause: Pause = go_on,
    ) -> Topology:
        """The graph of the network for one output, pruned.

        Args:
            output: its name; the first without.
            fidelity: the R2 against the full model that is kept on the reference windows; 0.99 without thresholds.
            metric: what edges are ordered by; by default whichever keeps the fewest, and with thresholds ``backward``.
            thresholds: scores to cut at instead, as pykan does: ``{"node": 0.01, "edge": 0.03, "input": 0.01}``, or
                some of them.
            fill: what stands for a pruned edge: its mean on the reference windows, or ``"zero"`` as in pykan.
            without: edges that go in any case, as `edge` takes them: ``["head:0:7:3"]``, ``[("lstm:7", "head:1:3")]``.
                What they alone connected goes with them, and `fidelity` holds before that.
            pause: called between slices of the work.

        Raises:
            DataError: a rule that cannot be.
            UnknownNameError: an output, a metric, a threshold, a fill or an edge that does not exist.
            InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
            NonFiniteError: the output of what is left is not finite on the reference windows.
        """
        number, rule = self._number_of(output), self._rule(fidelity, metric, thresholds, fill, without)
        graph = self._overall.lay_out(number, rule, pause)
        return Topology(**vars(graph), unit=self._unit_of(number), name=self.name, loaded=self.loaded)

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
        pause: Pause = go_on,
    ) -> Ablation:
        """The forecasts of the network that `topology` shows, beside those of the whole one: mean ablation.

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; the first without.
            fidelity: as for `topology`, and so are the others.
            metric: likewise.
            thresholds: likewise.
            fill: likewise.
            without: likewise.
            pause: called between slices of the work.

        Raises:
            DataError: windows that do not fit, or a rule that cannot be.
            UnknownNameError: as `topology`, or a mapping names a feature that does not exist.
            InsufficientReferenceError: as `topology`.
            NonFiniteError: a forecast is not finite, or as `topology`.
        """
        number, rule = self._number_of(output), self._rule(fidelity, metric, thresholds, fill, without)
        read = read_windows(self.loaded, windows)
        predictions = self.loaded.predict(read)[:, number]
        graph = self._overall.lay_out(number, rule, pause)
        network = self._overall.ablate(number, rule, pause)
        ablated = predictions if network is self.loaded else network.predict_output(read, number)
        return Ablation.of(graph, self._unit_of(number), predictions, ablated)

    def fidelity_curve(
        self,
        output: str | None = None,
        *,
        metric: Metric = "contribution",
        fill: Fill = "mean",
        pause: Pause = go_on,
    ) -> tuple[FidelityPoint, ...]:
        """What each number of edges costs, from all to none, when the weakest go first.

        Raises:
            UnknownNameError: an output, a metric or a fill that does not exist.
            InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
        """
        number, rule = self._number_of(output), make_rule(None, metric, None, fill)
        return self._overall.trace_fidelity(number, metric, rule.fill, pause)

    @overload
    def edge(self, edge: str, /, *, points: int = ..., span: Span = ...) -> Edge: ...
    @overload
    def edge(self, source: str, target: str, /, *, points: int = ..., span: Span = ...) -> Edge: ...
    @overload
    def edge(self, layer: int, i: int, j: int, /, *, stage: str = ..., points: int = ..., span: Span = ...) -> Edge: ...
    def edge(self, *place: Any, stage: str = "head", points: int = 101, span: Span = "support") -> Edge:
        """The function on an edge, sampled beside what the reference windows send through it.

        Args:
            place: its id, such as ``"head:0:7:3"``; the ids of its ends, such as ``"lstm:7", "head:1:3"``; or the
                numbers ``layer, i, j``: from node i of the layer to sub-node j of the next.
            stage: ``head`` or ``front``, where numbers are given.
            points: number of samples, from 2.
            span: from where to where: ``support``, 1st to 99th percentile of the reference; ``reference``, smallest to
                largest; ``grid``, the core interval.

        Raises:
            UnknownNameError: there is no such edge or span.
            DataError: `points` is no whole number from 2.
        """
        check_count("points", points, 2)
        refuse_unknown("span", span, ("support", "reference", "grid"))
        found = find_place(self.loaded.network, place[0] if len(place) == 1 else place, stage)
        (curve,) = sample_edges(self.loaded, [find_edge_at(self.loaded.network, *found)], points, span)
        return Edge(**vars(curve), name=self.name)

    def find_edges(self, edges: Sequence[Place]) -> tuple[EdgePlace, ...]:
        """The (stage, layer, i, j) of edges in any form that `edge` takes, sorted, each once.

        Raises:
            UnknownNameError: one of them does not exist.
        """
        return find_places(self.loaded.network, edges)

    def curves(self, edges: Sequence[TopologyEdge], points: int = 101, span: Span = "support") -> list[EdgeCurve]:
        """The functions on edges of a topology, with what it says of them; as `edge`."""
        return sample_edges(self.loaded, edges, points, span)

    def edge_formulas(self, edge: TopologyEdge) -> list[Candidate]:
        """Formulas c f(a x + b) + d near to the function on an edge, best first; none after a layer norm."""
        return suggest_edge_formulas(self.loaded, [edge])[0]

    def formula(self, output: str | None = None, *, pause: Pause = go_on) -> Formulas:
        """The head as formulas of what it reads: of LSTM units, or of features where there is no LSTM.

        Args:
            output: its name; the first without.
            pause: called between slices of the work.

        Returns:
            From one number to all edges, each with its error through the whole model on the half of the reference
            windows that the search has not seen.

        Raises:
            ConfigError: a layer norm or an output function stands in the way.
            UnknownNameError: an output that does not exist.
        """
        return self._overall.formulas(self._number_of(output), pause)

    def report(self, output: str | None = None, *, pause: Pause = go_on) -> Report:
        """The questions that people have before the picture of a KAN, answered for one output.

        Raises:
            UnknownNameError: an output that does not exist.
        """
        return self._overall.report(self._number_of(output), pause)

    def prune(
        self,
        outputs: Sequence[str] | None = None,
        *,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
        without: Sequence[Place] = (),
    ) -> Model:
        """A new, smaller model without the edges that the rule drops and the nodes that then lead nowhere.

        Args:
            outputs: names of those that keep the fidelity; all without.
            fidelity: as for `topology`, and so are the others.
            metric: likewise.
            thresholds: likewise.
            fill: likewise.
            without: likewise; the fidelity holds before they go.

        Raises:
            DataError: a rule that cannot be, or no output.
            UnknownNameError: an output, a metric, a threshold, a fill or an edge that does not exist.
            InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
            NonFiniteError: what is left has an output that is not finite on the reference windows.
        """
        rule = self._rule(fidelity, metric, thresholds, fill, without)
        names = [outputs] if isinstance(outputs, str) else self.outputs if outputs is None else outputs
        numbers = sorted({self._number_of(name) for name in names})
        if not numbers:
            raise DataError("outputs is empty", [Problem("outputs", "is empty")])
        measured = [self._overall.measure(number, go_on) for number in numbers]
        return Model(extract_subnetwork(self.loaded, measured, rule), self.name)

    def fidelity_to(self, full: Model, output: str | None = None) -> Fidelity:
        """What the forecasts of a smaller model lose against those of the model that it was made from.

        Raises:
            UnknownNameError: an output that does not exist.
            NonFiniteError: an output of the smaller model is not finite.
        """
        return compare_models(full.loaded, self.loaded, self._number_of(output))

    def refine_grid(self, grid_size: int) -> Model:
        """A new model on a finer grid with the same functions, which pykan calls ``refine``: the start of `fine_tune`.

        Where `grid_size` is a multiple of the present number of intervals the functions stay what they are, otherwise
        each becomes the nearest in the sense of least squares. The provenance states the largest difference of a
        forecast.

        Args:
            grid_size: intervals of every B-spline.

        Raises:
            ConfigError: the model has no B-splines, or as many intervals already.
        """
        from kanmodel.training.grids import refine_model  # here, since few models are trained after they are loaded

        return Model(refine_model(self.loaded, grid_size), self.name)

    def with_groups(self, groups: Groups) -> Model:
        """The same model with groups of features, which its explanations sum by default; `save` keeps them.

        Args:
            groups: in the place of those that it has; as for `explain`.

        Raises:
            ConfigError: they are no groups of its features.
        """
        return Model(self.loaded.with_config(replace(self.config, groups=groups)), self.name)

    def save(self, path: str | Path) -> Model:
        """Writes the checkpoint; a crash on the way leaves the old file.

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
        """Writes the forward pass as an ONNX graph, which has been compared with the model on all reference windows.

        Its input ``instances`` (n, lookback, n_features) and its output ``predictions`` (n, n_outputs) are in original
        units; ``logits`` is there where the model has an output function. Its metadata name features, outputs, units
        and checkpoint.

        Args:
            path: the file, ``*.onnx``; a crash on the way leaves the old one.

        Raises:
            ExportError: a layer has no ONNX form, a prediction differs, or the file cannot be written there.
        """
        from kanmodel.export import export_onnx  # here, since onnx and ONNX Runtime are slow to import

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
