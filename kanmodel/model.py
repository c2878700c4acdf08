"""`Model`: one checkpoint with the questions one can ask it, in original units and by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf, isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, overload

from torch import nn

from kanmodel import html
from kanmodel.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError, DataError, Problem, UnknownNameError
from kanmodel.explain.functions.curves import Span, sample_edges
from kanmodel.explain.importance.attributions import attribute_features
from kanmodel.explain.importance.global_importance import Importance as Measured
from kanmodel.explain.importance.global_importance import measure_importance
from kanmodel.explain.paths.expected import ReferenceBaselines, explain_expected
from kanmodel.explain.paths.ledger import LedgerOptions, explain_windows
from kanmodel.explain.report import collect_findings
from kanmodel.explain.structure.replay import Fill
from kanmodel.explain.topology.construction import assemble_topology
from kanmodel.explain.topology.lookup import find_edge_at, find_edge_between
from kanmodel.explain.topology.metrics import Metric
from kanmodel.explain.topology.pruning import PruningRule, prune_by_rule
from kanmodel.explain.topology.subnetwork import extract_subnetwork
from kanmodel.explain.topology.thresholds import Thresholds
from kanmodel.inputs import read_baseline, read_windows
from kanmodel.network.config import Feature, width_of
from kanmodel.once import Once
from kanmodel.prose import answer_findings
from kanmodel.results import Edge, Explanation, Formula, Importance, Report, Topology
from kanmodel.results.result import Result
from kanmodel.scaling import Array
from kanmodel.text import with_unit, write_facts

DEFAULT_FIDELITY = 0.99
N_RULES = 64  # prunings, and graphs, that are kept
N_NAMED = 8  # outputs or features that a text lists

Windows = Any
"""An array (n, lookback, n_features) or one window (lookback, n_features), oldest step first; a mapping of feature name
to array (n, lookback) or (lookback,); or a data frame of at least `lookback` rows, whose last rows are one window."""


@dataclass(frozen=True, repr=False, eq=False)
class Model(Result):
    """One checkpoint and the questions one can ask it. Shared by threads: nothing changes it.

    Windows, predictions and contributions are in original units. What holds for the model as a whole, such as
    `importance` and `topology`, is computed when first asked for, once however many threads ask.

    Attributes:
        loaded: the network with its reference windows, for the library itself; it reads model units.
        name: for titles of pictures; that of the file, without its suffix.
    """

    loaded: LoadedModel
    name: str = "model"
    _of_outputs: Once = field(default_factory=Once, init=False)
    _of_rules: Once = field(default_factory=lambda: Once(N_RULES), init=False)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The inputs: name, unit, and mean, std, min and max over the training rows."""
        return self.loaded.config.features

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, ``{target}+{step}``."""
        return self.loaded.config.outputs

    @property
    def lookback(self) -> int:
        """Steps of a window."""
        return self.loaded.config.lookback

    @property
    def checkpoint(self) -> str | None:
        """``sha256:`` and the hash of the checkpoint file; None for a model that was never saved."""
        return f"sha256:{self.loaded.sha256}" if self.loaded.sha256 else None

    @property
    def metrics(self) -> dict[str, float]:
        """Figures of the training, such as ``test_r2``."""
        return dict(self.loaded.metrics)

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

    def explain(
        self,
        windows: Windows,
        output: str | None = None,
        *,
        baseline: Any = "mean",
        tolerance: float = LedgerOptions.tolerance,
        path_nodes: int = LedgerOptions.path_nodes,
    ) -> Explanation:
        """What each feature of each step added to the forecast of one output.

        Args:
            windows: in any form of `Windows`, original units.
            output: its name; the first without.
            baseline: what the windows are compared with: ``"mean"`` of the reference windows, ``"zero"`` in model
                units, the mean of ``"reference"`` windows or of ``{"reference": count, "seed": number}``,
                ``{"values": {feature: a number or one per step}}`` or ``{"instance": window}``.
            tolerance: largest accepted residual and error, in standard deviations of the output.
            path_nodes: nodes of the integration path: a multiple of 4, and one.

        Raises:
            DataError: windows, a baseline or an option that cannot be used.
            UnknownNameError: an output or a feature that does not exist.
            NonFiniteError: a prediction, a residual or an error is not finite.
        """
        number = self._number_of(output)
        if not isinstance(tolerance, Real) or not 0 < tolerance < inf:
            message = f"must be a number above 0, but is {tolerance!r}"
            raise DataError(f"tolerance {message}", [Problem("tolerance", message)])
        _check_count("path_nodes", path_nodes, 5)
        options = LedgerOptions(tolerance, path_nodes)
        start = read_baseline(self.loaded, baseline)
        scaled = self.loaded.to_model_units(read_windows(self.loaded, windows))
        if isinstance(start, ReferenceBaselines):
            ledger = explain_expected(self.loaded, scaled, number, start.count, start.seed, options)
        else:
            ledger = explain_windows(self.loaded, scaled, number, start, options)
        return Explanation.of(ledger, self.loaded.config.feature_names, self._unit_of(number))

    def importance(self, output: str | None = None) -> Importance:
        """How much each feature counts over the reference windows, with intervals and verdicts.

        Raises:
            UnknownNameError: an output that does not exist.
        """
        number = self._number_of(output)
        return self._of_outputs.get(("importance", number), lambda: self._attribute(number))

    def topology(
        self,
        output: str | None = None,
        *,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
    ) -> Topology:
        """The graph of the network for one output, pruned.

        Args:
            output: its name; the first without.
            fidelity: the R2 against the full model that is kept on the reference windows; 0.99 without thresholds.
            metric: what edges are ordered by; by default whichever keeps the fewest, and with thresholds ``backward``.
            thresholds: scores to cut at instead, as pykan does: ``{"node": 0.01, "edge": 0.03, "input": 0.01}``, or
                some of them.
            fill: what stands for a pruned edge: its mean on the reference windows, or ``"zero"`` as in pykan.

        Raises:
            DataError: a rule that cannot be.
            UnknownNameError: an output, a metric, a threshold or a fill that does not exist.
            InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
        """
        return self._topology(self._number_of(output), _make_rule(fidelity, metric, thresholds, fill))

    @overload
    def edge(self, source: str, target: str, /, *, points: int = ..., span: Span = ...) -> Edge: ...
    @overload
    def edge(self, layer: int, i: int, j: int, /, *, stage: str = ..., points: int = ..., span: Span = ...) -> Edge: ...
    def edge(self, *place: Any, stage: str = "head", points: int = 101, span: Span = "support") -> Edge:
        """The function on an edge, sampled beside what the reference windows send through it.

        Args:
            place: the ids of its ends, such as ``"lstm:7", "head:1:3"``, or the numbers ``layer, i, j``: from node i of
                the layer to sub-node j of the next.
            stage: ``head`` or ``front``, where numbers are given.
            points: number of samples, from 2.
            span: from where to where: ``support``, 1st to 99th percentile of the reference; ``reference``, smallest to
                largest; ``grid``, the core interval.

        Raises:
            UnknownNameError: there is no such edge or span.
            DataError: `points` is no whole number from 2.
        """
        _check_count("points", points, 2)
        _refuse_unknown("span", span, ("support", "reference", "grid"))
        if len(place) == 2 and all(isinstance(end, str) for end in place):
            found = find_edge_between(self.loaded.network, *place)
        elif len(place) == 3 and all(isinstance(number, Integral) for number in place):
            found = find_edge_at(self.loaded.network, stage, *place)
        else:
            raise UnknownNameError(f"an edge is two ids or the numbers layer, i, j, but {place!r} is neither")
        (curve,) = sample_edges(self.loaded, [found], points, span)
        return Edge(**vars(curve), name=self.name)

    def formula(self, output: str | None = None, *, fidelity: float = DEFAULT_FIDELITY) -> Formula:
        """One expression for a KAN that reads the features of one step, without an LSTM or a GRU.

        Args:
            output: its name; the first without.
            fidelity: the R2 that the edges in the formula keep against all edges; fewer are simpler.

        Raises:
            ConfigError: a recurrent part, a layer norm or an output function stands in the way.
            UnknownNameError: an output that does not exist.
        """
        from kanmodel.explain.functions.expressions import compose_formula  # here, since sympy is slow to import

        number, rule = self._number_of(output), _make_rule(fidelity, None, None, "mean")
        found = self._of_rules.get(
            ("formula", number, rule), lambda: compose_formula(self.loaded, self._topology(number, rule))
        )
        return Formula(found.output, found.expression, dict(found.symbols), found.r2)

    def report(self, output: str | None = None) -> Report:
        """The questions that people have before the picture of a KAN, answered for one output.

        Raises:
            UnknownNameError: an output that does not exist.
        """
        number = self._number_of(output)
        return self._of_outputs.get(("report", number), lambda: self._write_report(number))

    def prune(
        self,
        outputs: Sequence[str] | None = None,
        *,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
    ) -> Model:
        """A new, smaller model without the edges that the rule drops and the nodes that then lead nowhere.

        Args:
            outputs: names of those that keep the fidelity; all without.
            fidelity: as for `topology`, and so are the others.
            metric: likewise.
            thresholds: likewise.
            fill: likewise.

        Raises:
            DataError: a rule that cannot be, or no output.
            UnknownNameError: an output, a metric, a threshold or a fill that does not exist.
            InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
            NonFiniteError: thresholds leave an output that is not finite on the reference windows.
        """
        rule = _make_rule(fidelity, metric, thresholds, fill)
        names = [outputs] if isinstance(outputs, str) else self.outputs if outputs is None else outputs
        numbers = sorted({self._number_of(name) for name in names})
        if not numbers:
            raise DataError("outputs is empty", [Problem("outputs", "is empty")])
        return Model(extract_subnetwork(self.loaded, [self._measure(number) for number in numbers], rule), self.name)

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

    def table(self) -> list[dict[str, Any]]:
        """A row for each feature."""
        return [asdict(feature) for feature in self.features]

    def _title(self) -> str:
        return f"Model {self.name}"

    def _details(self) -> str:
        """The card of the model, without a picture: pruning for one may take seconds, which `topology` is asked for."""
        return (
            html.write_heading(self._title())
            + html.write_facts(self._facts())
            + html.fold("Features", html.write_table(self.table(), ["name", "unit", "mean", "std", "min", "max"]))
        )

    def _facts(self) -> dict[str, str]:
        config, metrics = self.loaded.config, self.loaded.metrics
        recurrent = config.recurrent
        chain = [
            f"front {width_of(config.front)}" if config.front else "",
            f"{recurrent.cell.upper()} of {recurrent.n_units} units" if recurrent else "",
            f"readout {config.readout}",
            f"head {width_of(config.head)}",
            config.output_function or "",
        ]
        named = [with_unit(name, self._unit_of(number)) for number, name in enumerate(self.outputs)]
        return {
            "checkpoint": self.checkpoint or "not saved",
            "chain": " -> ".join(filter(None, chain)),
            "windows": f"{self.lookback} steps x {len(self.features)} features",
            "features": _list_some([with_unit(feature.name, feature.unit) for feature in self.features]),
            "outputs": _list_some(named),
            "reference": f"{len(self.loaded.reference.windows)} windows",
            "metrics": ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()) or "-",
        }

    def __repr__(self) -> str:
        return f"{self._title()}\n{write_facts(self._facts())}"

    def _number_of(self, output: str | None) -> int:
        if output is None:
            return 0
        _refuse_unknown("output", output, self.outputs)
        return self.outputs.index(output)

    def _unit_of(self, output: int) -> str | None:
        return self.loaded.config.target_of(output).unit

    def _measure(self, output: int) -> Measured:
        return self._of_outputs.get(("measured", output), lambda: measure_importance(self.loaded, output))

    def _attribute(self, output: int) -> Importance:
        measured = self._measure(output)
        rows = attribute_features(self.loaded, measured)
        return Importance(self.outputs[output], self._unit_of(output), rows, measured)

    def _topology(self, output: int, rule: PruningRule) -> Topology:
        """The graph that a rule keeps; rules that keep the same share it, but for the rule."""
        measured = self._measure(output)
        pruning = self._of_rules.get((output, rule), lambda: prune_by_rule(self.loaded, measured, rule))
        graph = self._of_rules.get(
            (output, pruning.kept, rule.fill), lambda: assemble_topology(self.loaded, measured, pruning)
        )
        return Topology(
            **vars(graph)
            | {"rule": pruning.rule, "unit": self._unit_of(output), "name": self.name, "loaded": self.loaded}
        )

    def _write_report(self, output: int) -> Report:
        findings = collect_findings(self.loaded, self._measure(output), self._topology(output, PruningRule()))
        return Report(self.outputs[output], answer_findings(self.loaded.config, output, findings))


def load(path: str | Path) -> Model:
    """The model of a checkpoint file.

    Raises:
        CheckpointError: the file is missing, truncated or foreign; the message names the first difference.
    """
    path = Path(path)
    return Model(load_checkpoint(path), path.stem)


def from_torch(
    net: nn.Module,
    *,
    windows: Any,
    features: Sequence[str],
    outputs: Sequence[str] | None = None,
    targets: Any = None,
    scaling: Any = None,
    horizon: int | None = None,
) -> Model:
    """A model of the trained module in hand, proved to forecast the same on all windows.

    As `kanmodel.importers.from_torch.from_torch`, which says what may be given and what is refused.
    """
    from kanmodel.importers import from_torch as importer  # here, since it reads yaml too

    return Model(
        importer.from_torch(
            net,
            windows=windows,
            features=features,
            outputs=outputs,
            targets=targets,
            scaling=scaling,
            horizon=horizon,
        )
    )


def from_file(path: str | Path, *, windows: Any, predictions: Any, features: Sequence[str], **options: Any) -> Model:
    """A model of a file that torch.save or safetensors wrote, and of the model's own predictions.

    As `kanmodel.importers.from_file.from_file`, which says what options there are and what is refused.
    """
    from kanmodel.importers import from_file as importer  # here, since it reads yaml too

    return Model(
        importer.from_file(path, windows=windows, predictions=predictions, features=features, **options),
        Path(path).stem,
    )


def _make_rule(
    fidelity: float | None, metric: Metric | None, thresholds: Thresholds | Mapping[str, float] | None, fill: Fill
) -> PruningRule:
    """The rule that a call asks for.

    Raises:
        DataError: both a fidelity and thresholds, or a number out of range.
        UnknownNameError: a metric, a threshold or a fill that does not exist.
    """
    if metric is not None:
        _refuse_unknown("metric", metric, ("contribution", "backward", "forward_n", "forward_u"))
    _refuse_unknown("fill", fill, ("mean", "zero"))
    if thresholds is None:
        return PruningRule(
            metric, _check("fidelity", DEFAULT_FIDELITY if fidelity is None else fidelity, 1.0), None, fill
        )
    if fidelity is not None:
        raise DataError("fidelity and thresholds are both given: give one", [Problem("fidelity", "is given twice")])
    given = vars(thresholds) if isinstance(thresholds, Thresholds) else thresholds
    if not isinstance(given, Mapping):
        message = f'must be a mapping such as {{"edge": 0.03}}, but is {given!r}'
        raise DataError(f"thresholds {message}", [Problem("thresholds", message)])
    for name, value in given.items():
        _refuse_unknown("threshold", name, ("node", "edge", "input"))
        _check(f"thresholds.{name}", value, inf)
    return PruningRule(metric, None, Thresholds(**given), fill)


def _check(name: str, value: float, highest: float) -> float:
    if isinstance(value, Real) and isfinite(value) and 0 <= value <= highest:
        return float(value)
    message = f"must be a number from 0{f' to {highest:g}' if isfinite(highest) else ''}, but is {value!r}"
    raise DataError(f"{name} {message}", [Problem(name, message)])


def _check_count(name: str, value: int, lowest: int) -> None:
    if not isinstance(value, Integral) or value < lowest:
        message = f"must be a whole number from {lowest}, but is {value!r}"
        raise DataError(f"{name} {message}", [Problem(name, message)])


def _refuse_unknown(kind: str, name: object, known: Sequence[str]) -> None:
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(f"there is no {kind} {name!r}, but {', '.join(known)}")


def _list_some(names: Sequence[str]) -> str:
    more = len(names) - N_NAMED
    return ", ".join(names[:N_NAMED]) + (f" and {more} more" if more > 0 else "")
