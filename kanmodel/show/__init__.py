"""Pictures of results as SVG: `draw` gets one for each type of result that has one."""

from __future__ import annotations

from kanmodel.explain.attribution import Explanation, sum_groups
from kanmodel.explain.curves import Edge, sample_edges
from kanmodel.explain.importance import Importance
from kanmodel.explain.result import Theme, draw
from kanmodel.explain.topology import Topology
from kanmodel.show.edge import draw_edge
from kanmodel.show.explanation import Forecast, draw_explanation
from kanmodel.show.importance import draw_importance
from kanmodel.show.network import N_CURVES, N_POINTS, draw_topology

N_LINKS = 1300  # most links of each kind in a picture


@draw.register
def _draw_explanation(result: Explanation, theme: Theme) -> bytes:
    whole = list(result.grouping.whole)
    forecast = Forecast(
        result.output,
        result.unit,
        [result.group_names[number] for number in whole],
        result.baseline_prediction,
        float(result.predictions[0]),
        sum_groups(result.contributions[0], result.grouping.members)[whole],
        sum_groups(result.steps[0], result.grouping.members)[:, whole],
        result.segments,
        *result._effects_of_bars(whole),
    )
    return draw_explanation(forecast, theme)


@draw.register
def _draw_importance(result: Importance, theme: Theme) -> bytes:
    return draw_importance(result.features, result.output, result.unit, theme)


@draw.register
def _draw_topology(result: Topology, theme: Theme) -> bytes:
    """The network as in pykan's plot: a curve on each kept edge; pruned nodes are counted.

    Of more than `N_CURVES` kept edges only the strongest have a curve, and of more than `N_LINKS` edges of a kind
    only the strongest are drawn, so that a notebook stays small.
    """
    kept = sorted((edge for edge in result.kan_edges if edge.kept), key=lambda edge: -(edge.contribution or 0.0))
    curves = sample_edges(result.loaded, kept[:N_CURVES], N_POINTS)
    return draw_topology(result, curves, result.name, result.unit, theme=theme, n_links=N_LINKS)


@draw.register
def _draw_edge(result: Edge, theme: Theme) -> bytes:
    return draw_edge(result, result.name, f"layer {result.edge.layer} of the {result.edge.stage}", None, theme=theme)
