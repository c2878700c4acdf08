"""Explanations of forecasts, as :explain and the Open Inference Protocol answer them: computed part by part."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, chain, islice
from math import prod
from typing import Any, NamedTuple

import numpy as np
import orjson

from kanmodel.arrays import Array
from kanmodel.attribution import explanation as attribution
from kanmodel.attribution.baseline import Baseline, ReferenceBaselines
from kanmodel.attribution.effects import Effects
from kanmodel.attribution.ledger import USUAL_NODES, LedgerOptions
from kanmodel.attribution.paths.path import FLOW, LedgerLayer
from kanmodel.attribution.shapley import Orders, count_forecasts
from kanmodel.computing import pause, pausing
from kanmodel.network.config import Groups, ModelConfig, resolve_groups
from service.answers.explanations import Detail, Explanation, LayerContributions
from service.compute import attempt_each
from service.models.registry import Served
from service.operations.route import Parts
from service.operations.windows import CheckedWindows
from service.room import Deadline
from service.telemetry.observation import span
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES, encode_json

PART_WINDOWS = 32  # that are explained, and sent, together
SMALL = 8  # largest request that is batched with others; a larger one fills passes by itself
ALL_STEPS = "all steps"  # the only segment where none are asked for
BATCH_EXPLANATIONS = 32  # of small requests, that are computed together


def describe_explanation(explained: attribution.Explanation, detail: Detail, first: int) -> Iterator[Explanation]:
    """Describes the explanation of each window, of which the first is number `first` of the request."""
    features, errors = explained.features, explained.standard_error

    def name(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(features, values, strict=True))

    def name_groups(values: Sequence[Any], names: Sequence[str] = explained.group_names) -> dict[str, Any]:
        of_segments = values if explained.segments else [[value] for value in values]
        segments = [*explained.segments] or [ALL_STEPS]
        return {name: dict(zip(segments, of, strict=True)) for name, of in zip(names, of_segments, strict=True)}

    for window in range(len(explained)):
        explanation: Explanation = {
            "instance": first + window,
            "output": explained.output,
            "prediction": float(explained.predictions[window]),
            "baseline_prediction": explained.baseline_prediction,
            "contributions": name(explained.contributions[window].tolist()),
            "residual": float(explained.residual[window]),
            "error": float(explained.error[window]),
            "detail": explained.detail,
            "tolerance": explained.tolerance,
            "converged": bool(explained.converged[window]),
            "path_nodes": int(explained.path_nodes[window]),
            "standard_error": None if errors is None else name(errors[window].tolist()),
        }
        if explained.intervals:
            ends = explained.intervals.items()
            explanation["intervals"] = [
                {"level": level, "lower": float(lower[window]), "upper": float(upper[window])}
                for level, (lower, upper) in ends
            ]
        if explained.usual_width is not None:
            explanation["usual_width"] = explained.usual_width
        if explained.is_grouped:
            explanation["contributions_by_group"] = name_groups(explained.contributions_by_group[window].tolist())
        if detail != "features":
            explanation["steps"] = explained.steps[window].tolist()
        if explained.effects is not None:
            explanation["effects"] = name(_pair_effects(explained.effects, window))
        if explained.effects_by_group is not None:
            explanation["effects_by_group"] = name_groups(_pair_effects(explained.effects_by_group, window))
        if explained.step_effects is not None:
            removed, alone = explained.step_effects.removed, explained.step_effects.alone
            explanation["step_effects"] = {"removed": removed[window].tolist(), "alone": alone[window].tolist()}
        if explained.shapley is not None:
            of_parts = explained.shapley
            explanation["shapley"] = name_groups(of_parts.values[window].tolist(), explained.parts)
            errors_of_parts = of_parts.standard_error[window].tolist()
            explanation["shapley_standard_error"] = name_groups(errors_of_parts, explained.parts)
        if detail in FLOW:
            explanation["layers"] = [_describe_layer(layer, window) for layer in explained.layers]
        yield explanation


def _pair_effects(effects: Effects, window: int) -> Any:
    """Arrays (n, …) of the two effects as lists of pairs."""

    def pair(removed: Any, alone: Any) -> Any:
        return [*map(pair, removed, alone)] if isinstance(removed, list) else {"removed": removed, "alone": alone}

    return pair(effects.removed[window].tolist(), effects.alone[window].tolist())


def _describe_layer(layer: LedgerLayer, window: int) -> LayerContributions:
    described: LayerContributions = {"stage": layer.stage, "layer": layer.layer}  # type: ignore[typeddict-item]
    if layer.nodes is not None:
        described["nodes"] = layer.nodes[window].tolist()
    if layer.values is not None:
        described["values"] = layer.values[window].tolist()
    if layer.edges is not None:  # (n, n_subnodes, n_nodes)
        columns = enumerate(layer.edges[window].T.tolist())
        described["edges"] = [
            {"i": i, "j": j, "contribution": value} for i, column in columns for j, value in enumerate(column)
        ]
        if layer.y is not None:
            for edge, y in zip(described["edges"], layer.y[window].T.ravel().tolist(), strict=True):
                edge["y"] = y
    if layer.inside:
        described["inside"] = True
    if layer.around is not None:
        around = zip(layer.sources, layer.around[window].tolist(), strict=True)
        described["around"] = [{"source": source, "contribution": value} for source, value in around]
    return described


@dataclass(frozen=True)
class ExplainQuestion:
    """A parsed request to explain; members without a comment are as in `ExplainRequest`."""

    served: Served
    windows: Array  # (n, lookback, n_features), original units
    checked: CheckedWindows  # of the request
    outputs: tuple[str, ...]  # or bounds
    detail: Detail
    baseline: Baseline | ReferenceBaselines
    groups: Groups  # empty where none are summed
    segments: attribution.Segments  # likewise
    options: LedgerOptions = field(default_factory=LedgerOptions)  # accuracy of the ledgers
    effects: bool = False
    shapley: Orders | None = None  # random orders for Shapley values; None where they are not asked for
    receipt: bool = False
    progress: bool = False
    trust: bool = False
    adaptation: Mapping[str, Any] | None = None  # that `served` has

    @property
    def total(self) -> int:
        """Number of explanations: one per window and output."""
        return len(self.windows) * len(self.outputs)

    @property
    def batch_key(self) -> tuple[str, bytes]:
        """Equal for questions whose explanations differ in their windows alone."""
        names = ("outputs", "detail", "baseline", "groups", "segments", "options", "effects", "shapley", "adaptation")
        asked = [getattr(self, name) for name in names]
        return self.served.checkpoint, orjson.dumps(asked, option=orjson.OPT_SERIALIZE_NUMPY)

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

    @property
    def n_forecasts(self) -> int:
        """Upper bound of the forecasts for effects and Shapley values, for each window, output and baseline."""
        if self.shapley is None:
            return 2 * self.n_parts
        whole = resolve_groups(self.groups, self.served.model.config.feature_names).whole
        return 2 * self.n_parts + count_forecasts(len(whole) * max(len(self.segments), 1), self.shapley)

    def refuse_costly(self, max_path_nodes: int) -> None:
        """Raises `DataError` if it takes more path nodes without bisection, plus those forecasts."""
        n_baselines = self.baseline.count if isinstance(self.baseline, ReferenceBaselines) else 1
        n_nodes = self.total * n_baselines * (USUAL_NODES + self.n_forecasts)
        if n_nodes > max_path_nodes:
            reason = f"would take {n_nodes} path nodes to explain, of at most {max_path_nodes} (max_path_nodes)"
            others = ", or leave out effects" if self.effects else ""
            others += ", or Shapley values" if self.shapley else ""
            message = f"{reason}: send fewer windows, outputs or baselines at a time{others}"
            raise invalid_value("body", message, "limit_exceeded")


class Explained(NamedTuple):
    """What is computed of a question after a slice of work."""

    done: int  # how many explanations are computed
    explanations: Sequence[Explanation] = ()  # those now ready to be sent, in order; none after most slices
    encoded: Sequence[bytes] = ()  # the same in JSON, where that is wanted


async def compute_explanations(
    question: ExplainQuestion, parts: Parts, deadline: Deadline, encoded: bool
) -> AsyncGenerator[Explained, None]:
    """Yields explanations as they become ready, until the deadline or until the consumer stops.

    A small request goes together with others that wait for the same; of a large one, part after part has its turn.
    Raises as `Compute.submit` and `explain_part`.
    """
    compute, n_bytes = parts.compute, estimate_part(question)
    if question.total <= SMALL and not question.progress:
        found = await compute.submit_together(
            partial(attempt_each, partial(_explain_together, encoded)),
            "explanation",
            deadline,
            item=question,
            size=question.total,
            group=("explain", encoded, question.batch_key),
            most=BATCH_EXPLANATIONS,
            n_bytes=n_bytes,
        )
        yield _observe(found, question, parts)
        return
    for first in range(0, len(question.windows), PART_WINDOWS):
        news: asyncio.Queue[int | asyncio.Future[Explained]] = asyncio.Queue()  # of its slices, then of its end
        put: Callable[..., None] = news.put_nowait
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, put) if question.progress else None
        explain = partial(explain_part, question, first, encoded, tell)
        computing = asyncio.ensure_future(compute.submit(explain, "explanation", deadline, n_bytes=n_bytes))
        computing.add_done_callback(put)
        try:
            while isinstance(done := await news.get(), int):
                yield Explained(done)
            found = await computing
        finally:
            computing.cancel()
        yield _observe(found, question, parts)


def explain_part(
    question: ExplainQuestion, first: int = 0, encoded: bool = False, tell: Callable[[int], object] | None = None
) -> Explained:
    """The explanations of up to `PART_WINDOWS` windows from number `first`, by window and then by output.

    Before each pause, `tell` is called with the number of explanations computed so far. Raises `NonFiniteError` or
    `IncompleteError` if one is not finite, or far from complete.
    """
    model, n_outputs = question.served.model, len(question.outputs)
    windows = question.windows[first : first + PART_WINDOWS]
    asked: dict[str, Any] = {name: getattr(question, name) for name in ("baseline", "groups", "segments", "detail")}
    asked["effects"] = "steps" if question.effects and question.detail != "features" else question.effects
    if question.shapley is not None:
        asked |= {"method": "shapley", "orders": question.shapley.count, "seed": question.shapley.seed}
    by_output: list[Iterator[Explanation]] = []

    def tell_and_pause() -> None:
        if tell is not None:
            tell(first * n_outputs + len(windows) * len(by_output))
        pause()

    for output in question.outputs:
        if by_output:
            tell_and_pause()
        with pausing(tell_and_pause):
            explained = model.explain(windows, output, **asked, **vars(question.options))
        explained.require_completeness(explained.tolerance / question.options.tolerance, first)
        by_output.append(describe_explanation(explained, question.detail, first))
    explanations = [explanation for of_window in zip(*by_output, strict=True) for explanation in of_window]
    with span("encode"):
        lines = list(map(encode_json, explanations)) if encoded else []
    return Explained(first * n_outputs + len(explanations), explanations, lines)


def explain_all(question: ExplainQuestion) -> list[Explanation]:
    """The explanations in order, computed synchronously; raises as `explain_part`."""
    firsts = range(0, len(question.windows), PART_WINDOWS)
    return [one for first in firsts for one in explain_part(question, first).explanations]


def _explain_together(encoded: bool, questions: Sequence[ExplainQuestion]) -> list[Explained]:
    """Explanations of questions that differ in their windows alone."""
    if len(questions) == 1:
        return [explain_part(questions[0], encoded=encoded)]
    windows = [question.windows for question in questions]
    explained, found = iter(explain_part(replace(questions[0], windows=np.concatenate(windows))).explanations), []
    for question, end in zip(questions, accumulate(map(len, windows)), strict=True):
        own = list(islice(explained, question.total))
        for explanation in own:
            explanation["instance"] -= end - len(question.windows)
        found.append(Explained(len(own), own, list(map(encode_json, own)) if encoded else []))
    return found


def _observe(found: Explained, question: ExplainQuestion, parts: Parts) -> Explained:
    for one in found.explanations:
        spreads = one["tolerance"] / question.options.tolerance
        residual = one["residual"] / spreads if spreads else 0.0  # a tolerance of 1e-320 may be 0 in the output's unit
        parts.metrics.observe_explanation(question.served.name, residual, one["converged"])
    return found


def estimate_part(question: ExplainQuestion) -> int:
    """The memory that a part takes while it is computed: its numbers as objects and in JSON, and all coalitions."""
    model, n = question.served.model, min(len(question.windows), PART_WINDOWS)
    config = model.config
    n_numbers = (
        40 + 8 * len(model.levels) + 4 * (len(config.features) + len(question.groups)) * max(len(question.segments), 1)
    )
    n_numbers += 2 * question.n_parts + (prod(config.window_shape) if question.detail != "features" else 0)
    if question.detail in FLOW:
        n_numbers += _count_flow(config)
        if question.detail == "links" and config.recurrent:
            n_numbers += 3 * config.n_readout * max(len(config.features), config.n_steps)
        if (intervals := model.intervals) is not None and set(question.outputs).intersection(model.bounds):
            source, n_levels = intervals.network or model.network, len(intervals.levels)
            n_outputs, n_columns = len(source.config.outputs), 1 + 2 * n_levels  # of at most two layers more
            n_edges = n_outputs * n_columns + (n_outputs + n_columns) * (1 + 3 * n_levels)
            n_numbers += _count_flow(source.config) + 3 * n_edges
    coalitions = 0 if question.shapley is None else question.n_forecasts * (len(config.features) + 8 * n)
    return n * len(question.outputs) * n_numbers * HELD_NUMBER_BYTES + coalitions


def _count_flow(config: ModelConfig) -> int:
    """The numbers of the contributions of all layers, with what names them."""
    layers = chain.from_iterable(config.stages.values())
    around = chain.from_iterable({source for _, source in cut.around} for cut in config.cuts)
    n_units = config.n_readout + sum(part.n_units for part in config.recurrents) + len(config.features)
    n_units += sum(shapes[loop.value][-1] for loop, shapes in zip(config.loops, config.body_shapes, strict=True))
    return 4 * (sum(layer.n_in * layer.n_subnodes + layer.n_in for layer in layers) + sum(1 for _ in around)) + n_units
