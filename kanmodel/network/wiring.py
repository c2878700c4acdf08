"""How the parts of a graph are joined: what each reads of the others through the operations between them.

The nodes that are seen of a graph are at places, (kind, number): the features, ``("input", 0)``; the units of recurrent
part r, ``("lstm", r)`` or ``("gru", r)``; what loop n gives, ``("loop", n)``; the inputs of KAN layer k,
``("glue", k)``; its outputs, ``("head", k + 1)``, as in a chain; and the outputs, ``("output", n)``. Each stands for
all rows and steps at which it is. A recurrent part reads ``("steps", r)``, the units of a loop ``("units", n)``. An
input that is copied from another node unchanged is that node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kanmodel.network.operations import READOUTS, Node, Shape, last_uses

if TYPE_CHECKING:
    from kanmodel.network.config import ModelConfig

LayerKey = tuple[str, int]  # (stage, layer)
Place = tuple[str, int]
Flags = NDArray[np.bool_]
Through = Callable[[int, Flags], Flags]  # of a leaf, by its node: of its inputs (n, *shape) -> of its outputs
SPREAD = 1 << 26  # flags that are held together


class Cut(NamedTuple):
    """A layer of a ledger: all values through which everything flows, at a leaf or at the readout of a chain.

    A KAN layer in the body of a loop is listed too, summed over the steps, but is no cut: it is `inside`.
    """

    stage: str  # as a ledger lists it; empty if another stage lists the same nodes
    layer: int  # index within the stage
    at: int | None  # the node at which values are cut, at its inputs if it is a layer; None: edges enter the nodes
    edges: int | None = None  # number of the KAN layer, of all, whose edges leave the nodes
    around: tuple[tuple[int, str], ...] = ()  # further nodes of the cut, each with what it comes from
    inside: bool = False


def list_cuts(config: ModelConfig) -> Iterator[Cut]:
    """Yields the cuts in the order of the computation."""
    if not config.graph:
        depth = len(config.front)
        yield from (Cut("front", number, None, number) for number in range(depth))
        if depth:
            yield Cut("front", depth, None)
        readout = next(number for number, node in enumerate(config.nodes) if node.op in READOUTS)
        yield Cut(config.readout_stage or "", 0, readout)
        yield from (Cut("head", number, None, depth + number) for number in range(len(config.head)))
    origins, last = list[frozenset[str]](), last_uses(config.graph)
    counts = {"layer": 0, "recurrent": 0, "loop": 0}
    for at, node in enumerate(config.graph):
        origin = frozenset[str]().union(*(origins[source] for source in node.inputs))
        if node.op in counts:
            layer, counts[node.op] = counts[node.op], counts[node.op] + 1
            edges, stage = None, node.op
            if node.op == "layer":
                edges, stage = layer, "head"
            elif node.op == "recurrent":
                stage = config.recurrents[layer].cell
            else:
                n_layers, inner = config.loops[layer].n_layers, counts["layer"]
                counts["layer"] += n_layers
                yield from (Cut("head", inner + k, None, inner + k, inside=True) for k in range(n_layers))
            crossing = (other for other in range(at) if last[other] > at and origins[other])
            around = tuple((other, " + ".join(sorted(origins[other]))) for other in crossing)
            yield Cut(stage, layer, at, edges, around)
            origin = frozenset({f"{stage}:{layer}"})
        origins.append(frozenset({"window"}) if node.op == "window" else origin)


class CutValues(NamedTuple):
    """Which values the cuts at nodes hold. What nothing reads between two cuts has one gradient, and is there once.

    Attributes:
        nodes: whose values each is: of a layer's inputs the node that it reads.
        new: of the node of each cut those of the values around it that are not there yet, by their nodes.
        of_cut: of each cut in turn the numbers of its values: its leaf's, then those around it.
    """

    nodes: tuple[int, ...]
    new: Mapping[int, tuple[int, ...]]
    of_cut: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, nodes: Sequence[Node], cuts: Iterable[Cut]) -> CutValues:
        """The values of the cuts of a network's nodes."""
        last_read: dict[int, int] = {}  # the last node so far that reads each
        found, new, of_cut, done = list[int](), dict[int, tuple[int, ...]](), list[tuple[int, ...]](), 0
        known: dict[int, tuple[int, int]] = {}  # of a node the number of its latest value, and the cut that made it
        for cut in cuts:
            if cut.at is None:
                continue
            for number in range(done, cut.at + 1):
                last_read |= dict.fromkeys(nodes[number].inputs, number)
            done, numbers, added = cut.at + 1, [len(found)], list[int]()
            found.append(cut.at if cut.edges is None else nodes[cut.at].inputs[0])
            if cut.edges is None:
                known[cut.at] = numbers[0], cut.at
            for other, _ in cut.around:
                if other not in known or last_read.get(other, 0) > known[other][1]:
                    known[other] = len(found), cut.at
                    found.append(other)
                    added.append(other)
                numbers.append(known[other][0])
            new[cut.at] = tuple(added)
            of_cut.append(tuple(numbers))
        return cls(tuple(found), new, tuple(of_cut))


@dataclass(frozen=True)
class Wiring:
    """The nodes of a network and what joins them.

    Attributes:
        ids: of the nodes at each place, in the order of the computation. An input of a layer that copies a node has the
            id of that; a node that is an output, and nothing else, has the id of the output.
        rows: KAN layers that follow each other directly: the stages of a chain.
        reads: the place of the nodes that each KAN layer reads.
        links: for each place of a graph that reads, the places that it reads of, with what reads what, (n_reading,
            n_read).
        levels: how far each kind and number of nodes of a graph is from the features, in parts on the longest way.
        read: of the states of each recurrent part and loop of a graph those that anything reads, in their shape.
    """

    ids: Mapping[Place, tuple[str, ...]]
    rows: tuple[tuple[LayerKey, ...], ...]
    reads: Mapping[LayerKey, Place]
    links: Mapping[Place, Mapping[Place, Flags]] = field(default_factory=dict)
    levels: Mapping[Place, int] = field(default_factory=dict)
    read: Mapping[Place, Flags] = field(default_factory=dict)

    @classmethod
    def of(cls, config: ModelConfig) -> Wiring:
        """The wiring of a config."""
        if config.graph:
            return _Finder(config).find()
        rows = tuple(tuple((stage, n) for n in range(len(layers))) for stage, layers in config.stages.items())
        return cls(_name_chain(config), rows, {key: key for row in rows for key in row})


def _name_chain(config: ModelConfig) -> dict[Place, tuple[str, ...]]:
    """The ids of a chain: layer l of a stage reads the nodes at (stage, l) and sets those at (stage, l + 1)."""
    ids: dict[Place, tuple[str, ...]] = {}
    nodes = tuple(f"feature:{name}" for name in config.feature_names)
    for stage, layers in config.stages.items():
        if stage == "head" and (kind := config.readout_stage) is not None:
            values = config.feature_names if config.has_plain_steps else range(config.n_units)
            steps = range(1 - config.lookback, 1)
            cells = tuple(f"cell:{step}:{value}" for step in steps for value in values) if kind == "cell" else ()
            nodes = cells or tuple(f"{kind}:{unit}" for unit in range(config.n_readout))
        ids[stage, 0] = nodes
        for number, layer in enumerate(layers, start=1):
            nodes = ids[stage, number] = tuple(f"{stage}:{number}:{node}" for node in range(layer.n_out))
    if config.output_function is None:
        ids["head", len(config.head)] = tuple(f"output:{name}" for name in config.outputs)
    return ids


class Inlined(NamedTuple):
    """A node of a graph, or of the body of a loop, which is inlined before the node of the loop."""

    node: Node
    inputs: tuple[int, ...]  # numbers among all of these; of a loop the value of its body
    shape: Shape
    back: int | None = None  # of a state, what it is after a step: the loop if that is what the loop gives


def inline(config: ModelConfig) -> list[Inlined]:
    """The nodes of a config's graph with those of the bodies of its loops, in the order of the computation."""
    found, at = list[Inlined](), list[int]()  # the place of each node of the graph
    loops = iter(zip(config.loops, config.body_shapes, strict=True))
    for node, shape in zip(config.nodes, config.graph_shapes, strict=True):
        inputs = tuple(at[source] for source in node.inputs)
        if node.op == "loop":
            loop, shapes = next(loops)
            first, feedback = len(found), loop.feedback
            for number, (one, own) in enumerate(zip(loop.body, shapes, strict=True)):
                read = (inputs[number],) if one.op == "given" else tuple(first + source for source in one.inputs)
                after = feedback.get(number)
                is_value = after == loop.value
                back = None if after is None else first + (len(loop.body) if is_value else after)
                found.append(Inlined(one, read, own, back))
            inputs = (first + loop.value,)
        at.append(len(found))
        found.append(Inlined(node, inputs, shape))
    return found


def find_window(config: ModelConfig) -> int:
    """The number of the node that is the window."""
    return next(number for number, each in enumerate(config.inlined) if each.node.op == "window")


def leaves_of(config: ModelConfig) -> Iterator[tuple[int, Place, Place]]:
    """Yields node, place of the inputs and place of the outputs of each leaf and loop, as inlined in their order."""
    counts = {"layer": 0, "recurrent": 0, "loop": 0}
    for number, each in enumerate(config.inlined):
        if each.node.op not in counts:
            continue
        k = counts[each.node.op]
        counts[each.node.op] += 1
        if each.node.op == "layer":
            yield number, ("glue", k), ("head", k + 1)
        elif each.node.op == "recurrent":
            yield number, ("steps", k), (config.recurrents[k].cell, k)
        else:
            yield number, ("units", k), ("loop", k)


def spread(config: ModelConfig, start: int, through: Through | None) -> Iterator[list[Flags | None]]:
    """Yields what depends on the units of node `start`, on its last axis, through the operations of a graph.

    Nodes are `inline`d. For some of the units at a time it is a list by node of flags (n_units, *shape); None where
    nothing depends on them. `through` is what depends on the inputs of a leaf; None if nothing does, nor a loop.
    """
    nodes = config.inlined
    n, at_once = nodes[start].shape[-1], max(1, SPREAD // sum(prod(each.shape) for each in nodes))
    for first in range(0, n, at_once):
        units = np.arange(first, min(first + at_once, n))
        begin = np.zeros((len(units), *nodes[start].shape), dtype=np.bool_)
        begin[np.arange(len(units)), ..., units] = True
        found: list[Flags | None] = [None] * len(nodes)
        found[start] = begin
        while True:  # once more where a state depends on what depends on it
            states = {each.back: found[each.back] for each in nodes if each.back is not None}
            for number in range(len(nodes)):
                if number != start:
                    found[number] = _spread_to(number, nodes, found, through, len(units))
            if all(_same(before, found[state]) for state, before in states.items()):
                break
        yield found


def _same(one: Flags | None, other: Flags | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def _spread_to(
    number: int, nodes: Sequence[Inlined], found: Sequence[Flags | None], through: Through | None, n: int
) -> Flags | None:
    """What of a node depends on what is `found` to; None if nothing does."""
    each = nodes[number]
    sources = each.inputs if each.back is None else (*each.inputs, each.back)
    read = [found[source] for source in sources]
    if all(flags is None for flags in read) or (through is None and each.node.op == "loop"):
        return None
    if each.node.op in ("layer", "recurrent"):
        return None if through is None or read[0] is None else through(number, read[0])
    if each.node.op in ("given", "loop"):
        flags = [_at_step(one, each.shape) for one in read if one is not None]
        either: Flags = np.broadcast_to(np.logical_or.reduce(flags), (n, *each.shape))
        return either
    given = [
        np.zeros((n, *nodes[source].shape), dtype=np.bool_) if flags is None else flags
        for source, flags in zip(each.inputs, read, strict=True)
    ]
    return _depend(each.node, given, each.shape)


def _at_step(flags: Flags, shape: Shape) -> Flags:
    """Flags of all steps of a sequence, or of what a loop gives, for a value of one; others as they are."""
    found: Flags = np.asarray(flags.any(axis=1)) if flags.ndim > len(shape) + 1 else flags
    return found if found.ndim > len(shape) else found[:, None]


def _depend(node: Node, read: Sequence[Flags], shape: Shape) -> Flags:
    """What of an operation's result depends on its flagged inputs, (n, *shape) each."""
    n = len(read[0])
    if node.op == "arrange":
        return node.arrange([flags.reshape(n, -1) for flags in read]).reshape(n, *shape)
    if node.op == "matmul":
        rows, columns = np.any(read[0], axis=-1, keepdims=True), np.any(read[1], axis=-2, keepdims=True)
        either: Flags = rows | columns
        return either
    if node.op == "softmax":
        return np.broadcast_to(read[0].any(axis=-1, keepdims=True), read[0].shape)
    if node.op.startswith("quantile_"):
        read = [np.asarray(flags.any(axis=-1)) for flags in read]  # of all components
    elif len(read) == 1:
        return np.asarray(read[0].any(axis=-1)) if read[0].ndim > len(shape) + 1 else read[0]
    either = np.zeros((n, *shape), dtype=np.bool_)
    for flags in read:
        either |= flags.reshape(n, *(1,) * (len(shape) + 1 - flags.ndim), *flags.shape[1:])
    return either


class _Finder:
    """Finds the wiring of a graph."""

    def __init__(self, config: ModelConfig) -> None:
        self.config, self.nodes, self.leaves = config, config.inlined, [*leaves_of(config)]
        self.shapes = [each.shape for each in self.nodes]
        self.sources: dict[int, Place] = {find_window(config): ("input", 0)} | {
            node: out for node, _, out in self.leaves
        }
        self.reading: dict[Place, int] = {into: self.nodes[node].inputs[0] for node, into, _ in self.leaves}
        self.output = ("output", len(config.head))
        self.reading[self.output] = len(self.nodes) - 1
        self.copied = self._copies()
        self.links = self._links()
        self.outside = {("input", 0): tuple(f"feature:{name}" for name in config.feature_names)}
        self.outside[self.output] = tuple(f"output:{name}" for name in config.outputs)

    def find(self) -> Wiring:
        ids, config = dict(self.outside), self.config
        for node, _, out in self.leaves:
            kind, number = out
            ids[out] = tuple(f"{kind}:{number}:{unit}" for unit in range(self.shapes[node][-1]))
        if config.output_function is None:
            self._name_outputs(ids)
        for _, into, _ in self.leaves:
            if into[0] == "glue":
                ids[into] = self._name_inputs(into, ids)
        order = [("input", 0), *(place for _, *both in self.leaves for place in both if place in ids), self.output]
        ids = {place: ids[place] for place in order}
        rows = tuple(tuple(("head", number) for number in row) for row in self._rows())
        reads = {("head", number): ("glue", number) for number in range(len(config.head))}
        return Wiring(ids, rows, reads, self.links, self._levels(ids), self._read())

    def _copies(self) -> list[NDArray[np.int64]]:
        """Of each value of each node the value of a leaf or the window that it copies, by a number; -1 for none."""
        copied: list[NDArray[np.int64]] = []
        self.first: dict[int, int] = {}  # number of the first value of each source
        n = 0
        for number, (node, inputs, shape, _) in enumerate(self.nodes):
            size = prod(shape)
            if number in self.sources:
                self.first[number] = n
                copied.append(np.arange(n, n + size))
                n += size
            elif node.op == "arrange":
                copied.append(node.arrange([copied[source] for source in inputs]))
            else:
                copied.append(np.full(size, -1))
        return copied

    def _links(self) -> dict[Place, dict[Place, Flags]]:
        links: dict[Place, dict[Place, Flags]] = {place: {} for place in self.reading}
        for source, place in self.sources.items():
            columns: dict[Place, list[Flags]] = {into: [] for into in self.reading}
            for found in spread(self.config, source, None):
                for into, node in self.reading.items():
                    flags, width = found[node], (self.shapes[node] or (1,))[-1]
                    n = next(len(each) for each in found if each is not None)
                    reached = np.zeros((n, 1, width), dtype=np.bool_) if flags is None else flags.reshape(n, -1, width)
                    columns[into].append(np.asarray(reached.any(axis=1)))
            for into, parts in columns.items():
                reads = np.concatenate(parts).T
                if into == self.output and self.config.output_function == "softmax":
                    reads = np.broadcast_to(reads.any(axis=0), reads.shape)
                if reads.any():
                    links[into][place] = reads
        return links

    def _origin(self, values: NDArray[np.int64]) -> tuple[int, int, NDArray[np.int64]] | None:
        """The source and its unit that all of some values copy, with their places in the source; None if none is."""
        if (values < 0).any():
            return None
        source = max(number for number, first in self.first.items() if first <= values.min())
        within = values - self.first[source]
        unit = within % self.shapes[source][-1]
        if within.max() >= prod(self.shapes[source]) or (unit != unit[0]).any():
            return None
        return source, int(unit[0]), within

    def _name_inputs(self, into: Place, ids: Mapping[Place, tuple[str, ...]]) -> tuple[str, ...]:
        node = self.reading[into]
        columns = self.copied[node].reshape(-1, self.shapes[node][-1]).T
        names: list[str] = []
        for number, values in enumerate(columns):
            own, origin = f"glue:{into[1]}:{number}", self._origin(values)
            if origin is None:
                names.append(own)
                continue
            source, unit, within = origin
            name = ids[self.sources[source]][unit]
            if self.sources[source] == ("input", 0) and (within == within[0]).all():
                step = int(within[0]) // len(self.config.features) - self.config.lookback + 1
                name = name.replace("feature:", f"cell:{step}:", 1)
            names.append(name)
        of_steps = all(name.startswith("feature:") for name in names)  # a layer that is applied to each step
        return tuple(
            name
            if names.count(name) == 1 and (of_steps or not name.startswith("feature:"))
            else f"glue:{into[1]}:{number}"
            for number, name in enumerate(names)
        )

    def _name_outputs(self, ids: dict[Place, tuple[str, ...]]) -> None:
        """Gives nodes that are an output, and nothing else, its id."""
        last = self.reading[self.output]
        for output, value in enumerate(self.copied[last]):
            origin = self._origin(value[None])
            if origin is None or (self.copied[last] == value).sum() > 1:
                continue
            source, unit, _ = origin
            place, read = self.sources[source], 0
            for reading in self.links.values():
                read += int(reading[place][:, unit].sum()) if place in reading else 0
            if place[0] == "head" and read == 1 and prod(self.shapes[source][:-1]) == 1:
                names = [*ids[place]]
                names[unit] = ids[self.output][output]
                ids[place] = tuple(names)

    def _rows(self) -> tuple[tuple[int, ...], ...]:
        rows: list[list[int]] = []
        layers = {out: node for node, _, out in self.leaves if out[0] == "head"}
        for into, node in self.reading.items():
            if into[0] != "glue":
                continue
            before = next(iter(self.links[into]), None)
            readers = [place for place, read in self.links.items() if before in read]
            if before in layers and len(self.links[into]) == 1 and readers == [into]:
                source = layers[before]
                whole = np.arange(prod(self.shapes[source])) + self.first[source]
                if np.array_equal(self.copied[node], whole):
                    next(row for row in rows if row[-1] == before[1] - 1).append(into[1])
                    continue
            rows.append([into[1]])
        return tuple(map(tuple, rows))

    def _levels(self, ids: Mapping[Place, tuple[str, ...]]) -> dict[Place, int]:
        levels: dict[Place, int] = {("input", 0): 0}
        for _, into, out in self.leaves:
            read = max((levels[place] for place in self.links[into] if place in levels), default=0)  # not of a loop
            kinds = {name.split(":", 1)[0] for name in ids.get(into, ())}
            if "cell" in kinds:
                levels["cell", 0], read = 1, max(read, 1)
            if "glue" in kinds:
                levels[into] = read = read + 1
            levels[out] = read + 1
        for place in self.links[self.output]:
            is_output = all(name.startswith("output:") for name in ids[place])
            levels[self.output] = max(levels.get(self.output, 0), levels[place] + (not is_output))
        return levels

    def _read(self) -> dict[Place, Flags]:
        """The states of each recurrent part, and of those that a loop gives, which an operation or a leaf takes."""
        read: dict[Place, Flags] = {}
        for source, _, place in self.leaves:
            if place[0] == "head":
                continue
            taken = np.zeros(prod(self.shapes[source]), dtype=np.bool_)
            for node, inputs, *_ in self.nodes:
                if source in inputs and not node.runs:
                    taken[:] = True
                first = 0
                for one in inputs if node.runs else ():
                    end = first + prod(self.shapes[one])
                    if one == source:
                        within = node.indices()
                        taken[within[(within >= first) & (within < end)] - first] = True
                    first = end
            taken[:] |= source == len(self.nodes) - 1
            read[place] = taken.reshape(self.shapes[source])
        return read
