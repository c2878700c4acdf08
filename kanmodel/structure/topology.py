"""`Topology`: the network as a graph, with the contributions, scores and profiles of its parts, and what pruning keeps.

A product node has a sub-node for each factor, which an edge of kind ``product`` connects with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import tanh
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.profiles import Lags, describe_lags, find_lags, node_values
from kanmodel.errors import UnknownNameError, quote
from kanmodel.forecaster import Forecaster
from kanmodel.network import connections as structure
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.connections import NodeKind, node_id, subnode_id
from kanmodel.network.network import LayerKey, Trace
from kanmodel.result import GlobalResult, Pictured, Table
from kanmodel.structure.curves import Edge, sample_edges
from kanmodel.structure.edges import EdgeKind, TopologyEdge, network_edges, refuse_outside
from kanmodel.structure.importance import Importance, spread_intervals
from kanmodel.structure.names import NodeNames
from kanmodel.structure.pruning import Fidelity, Pruning, PruningRule, prune_by_rule
from kanmodel.structure.scores import MIN_INPUTS, Score, Scores, score_rows
from kanmodel.tables.inputs import Inputs
from kanmodel.text import with_unit

if TYPE_CHECKING:
    from networkx import DiGraph

OPACITY_BETA = 3.0  # the default `beta` of pykan's `plot`: opacity = tanh(beta * backward score)
N_CURVES = 300  # edges whose functions are sampled for the picture: those with the largest contributions
N_POINTS = 25  # of each, enough for its box
_COLUMNS = ("source", "target", "contribution", "backward")


@dataclass(frozen=True)
class TopologyNode:
    """A node: a feature, a unit of an LSTM or GRU, a cell of the window, an input or node of a layer, or an output.

    Attributes:
        id: ``feature:{name}``, ``front:{l}:{j}``, ``lstm:{u}`` or ``gru:{u}``, ``cell:{step}:{name}`` where the head
            reads all steps, step 0 the newest, ``head:{l}:{j}``, ``output:{name}``; of a product node's factor
            ``head:{l}:{j}.{m}``. In a graph ``lstm:{r}:{u}`` or ``gru:{r}:{u}``, unit u of recurrent part r;
            ``loop:{n}:{u}``, of loop n; ``head:{l}:{j}``, output j of layer l - 1; and ``glue:{l}:{i}``, input i of
            layer l, where operations between the layers compute it.
        kind: what it is.
        layer: its layer within its stage.
        index: its number within its layer.
        label: a name for people: of a unit or hidden node by what it reads, such as ``high temp_c`` or ``hour near
            18:00``, different from those of its layer; its id tells it from all others.
        kept: whether the rule keeps it; for a feature that no KAN reads, whether it is connected with the output.
        contribution: mean |contribution| over the reference windows, the target's unit; None for a sub-node.
        interval: 95 % interval of that mean; None for a sub-node.
        scores: pykan's backward score, model units; None if not available.
        profile: share of each feature in the node's own value, by name, largest first; empty for features and
            sub-nodes.
        lags: the steps at which it reads these features; empty for features and sub-nodes, for nodes of a front, which
            read the step at which they are applied, for a window of one step, and for a model with more than 4 million
            nodes x features x steps.
        reads: the inputs with the largest shares, ``hour at lags 0 to 5, temp_c at lag 0``; empty without lags.
    """

    id: str
    kind: NodeKind
    layer: int
    index: int
    label: str
    kept: bool
    contribution: float | None = None
    interval: tuple[float, float] | None = None
    scores: Mapping[str, float] | None = None
    profile: Mapping[str, float] = field(default_factory=dict)
    lags: Mapping[str, Lags] = field(default_factory=dict, compare=False)
    reads: str = field(default="", compare=False)


@dataclass(frozen=True, repr=False, eq=False)
class Topology(GlobalResult, Pictured):
    """The graph of a model for one output, with the kept edges and nodes, and the fidelity of the pruned model.

    Attributes:
        unit: of the contributions; None if unknown.
        rule: the pruning rule, its metric resolved.
        nodes: from the features to the outputs.
        edges: KAN edges first.
        curves: the functions on the kept KAN edges with the largest contributions, for the picture.
        levels: of a graph the rows of the picture in which nodes stand, by place; empty for a chain.
        name: of the model.
    """

    output: str
    unit: str | None
    rule: PruningRule
    fidelity: Fidelity
    nodes: tuple[TopologyNode, ...]
    edges: tuple[TopologyEdge, ...]
    curves: tuple[Edge, ...]
    levels: Mapping[LayerKey, int]
    name: str

    @classmethod
    def of(cls, model: Forecaster, importance: Importance, pruning: Pruning) -> Topology:
        """The topology of a model, for the output of `importance` and a pruning."""
        config, output = model.config, importance.output_index
        with torch.no_grad():
            trace = model.network.trace(model.reference.scaled)
        scores, of_nodes = dict[Score, Scores](), Scores()
        if len(model.reference.scaled) >= MIN_INPUTS:
            scores, of_nodes = score_rows(model.network, trace)
        list_nodes = _graph_nodes if config.graph else _nodes
        nodes = name_nodes(model, tuple(list_nodes(model, importance, pruning, of_nodes)), trace)
        by_id = {node.id: node for node in nodes}
        edges = tuple(_kan_edges(model, importance, pruning, trace, scores, by_id))
        others = (
            _links(nodes, config, importance) if config.graph else _other_edges(nodes, config, output, model.inputs)
        )
        drawn = sorted((edge for edge in edges if edge.kept), key=lambda edge: -(edge.contribution or 0.0))
        return cls(
            output=config.outputs[output],
            unit=config.target_of(output).unit,
            rule=pruning.rule,
            fidelity=pruning.fidelity,
            nodes=nodes,
            edges=(*edges, *_factor_edges(config, pruning), *others),
            curves=tuple(sample_edges(model, drawn[:N_CURVES], N_POINTS, trace=trace)),
            levels=config.wiring.levels if config.graph else {},
            name=model.name,
            reference=model.reference.span,
            origin=model.origin,
        )

    @property
    def kan_edges(self) -> tuple[TopologyEdge, ...]:
        """The edges of the KANs, which hold functions."""
        return tuple(edge for edge in self.edges if edge.kind == "edge")

    @property
    def reference_windows(self) -> int:
        """Number of reference windows."""
        return self.reference.windows

    def upstream(self) -> Self:
        """The subgraph upstream of the output, along all edges; features, front nodes, units and cells stay."""
        before_head = [node.id for node in self.nodes if node.kind not in ("glue", "head", "subnode", "output")]
        found = _reach([f"output:{self.output}", *before_head], ((edge.target, edge.source) for edge in self.edges))
        nodes = tuple(node for node in self.nodes if node.id in found)
        return replace(self, nodes=nodes, edges=tuple(edge for edge in self.edges if edge.target in found))

    def through(self, node: str, only_kept: bool = True) -> Self:
        """The subgraph of a node, by its id, and what is upstream and downstream of it, along kept or all edges."""
        if all(one.id != node for one in self.nodes):
            raise UnknownNameError(f"there is no node {quote(node)}; the graph has {self.nodes[0].id!r} and others")
        edges = [edge for edge in self.edges if edge.kept or not only_kept]
        above = _reach([node], ((edge.source, edge.target) for edge in edges))
        below = _reach([node], ((edge.target, edge.source) for edge in edges))
        nodes = tuple(one for one in self.nodes if one.id in above | below)
        within = (edge for edge in edges if any({edge.source, edge.target} <= part for part in (above, below)))
        return replace(self, nodes=nodes, edges=tuple(within))

    def edge(self, stage: str, layer: int, i: int, j: int) -> TopologyEdge:
        """The KAN edge from node i of `layer` to sub-node j of the next; raises `UnknownNameError` if there is none."""
        edges = {edge.key: edge for edge in self.kan_edges}
        if (stage, layer, i, j) in edges:
            return edges[stage, layer, i, j]
        sizes = dict[LayerKey, tuple[int, int]]()
        for edge in edges.values():
            n_in, n_subnodes = sizes.get((edge.stage, edge.layer), (0, 0))
            sizes[edge.stage, edge.layer] = max(n_in, edge.i + 1), max(n_subnodes, edge.j + 1)
        refuse_outside((stage, layer, i, j), sizes)
        raise UnknownNameError(f"there is no edge ({stage}, {layer}, {i}, {j}) in this part of the graph")

    def networkx(self) -> DiGraph[str]:
        """A directed graph with the fields of nodes and edges as attributes, including pruned ones with kept=False."""
        from networkx import DiGraph  # here, because it is rarely needed

        graph = DiGraph(output=self.output)
        graph.add_nodes_from((node.id, _without(node, "id")) for node in self.nodes)
        graph.add_edges_from((edge.source, edge.target, _without(edge, "source", "target")) for edge in self.edges)
        return graph

    def table(self) -> list[dict[str, Any]]:
        """A row for each edge that holds a function, largest contribution first."""
        rows = []
        for edge in sorted(self.kan_edges, key=lambda edge: -(edge.contribution or 0.0)):
            row = _without(edge, "scores", "kind", "share", "lags")
            scores = edge.scores or dict.fromkeys(get_args(Score))
            rows.append(spread_intervals(row, "interval") | dict(scores))
        return rows

    def _title(self) -> str:
        return f"Topology for {with_unit(self.output, self.unit)}"

    def _facts(self) -> dict[str, str]:
        kept = [edge.kept for edge in self.kan_edges]
        return {"cost": f"{sum(kept)} of {len(kept)} edges kept, {self.fidelity}"}

    def _tables(self) -> list[Table]:
        return [Table([row for row in self.table() if row["kept"]], _COLUMNS, "Kept edges")]


def _reach(starts: Iterable[str], steps: Iterable[tuple[str, str]]) -> set[str]:
    """The nodes reachable from some nodes along (source, target) steps, including these nodes."""
    targets: dict[str, list[str]] = {}
    for start, end in steps:
        targets.setdefault(start, []).append(end)
    found, waiting = set[str](), list(starts)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(targets.get(node, ()))
    return found


def _without(part: TopologyNode | TopologyEdge, *names: str) -> dict[str, Any]:
    """The fields of a node or an edge except some; mappings are copied, because the part is shared."""
    kept = {name: value for name, value in vars(part).items() if name not in names}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in kept.items()}


def build_topology(model: Forecaster, importance: Importance, rule: PruningRule) -> Topology:
    """The graph of a model, pruned by a rule for the output of `importance`. Raises as `prune_by_rule`."""
    return Topology.of(model, importance, prune_by_rule(model, importance, rule))


def name_nodes(model: Forecaster, nodes: tuple[TopologyNode, ...], trace: Trace) -> tuple[TopologyNode, ...]:
    """The nodes with labels by what they read, of a trace of the reference windows; see `kanmodel.structure.names`."""
    config, names, layers = model.config, NodeNames(model), dict[LayerKey, list[TopologyNode]]()
    for node in nodes:
        if node.profile and node.kind not in ("cell", "output"):
            layers.setdefault((node.kind, node.layer), []).append(node)
    columns = dict[str, Array]()
    with torch.no_grad():
        for place, values in node_values(config, trace).items():
            at = ("head", 0) if place == (config.readout_stage, 0) and not config.graph else place
            of_place = zip(config.wiring.ids.get(at, ()), values.T, strict=False)
            columns |= {identity: of.double().numpy() for identity, of in of_place}
    labels: dict[str, str | None] = {}
    for of_layer in layers.values():
        of_nodes = [columns.get(node.id, np.zeros(len(model.reference))) for node in of_layer]
        profiles, lags = [node.profile for node in of_layer], [node.lags for node in of_layer]
        named = names.name_layer(profiles, lags, np.stack(of_nodes, axis=1))
        labels |= dict(zip((node.id for node in of_layer), named, strict=True))
    return tuple(replace(node, label=labels.get(node.id) or node.label) for node in nodes)


def _nodes(
    model: Forecaster, importance: Importance, pruning: Pruning, scores: Mapping[LayerKey, Tensor]
) -> Iterator[TopologyNode]:
    config, output = model.config, importance.output_index
    if config.readout_stage is not None and not config.front:  # features are not the first nodes of a stage
        connected = structure.connected_features(model.network, output)
        features = {f"feature:{name}": keep for name, keep in zip(config.feature_names, connected, strict=True)}
        yield from _nodes_of_layer(config, importance, ("input", 0), features)
    for stage, layers in config.stages.items():
        for number in range(len(layers) + 1):
            key, kept = structure.ledger_key(config, stage, number), pruning.nodes[stage, number].tolist()
            if number or key[0] != "front":  # with a front, the head's input nodes may be the front's outputs
                by_id = {node_id(config, stage, number, index): keep for index, keep in enumerate(kept)}
                of_nodes = scores[stage, number].tolist() if (stage, number) in scores else ()
                yield from _nodes_of_layer(config, importance, key, by_id, of_nodes)
            yield from _factor_nodes(config, stage, number, kept) if number else ()
    if config.output_function is not None:
        outputs = {f"output:{name}": number == output for number, name in enumerate(config.outputs)}
        yield from _nodes_of_layer(config, importance, ("output", len(config.head)), outputs)


def _factor_nodes(config: ModelConfig, stage: str, layer: int, kept: Sequence[bool]) -> Iterator[TopologyNode]:
    for subnode, node in _factors(config.stages[stage][layer - 1]):
        identity = subnode_id(config, stage, layer, subnode)
        yield TopologyNode(identity, "subnode", layer, subnode, structure.label_of(identity), kept[node])


def _graph_nodes(
    model: Forecaster, importance: Importance, pruning: Pruning, scores: Mapping[LayerKey, Tensor]
) -> Iterator[TopologyNode]:
    """Yields the nodes of a graph, each once: features, what the parts read and set in their order, outputs."""
    config, output, listed = model.config, importance.output_index, set[str]()
    edges = structure.passing_edges(model.network, pruning.edges)
    connected = structure.connected_nodes(model.network, output, edges)
    connected["input", 0] = torch.tensor(structure.connected_features(model.network, output))
    connected["output", len(config.head)] = torch.arange(len(config.outputs)) == output
    outputs, places = config.wiring.ids["output", len(config.head)], config.wiring.ids.items()
    of_nodes: dict[str, float] = {}  # scores, of a node that several layers read the largest
    for place, ids in (each for each in places if each[0] in scores):
        for identity, score in zip(ids, scores[place].tolist(), strict=True):
            is_set = place[0] == "head"
            of_nodes[identity] = score if is_set else max(score, of_nodes.get(identity, 0.0))
    for place, ids in places:
        kept = pruning.nodes.get(place, connected[place])
        for node in _nodes_of_layer(config, importance, place, dict(zip(ids, kept.tolist(), strict=True))):
            if node.id not in listed and (place[0] == "output" or node.id not in outputs):
                listed.add(node.id)
                score = {"backward": of_nodes[node.id]} if node.id in of_nodes else None
                yield replace(node, scores=score, layer=0 if node.kind == "cell" else node.layer)
        yield from _factor_nodes(config, *place, kept.tolist()) if place[0] == "head" else ()


def _nodes_of_layer(
    config: ModelConfig, importance: Importance, key: LayerKey, kept: dict[str, bool], scores: Sequence[float] = ()
) -> Iterator[TopologyNode]:
    """Yields the nodes of a layer, which a ledger lists at `key`, by the ids of `kept`."""
    profiles, estimate, names = importance.profiles, importance.nodes[key], config.feature_names
    place = key if key in profiles.shares else ("head", key[1])
    for index, (identity, keep) in enumerate(kept.items()):
        profile, lags, reads = dict[str, float](), dict[str, Lags](), ""
        if key != ("input", 0) and place in profiles.shares:
            shares = profiles.shares[place][index]
            order = [feature for feature in np.argsort(-shares, kind="stable").tolist() if shares[feature] > 0]
            profile = {names[feature]: float(shares[feature]) for feature in order}
            if place in profiles.lags:
                by_lag, shown = profiles.lags[place][index], importance.model_inputs.merge(names)
                lags = dict(zip(profile, find_lags(by_lag[order]), strict=True))
                of_inputs = np.stack([by_lag[list(members)].sum(axis=0) for members in shown.values()])
                reads = describe_lags([*shown], of_inputs)
        kind: Any = identity.split(":", 1)[0]  # ids begin with their kind
        yield TopologyNode(
            *(identity, kind, key[1], index, structure.label_of(identity), keep),
            contribution=float(estimate.value[index]),
            interval=estimate.bounds(index),
            scores={"backward": scores[index]} if scores else None,
            profile=profile,
            lags=lags,
            reads=reads,
        )


def _kan_edges(
    model: Forecaster,
    importance: Importance,
    pruning: Pruning,
    trace: Trace,
    scores: Mapping[Score, Scores],
    nodes: Mapping[str, TopologyNode],
) -> Iterator[TopologyEdge]:
    outside: dict[LayerKey, list[float]] = {}  # share of the values of each input beyond the core interval of its grid
    for (stage, number), layer in model.network.layers.items():
        if (core := layer.core) is not None:
            of_basis = layer.read(trace.stages[stage][number].inputs)[1]
            outside[stage, number] = ((of_basis < core[0]) | (of_basis > core[1])).double().mean(dim=0).tolist()
    for edge in network_edges(model.network):
        key, i, j = (edge.stage, edge.layer), edge.i, edge.j
        of_edge: dict[str, float] = {score: float(of_layers[key][j, i]) for score, of_layers in scores.items()}
        yield replace(
            edge,
            kept=bool(pruning.edges[key][j, i]),
            contribution=float(importance.edges[key].value[j, i]),
            interval=importance.edges[key].bounds(j, i),
            scores=of_edge or None,
            opacity=tanh(OPACITY_BETA * of_edge["backward"]) if of_edge else None,
            outside_grid=outside[key][i] if key in outside else None,
            lags=nodes[edge.source].lags,
            reads=nodes[edge.source].reads,
        )


def _factor_edges(config: ModelConfig, pruning: Pruning) -> Iterator[TopologyEdge]:
    """Yields the edges into product nodes."""
    for (stage, layer), kept in pruning.nodes.items():
        for subnode, number in _factors(config.stages[stage][layer - 1]) if layer and stage in config.stages else ():
            source, target = subnode_id(config, stage, layer, subnode), node_id(config, stage, layer, number)
            yield TopologyEdge(source, target, "product", stage, layer, subnode, number, bool(kept[number]))


def _links(nodes: Sequence[TopologyNode], config: ModelConfig, importance: Importance) -> Iterator[TopologyEdge]:
    """Yields what joins the nodes of a graph besides edges, once for each two nodes."""
    output = importance.output_index
    by_id, wiring, listed = {node.id: node for node in nodes}, config.wiring, set[tuple[str, str]]()
    for into, read in wiring.links.items():
        if into[0] == "steps":  # each unit reads all
            targets = wiring.ids[config.recurrents[into[1]].cell, into[1]]
            read = {place: np.tile(reads.any(axis=0), (len(targets), 1)) for place, reads in read.items()}
        else:
            targets = wiring.ids["loop", into[1]] if into[0] == "units" else wiring.ids[into]
        for place, reads in read.items():
            for j, i in np.argwhere(reads).tolist():
                source, target = by_id[wiring.ids[place][i]], by_id[targets[j]]
                is_copied = into[0] == "glue" and target.kind not in ("glue", "cell")
                is_other = source.id == target.id or (into[0] == "output" and j != output)
                if is_copied or is_other or (source.id, target.id) in listed:
                    continue
                listed.add((source.id, target.id))
                into_unit = source.kind == "feature" and target.kind in structure.READOUT_KINDS
                kind: EdgeKind = "input" if into_unit else "link"
                share = target.profile.get(source.label, 0.0) if source.kind == "feature" else None
                place_of = (target.kind, source.layer, i, j)
                edge = TopologyEdge(source.id, target.id, kind, *place_of, source.kept and target.kept, share=share)
                edge = replace(edge, **_lags_between(source, target, importance.model_inputs))
                if (estimate := importance.links.get((into, j, place))) is not None:
                    edge = replace(edge, contribution=float(estimate.value[i]), interval=estimate.bounds(i))
                yield edge


def _other_edges(
    nodes: Sequence[TopologyNode], config: ModelConfig, output: int, inputs: Inputs
) -> Iterator[TopologyEdge]:
    """Yields the edges into units or cells, and into the output from nodes that it is made of."""
    features = [node for node in nodes if node.kind == "feature"]
    for unit, feature in product((node for node in nodes if node.kind in structure.READOUT_KINDS), features):
        share, i, j = unit.profile.get(feature.label, 0.0), feature.index, unit.index
        if share or unit.kind != "cell":  # a cell is one value of one step, which most features do not reach
            both = unit.kept and feature.kept
            edge = TopologyEdge(feature.id, unit.id, "input", unit.kind, 0, i, j, both, share=share)
            yield replace(edge, **_lags_between(feature, unit, inputs))
    depth, target = len(config.head), f"output:{config.outputs[output]}"
    for node in nodes if config.output_function is not None else ():
        is_read = config.output_function == "softmax" or node.index == output
        if node.kind == "head" and node.layer == depth and is_read:
            edge = TopologyEdge(node.id, target, "output", "output", depth, node.index, output, node.kept)
            known: dict[str, Any] = {"contribution": node.contribution, "interval": node.interval}
            yield replace(edge, **known, lags=node.lags, reads=node.reads)


def _lags_between(source: TopologyNode, target: TopologyNode, inputs: Inputs) -> dict[str, Any]:
    """What the source reads; if it is a feature, when the target reads it."""
    if source.kind != "feature":
        return {"lags": source.lags, "reads": source.reads}
    lags = {name: lags for name, lags in target.lags.items() if name == source.label}
    return {"lags": lags, "reads": ", ".join(f"{inputs.label(name)} at {of}" for name, of in lags.items())}


def _factors(layer: LayerConfig) -> Iterator[tuple[int, int]]:
    """Yields (sub-node, node) for each factor of a product node of a layer."""
    return (pair for pair in enumerate(layer.node_of_subnode) if pair[1] >= layer.n_sum)
