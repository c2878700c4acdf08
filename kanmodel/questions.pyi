from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from kanmodel.alternatives.counterfactual import Counterfactuals
from kanmodel.alternatives.what_if import WhatIf
from kanmodel.attribution.changes import Changes
from kanmodel.attribution.comparison import Comparisons
from kanmodel.attribution.explanation import Explanation, Method, Segments
from kanmodel.attribution.explanations import Explanations
from kanmodel.attribution.paths.path import Detail
from kanmodel.computing import Progress
from kanmodel.forecaster import Forecaster
from kanmodel.forecasts.backtest import Backtest
from kanmodel.formula.formula import Formulas
from kanmodel.monitoring.drift import Drift
from kanmodel.monitoring.trust import Trust
from kanmodel.network.config import Groups
from kanmodel.question import Question, SeriesNames, Windows
from kanmodel.report.faithfulness import Agreement, Faithfulness
from kanmodel.report.report import Report
from kanmodel.structure.ablation import Ablation
from kanmodel.structure.attention import Attention
from kanmodel.structure.curves import Edge, Span
from kanmodel.structure.importance import Importance
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.structure.pruning import FidelityPoint, Fill, Metric, Thresholds
from kanmodel.structure.questions import EdgeName
from kanmodel.structure.topology import Topology
from kanmodel.tables.table import CellNames, Gaps

QUESTIONS: dict[str, type[Question[Any]]]

class Questions:
    @overload
    def explain(
        self,
        windows: Windows,
        output: str | None = ...,
        *,
        outputs: None = ...,
        baseline: Any = ...,
        groups: Groups | Literal["checkpoint"] | None = ...,
        segments: Segments | None = ...,
        tolerance: float = ...,
        path_nodes: int = ...,
        halvings: int = ...,
        effects: bool | Literal["steps"] = ...,
        detail: Detail = ...,
        method: Method = ...,
        orders: int = ...,
        seed: int = ...,
        last: int | str | None = ...,
        gaps: Gaps = ...,
        series: SeriesNames = ...,
        progress: Progress = ...,
    ) -> Explanation: ...
    @overload
    def explain(
        self,
        windows: Windows,
        output: str | None,
        *,
        outputs: Literal["all"] | Sequence[str],
        baseline: Any = ...,
        groups: Groups | Literal["checkpoint"] | None = ...,
        segments: Segments | None = ...,
        tolerance: float = ...,
        path_nodes: int = ...,
        halvings: int = ...,
        effects: bool | Literal["steps"] = ...,
        detail: Detail = ...,
        method: Method = ...,
        orders: int = ...,
        seed: int = ...,
        last: int | str | None = ...,
        gaps: Gaps = ...,
        series: SeriesNames = ...,
        progress: Progress = ...,
    ) -> Explanations:
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
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def changes(
        self,
        windows: Windows,
        output: str | None = ...,
        *,
        ago: int = ...,
        same_time: bool = ...,
        last: int | str | None = ...,
        series: SeriesNames = ...,
        baseline: Any = ...,
        tolerance: float = ...,
        progress: Progress = ...,
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
            progress: whether to draw a bar, or what is called with the share that is done.

        Raises:
            DataError: windows that do not follow each other, or fewer than `ago` and one.
            UnknownNameError: there is no output `ago` steps further ahead.
        """
    def attention(
        self,
        windows: Windows,
        output: str | None = ...,
        *,
        last: int | str | None = ...,
        gaps: Gaps = ...,
        series: SeriesNames = ...,
        baseline: Any = ...,
        tolerance: float = ...,
        progress: Progress = ...,
    ) -> Attention:
        """The attention weights of a graph for some windows, beside the contributions, which they are not.

        They are those of each softmax that is multiplied with values, as in a GRU with attention, in a Transformer, or
        where a TFT selects variables. A chain has none. `kanmodel.structure.attention` has what they say.

        Args:
            windows: in any form of `Windows`, original units.
            output: whose contributions stand beside them; None for the first.
            last: of a data frame, how many windows, as in `predict`.
            gaps: what is done with a gap in time among their rows, as in `predict`.
            series: which of many series, as in `predict`.
            baseline: of the contributions, as in `explain`.
            tolerance: likewise.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    @overload
    def compare(
        self,
        other: Forecaster | None = ...,
        windows: None = ...,
        against_windows: Windows | None = ...,
        output: str | None = ...,
        *,
        tolerance: float = ...,
        fidelity: float | None = ...,
        progress: Progress = ...,
    ) -> ModelComparison: ...
    @overload
    def compare(
        self,
        other: Forecaster | None,
        windows: Windows,
        against_windows: Windows | None = ...,
        output: str | None = ...,
        *,
        tolerance: float = ...,
        fidelity: float | None = ...,
        progress: Progress = ...,
    ) -> Comparisons:
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
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def what_if(
        self,
        windows: Windows,
        features: Sequence[str] | str | None = ...,
        steps: Sequence[int] | None = ...,
        shift: Sequence[float] | None = ...,
        *,
        output: str | None = ...,
        points: int = ...,
        progress: Progress = ...,
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
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def counterfactual(
        self,
        windows: Windows,
        output: str | None = ...,
        *,
        at_least: float | None = ...,
        at_most: float | None = ...,
        between: Sequence[float] | None = ...,
        features: Sequence[str] | str | None = ...,
        steps: Sequence[int] | None = ...,
        max_features: int = ...,
        within_training_range: bool = ...,
        progress: Progress = ...,
    ) -> Counterfactuals:
        """Searches the smallest change of each window for which its forecast reaches a goal.

        A change adds a constant to a feature at the chosen steps, or sets a level of a column there. Its size is the
        sum of the magnitudes of what is added in training standard deviations, on average over these steps. Fixed
        features do not change, integer features stay whole, and of a column of levels one stays 1 and the others 0.

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
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def importance(
        self, output: str | None = ..., *, groups: Groups | Literal["checkpoint"] | None = ..., progress: Progress = ...
    ) -> Importance:
        """Global importance of features and groups over the reference windows, with bootstrap intervals and verdicts.

        Args:
            output: its name; None for the first.
            groups: as in `explain`.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def topology(
        self,
        output: str | None = ...,
        *,
        fidelity: float | None = ...,
        metric: Metric | None = ...,
        thresholds: Thresholds | Mapping[str, float] | None = ...,
        fill: Fill = ...,
        without: Sequence[EdgeName] = ...,
        progress: Progress = ...,
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
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def ablate(
        self,
        windows: Windows,
        output: str | None = ...,
        *,
        fidelity: float | None = ...,
        metric: Metric | None = ...,
        thresholds: Thresholds | Mapping[str, float] | None = ...,
        fill: Fill = ...,
        without: Sequence[EdgeName] = ...,
        progress: Progress = ...,
    ) -> Ablation:
        """Forecasts of the pruned network that `topology` shows, beside those of the whole network (mean ablation).

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; None for the first.
            fidelity: R2 against the full model to keep on the reference windows; 0.99 if there are no thresholds.
            metric: score that ranks the edges; by default whichever keeps the fewest, and with thresholds ``backward``.
            thresholds: prune at scores instead, as pykan does: ``{"node": 0.01, "edge": 0.03, "input": 0.01}``, or
                some of them.
            fill: value of a pruned edge: its mean on the reference windows (mean ablation), or ``"zero"`` as in pykan.
            without: further edges to remove, in any form of `edge`: ``["head:0:7:3"]``, ``[("lstm:7", "head:1:3")]``.
                Nodes that only they connected are removed too; `fidelity` holds before their removal.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def fidelity_curve(
        self, output: str | None = ..., *, metric: Metric = ..., fill: Fill = ..., progress: Progress = ...
    ) -> tuple[FidelityPoint, ...]:
        """Fidelity against the number of kept edges, from all towards none, removing the weakest first.

        Edges that are cut off go at once, and those of a large network in groups, so that some numbers have no point.

        Args:
            output: its name; None for the first.
            metric: the order of the edges, as in `topology`.
            fill: value of a pruned edge, as in `topology`.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def edge(
        self, *place: Any, stage: str = ..., points: int = ..., span: Span = ..., progress: Progress = ...
    ) -> Edge:
        """The function on an edge, sampled, with the distribution of its inputs on the reference windows.

        Args:
            place: its id, such as ``"head:0:7:3"``; the ids of its ends, such as ``"lstm:7", "head:1:3"``; or the
                numbers ``layer, i, j``: from node i of the layer to sub-node j of the next.
            stage: ``head`` or ``front``, if numbers are given.
            points: number of samples, from 2.
            span: range of the samples: ``support``, 1st to 99th percentile of the reference inputs; ``reference``,
                their smallest to largest; ``grid``, the core interval of the grid.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def formula(self, output: str | None = ..., *, progress: Progress = ...) -> Formulas:
        """An output as formulas: of LSTM units, or of features if there is no LSTM.

        Those of a graph are also of the cells of the window that flow around its layers, and of statistics over the
        steps, such as the mean of a feature, by which a forecast is scaled back.

        Args:
            output: its name; None for the first.
            progress: whether to draw a bar, or what is called with the share that is done.

        Returns:
            Formulas from a constant to all edges, each with its error through the whole model on a third of the
            reference windows, which neither the search nor the choice among the formulas has used.

        Raises:
            ConfigError: it cannot be written: there is a layer norm, an attention or another function that mixes what a
                formula would have to hold alone, or it would be too long. The sentence says which.
            InsufficientReferenceError: there are fewer than 6 reference windows.
        """
    def backtest(
        self,
        frame: Any,
        target: str | None = ...,
        *,
        adapt: bool | Mapping[str, Any] = ...,
        last: int | str | None = ...,
        gaps: Gaps = ...,
        series: SeriesNames = ...,
        places: CellNames | None = ...,
        progress: Progress = ...,
    ) -> Backtest:
        """Forecasts over a table beside what came: errors, bias and skill, overall and by horizon, series and time.

        Each forecast is that of its due time: cutting the table off after a window's last row, but for known columns,
        changes no bit of what it reads, and the forecast by rounding alone. Skill is 1 - MAE / MAE of persistence, the
        last value that was known. Windows with a missing value, across a gap in time, or that end where the table has
        not all rows of the horizon yet, are left out, and so are forecasts without an actual value; the result states
        how many. Of a model with intervals it has their coverage, mean width and Winkler score as well.

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
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def drift(
        self,
        reference: Any,
        current: Any,
        output: str | None = ...,
        *,
        against: Forecaster | None = ...,
        false_alarms: float | None = ...,
        explained: int = ...,
        gaps: Gaps = ...,
        series: SeriesNames = ...,
        progress: Progress = ...,
    ) -> Drift:
        """Whether inputs moved, whether the model uses what moved, and whether errors are worse, beyond chance.

        The forecasts and explanations of two spans of time are compared, and what differs with what differs between
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
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def trust(
        self, windows: Windows | None = ..., *, last: int | str | None = ..., gaps: Gaps = ..., progress: Progress = ...
    ) -> Trust:
        """How unlike the reference windows each window is, by what, and whether its forecast can be relied on.

        A window that overlaps in time with reference windows is near to these anyway. Without windows, those are
        the reference windows, each compared with those of other blocks.

        Args:
            windows: in any form of `Windows`, original units; None for the reference windows.
            last: of a data frame, how many windows, as in `predict`.
            gaps: what is done with a gap in time among their rows, as in `predict`.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def agreement(self, output: str | None = ..., *, progress: Progress = ...) -> tuple[Agreement, ...]:
        """Agreement of the baselines ``mean``, ``zero`` and ``reference`` on the features, for each pair.

        Args:
            output: its name; None for the first.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def faithfulness(self, output: str | None = ..., *, progress: Progress = ...) -> tuple[Faithfulness, ...]:
        """Faithfulness: how well contributions predict the effect of removing features, compared with other methods.

        Args:
            output: its name; None for the first.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
    def report(self, output: str | None = ..., windows: Windows = ..., *, progress: Progress = ...) -> Report:
        """What is forecast and how well, what drives it, what to read with care, and questions about the network.

        Its figures are of the reference windows. The forecasts of windows that are given, such as the newest of a
        table, come first, those of a single one with their reasons. `html()` gives a page for those who use the
        forecasts, with pictures, which is two sheets of A4 when printed, three with forecasts.

        Args:
            output: its name; None for the first.
            windows: whose forecasts come first, as of `explain`; None for none.
            progress: whether to draw a bar, or what is called with the share that is done.
        """
