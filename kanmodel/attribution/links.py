"""Links: contributions that the operations of a graph pass from one node to another, such as a skip.

A target t is what operations compute: an input of a layer, such as a sum, or an output. Its contribution is C_t = sum_k
w_k dF/dt(a_k) t'(a_k), see `kanmodel.attribution.ledger`. Of it there comes from a node s, with the derivative of t by
s through the operations alone, and over all rows and steps of both,

    C_st = sum_k w_k dF/dt(a_k) dt/ds(a_k) s'(a_k)

Over s they sum to C_t; over the edges and links from s they sum to its own contribution, unless a recurrent part or a
layer with a norm reads s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import scaled_baselines, spread_windows
from kanmodel.attribution.paths.bisection import Integrals, PartEnds, Parts, bisect, part_ends
from kanmodel.attribution.paths.path import paths_per_pass, points_along
from kanmodel.attribution.paths.quadrature import Quadrature, nested_clenshaw_curtis
from kanmodel.attribution.profiles import N_NODES, to_integrals
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import ModelConfig
from kanmodel.network.network import FrozenNetwork, Trace, apply_output_function
from kanmodel.network.wiring import Place

Target = tuple[Place, int]  # place and index of a node that operations compute
Link = tuple[Place, int, Place]  # a target, and the place of the nodes that it is computed from

MIN_WINDOWS, MAX_WINDOWS = 16, 64  # taken evenly from the reference
VALUES = 5e9  # in all backward passes, a few seconds of one core, within which the number of windows stays where it can
MAX_TARGETS = 256  # each of which takes a backward pass; of more, links have no contributions
TOLERANCE = 1e-2  # largest accepted error of a link, in standard deviations of the output
HALVINGS = 10


def find_targets(config: ModelConfig, output: int) -> list[Target]:
    """The inputs of layers that are no other nodes, but for those in loops, and an output."""
    inside = {("glue", cut.edges) for cut in config.cuts if cut.inside}
    computed = [
        (place, j)
        for place, ids in config.wiring.ids.items()
        for j, name in enumerate(ids)
        if place[0] == "glue" and name.startswith("glue:") and place not in inside
    ]
    return [*computed, (("output", len(config.head)), output)]


def list_links(config: ModelConfig, output: int) -> dict[Link, int]:
    """The number of nodes of each of the links that `measure_links` measures, in its order."""
    if len(targets := find_targets(config, output)) > MAX_TARGETS:
        return {}
    links = config.wiring.links
    return {
        (place, j, source): reads.shape[1] for place, j in targets for source, reads in links.get(place, {}).items()
    }


def measure_links(model: Forecaster, output: int) -> Mapping[Link, Array]:
    """Contributions of a graph's links to an output from the mean baseline, (n_windows, n_nodes) each, model units.

    Empty for a chain, and for a graph with more than 256 targets.
    """
    if not (sizes := list_links(model.config, output)):
        return {}
    targets = find_targets(model.config, output)
    affordable = int(VALUES / (N_NODES * len(targets) * model.config.graph_size))
    windows = spread_windows(model, min(max(affordable, MIN_WINDOWS), MAX_WINDOWS))
    start = scaled_baselines(model)[0]
    scale = float(model.output_std[output]) / float(model.scaling.output_scale[output])

    def integrate(parts: Parts, _: Array) -> Integrals[Array]:
        return _integrate(model, part_ends(parts, start, windows), output, targets, scale)

    batch = paths_per_pass(model.config, N_NODES)
    values = bisect(len(windows), integrate, batch, TOLERANCE, HALVINGS)[2].values
    ends = np.cumsum([*sizes.values()])
    return dict(zip(sizes, np.split(values, ends[:-1], axis=1), strict=True))


def _integrate(model: Forecaster, ends: PartEnds, output: int, targets: list[Target], scale: float) -> Integrals[Array]:
    """Contributions of all links, (n_parts, n_links), of one target after the other; errors in units of the scale."""
    rule, n = nested_clenshaw_curtis(N_NODES), len(ends.ends)
    points = points_along(ends.starts, ends.ends, rule.nodes).flatten(0, 1).requires_grad_()
    network = model.frozen
    with torch.enable_grad():
        trace = network.trace(points)
        inside = {cut.edges for cut in model.config.cuts if cut.inside}
        inputs = {k: calls[0].inputs for k, calls in enumerate(trace.calls) if k not in inside}
        found = torch.autograd.grad(trace.outputs[:, output].sum(), [*inputs.values()]) if inputs else ()
        slopes = dict(zip(inputs, found, strict=True))
        sources, computed, outputs = _run_apart(network, points, trace)
        moved = {place: _moves(rule, values, n) for place, values in sources.items()}
        of_output = trace.outputs[:, output].detach().double().numpy().reshape(n, N_NODES)
        entries, gaps = list[Array](), list[Array]()  # gaps from C_t, of an output the change of the forecast
        for place, j in targets:
            if place[0] == "output":
                values, by_value = outputs[:, output : output + 1], torch.ones_like(outputs[:, :1])
            else:
                values, by_value = computed[place[1]].flatten(0, -2)[:, j : j + 1], slopes[place[1]][:, j : j + 1]
            whole, first = np.tile(of_output[:, -1] - of_output[:, 0], (3, 1)), len(entries)
            if place[0] != "output":
                steep = by_value.double().numpy().reshape(n, 1, N_NODES, -1, 1)
                whole = (steep * _moves(rule, values, n)).sum(axis=(2, 3, 4)).T
            read = [*model.config.wiring.links[place]]
            gradients = torch.autograd.grad(
                values, [sources[source] for source in read], by_value, retain_graph=True, allow_unused=True
            )
            for source, gradient in zip(read, gradients, strict=True):
                if gradient is None:
                    entries.append(np.zeros((3, n, sources[source].shape[-1])))
                    continue
                steep = gradient.double().numpy().reshape(n, 1, N_NODES, -1, gradient.shape[-1])
                entries.append((steep * moved[source]).sum(axis=(2, 3)).swapaxes(0, 1))
            gaps.append(np.abs(sum(part.sum(axis=2) for part in entries[first:]) - whole) / scale)
    links = np.concatenate(entries, axis=2)  # (3, n, n_links)
    return to_integrals(model, points, trace, links, links / scale, np.max(gaps, axis=0))


def _run_apart(
    network: FrozenNetwork, points: Tensor, trace: Trace
) -> tuple[dict[Place, Tensor], dict[int, Tensor], Tensor]:
    """The operations alone: what they read, the inputs of each layer and the outputs, without a way through a part."""
    config = network.config
    sources: dict[Place, Tensor] = {("input", 0): points}
    sources |= {
        (part.cell, number): trace.recurrents[number].states[-1] for number, part in enumerate(config.recurrents)
    }
    sources |= {("loop", number): values for number, values in enumerate(trace.loops)}
    inside = {cut.edges for cut in config.cuts if cut.inside}
    layers = [number for number in range(len(config.head)) if number not in inside]
    sources |= {("head", number + 1): trace.layers[number].nodes for number in layers}
    sources = {place: values.detach().requires_grad_() for place, values in sources.items()}
    computed: dict[int, Tensor] = {}

    def through(number: int, x: Tensor) -> Tensor:
        computed[number] = x
        return sources["head", number + 1]

    leaves = [partial(through, number) for number in range(len(config.head))]
    recurrents = [lambda _, place=(part.cell, number): sources[place] for number, part in enumerate(config.recurrents)]
    loops = [sources["loop", number] for number in range(len(config.loops))]
    logits = network.network.run(sources["input", 0], leaves, recurrents, loops=loops)
    return sources, computed, apply_output_function(config, logits)


def _moves(rule: Quadrature, values: Tensor, n: int) -> Array:
    """Weights times derivatives along the path by each of three rules, (n, 3, n_nodes, rows, n_units)."""
    at = values.detach().double().numpy().reshape(n, N_NODES, -1)
    adjoints = rule.adjoints.reshape(3, N_NODES, N_NODES).swapaxes(1, 2)
    return np.asarray(adjoints @ at[:, None]).reshape(n, 3, N_NODES, -1, values.shape[-1])
