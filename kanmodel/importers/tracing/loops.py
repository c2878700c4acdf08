"""Recurrences that a module has written as a loop, rolled up again.

A trace has the nodes of each turn of a loop, one after the other. Where nodes repeat, with the same weights and with
what they read shifted by as many, they become the body of a `Loop`: what a turn reads of the one before is its state,
what it reads of elsewhere and changes from turn to turn a sequence, and all else is fixed or a constant of the body.
What a node reads is followed value by value through arrangements, which are made anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kanmodel.importers.layers.submodules import Layer, Norm
from kanmodel.importers.tracing.drawing import Drawing
from kanmodel.network.operations import Loop, Node, Shape, runs_of

LEAST_STEPS = 3  # of a loop
LEAST_NODES = 8  # that are rolled up
PERIODS = 64  # distances of repeated nodes that are tried, the most frequent first
TRIES = 32  # runs of repeated nodes that are tried
CONSTANT = ("constant", "number")

Elements = NDArray[np.int64]  # (n, 2): node, and place in its values
Where = Mapping[int, tuple[int, int]]  # turn of the loop, and place in the turn, of each of its nodes


class _NoLoopError(Exception):
    """Raised where repeated nodes are no loop."""


def roll_loops(drawing: Drawing) -> Drawing:
    """The drawing with its loops, one after the other, from the longest."""
    while (found := _Roller(drawing).roll()) is not None:
        drawing = found
    return drawing


class _Read(NamedTuple):
    """What a node reads at an input, of the values of keys, one after the other."""

    keys: list[Any]
    runs: tuple[tuple[int, int, int], ...] | None  # as of an arrangement; None for what the only key is
    shape: Shape


@dataclass
class _Body:
    """The body of a loop in the making: what it is given, by a key that says what it is, and its nodes by their place.

    A node reads ``(place,)`` of its turn, ``("state", place)`` of the turn before, or a key of what is given.
    """

    sequences: dict[Any, tuple[Elements, Shape]] = field(default_factory=dict)  # of all turns, and the shape in each
    fixed: dict[Any, int] = field(default_factory=dict)  # the node outside
    states: dict[int, Elements] = field(default_factory=dict)  # of a place, its values before the first turn
    reads: dict[int, list[_Read]] = field(default_factory=dict)

    def keep(self, values: Sequence[int]) -> _Body:
        """What some values need, and the states that these need."""
        needed, waiting = set[Any](), list[Any]((value,) for value in values)
        while waiting:
            key = waiting.pop()
            if key in needed:
                continue
            needed.add(key)
            if len(key) == 1:
                waiting += [key for read in self.reads[key[0]] for key in read.keys]
            elif key[0] == "state":
                waiting.append((key[1],))
        return _Body(
            {key: taken for key, taken in self.sequences.items() if key in needed},
            {key: source for key, source in self.fixed.items() if key in needed},
            {place: begin for place, begin in self.states.items() if ("state", place) in needed},
            {place: reads for place, reads in self.reads.items() if (place,) in needed},
        )


class _Roller:
    """A drawing whose longest loop is rolled up."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing, self._nodes, self.shapes = drawing, drawing.nodes, drawing.shapes
        self._order = np.array([at for at, node in enumerate(self._nodes) if node.op not in (*CONSTANT, "arrange")])
        self._layers: dict[int, Any] = {}
        self._elements: dict[int, Elements] = {}

    def roll(self) -> Drawing | None:
        """The drawing with a node for the loop; None if there is none."""
        runs = sorted(set(self._find_runs()), key=lambda run: (-run[1] * run[2], run[1], run[0]))
        for start, period, steps in runs[:TRIES]:
            try:
                return self._try(self._order[start : start + period * steps].reshape(steps, period))
            except _NoLoopError:
                continue
        return None

    def _find_runs(self) -> Iterator[tuple[int, int, int]]:
        """Yields start, period and number of steps of nodes that repeat, but for constants and arrangements."""
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
        """What must be equal of nodes that repeat: the operation, shapes and weights; zeros may be first states."""
        node = self._nodes[at]
        if node.op in ("window", "recurrent", "loop"):
            return at
        read = tuple(source if self._is_weight(source) else self.shapes[source] for source in node.inputs)
        return node.op, node.parameter, self.shapes[at], self._key_of(self.drawing.layers.get(at)), read

    def _is_weight(self, source: int) -> bool:
        return self._nodes[source].op in CONSTANT and bool(self.drawing.constants[source].any())

    def _key_of(self, layer: Layer | Norm | None) -> Any:
        """The same for layers of the same weights."""
        if not isinstance(layer, Layer):
            return None
        if id(layer) not in self._layers:
            digest = sha256()
            for name, weight in sorted(layer.tensors.items()):
                digest.update(f"{name}{list(weight.shape)}".encode() + weight.contiguous().numpy().tobytes())
            self._layers[id(layer)] = layer.config, digest.digest()
        return self._layers[id(layer)]

    def _try(self, turns: NDArray[np.int64]) -> Drawing:
        """The drawing whose nodes (steps, period) are a loop; raises `_NoLoopError` if they are none."""
        body, where = _Body(), {int(at): (int(t), int(p)) for (t, p), at in np.ndenumerate(turns)}
        for place in range(turns.shape[1]):
            sources = np.array([self._nodes[at].inputs for at in turns[:, place].tolist()]).T
            body.reads[place] = [self._read(each.tolist(), body, where) for each in sources]
        first, end = int(turns[0, 0]), int(turns[-1, -1])
        after = [at for at in range(end + 1, len(self._nodes)) if self._nodes[at].op not in (*CONSTANT, "arrange")]
        left = {*(source for at in after for source in self._nodes[at].inputs), len(self._nodes) - 1}
        read_after = {int(at) for source in left for at in np.unique(self.elements_of(source)[:, 0])} & set(where)
        body = body.keep(values := sorted({where[at][1] for at in read_after}))
        ops = {self._nodes[turns[-1, place]].op for place in body.reads}
        if not body.states or not (body.sequences or ops & {"layer", "matmul"}):  # such as a sort
            raise _NoLoopError
        made = _Copy(self)
        for at, node in enumerate(self._nodes):
            if at < first or node.op in CONSTANT:
                made.copy(at)
        loop, inner, inputs = self._make_loop(turns, body, values, made)
        sizes = [prod(self.shapes[turns[0, value]]) for value in values]
        number = made.drawing.add(Node("loop", inputs), (loop.steps, *inner.shapes[loop.value]))
        made.drawing.loops[number] = loop, inner
        offsets = dict(zip(values, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        for at in read_after:
            turn, place = where[at]
            made.moves[at] = number, turn * sum(sizes) + offsets[place]
        for at in after:
            made.copy(at)
        return made.drawing.keep(made.place_of(len(self._nodes) - 1))

    def _read(self, sources: Sequence[int], body: _Body, where: Where) -> _Read:
        """What the nodes at an input, one of each turn, are of; raises `_NoLoopError` if it is not the same in each."""
        shape, steps = self.shapes[sources[-1]], len(sources)
        if any(self.shapes[source] != shape for source in sources):
            raise _NoLoopError
        elements = np.stack([self.elements_of(source) for source in sources])  # (steps, n, 2)
        nodes, inverse = np.unique(elements[..., 0], return_inverse=True)
        found = np.array([where.get(int(node), (-1, -1)) for node in nodes])[inverse.reshape(elements.shape[:2])]
        turn, place = found[..., 0], found[..., 1]
        age = np.where(turn < 0, -1, np.arange(steps)[:, None] - turn)  # 0 of the own turn, 1 of the one before
        last = age[-1]
        if (age[1:] != last).any() or (last > 1).any() or (age[0] != np.where(last == 1, -1, last)).any():
            raise _NoLoopError
        own, before = last == 0, last == 1
        within = np.stack([place, elements[..., 1]], axis=-1)
        if (within[1:, own | before] != within[-1, own | before]).any() or (within[0, own] != within[-1, own]).any():
            raise _NoLoopError
        fixed = (last < 0) & (elements == elements[-1]).all(axis=(0, 2))
        parts = list[tuple[Any, NDArray[np.bool_], NDArray[np.int64], Shape]]()  # keys, and which values are of each
        if (changes := (last < 0) & ~fixed).any():
            own_shape = shape if changes.all() else (int(changes.sum()),)
            taken = elements[:, changes].reshape(-1, 2)
            key: Any = "sequence", own_shape, taken.tobytes()
            body.sequences[key] = taken, own_shape
            parts.append((key, changes, np.arange(changes.sum()), own_shape))
        for those in (fixed, own, before):
            for at in np.unique(elements[-1, those, 0]).tolist():
                chosen = those & (elements[-1, :, 0] == at)
                of, number = elements[-1, chosen, 1], where.get(at, (0, at))[1]
                if those is fixed:
                    body.fixed["fixed", at] = at
                elif those is before:
                    begin = body.states.setdefault(number, np.full((prod(self.shapes[at]), 2), -1))
                    if ((begin[of] >= 0) & (begin[of] != elements[0, chosen])).any():
                        raise _NoLoopError
                    begin[of] = elements[0, chosen]
                key = (number,) if those is own else ("fixed" if those is fixed else "state", number)
                parts.append((key, chosen, of, self.shapes[at]))
        places, n = np.zeros(elements.shape[1], dtype=np.int64), 0
        for _, chosen, of, own_shape in parts:
            places[chosen] = n + of
            n += prod(own_shape)
        in_order = np.array_equal(places, np.arange(n))
        is_key = in_order and len(parts) == 1 and parts[0][3] == shape
        return _Read([key for key, *_ in parts], None if is_key else () if in_order else runs_of(places), shape)

    def elements_of(self, source: int) -> Elements:
        """The values of a node, of an arrangement those that it takes, (n, 2)."""
        if source not in self._elements:
            node, size = self._nodes[source], prod(self.shapes[source])
            found = np.stack([np.full(size, source), np.arange(size)], axis=1)
            if node.op == "arrange":
                found = node.arrange([self.elements_of(each) for each in node.inputs], axis=0)
            self._elements[source] = found
        return self._elements[source]

    def _make_loop(
        self, turns: NDArray[np.int64], body: _Body, values: Sequence[int], made: _Copy
    ) -> tuple[Loop, Drawing, tuple[int, ...]]:
        """A loop that gives the values at some places, the drawing of its body, and the nodes that it reads."""
        fixed = {key: source for key, source in body.fixed.items() if self._nodes[source].op not in CONSTANT}
        inner, number = Drawing(), dict[Any, int]()
        of_given = {key: shape for key, (_, shape) in body.sequences.items()}
        of_given |= {key: self.shapes[source] for key, source in fixed.items()}
        of_given |= {("state", state): self.shapes[turns[0, state]] for state in body.states}
        for key, shape in of_given.items():
            number[key] = inner.add(Node("given"), shape)

        def input_of(read: _Read) -> int:
            inputs = tuple(number[key] for key in read.keys)
            if read.runs is None:
                return inputs[0]
            return inner.add(Node("arrange", inputs, shape=read.shape, runs=read.runs), read.shape)

        for key, source in body.fixed.items():
            if key not in number:
                number[key] = inner.copy(self.drawing, source, ())
        for place, reads in body.reads.items():
            number[(place,)] = inner.copy(self.drawing, int(turns[-1, place]), tuple(map(input_of, reads)))
        value = number[(values[0],)]
        if len(values) > 1 or not self.shapes[turns[0, values[0]]]:
            size = sum(prod(self.shapes[turns[0, each]]) for each in values)
            value = inner.add(Node("arrange", tuple(number[(each,)] for each in values), shape=(size,)), (size,))
        inputs = [made.gather(taken, (len(turns), *shape)) for taken, shape in body.sequences.values()]
        inputs += [made.place_of(source) for source in fixed.values()]
        for state, begin in body.states.items():
            known = begin[:, :1] >= 0
            of_any = np.where(known, begin, begin[known[:, 0]][:1])  # what nothing reads may be any value
            inputs.append(made.gather(of_any, self.shapes[turns[0, state]]))
        states = tuple(number[(state,)] for state in body.states)
        loop = Loop(len(turns), len(body.sequences), len(fixed), tuple(inner.nodes), states, value)
        return loop, inner, tuple(inputs)


class _Copy:
    """A drawing that is made of the nodes of another, by numbers of these.

    Attributes:
        drawing: the one that is made.
        moves: of nodes that are in a loop now, the number of that and the place of their first value there.
    """

    def __init__(self, roller: _Roller) -> None:
        self._roller = roller
        self.drawing, self.moves = Drawing(), dict[int, tuple[int, int]]()
        self._place: dict[int, int] = {}

    def place_of(self, old: int) -> int:
        """The number of a node; an arrangement that was not copied, or one of a loop, is gathered."""
        if old not in self._place:
            self._place[old] = self.gather(self._roller.elements_of(old), self._roller.shapes[old])
        return self._place[old]

    def copy(self, old: int) -> None:
        """Copies a node, with the nodes that it reads."""
        source = self._roller.drawing
        self._place[old] = self.drawing.copy(source, old, tuple(map(self.place_of, source.nodes[old].inputs)))

    def gather(self, elements: Elements, shape: Shape) -> int:
        """The number of a node that holds elements in a shape."""
        moved = elements.copy()
        for old in np.unique(elements[:, 0]).tolist():
            own = elements[:, 0] == old
            moved[own, 0], first = self.moves[old] if old in self.moves else (self._place[old], 0)
            moved[own, 1] += first
        sources = np.unique(moved[:, 0])
        sizes = [prod(self.drawing.shapes[source]) for source in sources.tolist()]
        local = moved[:, 1] + np.cumsum([0, *sizes[:-1]])[np.searchsorted(sources, moved[:, 0])]
        runs = () if np.array_equal(local, np.arange(sum(sizes))) else runs_of(local)
        return self.drawing.add(Node("arrange", tuple(sources.tolist()), shape=shape, runs=runs), shape)
