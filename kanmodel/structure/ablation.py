"""`Ablation`: forecasts without some of the edges of a network; and the model in which all others are masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from kanmodel.arrays import Array
from kanmodel.forecaster import Forecaster, Provenance
from kanmodel.network.connections import (
    Kept,
    edges_between,
    leading_nodes,
    passing_edges,
    read_place,
    rows_of_layers,
    set_place,
)
from kanmodel.network.network import Network
from kanmodel.result import ModelResult, Table
from kanmodel.structure.importance import Importance
from kanmodel.structure.pruning import (
    Fidelity,
    Pruning,
    PruningRule,
    count_kept,
    live_edges,
    prune_by_rule,
    prune_network,
    r2,
    remove_edges,
)
from kanmodel.structure.topology import Topology
from kanmodel.text import with_unit

TRIES = 4  # attempts to keep the fidelity of every output before all edges are kept
ROUNDING = 1e-6  # tolerance of an R2 measured on the smaller network, whose sums are rounded in another order
UNPRUNED = "unpruned_"  # prefix of metrics measured on the full model
MEASURED = ("fidelity_r2", "reference_mae")  # metrics measured on the smaller model
_COLUMNS = ("window", "prediction", "ablated_prediction", "difference")


@dataclass(frozen=True, repr=False, eq=False)
class Ablation(ModelResult):
    """Forecasts of one output by the whole network, and by the edges that a rule keeps.

    Attributes:
        unit: of the forecasts; None where unknown.
        rule: its metric is resolved.
        fidelity: what it costs on the reference windows.
        n_kept: edges that hold functions and are left, of the `n_edges` that lead to the output.
        predictions: of the whole network, (n,), as `Model.predict` gives them.
        ablated_predictions: of the kept edges, (n,); the same numbers if no edge is removed.
    """

    output: str
    unit: str | None
    rule: PruningRule
    fidelity: Fidelity
    n_kept: int
    n_edges: int
    predictions: Array
    ablated_predictions: Array

    @classmethod
    def of(cls, topology: Topology, predictions: Array, ablated: Array) -> Ablation:
        """The forecasts, with edge counts and fidelity from the topology."""
        edges = [edge.kept for edge in topology.upstream().kan_edges]
        cost = topology.rule, topology.fidelity, sum(edges), len(edges)
        return cls(topology.output, topology.unit, *cost, predictions, ablated, origin=topology.origin)

    def __len__(self) -> int:
        return len(self.predictions)

    def table(self) -> list[dict[str, Any]]:
        """A row for each window."""
        pairs = zip(self.predictions.tolist(), self.ablated_predictions.tolist(), strict=True)
        rows = ((window, full, ablated, ablated - full) for window, (full, ablated) in enumerate(pairs))
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]

    def _title(self) -> str:
        return f"Ablation of {with_unit(self.output, self.unit)}"

    def _facts(self) -> dict[str, str]:
        return {"cost": f"{self.n_kept} of {self.n_edges} edges kept, {self.fidelity}"}

    def _tables(self) -> list[Table]:
        return [Table(self.table(), _COLUMNS)]


@dataclass(frozen=True)
class Size:
    """Numbers of unmasked edges of a network, and of hidden nodes from which such edges lead to the end of a stage."""

    edges: int
    nodes: int


def measure_size(network: Network) -> Size:
    """The size of a network."""
    live = live_edges(network)
    if network.config.graph:
        return Size(count_kept(live), sum(layer.n_out for layer in network.config.head))
    leading = _leading(network, live)[1]
    hidden = [leading[set_place(key)] for row in rows_of_layers(network.config) for key in row[:-1]]
    return Size(count_kept(live), sum(int(nodes.sum()) for nodes in hidden))


def extract_subnetwork(model: Forecaster, importances: Sequence[Importance], rule: PruningRule) -> Forecaster:
    """The model with the union of the edges that the rule keeps for each output; raises as `prune_by_rule`.

    A rule with a fidelity holds for each output of `importances`, up to rounding: if the edges kept for another lower
    the R2 of one, more edges are kept. The edges of `rule.without` are removed last, whatever the fidelity.

    The metrics ``fidelity_r2`` (R2 against the full model) and ``reference_mae`` (against the targets, if known) are
    means over all outputs, on the reference windows. Other metrics of the full model get the prefix ``unpruned_``.
    """
    of_output = {importance.output_index: importance for importance in importances}
    rules = dict.fromkeys(of_output, replace(rule, without=()))
    for _ in range(TRIES):
        prunings = {output: prune_by_rule(model, importance, rules[output]) for output, importance in of_output.items()}
        smaller = extract_pruned(model, list(prunings.values()))
        missed = [] if rule.thresholds else _outputs_below(model, smaller, rule, list(rules))
        if not missed:
            break
        for output in missed:
            rules[output] = replace(rules[output], fidelity=(1 + (rules[output].fidelity or 0.0)) / 2)
    else:
        prunings = {number: replace(one, edges=live_edges(model.network)) for number, one in prunings.items()}
        smaller = extract_pruned(model, list(prunings.values()))
    if rule.without:
        left = [remove_edges(model, output, pruning, rule.without) for output, pruning in prunings.items()]
        smaller = extract_pruned(model, left)
    return replace(smaller, metrics=_measure(model, smaller))


def _outputs_below(model: Forecaster, smaller: Forecaster, rule: PruningRule, outputs: list[int]) -> list[int]:
    """The outputs whose R2 is below the fidelity; all of them if any prediction of the smaller model is not finite."""
    if not torch.isfinite(smaller.reference_outputs).all():
        return outputs
    needed = (rule.fidelity or 0.0) - ROUNDING
    full, pruned = model.reference_outputs.double(), smaller.reference_outputs.double()
    return [output for output in outputs if not r2(full[:, output], pruned[:, output]) >= needed]


def extract_pruned(model: Forecaster, prunings: Sequence[Pruning]) -> Forecaster:
    """The model with the union of the edges of some prunings, which must have the same fill."""
    union = {key: torch.stack([p.edges[key] for p in prunings]).any(dim=0) for key in prunings[0].edges}
    network = prune_network(model, replace(prunings[0], edges=_leading(model.network, union)[0]))
    return Forecaster(network, model.reference, {}, Provenance.now("prune", verified=False, parent=model))


def _leading(network: Network, edges: Kept) -> tuple[Kept, Kept]:
    """Edges and nodes from which kept edges lead to the end of their row; all others have no effect."""
    passing, leading = passing_edges(network, edges), Kept()
    for row in rows_of_layers(network.config):
        last = torch.ones(network.layers[row[-1]].config.n_out, dtype=torch.bool)
        nodes = leading_nodes(network, row, passing, last)
        for at, key in enumerate(row):
            leading[read_place(network.config, key)], leading[set_place(key)] = nodes[at : at + 2]
    return edges_between(network, passing, leading), leading


def _measure(full: Forecaster, smaller: Forecaster) -> dict[str, float]:
    outputs, forecasts = full.config.outputs, (full.reference_outputs, smaller.reference_outputs)
    fidelities = {name: Fidelity.of(full, output, *forecasts) for output, name in enumerate(outputs)}
    found = {"fidelity_r2": {output: fidelity.r2 for output, fidelity in fidelities.items()}}
    if full.reference.targets is not None:
        known = {output: fidelity.mae for output, fidelity in fidelities.items() if fidelity.mae is not None}
        found["reference_mae"] = known
    metrics = {name: sum(values.values()) / len(values) for name, values in found.items()}
    if len(outputs) > 1:
        for name, values in found.items():
            metrics |= {f"{name} {output}": value for output, value in values.items()}
    earlier = {name: value for name, value in full.metrics.items() if not name.startswith(MEASURED)}
    return metrics | {UNPRUNED + name.removeprefix(UNPRUNED): value for name, value in earlier.items()}
