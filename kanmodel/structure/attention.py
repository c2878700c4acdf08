"""Attention: the weights of the softmaxes of a graph, beside the contributions, never in their place.

A weight is how much of a value is mixed into another one. It does not say what a forecast is made of: what is mixed may
have no effect, or one of another sign, it may have read other steps, and much flows around it. Other weights can give
the same forecast (Jain and Wallace 2019, arXiv 1902.10186); whether weights explain anything has to be shown for each
model (Wiegreffe and Pinter 2019, arXiv 1908.04626). So they stand beside the contributions of the same steps or
features, with their rank correlation.

A softmax is one of attention if it is multiplied with values. What its keys are is told by where these values stand: a
value stands at the step of the window at which that stands of which it is computed, a state of an LSTM or a GRU at the
step that it follows. What is computed of several steps has no place, and moves nothing that it is added to. In the same
way a value is of a feature, or of a group of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import nan, prod
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kanmodel.arrays import Array
from kanmodel.attribution.explanation import Explanation
from kanmodel.computing import tracked
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import ModelConfig, resolve_groups
from kanmodel.network.operations import Node, Shape
from kanmodel.result import ModelResult, Table, name_window
from kanmodel.structure.importance import rank_correlation
from kanmodel.text import with_unit

NOTE = (
    "Attention weights say how much of each value is mixed, not what the forecast is made of: other weights can give "
    "the same forecast (Jain and Wallace 2019, arXiv 1902.10186), and whether they explain it has to be shown for each "
    "model (Wiegreffe and Pinter 2019, arXiv 1908.04626). The contributions sum to the forecast."
)
NO_PLACE, MIXED = -1, -2  # of what is constant, and of what has several places
GRAPH = -1
LEAST = 3  # keys of known places, from which on there is a correlation
CHUNK = 64  # windows that are computed together
Over = Literal["steps", "features", "unknown"]
Key = tuple[int, int]  # the node of a loop, or GRAPH, and the node of a softmax in its body
Labels = NDArray[np.int64]  # of each value of a node the number of its place, or below 0


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """The weights of one softmax for n windows.

    Attributes:
        name: ``softmax:12``, with the number of its node in the graph, or ``softmax:12:3``, with those of a loop and of
            a node of its body, whose steps are then queries.
        over: what its keys are: ``steps`` of the window, ``features``, which may be groups, or ``unknown``.
        weights: (n, heads, queries, keys); those of a query sum to 1.
        keys: of each key its step, 0 the newest, or the name of its feature; None if it has no place.
        queries: of each query its step, 0 the newest; None likewise.
        contributions: of each key that of its step, over all features, or of its feature, over all steps, (n, keys), in
            the target's unit; NaN where it has no place.
        correlation: rank correlation (Spearman's) of the mean weights of the places and their absolute contributions,
            (n,); NaN of fewer than three places.
    """

    name: str
    over: Over
    weights: Array
    keys: tuple[int | str | None, ...]
    queries: tuple[int | None, ...]
    contributions: Array
    correlation: Array

    @property
    def means(self) -> Array:
        """The weight of each key, the mean over heads and queries, (n, keys)."""
        found: Array = self.weights.mean(axis=(1, 2))
        return found


@dataclass(frozen=True, repr=False, eq=False)
class Attention(ModelResult):
    """The attention weights of n windows beside the contributions of the same windows.

    Attributes:
        softmaxes: each softmax whose weights are multiplied with values, in the order of the computation; empty if
            there is none, as of a chain.
        explanation: the contributions of the features at each step.
        note: why the weights are not the contributions.
    """

    softmaxes: tuple[AttentionWeights, ...]
    explanation: Explanation = field(repr=False)
    note: str = NOTE

    @classmethod
    def of(cls, model: Forecaster, explanation: Explanation) -> Attention:
        """Of the windows of an explanation of a model."""
        assert explanation.windows is not None
        places, found = find_places(model.config), list[AttentionWeights]()
        computed = _compute_softmaxes(model, explanation.windows) if places else {}
        steps = range(1 - model.config.lookback, 1)
        told: dict[str, tuple[Sequence[int | str], Array]] = {
            "steps": (steps, explanation.steps.sum(axis=2)),
            "features": (explanation.parts, explanation.contributions_by_part),
            "unknown": (steps, np.full((len(explanation), len(steps)), np.nan)),
        }
        for (at, node), of in places.items():
            names, contributions = told[of.over]
            weights = computed[at, node].reshape(len(explanation), of.heads, len(of.queries), len(of.keys))
            by_key = np.where(of.keys >= 0, contributions[:, of.keys], np.nan)
            pairs = zip(weights.mean(axis=(1, 2)), by_key, strict=True)
            found.append(
                AttentionWeights(
                    name=f"softmax:{node}" if at == GRAPH else f"softmax:{at}:{node}",
                    over=of.over,
                    weights=weights,
                    keys=tuple(None if place < 0 else names[place] for place in of.keys.tolist()),
                    queries=tuple(None if place < 0 else steps[place] for place in of.queries.tolist()),
                    contributions=by_key,
                    correlation=np.array([_correlate(*pair, of.keys) for pair in pairs]),
                )
            )
        origin, skill, inputs = explanation.origin, explanation.skill, explanation.model_inputs
        return cls(tuple(found), explanation, origin=origin, skill=skill, model_inputs=inputs)

    def __len__(self) -> int:
        return len(self.explanation)

    def __getitem__(self, name: str | int) -> AttentionWeights:
        return self.softmaxes[name] if isinstance(name, int) else {one.name: one for one in self.softmaxes}[name]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window and key of each softmax, with its mean weight and the contribution of its place."""
        rows = []
        for number in range(len(self)):
            named = name_window(number, self.explanation.times, self.explanation.series)
            times = self.explanation.value_times(number)
            at_end = self.explanation.newest.index(max(self.explanation.newest)) if times else 0
            for one in self.softmaxes:
                figures = zip(one.keys, one.means[number].tolist(), one.contributions[number].tolist(), strict=True)
                for place, (key, weight, contribution) in enumerate(figures):
                    row = named | {"softmax": one.name, "over": one.over, "number": place, "key": key}
                    row |= {"key_time": times[key - 1][at_end] if isinstance(key, int) else None} if times else {}
                    rows.append(row | {"weight": weight, "contribution": contribution})
        return rows

    def _title(self) -> str:
        of = with_unit(self.explanation.output, self.explanation.unit)
        return f"Attention weights beside the contributions to {of}"

    def _facts(self) -> dict[str, str]:
        if not self.softmaxes:
            return {"attention": "none: no softmax of this model is multiplied with values"}
        return {"note": self.note, "windows": str(len(self))}

    def _tables(self) -> list[Table]:
        rows = []
        for one in self.softmaxes:
            most = int(one.means.mean(axis=0).argmax())
            key = f"key {most}" if one.keys[most] is None else one.keys[most]
            known = one.correlation[~np.isnan(one.correlation)]
            row = {"softmax": one.name, "over": one.over, "heads": one.weights.shape[1], "queries": len(one.queries)}
            row |= {
                "keys": len(one.keys),
                "most": key,
                "weight": float(one.means[:, most].mean()),
            }
            rows.append(row | {"rank correlation": float(known.mean()) if len(known) else None})
        if not rows:
            return []
        tables = [Table(rows, list(rows[0]), most=len(rows))]
        if len(self) == 1:
            every = [row for row in self.table() if row["over"] != "unknown"]
            columns = [name for name in (every or [{}])[0] if name not in ("window", "over", "number")]
            tables.append(Table(every, columns, "Weight and contribution of each place", in_text=False))
        return tables


@dataclass(frozen=True, eq=False)
class Places:
    """Where what a softmax weighs stands: numbers of steps, the oldest first, or of outermost groups and features.

    Attributes:
        over: what the keys are.
        heads: number of them.
        keys: place of each key; below 0 for none.
        queries: step of each query; below 0 for none.
    """

    over: Over
    heads: int
    keys: Labels
    queries: Labels


def find_places(config: ModelConfig) -> dict[Key, Places]:
    """The softmaxes of a graph that are multiplied with values, by their nodes."""
    bodies = _bodies(config)
    readers = {
        (at, node): [*_find_readers(nodes, shapes, node)]
        for at, (nodes, shapes, _) in bodies.items()
        for node, of in enumerate(nodes)
        if of.op == "softmax"
    }
    if not any(readers.values()):
        return {}
    grouping, numbers = resolve_groups(config.groups, config.feature_names), np.zeros(len(config.features), np.int64)
    for part, whole in enumerate(grouping.whole):
        numbers[list(grouping.members[whole])] = part
    steps = np.repeat(np.arange(config.lookback)[:, None], len(numbers), axis=1)
    of_steps, of_rows = label_values(config, steps), label_values(config, steps, of_rows=True)
    of_features, found = label_values(config, np.broadcast_to(numbers, steps.shape)), dict[Key, Places]()
    for (at, node), own in readers.items():
        if not own:
            continue
        _, shapes, turns = bodies[at]
        gathered = [
            np.stack([_gather(shapes[node], own, labels) for labels in every[at]]) for every in (of_steps, of_features)
        ]
        shape = (*([turns] if at >= 0 else []), *shapes[node])
        by_step, by_feature = (labels.reshape(shape) for labels in gathered)
        queries = _common(np.stack([labels[node] for labels in of_rows[at]]).reshape(shape), -1)
        queries = np.where(queries < 0, _common(by_step, -1), queries)  # the step whose features are weighed
        sizes = [n for n in shape[:-1] if n != 1] or [1]
        is_heads = len(sizes) == 1 < sizes[0] and shape[-2] == 1 and bool((queries < 0).any())  # of one query
        heads = sizes[0] if is_heads and at < 0 else prod(sizes[:-1])
        of_keys = [_common(labels.reshape(-1, shape[-1]), 0) for labels in (by_step, by_feature)]
        over, keys = "unknown", np.full(shape[-1], NO_PLACE)
        for name, of in zip(("features", "steps"), reversed(of_keys), strict=True):
            over, keys = (name, of) if len(np.unique(of[of >= 0])) > 1 else (over, keys)
        found[at, node] = Places(cast(Over, over), heads, keys, _common(queries.reshape(heads, -1), 0))
    return found


def _bodies(config: ModelConfig) -> dict[int, tuple[tuple[Node, ...], tuple[Shape, ...], int]]:
    """The nodes of the graph, by GRAPH, and of the body of each loop, by its node: with shapes and number of steps."""
    of_loops = [number for number, node in enumerate(config.graph) if node.op == "loop"]
    loops = zip(of_loops, config.loops, config.body_shapes, strict=True)
    return {GRAPH: (config.graph, config.graph_shapes, 1)} | {
        number: (loop.body, shapes, loop.steps) for number, loop, shapes in loops
    }


def _correlate(weights: Array, contributions: Array, at: Labels) -> float:
    """The rank correlation of the weights of places, those of several keys summed, and their contributions."""
    places, first, of = np.unique(at, return_index=True, return_inverse=True)
    sums, known = np.bincount(of, weights).astype(np.float64), places >= 0
    if known.sum() < LEAST:
        return nan
    return rank_correlation(sums[known], np.abs(contributions[first])[known])


def _common(labels: Labels, axis: int, keep: bool = False) -> Labels:
    """The label of all that have one, along an axis; MIXED if they differ."""
    none = np.iinfo(np.int64).max
    most = labels.max(axis=axis, keepdims=keep, initial=NO_PLACE)
    least = np.where(labels < 0, none, labels).min(axis=axis, keepdims=keep, initial=none)
    is_mixed = (labels == MIXED).any(axis=axis, keepdims=keep) | ((least < most) & (most >= 0))
    return np.where(is_mixed, MIXED, most)


def _varies(labels: Labels) -> bool:
    return len(np.unique(labels[labels >= 0])) > 1


def _join(labels: Sequence[Labels], shape: Shape) -> Labels:
    """The labels of a result: of those of the operands that have the same places as it, as far as there are any."""
    labels = [of for of in labels if (of != NO_PLACE).any()] or labels
    labels = [of for of in labels if of.size == prod(shape)] or labels
    labels = [of for of in labels if _varies(of)] or labels
    return _common(np.stack([np.broadcast_to(of, shape) for of in labels]), 0)


def _of_rows(labels: Labels) -> Labels:
    """The label of each row, (..., n) -> (..., 1), of those columns that vary by row if any does."""
    columns = labels.reshape(-1, labels.shape[-1])
    varying = np.array([_varies(column) for column in columns.T])
    return _common(labels[..., varying] if varying.any() else labels, -1, keep=True)


def label_values(config: ModelConfig, window: Labels, of_rows: bool = False) -> dict[int, list[list[Labels]]]:
    """The labels of the values of all nodes, from those of the window, (lookback, n_features): as `_bodies`, by step.

    A value has the label of what it is computed of, MIXED if that has several. What is the same at all places, as a
    mean that is subtracted or what does not change in a window, moves none of them. That of a product of matrices is
    of its row and its column, or `of_rows` of the row alone.
    """
    found, loops = dict[int, list[list[Labels]]](), iter(config.loops)
    bodies = _bodies(config)

    def label_loop(number: int, read: Sequence[Labels]) -> Labels:
        loop, turns = next(loops), list[list[Labels]]()
        sequences, fixed, states = loop.split(read)
        for turn in range(loop.steps):
            given = iter([*(of[turn] for of in sequences), *fixed, *states])
            turns.append(_label_nodes(loop.body, bodies[number][1], given, of_rows))
            states = [turns[-1][state] for state in loop.states]
        found[number] = turns
        return np.stack([labels[loop.value] for labels in turns])

    found[GRAPH] = [_label_nodes(config.graph, config.graph_shapes, iter([window]), of_rows, label_loop)]
    return found


def _label_nodes(
    nodes: Sequence[Node],
    shapes: Sequence[Shape],
    given: Iterator[Labels],
    of_rows: bool,
    label_loop: Callable[[int, Sequence[Labels]], Labels] | None = None,
) -> list[Labels]:
    found: list[Labels] = []
    for number, (node, shape) in enumerate(zip(nodes, shapes, strict=True)):
        read = [found[source] for source in node.inputs]
        if node.op in ("window", "given"):
            labels = next(given).reshape(shape)
        elif not read:
            labels = np.full(shape, NO_PLACE)
        elif node.op == "arrange":
            labels = node.arrange([of.ravel() for of in read]).reshape(shape)
        elif node.op == "matmul":
            rows, columns = _of_rows(read[0]), _of_rows(read[1].swapaxes(-1, -2)).swapaxes(-1, -2)
            labels = _join([np.broadcast_to(of, shape) for of in ([rows] if of_rows else [rows, columns])], shape)
        elif node.op in ("layer", "recurrent"):
            labels = np.broadcast_to(_of_rows(read[0]), shape)
        elif node.op == "loop" and label_loop is not None:
            labels = label_loop(number, read)
        else:
            axes = max(of.ndim for of in read)
            labels = _join(read, np.broadcast_shapes(*(of.shape for of in read)))
            labels = labels if axes == len(shape) else _common(labels, -1)
        found.append(labels)
    return found


def _find_readers(nodes: Sequence[Node], shapes: Sequence[Shape], number: int) -> Iterator[tuple[Node, int, Labels]]:
    """Yields each product of a softmax with other values: its node, which operand holds weights, and which these are.

    Weights may be moved before, but not computed with.
    """
    held: dict[int, Labels] = {number: np.arange(prod(shapes[number])).reshape(shapes[number])}
    for at, node in enumerate(nodes):
        inside = [source for source in node.inputs if source in held]
        if inside and node.op == "arrange":
            moved = node.arrange([held.get(s, np.full(shapes[s], NO_PLACE)).ravel() for s in node.inputs])
            if (moved >= 0).any():
                held[at] = moved.reshape(shapes[at])
        elif len(inside) == 1 and node.op in ("mul", "matmul"):
            yield node, node.inputs.index(inside[0]), held[inside[0]]


def _gather(shape: Shape, readers: Sequence[tuple[Node, int, Labels]], labels: Sequence[Labels]) -> Labels:
    """The label of the values that each weight is multiplied with, in the shape of the weights."""
    least, most = np.full(prod(shape), np.iinfo(np.int64).max), np.full(prod(shape), NO_PLACE)
    for node, operand, held in readers:
        values = labels[node.inputs[1 - operand]]
        if node.op == "matmul":
            values = _common(values, -1)[..., None, :] if operand == 0 else _common(values, -2)[..., :, None]
        both = np.broadcast_shapes(held.shape, values.shape)
        places, values = np.broadcast_to(held, both).ravel(), np.broadcast_to(values, both).ravel()
        known = (places >= 0) & (values >= 0)
        np.minimum.at(least, places[known], values[known])
        np.maximum.at(most, places[known], values[known])
    return np.where(least == most, most, NO_PLACE).reshape(shape)


class _Keeping(TorchFunctionMode):
    """Keeps the results of all softmaxes within."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.softmax:
            self.found.append(out)
        return out


def _compute_softmaxes(model: Forecaster, windows: Array) -> dict[Key, Array]:
    """The values of each softmax for windows, original units, by its node, (n, *shape), or (n, steps, *shape)."""
    bodies, order = _bodies(model.config), list[Key]()
    for number, node in enumerate(model.config.graph):
        body, _, turns = bodies[number] if node.op == "loop" else ((), (), 0)
        order += [(GRAPH, number)] if node.op == "softmax" else []
        order += [(number, inner) for inner, of in enumerate(body) if of.op == "softmax"] * turns
    found: dict[Key, list[Array]] = {key: [] for key in order}
    for part in tracked([windows[first : first + CHUNK] for first in range(0, len(windows), CHUNK)]):
        with torch.no_grad(), _Keeping() as keeping:
            model.network.logits(model.to_model_units(part))
        turns_of: dict[Key, list[Tensor]] = {key: [] for key in order}
        for key, values in zip(order, keeping.found, strict=True):
            turns_of[key].append(values.double().expand(len(part), *bodies[key[0]][1][key[1]]))
        for key, every in turns_of.items():
            found[key].append(torch.stack(every, dim=1).numpy())
    return {key: np.concatenate(parts) for key, parts in found.items()}
