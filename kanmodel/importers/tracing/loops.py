"""Recurrences that a module has written as a loop, rolled up again.

A trace has the nodes of each turn of a loop, one after the other. Where nodes repeat, with the same weights and with
what they read shifted by as many, they become the body of a `Loop`: what a turn reads of the one before is its state,
what it reads of elsewhere and changes from turn to turn a sequence, and all else is fixed or a constant of the body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.importers.layers.submodules import Layer, Norm
from kanmodel.importers.tracing.drawing import Drawing
from kanmodel.network.operations import Loop, Node, Shape, runs_of

LEAST_STEPS = 3  # of a loop
LEAST_NODES = 12  # that are rolled up
PERIODS = 64  # distances of repeated nodes that are tried, the most frequent first
TRIES = 32  # runs of repeated nodes that are tried

Elements = NDArray[np.int64]  # (n, 2): node, and place in its values
CONSTANT = ("constant", "number")


class _NoLoopError(Exception):
    """Raised where repeated nodes are no loop."""


def roll_loops(drawing: Drawing, window: Shape) -> Drawing:
    """The drawing with its loops, one after the other, from the longest."""
    while (found := _Roller(drawing, window).roll()) is not None:
        drawing = found
    return drawing


@dataclass
class _Body:
    """The body of a loop in the making: what it is given, by what that is, and its nodes by their place in a turn.

    Nodes read ``(place,)`` or a key of `given`.
    """

    sequences: dict[Any, tuple[Elements, Shape]] = field(default_factory=dict)  # (steps * n, 2), and the shape of each
    fixed: dict[Any, int] = field(default_factory=dict)  # the node outside
    states: dict[int, Elements] = field(default_factory=dict)  # of a place in a turn, its values before the first
    nodes: dict[int, tuple[Node, list[Any], NDArray[np.int64] | None]] = field(default_factory=dict)

    def keep(self, values: Sequence[int]) -> _Body:
        """What some values need, and the states that these need."""
        needed, waiting = set[Any](), [(value,) for value in values]
        while waiting:
            key = waiting.pop()
            if key in needed:
                continue
            needed.add(key)
            if len(key) == 1:
                waiting += self.nodes[key[0]][1]
            elif key[0] == "state":
                waiting.append((key[1],))
        return _Body(
            {key: taken for key, taken in self.sequences.items() if key in needed},
            {key: source for key, source in self.fixed.items() if key in needed},
            {place: begin for place, begin in self.states.items() if ("state", place) in needed},
            {place: node for place, node in self.nodes.items() if (place,) in needed},
        )


class _Roller:
    def __init__(self, drawing: Drawing, window: Shape) -> None:
        self._drawing, self._nodes, self._shapes = drawing, drawing.nodes, drawing.infer_shapes(window)
        self._order = np.array([at for at, node in enumerate(self._nodes) if node.op not in CONSTANT])
        self._keys: dict[int, Any] = {}

    def roll(self) -> Drawing | None:
        """The drawing with the longest loop rolled up; None if there is none."""
        runs = sorted(set(self._find_runs()), key=lambda run: (-run[1] * run[2], run[1], run[0]))
        for start, period, steps in runs[:TRIES]:
            try:
                return self._try(self._order[start : start + period * steps].reshape(steps, period))
            except _NoLoopError:
                continue
        return None

    def _find_runs(self) -> Iterator[tuple[int, int, int]]:
        """Yields start, period and number of steps of nodes that repeat, all but the constants."""
        known: dict[Any, int] = {}
        signs = np.array([known.setdefault(self._signature(at), len(known)) for at in self._order.tolist()])
        last, gaps = dict[int, int](), Counter[int]()
        for at, sign in enumerate(signs.tolist()):
            if sign in last:
                gaps[at - last[sign]] += 1
            last[sign] = at
        for period, _ in gaps.most_common(PERIODS):
            equal = np.concatenate([[False], signs[period:] == signs[:-period], [False]])
            starts, ends = np.flatnonzero(np.diff(equal.astype(np.int8))).reshape(-1, 2).T
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                steps = (end - start) // period + 1
                if steps >= LEAST_STEPS and steps * period >= LEAST_NODES:
                    yield start, period, steps

    def _signature(self, at: int) -> Any:
        """What repeats of a node: all but where it reads values that are no weights, and zeros may be first states."""
        node, drawn = self._nodes[at], self._drawing
        if node.op in ("window", "recurrent", "loop"):
            return at
        weights = () if node.op == "arrange" else tuple(s if self._is_weight(s) else -1 for s in node.inputs)
        return node.op, node.parameter, self._shapes[at], self._key_of(drawn.layers.get(at)), weights

    def _is_weight(self, source: int) -> bool:
        return self._nodes[source].op in CONSTANT and bool(self._drawing.constants[source].any())

    def _key_of(self, layer: Layer | Norm | None) -> Any:
        """The same for layers of the same weights."""
        if not isinstance(layer, Layer):
            return None
        if id(layer) not in self._keys:
            weights = sorted(layer.tensors.items())
            self._keys[id(layer)] = (
                layer.config,
                *(
                    sha256(repr((name, w.shape)).encode() + w.contiguous().numpy().tobytes()).digest()
                    for name, w in weights
                ),
            )
        return self._keys[id(layer)]

    def _try(self, turns: NDArray[np.int64]) -> Drawing:
        """The drawing whose nodes (steps, period) are a loop; raises `_NoLoopError` if they are none."""
        body, where = _Body(), {int(at): (int(t), int(p)) for (t, p), at in np.ndenumerate(turns)}
        for place in range(turns.shape[1]):
            body.nodes[place] = self._read_node(turns[:, place], place, body, where)
        return self._rebuild(turns, body, where)

    def _read_node(
        self, turns: NDArray[np.int64], place: int, body: _Body, where: Mapping[int, tuple[int, int]]
    ) -> tuple[Node, list[Any], NDArray[np.int64] | None]:
        """A node of the body: as in the last turn, what it reads, and of an arrangement the places there."""
        node = self._nodes[turns[-1]]
        if node.op == "arrange":
            elements = np.stack([elements_of(self._nodes[at], self._shapes) for at in turns.tolist()])  # (steps, n, 2)
            return node, *self._read_elements(elements, self._shapes[turns[-1]], body, where)
        sources = np.array([self._nodes[at].inputs for at in turns.tolist()])
        read = []
        for of_turn in sources.T:
            shape = self._shapes[of_turn[-1]]
            size = prod(shape)
            if any(self._shapes[source] != shape for source in of_turn.tolist()):
                raise _NoLoopError
            places = np.arange(size)
            elements = np.stack([np.stack([np.full(size, source), places], axis=1) for source in of_turn.tolist()])
            keys, order = self._read_elements(elements, shape, body, where)
            if len(keys) > 1 or (order is not None and not np.array_equal(order, places)):
                raise _NoLoopError
            read += keys
        return node, read, None

    def _read_elements(
        self, elements: Elements, shape: Shape, body: _Body, where: Mapping[int, tuple[int, int]]
    ) -> tuple[list[Any], NDArray[np.int64] | None]:
        """What the values of all turns (steps, n, 2) are of: keys, and their places in these, one after the other."""
        steps, n, _ = elements.shape
        nodes, inverse = np.unique(elements[..., 0], return_inverse=True)
        of = np.array([where.get(int(node), (-1, -1)) for node in nodes])[inverse.reshape(steps, n)]  # turn, place
        age = np.where(of[..., 0] < 0, -1, np.arange(steps)[:, None] - of[..., 0])  # 0 own turn, 1 the one before
        last = age[-1]
        if (age[1:] != last).any() or (last > 1).any() or (age[0] != np.where(last == 1, -1, last)).any():
            raise _NoLoopError
        inside = last >= 0
        shared = np.concatenate([of[..., 1:], elements[..., 1:]], axis=-1)  # place in the turn, place in the values
        if (shared[1:, inside] != shared[-1, inside]).any() or (shared[0, last == 0] != shared[-1, last == 0]).any():
            raise _NoLoopError
        fixed = ~inside & (elements == elements[-1]).all(axis=(0, 2))
        moving = ~inside & ~fixed
        keys, places, start = list[Any](), np.zeros(n, dtype=np.int64), 0
        if moving.all():
            taken = elements.reshape(-1, 2)
            key = ("sequence", shape, taken.tobytes())
            body.sequences[key] = taken, shape
            return [key], None
        if moving.any():
            taken = elements[:, moving].reshape(-1, 2)
            key = ("sequence", (count := int(moving.sum()),), taken.tobytes())
            body.sequences[key] = taken, (count,)
            keys.append(key)
            places[moving] = np.arange(count)
            start = count
        for source in dict.fromkeys(elements[-1, fixed, 0].tolist()):
            own = fixed & (elements[-1, :, 0] == source)
            body.fixed["fixed", source] = source
            keys.append(("fixed", source))
            places[own] = start + elements[-1, own, 1]
            start += prod(self._shapes[source])
        for is_state, place in sorted(
            {(bool(a), int(p)) for a, p in zip(last[inside], of[-1, inside, 1], strict=True)}
        ):
            own = inside & (of[-1, :, 1] == place) & ((last == 1) == is_state)
            size = prod(self._shapes[elements[-1, own, 0][0]])
            if is_state:
                begin = body.states.setdefault(place, np.full((size, 2), -1))
                known, first = begin[elements[-1, own, 1]], elements[0, own]
                if ((known >= 0) & (known != first)).any():
                    raise _NoLoopError
                begin[elements[-1, own, 1]] = first
            keys.append(("state", place) if is_state else (place,))
            places[own] = start + elements[-1, own, 1]
            start += size
        return keys, places

    def _rebuild(self, turns: NDArray[np.int64], body: _Body, where: Mapping[int, tuple[int, int]]) -> Drawing:
        """The drawing with a node for the loop."""
        first, end = int(turns[0, 0]), int(turns[-1, -1])
        after = [at for at in range(end + 1, len(self._nodes)) if self._nodes[at].op not in CONSTANT]
        read = {source for at in after for source in self._nodes[at].inputs} | {len(self._nodes) - 1}
        values = sorted({where[source][1] for source in read & set(where)})
        body = body.keep(values)
        ops = {node.op for node, *_ in body.nodes.values()}
        if not body.states or not (body.sequences or ops & {"layer", "matmul"}):  # such as a sort
            raise _NoLoopError
        made = _Copy(self._drawing, self._shapes)
        for at, node in enumerate(self._nodes):
            if at < first or node.op in CONSTANT:
                made.copy(at)
        sequences = [made.gather(made.moved(taken), (len(turns), *shape)) for taken, shape in body.sequences.values()]
        fixed = {key: source for key, source in body.fixed.items() if self._nodes[source].op not in CONSTANT}
        states = []
        for state, begin in body.states.items():
            known = begin[:, :1] >= 0
            begin = np.where(known, begin, begin[known[:, 0]][:1])  # those that nothing reads may be any
            states.append(made.gather(made.moved(begin), self._shapes[turns[0, state]]))
        inner, of_place = self._draw_body(turns, body, fixed)
        sizes = [prod(self._shapes[turns[0, value]]) for value in values]
        value, shape = of_place[values[0]], self._shapes[turns[0, values[0]]]
        if len(values) > 1 or not shape:
            value, shape = len(inner.nodes), (sum(sizes),)
            inner.nodes.append(Node("arrange", tuple(of_place[each] for each in values), shape=shape))
        counts = len(sequences), len(fixed)
        loop = Loop(len(turns), *counts, tuple(inner.nodes), tuple(of_place[state] for state in body.states), value)
        inputs = (*sequences, *(made.place[source] for source in fixed.values()), *states)
        number = made.add(Node("loop", inputs), (len(turns), *shape))
        made.drawing.loops[number] = loop, inner
        offsets = dict(zip(values, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        for at, (turn, place) in where.items():
            if at in read:
                made.elements[at] = number, turn * sum(sizes) + offsets[place]
        for at in after:
            made.copy(at)
        if len(self._nodes) - 1 in where:
            made.at(len(self._nodes) - 1)
        return made.drawing.keep(len(made.drawing.nodes) - 1)

    def _draw_body(
        self, turns: NDArray[np.int64], body: _Body, fixed: Mapping[Any, int]
    ) -> tuple[Drawing, dict[int, int]]:
        """The drawing of a body, and the number in it of each place of a turn."""
        given: list[Any] = [*body.sequences, *fixed, *(("state", state) for state in body.states)]
        inner, numbers, of_place = Drawing([Node("given")] * len(given)), {key: at for at, key in enumerate(given)}, {}
        for key, source in body.fixed.items():
            if key not in numbers:
                numbers[key] = len(inner.nodes)
                inner.constants[len(inner.nodes)] = self._drawing.constants[source]
                inner.nodes.append(self._nodes[source])
        for place, (node, keys, order) in body.nodes.items():
            inputs = tuple(of_place[key[0]] if len(key) == 1 else numbers[key] for key in keys)
            if node.op == "arrange":
                runs = () if order is None else runs_of(order)
                node = replace(node, inputs=inputs, runs=runs)
            of_place[place] = len(inner.nodes)
            if (layer := self._drawing.layers.get(int(turns[-1, place]))) is not None:
                inner.layers[len(inner.nodes)] = layer
            inner.nodes.append(replace(node, inputs=inputs))
        return inner, of_place


class _Copy:
    """A drawing that is made from nodes of another.

    Attributes:
        drawing: the one that is made.
        place: the new number of each node that was copied.
        elements: of nodes of the other that are in a loop, the node of that and the place of their first value there.
    """

    def __init__(self, source: Drawing, shapes: Sequence[Shape]) -> None:
        self._source, self._shapes = source, shapes
        self.drawing, self.place, self.elements = Drawing(), dict[int, int](), dict[int, tuple[int, int]]()
        self._sizes: list[int] = []

    def add(self, node: Node, shape: Shape) -> int:
        """Adds a node of a shape, and returns its number."""
        self.drawing.nodes.append(node)
        self._sizes.append(prod(shape))
        return len(self._sizes) - 1

    def at(self, old: int) -> int:
        """The new number of a node; the values of one in a loop are taken from what this gives."""
        if old not in self.place:
            elements = np.stack([np.full(prod(self._shapes[old]), old), np.arange(prod(self._shapes[old]))], axis=1)
            self.place[old] = self.gather(self.moved(elements), self._shapes[old])
        return self.place[old]

    def copy(self, old: int) -> None:
        """Copies a node, with the nodes that it reads at their new numbers."""
        node, source = self._source.nodes[old], self._source
        if node.op == "arrange" and any(each in self.elements for each in node.inputs):
            self.place[old] = self.gather(self.moved(elements_of(node, self._shapes)), self._shapes[old])
            return
        made = self.add(replace(node, inputs=tuple(map(self.at, node.inputs))), self._shapes[old])
        self.place[old] = made
        for name in ("constants", "layers", "recurrents", "loops"):
            if old in getattr(source, name):
                getattr(self.drawing, name)[made] = getattr(source, name)[old]

    def moved(self, elements: Elements) -> Elements:
        """Elements by the new numbers."""
        found = elements.copy()
        for old in np.unique(elements[:, 0]).tolist():
            own = elements[:, 0] == old
            node, first = self.elements[old] if old in self.elements else (self.place[old], 0)
            found[own] = np.stack([np.full(own.sum(), node), elements[own, 1] + first], axis=1)
        return found

    def gather(self, elements: Elements, shape: Shape) -> int:
        """The node that holds elements of the new numbers, in a shape."""
        sources = np.unique(elements[:, 0])
        sizes = [self._sizes[source] for source in sources.tolist()]
        local = elements[:, 1] + np.cumsum([0, *sizes[:-1]])[np.searchsorted(sources, elements[:, 0])]
        runs = () if np.array_equal(local, np.arange(sum(sizes))) else runs_of(local)
        return self.add(Node("arrange", tuple(sources.tolist()), shape=shape, runs=runs), shape)


def elements_of(node: Node, shapes: Sequence[Shape]) -> Elements:
    """The values that an arrangement takes."""
    sizes = [prod(shapes[source]) for source in node.inputs]
    pairs = zip(node.inputs, sizes, strict=True)
    every = np.concatenate([np.stack([np.full(n, source), np.arange(n)], axis=1) for source, n in pairs])
    found: Elements = every[node.indices()] if node.runs else every
    return found
