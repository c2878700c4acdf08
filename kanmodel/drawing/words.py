"""Texts of pictures: labels of nodes and edges, the fidelity of pruning, the shape of an edge."""

from __future__ import annotations

from kanmodel.explain.functions.curves import EdgeCurve
from kanmodel.explain.structure.ids import label_of
from kanmodel.explain.topology.graph import NetworkGraph, TopologyEdge, TopologyNode

N_NAMED = 3  # features of a profile


def tell_node(node: TopologyNode, unit: str | None) -> str:
    """Name, contribution, and profile of a node, one per line."""
    profile = ", ".join(f"{share:.0%} {name}" for name, share in list(node.profile.items())[:N_NAMED])
    return _join_lines(node.label, *tell_worth(node, unit), profile)


def tell_edge(edge: TopologyEdge, curve: EdgeCurve | None, unit: str | None) -> str:
    """Ends, contribution and shape of an edge, one per line."""
    share = "" if edge.share is None else f"{edge.share:.1%} of the unit's profile"
    return _join_lines(name_edge(edge), share, *tell_worth(edge, unit), tell_shape(curve) if curve else "")


def name_edge(edge: TopologyEdge) -> str:
    """``lstm 3 → head 1:0``."""
    return f"{label_of(edge.source)} → {label_of(edge.target)}"


def tell_worth(part: TopologyNode | TopologyEdge, unit: str | None) -> list[str]:
    """Contribution with its interval, backward score, and whether it is pruned, as far as known."""
    worth = []
    if part.contribution is not None:
        worth.append(f"mean |contribution| {write_amount(part.contribution, unit)}")
        if part.interval is not None:
            worth[-1] += " (95 % interval {:.3g} to {:.3g})".format(*part.interval)
    if part.scores is not None:
        worth.append(f"backward score {part.scores['backward']:.3g}")
    if isinstance(part, TopologyEdge) and part.masked:
        worth.append("masked in the checkpoint")
    elif not part.kept:
        worth.append("pruned")
    return worth


def tell_shape(curve: EdgeCurve) -> str:
    """The verdict on the function of an edge."""
    line = f"a straight line has an R2 of {curve.line.r2:.3f} where the data lies"
    outside = curve.support.outside_grid or 0.0
    return {
        "linear": f"linear: {line}",
        "curved": f"curved: {line}",
        "flat": "flat: it moves what it enters by less than 1 %",
        "base_only": f"outside the grid lies {outside:.0%} of the data, where only the base acts",
    }[curve.shape]


def tell_cost(topology: NetworkGraph, unit: str | None) -> str:
    """The number of kept edges, and the fidelity with these."""
    edges, cost = topology.kan_edges, topology.fidelity
    kept = (
        f"{sum(edge.kept for edge in edges)} of {len(edges)} edges keep an R2 of {cost.r2:.3f} against the full model"
    )
    if cost.mae is None or cost.mae_full is None:
        return f"{kept}."
    return f"{kept}; the mean absolute error goes from {cost.mae_full:.3g} to {write_amount(cost.mae, unit)}."


def write_amount(value: float, unit: str | None) -> str:
    """``1.59 K``."""
    return f"{value:.3g} {unit}" if unit else f"{value:.3g}"


def write_change(value: float, unit: str | None) -> str:
    """``+1.59 K``."""
    return f"{'+' if value > 0 else ''}{write_amount(value, unit)}"


def _join_lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))
