"""Ledgers: contributions to one output that are complete at every layer.

The `:explain` question as plain values, independent of the request.

Receipts: what an auditor needs to reproduce an explanation.

A receipt is part of an answer and does not repeat its numbers: a reproduction is compared with the answer.

Computes the explanations of a request, part by part.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.computing import pause, pausing
from kanmodel.data import Array
from kanmodel.explain.attribution import Explanation as Explained
from kanmodel.explain.attribution import LedgerOptions, Segments
from kanmodel.explain.baseline import DEFAULT_COUNT, Baseline, ReferenceBaselines
from kanmodel.explain.effects import Effects
from kanmodel.explain.paths.path import LedgerLayer
from kanmodel.network.config import Groups
from service.models.registry import Served
from service.operations.baselines import (
    BaselineInstance,
    BaselineName,
    BaselineReference,
    BaselineValues,
    UsedBaseline,
    describe_baseline,
    describe_reference_baselines,
)
from service.operations.members import Checkpoint, Closed, Name, Version, about
from service.operations.predict import Predictions
from service.operations.windows import ONE_FORM, Columns, Instances, RangeWarnings, Warnings, WarningsOmitted
from service.telemetry.metrics import Metrics
from service.telemetry.observation import span
from service.wire.errors import unusable
from service.wire.json import encode_json
from service.work.deadlines import Deadline
from service.work.estimates import NUMBER, OBJECTS, PART
from service.work.executor import Executor
from service.work.jobs import StoppedError

Detail = TypeAliasType("Detail", Literal["features", "steps", "flow"])
Method = TypeAliasType("Method", Literal["integrated_gradients", "expected_gradients"])
_Groups = dict[str, Annotated[list[str], Field(min_length=1)]]
_Segments = dict[str, Annotated[list[int], Field(min_length=2, max_length=2)]]
ExplainedOutput = Annotated[str | list[str], about("The explained output; a list if the request has one.")]


class ExplainRequest(Closed):
    """Windows to explain, in one of two forms, and the options of the explanation."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: str | list[str] | None = None
    """Name of an output, or a list of names; optional if the model has one."""
    detail: Detail = "features"
    """`features` for totals; `steps` for steps x features too; `flow` for every layer's nodes and edges as well."""
    baseline: Annotated[
        BaselineName | BaselineReference | BaselineValues | BaselineInstance | None,
        about(
            "The baseline of the path: `mean`, each feature's mean over the reference windows; `zero`, its "
            f"training mean; `reference`, the average over {DEFAULT_COUNT} reference windows, or as many as given "
            "(expected gradients); given values; or another window."
        ),
    ] = "mean"
    groups: _Groups | None = None
    """Features that mean one thing, whose contributions are summed in `contributions_by_group`: `{"hour": ["hour_sin",
    "hour_cos"]}`. A member may be another group; each is in one at most. Absent: those of the checkpoint; null:
    none."""
    segments: _Segments | None = None
    """Steps whose contributions are summed, by their first and last, 0 the newest: `{"last six hours": [-5, 0]}`. They
    may not overlap. Steps that are in none are entries of their own, such as `other steps -23 to -6`."""
    tolerance: Annotated[float, Field(gt=0, strict=True)] = 1e-3
    """Largest accepted residual and error, in standard deviations of the output on the reference windows."""
    effects: Annotated[bool, Field(strict=True)] = False
    """Whether each explanation has `effects` too: what the forecast loses without each feature, and what each does
    alone; with detail `steps` or `flow` also `step_effects`. 2 forecasts for each instance, output, baseline and
    feature, or cell, which count as path nodes in `max_path_nodes`."""
    receipt: Annotated[bool, Field(strict=True)] = False
    """Whether to include a `receipt`, from which `kanscope explain --receipt` repeats the answer."""
    progress: Annotated[bool, Field(strict=True)] = False
    """Whether lines such as `{"progress": {"done": 32, "total": 96, "slices": 7}}` come between the explanations, one
    after each slice of work: how many explanations are computed, of how many, and how many slices that took. Only with
    `Accept: application/x-ndjson`."""


class EdgeContribution(TypedDict):
    """The contribution of one edge."""

    i: Annotated[int, about("Index of the source node.")]
    j: Annotated[int, about("Index of the target sub-node, in the next layer.")]
    contribution: Annotated[float, about("Its contribution, in the target's unit.")]


class LayerContributions(TypedDict):
    """Contributions of one layer; they sum to prediction - baseline_prediction."""

    stage: Annotated[Literal["input", "front", "lstm", "gru", "cell", "head", "output"], about("Part of the network.")]
    layer: Annotated[int, about("Index of the layer within its stage.")]
    nodes: NotRequired[Annotated[list[float], about("Contribution of each node; absent if another stage lists them.")]]
    edges: NotRequired[list[EdgeContribution]]
    """Contributions of the edges from this layer, by i, then j; absent if there are none."""


class Effect(TypedDict):
    """What one feature does to a forecast, in the target's unit (feature ablation); both are differences of forecasts.

    For a feature that acts on its own both equal its contribution. `removed - alone` says how much it acts together
    with others. Neither sums to F(x) - F(x0).
    """

    removed: Annotated[float, about("The loss by removal: F(x) - F(x with the feature at x0).")]
    alone: Annotated[float, about("The effect alone: F(x0 with the feature at x) - F(x0).")]


class StepEffects(TypedDict):
    """The same for each step of each feature, lookback x n_features, oldest step first."""

    removed: Annotated[list[list[float]], about("F(x) - F(x with that cell at x0).")]
    alone: Annotated[list[list[float]], about("F(x0 with that cell at x) - F(x0).")]


class Explanation(TypedDict):
    """The ledger of one instance and one output, in the target's unit."""

    instance: Annotated[int, about("Index of the instance.")]
    output: Annotated[str, about("Name of the output.")]
    prediction: Annotated[float, about("The forecast F(x).")]
    baseline_prediction: float
    """The forecast of the baseline, F(x0); the mean over several baselines."""
    contributions: dict[str, float]
    """Contribution of each feature, over all steps; they sum to F(x) - F(x0) (completeness)."""
    contributions_by_group: NotRequired[dict[str, float | dict[str, float]]]
    """Of each group, and of each feature that is in none; of each segment where there are `segments`. Only where there
    are groups or segments."""
    steps: NotRequired[list[list[float]]]
    """lookback x n_features, oldest step first; only for detail `steps` and `flow`."""
    effects: NotRequired[Annotated[dict[str, Effect], about("Of each feature; only where asked for.")]]
    effects_by_group: NotRequired[dict[str, Effect | dict[str, Effect]]]
    """Of what `contributions_by_group` is of, in the same form; with `effects`."""
    step_effects: NotRequired[StepEffects]
    """Of each cell; with `effects` and detail `steps` or `flow`."""
    layers: NotRequired[list[LayerContributions]]
    """In the order input, front, lstm or gru or cell, head, output; only for detail `flow`."""
    residual: float
    """Largest deviation of a layer's sum from F(x) - F(x0), or of a KAN node from in = out (Captum: convergence
    delta)."""
    error: float
    """Largest estimated error of any contribution of this explanation; not below the residual."""
    tolerance: Annotated[float, about("The bound on residual and error, in the target's unit.")]
    converged: bool
    """Whether both are within the tolerance, and no node of the network jumps between two neighbouring points of the
    path."""
    path_nodes: Annotated[int, about("Number of nodes of the integration path.")]
    standard_error: dict[str, float] | None
    """Standard error of each feature's contribution, for baseline `reference`; otherwise null."""


class Versions(TypedDict):
    """Versions of the software that computed the numbers."""

    kanscope: Annotated[str, about("This service.")]
    torch: Annotated[str, about("PyTorch, with its build.")]
    numpy: Annotated[str, about("NumPy.")]
    python: Annotated[str, about("Python.")]


class InputHash(TypedDict):
    """A hash of the explained windows."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the windows in original units as little-endian float64, row by row: in Python
    `hashlib.sha256(numpy.asarray(instances, "<f8").tobytes())`."""
    shape: Annotated[list[int], about("[n, lookback, n_features].", min_length=3, max_length=3)]


class Receipt(TypedDict):
    """What `kanscope explain --receipt` needs, besides the windows, to reproduce an answer."""

    checkpoint: Checkpoint
    versions: Versions
    input: InputHash
    method: Method
    """`integrated_gradients` along the straight path from one baseline, or `expected_gradients`, their mean over
    several; units, nodes and edges by conductance along the same path."""
    output: ExplainedOutput
    detail: Annotated[Detail, about("Level of detail.")]
    effects: NotRequired[Annotated[bool, about("True if effects were requested.")]]
    baseline: Annotated[UsedBaseline, about("The baseline, with the seed of a draw.")]
    groups: Annotated[_Groups, about("Groups of features whose contributions are summed; may be empty.")]
    segments: _Segments
    """Segments of steps whose contributions are summed, with those of steps that no given one holds; may be empty."""
    tolerance: Annotated[float, about("Largest accepted residual and error, in standard deviations of the output.")]
    path_nodes: Annotated[int, Field(ge=5)]
    """Nodes of the path to begin with, positions of a Clenshaw-Curtis rule: a multiple of 4, and one."""
    halvings: Annotated[int, about("Most bisections of any part of a path.", ge=0)]


class ExplainHeader(TypedDict):
    """What all explanations of a request share; the first line of an NDJSON answer."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: ExplainedOutput
    unit: str | list[str | None] | None
    """Unit of the target, null if unknown; a list if `output` is one."""
    baseline: UsedBaseline
    predictions: Predictions
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]
    receipt: NotRequired[Annotated[Receipt, about("Only if requested.")]]


class ExplainResponse(ExplainHeader):
    """The explanations of a request."""

    explanations: list[Explanation]
    """One per instance; with several outputs, one per instance and output."""


def describe_explanation(explained: Explained, detail: Detail, first: int) -> Iterator[Explanation]:
    """Describes the explanation of each window.

    Args:
        explained: contributions for windows.
        detail: the level of detail.
        first: index of the first window in the request.
    """
    features, errors = explained.features, explained.standard_error
    for window in range(len(explained)):
        explanation: Explanation = {
            "instance": first + window,
            "output": explained.output,
            "prediction": float(explained.predictions[window]),
            "baseline_prediction": explained.baseline_prediction,
            "contributions": dict(zip(features, explained.contributions[window].tolist(), strict=True)),
            "residual": float(explained.residual[window]),
            "error": float(explained.error[window]),
            "tolerance": explained.tolerance,
            "converged": bool(explained.converged[window]),
            "path_nodes": int(explained.path_nodes[window]),
            "standard_error": None if errors is None else dict(zip(features, errors[window].tolist(), strict=True)),
        }
        if explained.groups or explained.segments:
            explanation["contributions_by_group"] = _describe_groups(explained, window)
        if detail != "features":
            explanation["steps"] = explained.steps[window].tolist()
        if explained.effects is not None:
            explanation["effects"] = _describe_effects(explained, window)
        if explained.effects_by_group is not None:
            explanation["effects_by_group"] = _describe_effects_by_group(explained, window)
        if explained.step_effects is not None:
            removed, alone = explained.step_effects.removed, explained.step_effects.alone
            explanation["step_effects"] = {"removed": removed[window].tolist(), "alone": alone[window].tolist()}
        if detail == "flow":
            explanation["layers"] = [_describe_layer(layer, window) for layer in explained.layers]
        yield explanation


def _describe_effects(explained: Explained, window: int) -> dict[str, Effect]:
    assert explained.effects is not None
    return dict(zip(explained.features, _list_effects(explained.effects, window), strict=True))


def _describe_effects_by_group(explained: Explained, window: int) -> dict[str, Effect | dict[str, Effect]]:
    assert explained.effects_by_group is not None
    values, segments = _list_effects(explained.effects_by_group, window), list(explained.segments)
    if not segments:
        return dict(zip(explained.group_names, values, strict=True))
    of_names = [values[first : first + len(segments)] for first in range(0, len(values), len(segments))]
    by_segment = [dict(zip(segments, of_name, strict=True)) for of_name in of_names]
    return dict(zip(explained.group_names, by_segment, strict=True))


def _list_effects(effects: Effects, window: int) -> list[Effect]:
    """The effects of all parts, in order."""
    pairs = zip(effects.removed[window].ravel().tolist(), effects.alone[window].ravel().tolist(), strict=True)
    return [{"removed": removed, "alone": alone} for removed, alone in pairs]


def _describe_groups(explained: Explained, window: int) -> dict[str, float | dict[str, float]]:
    values, segments = explained.contributions_by_group[window].tolist(), explained.segments
    if segments:
        values = [dict(zip(segments, of_name, strict=True)) for of_name in values]
    return dict(zip(explained.group_names, values, strict=True))


def _describe_layer(layer: LedgerLayer, window: int) -> LayerContributions:
    described: LayerContributions = {"stage": layer.stage, "layer": layer.layer}  # type: ignore[typeddict-item]
    if layer.nodes is not None:
        described["nodes"] = layer.nodes[window].tolist()
    if layer.edges is not None:
        described["edges"] = _describe_edges(layer.edges[window])
    return described


def _describe_edges(contributions: Array) -> list[EdgeContribution]:
    """(n_subnodes, n_nodes) -> a list by i, then j."""
    return [
        {"i": i, "j": j, "contribution": value}
        for i, column in enumerate(contributions.T.tolist())
        for j, value in enumerate(column)
    ]


@dataclass(frozen=True)
class Question:
    """A parsed request to explain.

    Attributes:
        served: the model.
        windows: what to explain, (n, lookback, n_features), original units.
        outputs: indices of the outputs.
        as_list: whether the request has a list of outputs, and so the answer.
        detail: the level of detail.
        baseline: the baseline, or reference windows as baselines.
        groups: groups of features whose contributions are summed; may be empty.
        segments: segments of steps whose contributions are summed; may be empty.
        options: accuracy of the ledgers.
        effects: whether to measure feature ablation, of cells too if `detail` has steps.
        receipt: whether the answer includes a receipt.
        progress: whether the stream includes lines with progress.
    """

    served: Served
    windows: Array
    outputs: tuple[int, ...]
    as_list: bool
    detail: Detail
    baseline: Baseline | ReferenceBaselines
    groups: Groups
    segments: Segments
    options: LedgerOptions
    effects: bool
    receipt: bool
    progress: bool

    @property
    def total(self) -> int:
        """Number of explanations: one per window and output."""
        return len(self.windows) * len(self.outputs)

    @property
    def batch_key(self) -> Hashable | None:
        """Equal for questions that differ in their windows alone; None if it must not be batched."""
        named = (field.name for field in fields(self) if field.name not in ("served", "windows"))
        asked = tuple(_as_items(getattr(self, name)) for name in named)
        try:
            hash(asked)
        except TypeError:  # a baseline of given values
            return None
        return self.served.checkpoint, asked

    @property
    def path_nodes(self) -> int:
        """Path nodes that it takes without bisection, plus the forecasts for effects: its cost."""
        baselines = self.baseline.count if isinstance(self.baseline, ReferenceBaselines) else 1
        return self.total * baselines * (self.options.path_nodes + 2 * self.n_parts)

    @property
    def n_parts(self) -> int:
        """Upper bound of the features, groups, segments and cells whose effects are measured, with 2 forecasts each."""
        if not self.effects:
            return 0
        lookback, n_features = self.served.model.config.window_shape
        n_parts = n_features * (1 if self.detail == "features" else 1 + lookback)
        if self.groups or self.segments:
            n_parts += (len(self.groups) + n_features) * max(len(self.segments), 1)
        return n_parts

    def refuse_costly(self, max_path_nodes: int) -> None:
        """Refuses a question that would take too long.

        Raises:
            DataError: it takes more than `max_path_nodes`.
        """
        if self.path_nodes > max_path_nodes:
            reason = f"would take {self.path_nodes} path nodes to explain, of at most {max_path_nodes} (max_path_nodes)"
            advice = "send fewer windows, outputs or baselines at a time" + (
                ", or leave out effects" if self.effects else ""
            )
            raise unusable("body", f"{reason}: {advice}", "limit_exceeded")


def _as_items(value: Any) -> Any:
    """Groups and segments in hashable form, in their order."""
    return tuple((name, tuple(of_name)) for name, of_name in value.items()) if isinstance(value, Mapping) else value


def make_receipt(question: Question, baseline: UsedBaseline) -> Receipt:
    """The receipt of an answer.

    Args:
        question: the question.
        baseline: the baseline as the answer describes it.
    """
    names = [question.served.model.config.outputs[output] for output in question.outputs]
    receipt: Receipt = {
        "checkpoint": question.served.checkpoint,
        "versions": find_versions(),
        "input": hash_windows(question.windows),
        "method": "expected_gradients" if isinstance(question.baseline, ReferenceBaselines) else "integrated_gradients",
        "output": names if question.as_list else names[0],
        "detail": question.detail,
        "baseline": baseline,
        "groups": {name: list(members) for name, members in question.groups.items()},
        "segments": {name: list(ends) for name, ends in question.segments.items()},
        "tolerance": question.options.tolerance,
        "path_nodes": question.options.path_nodes,
        "halvings": question.options.halvings,
    }
    if question.effects:
        receipt["effects"] = True
    return receipt


def find_versions() -> Versions:
    """The versions of the libraries in this process."""
    return {
        "kanscope": version("kanscope"),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
    }


def hash_windows(windows: Array) -> InputHash:
    """The hash of windows, (n, lookback, n_features) in original units, as little-endian float64 in C order."""
    data = np.asarray(windows, "<f8").tobytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "shape": list(windows.shape)}


SMALL = 8  # largest request that is batched with others; a larger one fills passes by itself


@dataclass(frozen=True)
class Advance:
    """Progress after a slice of work.

    Attributes:
        done: how many explanations are computed.
        explanations: those now ready to be sent, in order; none after most slices.
        encoded: the same in JSON, if requested.
    """

    done: int
    explanations: Sequence[Explanation] = ()
    encoded: Sequence[bytes] = ()


def describe_question(question: Question, predictions: Array, warnings: RangeWarnings) -> ExplainHeader:
    """The members that all explanations share.

    Args:
        question: the question.
        predictions: for its windows, (n, n_outputs), original units.
        warnings: of all its windows.
    """
    config = question.served.model.config
    names = [config.outputs[output] for output in question.outputs]
    units = [config.target_of(output).unit for output in question.outputs]
    header: ExplainHeader = {
        "model_name": question.served.name,
        "version": question.served.version,
        "checkpoint": question.served.checkpoint,
        "output": names if question.as_list else names[0],
        "unit": units if question.as_list else units[0],
        "baseline": _describe_baseline(question),
        "predictions": predictions.tolist(),
        "warnings": warnings.listed,
    }
    if warnings.n_omitted:
        header["warnings_omitted"] = warnings.n_omitted
    if question.receipt:
        header["receipt"] = make_receipt(question, header["baseline"])
    return header


def explain_part(question: Question, first: int, tell: Callable[[int], None]) -> list[Explanation]:
    """The explanations of up to `PART` windows in order, by window and then by output.

    Args:
        question: what is asked.
        first: number of the first window.
        tell: called before each pause with the number of explanations computed so far.

    Raises:
        NonFiniteError: an explanation is not finite.
        IncompleteError: an explanation is far from complete.
    """
    model, n_outputs = question.served.model, len(question.outputs)
    windows = question.windows[first : first + PART]
    by_output: list[Iterator[Explanation]] = []

    def tell_and_pause() -> None:
        tell(first * n_outputs + len(windows) * len(by_output))
        pause()

    for output in question.outputs:
        if by_output:
            tell_and_pause()
        with pausing(tell_and_pause):
            explained = model.explain(
                windows,
                model.outputs[output],
                baseline=question.baseline,
                groups=question.groups,
                segments=question.segments,
                **vars(question.options),
                effects="steps" if question.effects and question.detail != "features" else question.effects,
            )
        explained.require_completeness(explained.tolerance / question.options.tolerance, first)
        by_output.append(describe_explanation(explained, question.detail, first))
    return [explanation for of_window in zip(*by_output, strict=True) for explanation in of_window]


def explain_all(question: Question) -> list[Explanation]:
    """The explanations in order, computed synchronously.

    Raises:
        NonFiniteError: one is not finite.
    """
    firsts = range(0, len(question.windows), PART)
    return [one for first in firsts for one in explain_part(question, first, lambda _: None)]


async def compute_explanations(
    question: Question, work: Executor, metrics: Metrics, deadline: Deadline, n_bytes: int, encoded: bool
) -> AsyncGenerator[Advance, None]:
    """Yields explanations as they become ready, until the deadline or until the consumer stops.

    Args:
        question: what is asked.
        work: the executor.
        metrics: the metrics that are updated.
        deadline: when to stop.
        n_bytes: memory that they hold until the answer is sent, see `estimate_explanations`.
        encoded: whether to encode them as JSON too.

    Raises:
        DataError: they would take more memory than explanations may.
        NonFiniteError: one is not finite.
        IncompleteError: an explanation is far from complete.
        DeadlineError: the deadline has passed.
        OverloadedError: too many requests wait.
    """
    loop, key = asyncio.get_running_loop(), question.batch_key
    with work.claim("explanation", n_bytes):
        if key is not None and question.total <= SMALL and not question.progress:
            explain = partial(_explain_together, encoded)
            together = await deadline.wait(work.run_together((encoded, key), explain, question, question.total))
            _observe(question, together, metrics)
            yield together
            return
        for first in range(0, len(question.windows), PART):
            told: asyncio.Queue[Advance | None] = asyncio.Queue()

            def tell(done: int, told: asyncio.Queue[Advance | None] = told) -> None:
                if question.progress:
                    loop.call_soon_threadsafe(told.put_nowait, Advance(done))

            compute = partial(_compute_part, question, first, encoded, tell)
            computing = asyncio.ensure_future(deadline.wait(work.run_in_turns(compute)))
            computing.add_done_callback(partial(_end, told))
            try:
                while (advance := await told.get()) is not None:
                    yield advance
                advance = await computing
            finally:
                computing.cancel()
            _observe(question, advance, metrics)
            yield advance


def _observe(question: Question, advance: Advance, metrics: Metrics) -> None:
    for one in advance.explanations:
        residual = one["residual"] / one["tolerance"] * question.options.tolerance
        metrics.observe_explanation(question.served.name, residual, one["converged"])


def _end(told: asyncio.Queue[Advance | None], _: asyncio.Future[Advance]) -> None:
    told.put_nowait(None)


def _compute_part(question: Question, first: int, encoded: bool, tell: Callable[[int], None]) -> Advance:
    explanations = explain_part(question, first, tell)
    return _advance(first * len(question.outputs) + len(explanations), explanations, encoded)


def _advance(done: int, explanations: Sequence[Explanation], encoded: bool) -> Advance:
    if not encoded:
        return Advance(done, explanations)
    with span("encode"):
        return Advance(done, explanations, [encode_json(one) for one in explanations])


def _explain_together(encoded: bool, questions: Sequence[Question]) -> list[Advance | Exception]:
    """Explanations of questions that differ in their windows alone; a failing one does not affect the others."""
    windows = [question.windows for question in questions]
    whole = questions[0] if len(windows) == 1 else replace(questions[0], windows=np.concatenate(windows))
    try:
        explained = explain_part(whole, 0, lambda _: None)
    except StoppedError:
        raise
    except Exception as error:
        if len(questions) == 1:
            return [error]
        return [answer for question in questions for answer in _explain_together(encoded, [question])]
    advances: list[Advance | Exception] = []
    for question, end in zip(questions, accumulate(map(len, windows)), strict=True):
        first = end - len(question.windows)
        for_question = explained[first * len(question.outputs) :][: question.total]
        for explanation in for_question:
            explanation["instance"] -= first
        advances.append(_advance(question.total, for_question, encoded))
    return advances


def _describe_baseline(question: Question) -> UsedBaseline:
    model, baseline = question.served.model, question.baseline
    windows, names = model.baseline(baseline), model.config.feature_names
    if isinstance(baseline, ReferenceBaselines):
        return describe_reference_baselines(names, windows, baseline.seed)
    return describe_baseline(baseline, names, windows[0])


def estimate_explanations(question: Question, kept: Literal["lines", "json", "objects"]) -> int:
    """The memory that explanations will take.

    Args:
        question: the question.
        kept: what is held until all are computed: ``lines``, one part at a time; ``json``, all of them encoded, twice
            while they are joined; ``objects``, all of them as Python objects.
    """
    part = min(len(question.windows), PART) * len(question.outputs)
    held = {"lines": 0, "json": 2, "objects": OBJECTS}[kept] * question.total
    return question.windows.nbytes + (part * (OBJECTS + 1) + held) * _estimate_json(question)


def _estimate_json(question: Question) -> int:
    """Upper bound of the bytes of one explanation in JSON, apart from long names."""
    model = question.served.model
    lookback, n_features = model.config.window_shape
    names = sum(map(len, model.config.feature_names))
    n_bytes = 500 + 2 * (names + n_features * (NUMBER + 6))
    if question.groups or question.segments:
        n_named = len(question.groups) + n_features
        of_each = sum(len(name) + NUMBER + 6 for name in question.segments) or NUMBER
        named = names + sum(map(len, question.groups)) + n_named * (of_each + 8)
        n_bytes += named * (2 if question.effects else 1)
    if question.effects:
        n_bytes += names
    n_bytes += question.n_parts * (2 * NUMBER + len('"":{"removed":,"alone":},'))
    if question.detail != "features":
        n_bytes += lookback * n_features * NUMBER
    if question.detail == "flow":
        n_bytes += NUMBER * (n_features + model.config.n_readout + len(model.config.outputs))
        edge = len('{"i":100,"j":100,"contribution":},') + NUMBER
        for stage in model.config.stages.values():
            n_bytes += sum(
                layer.n_in * layer.n_subnodes * edge + (layer.n_in + layer.n_subnodes) * NUMBER + 100 for layer in stage
            )
    return n_bytes
