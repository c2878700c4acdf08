"""`Model`: one checkpoint with the questions one can ask it, in original units and by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

import kanmodel.show  # noqa: F401  (it registers the pictures of results)
from kanmodel.arrays import Array
from kanmodel.attribution.baseline import baseline_windows, read_baseline
from kanmodel.attribution.explanation import Segments
from kanmodel.attribution.questions import choose_groups, names_of
from kanmodel.checkpoint import identify_checkpoint, save_checkpoint
from kanmodel.computing import Progress, one_thread, progress_share, reporting, tracked
from kanmodel.errors import CheckpointError, checked, needs_package
from kanmodel.forecaster import Forecaster, Results
from kanmodel.forecasts.calibration import Adaptation, calibrate_intervals, read_pairs
from kanmodel.forecasts.forecasts import Forecasts
from kanmodel.formula.symbolic import Candidate, suggest_edge_formulas
from kanmodel.hub import NOT_STATED, push_to_hub, write_card
from kanmodel.network.config import Groups, resolve_groups, width_of
from kanmodel.network.connections import EdgeKey
from kanmodel.prepared import Prepared
from kanmodel.question import SeriesNames, Windows
from kanmodel.questions import Questions
from kanmodel.result import Result, Table
from kanmodel.structure.ablation import Size, extract_subnetwork, measure_size
from kanmodel.structure.curves import Edge, Span, sample_edges
from kanmodel.structure.edges import TopologyEdge
from kanmodel.structure.pruning import Fidelity, Fill, Metric, Thresholds
from kanmodel.structure.questions import EdgeName, PruningParameters, find_edges, measure
from kanmodel.tables.table import CellNames, Gaps, Selection
from kanmodel.text import list_some, with_unit

if TYPE_CHECKING:
    from kanmodel.onnx.export import OnnxExport


@dataclass(frozen=True, repr=False, eq=False)
class Model(Forecaster, Questions, Result):
    """One checkpoint and the questions one can ask it. It is immutable and can be shared by threads.

    Its questions are those of `kanmodel.questions`. Windows, predictions and contributions are in original units.
    Global results, such as `importance` and `topology`, are computed on first use and cached, once for all threads that
    ask at the same time (single flight): they are to be read, not changed. Long computations call
    `kanmodel.computing.pause` between slices of the work, and report their `progress`: with True as a bar on stderr, or
    to a function, which gets the share that is done, from 0 to 1; see `kanmodel.computing.Progress`.

    An output is given by its name, and is the first by default. Methods raise `UnknownNameError` for an output, a
    feature, an edge or an option that does not exist, `DataError` for other arguments that cannot be used (as
    `InsufficientReferenceError` if a statistic needs more reference windows), and `NonFiniteError` if a result is not
    finite.

    Attributes:
        unprepared: why `kanmodel.load` has read no prepared results beside the checkpoint; else None.
    """

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
        chosen = {"results": results, "prepared": prepared, "unprepared": unprepared}
        vars(model).update(cached | {name: value for name, value in chosen.items() if value is not None})
        return model

    @property
    def group_names(self) -> tuple[str, ...]:
        """The checkpoint's groups, then the features without a group; empty if it has no groups."""
        groups = self.config.groups
        return resolve_groups(groups, self.config.feature_names).names if groups else ()

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

    @staticmethod
    @checked
    def identify(path: str | Path) -> str:
        """The `checkpoint` of a file that can be loaded as far as its header says; its tensors are not made.

        Raises:
            CheckpointError: the file is missing, truncated or foreign.
        """
        return f"sha256:{identify_checkpoint(Path(path))}"

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
                ``"7d"``, ``"36h"`` or ``"15min"``; of many series so many of each. By default one;
                where the table has what that forecasts already, since columns known in advance end it, a warning says
                to append the rows to come.
            gaps: whether a gap in time among these rows is an error, or the windows that span one are left out
                (``"skip"``).
            series: of a data frame, names of the series that are read; None for all. A warning names series that
                training did not have.

        Returns:
            The forecasts; with `intervals` also `times`, `series`, and the `actual` values if the frame has the
            target's column.
        """
        given, of_table = self.read_newest(windows, last, gaps, series)
        if intervals is None:
            return super().predict(given)
        return Forecasts.of(self, given, intervals, of_table)

    def calibrate(
        self,
        windows: Any = None,
        targets: Any = None,
        *,
        intervals: Sequence[float] | float | None = None,
        last: int | str | None = None,
        gaps: Gaps = "skip",
        series: SeriesNames = None,
        places: CellNames | None = None,
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
        with one_thread(), reporting(progress):
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
        return super().logits(self.read(windows)[0])

    def find_representable(self, values: Array) -> NDArray[np.bool_]:
        """Whether values are finite in the network's dtype, before and after scaling; (..., n_features) both.

        1e39 overflows float32 although it may fit after division by a large standard deviation.
        """
        within: NDArray[np.bool_] = np.abs(values) <= self.scaling.feature_limit
        if within.all():
            return within
        scaled = self.scaling.features_to_model(values)
        return (scaled.isfinite() & torch.from_numpy(values).to(scaled.dtype).isfinite()).numpy()

    def choose_groups(
        self, groups: Groups | Literal["checkpoint"] | None = "checkpoint", segments: Segments | None = None
    ) -> tuple[Groups, Segments]:
        """The groups and segments that `explain` sums, with the steps that no segment holds; empty for none."""
        return choose_groups(self, groups, segments)

    def baseline(self, baseline: Any = "mean") -> Array:
        """The windows of a baseline, original units, (1, lookback, n_features), or (count, ...)."""
        return baseline_windows(self, read_baseline(self, baseline))

    def prune(
        self,
        outputs: Sequence[str] | str | None = None,
        *,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
        without: Sequence[EdgeName] = (),
        progress: Progress = False,
    ) -> Model:
        """A new model in which the edges that the rule drops are masked; nodes and edges keep their ids.

        Args:
            outputs: names of the outputs that keep the fidelity; None for all.
            fidelity: as for `topology`, like all that follow.
            metric: likewise.
            thresholds: likewise.
            fill: likewise.
            without: likewise.
            progress: as in `explain`.
        """
        asked = PruningParameters(fidelity=fidelity, metric=metric, thresholds=thresholds, fill=fill, without=without)
        rule = asked.rule(self)
        numbers = sorted(map(self.number_of, names_of(self, "all" if outputs is None else outputs)))
        with one_thread(), reporting(progress):
            with progress_share(0.5):
                measured = [measure(self, number) for number in tracked(numbers)]
            return Model.of(extract_subnetwork(self, measured, rule), self.name)

    def find_edges(self, edges: Sequence[EdgeName]) -> tuple[EdgeKey, ...]:
        """The (stage, layer, i, j) of edges in any form that `edge` takes, sorted, each once."""
        return find_edges(self, edges)

    def curves(self, edges: Sequence[TopologyEdge], points: int = 101, span: Span = "support") -> list[Edge]:
        """The functions on the edges of a topology, with their scores; see `edge`."""
        return sample_edges(self, edges, points, span)

    def edge_formulas(self, edge: TopologyEdge) -> list[Candidate]:
        """Formulas c f(a x + b) + d near to the function on an edge, best first; none after a layer norm."""
        return suggest_edge_formulas(self, edge)

    def fidelity_to(self, full: Model, output: str | None = None) -> Fidelity:
        """Fidelity of a pruned model's forecasts to those of the full model."""
        return Fidelity.of(full, self.number_of(output), full.reference_outputs, self.reference_outputs)

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
        return self.with_config(replace(self.config, groups=groups))

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

    def push_to_hub(
        self,
        repo_id: str,
        *,
        intended_use: str = NOT_STATED,
        limits: str = NOT_STATED,
        license: str = "",
        private: bool | None = None,
        revision: str | None = None,
    ) -> str:
        """Uploads the checkpoint and a model card to a repository of Hugging Face, which is made if there is none.

        The card has the skill, the drivers, and the technical documentation that Annexes IV and XI of the EU's AI Act
        ask for, as far as a checkpoint knows it; what it doesn't is "not stated". Server and token are those of the
        package huggingface_hub, from its environment variables and files.

        Args:
            repo_id: the repository, ``user/name``.
            intended_use: what the model is for, in Markdown.
            limits: what it is not for, in Markdown.
            license: of the model, by the name that Hugging Face has for it, such as ``apache-2.0``.
            private: whether a new repository is private; None for the account's default.
            revision: the branch; None for ``main``.

        Returns:
            The URL of the commit.

        Raises:
            ConfigError: the package huggingface_hub is not installed.
            CheckpointError: the server cannot be reached, or refuses it.
        """
        card = write_card(self, intended_use, limits, license)
        return push_to_hub(self, repo_id, card, private, revision)

    def export_onnx(self, path: str | Path) -> OnnxExport:
        """Writes the forward pass as an ONNX graph, after comparing it with the model on all reference windows.

        Its input ``instances`` (n, lookback, n_features) and its output ``predictions`` (n, n_outputs) are in original
        units; a model with an output function also has the output ``logits``. Its metadata name features, outputs,
        units and checkpoint.

        Args:
            path: the file, ``*.onnx``; replaced atomically.

        Raises:
            ConfigError: the packages of the extra `onnx` are not installed.
            ExportError: a layer has no ONNX form, a prediction differs, or the file cannot be written there.
        """
        with needs_package("the export to ONNX", "kanscope[onnx]"):
            from kanmodel.onnx.export import export_onnx  # here, since onnx and ONNX Runtime are slow to import

        return export_onnx(self, Path(path))

    def table(self) -> list[dict[str, Any]]:
        """A row for each feature."""
        return [asdict(feature) for feature in self.features]

    def _title(self) -> str:
        return f"Model {self.name}"

    def _tables(self) -> list[Table]:
        """The features; there is no picture, because pruning for one may take seconds: see `topology`."""
        rows = [row | {"name": self.inputs.label(row["name"])} for row in self.table()]
        return [Table(rows, ["name", "unit", "mean", "std", "min", "max"], "Features", in_text=False)]

    def _facts(self) -> dict[str, str]:
        named = [with_unit(name, self.unit_of(name)) for name in self.outputs]
        return {
            "skill": self.skill.brief,
            "checkpoint": self.checkpoint or "not saved",
            "graph" if self.config.graph else "chain": self.chain,
            "windows": f"{self.lookback} steps x {len(self.features)} features",
            "features": list_some([with_unit(one.label, one.unit) for one in self.inputs]),
            "outputs": list_some(named),
            **({} if self.intervals is None else {"intervals": str(self.intervals)}),
            "reference": str(self.reference),
            "metrics": ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items()) or "-",
        }
