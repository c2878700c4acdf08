"""``kanscope inspect``: what a checkpoint holds, as tables or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kanmodel.checkpoint import LoadedModel, load_checkpoint
from kanmodel.config import KANConfig, ModelConfig, config_to_dict
from kanmodel.errors import UnknownNameError
from kanmodel.explain.importance import measure_importance
from kanmodel.explain.pruning import PruningRule
from kanmodel.explain.scores import MIN_INPUTS
from kanmodel.explain.topology import Topology, TopologyEdge, build_topology

SCORES = ("contribution", "backward", "forward_n", "forward_u")


def inspect(
    file: Annotated[Path, typer.Argument(help="Checkpoint, *.safetensors.")],
    output: Annotated[str | None, typer.Option(help="Output whose edges are scored. Default: the first.")] = None,
    edges: Annotated[int, typer.Option(min=0, help="Edges listed in the table, strongest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every edge.")] = False,
) -> None:
    """Print architecture, features, metrics, and the edges by score."""
    model = load_checkpoint(file)
    name = output or model.config.outputs[0]
    topology = find_topology(model, name)
    if as_json:
        typer.echo(json.dumps(describe(model, file, topology), ensure_ascii=False, allow_nan=False))
        return
    console = Console(highlight=False)
    console.print(architecture_table(model, file))
    console.print(features_table(model))
    console.print(metrics_table(model))
    console.print(edges_table(topology, edges))


def find_topology(model: LoadedModel, output: str) -> Topology:
    """The edges with their contributions to an output, and their scores where the windows suffice."""
    outputs = model.config.outputs
    if output not in outputs:
        raise UnknownNameError(f"there is no output {output!r}, but {', '.join(outputs)}")
    scored = len(model.reference.windows) >= MIN_INPUTS
    rule = PruningRule(metric=None if scored else "contribution")
    return build_topology(model, measure_importance(model, outputs.index(output)), rule)


def describe(model: LoadedModel, file: Path, topology: Topology) -> dict[str, Any]:
    """Everything that the tables show, for machines; edges are strongest first."""
    config = config_to_dict(model.config)
    return {
        "file": str(file),
        "checkpoint": f"sha256:{model.sha256}",
        "features": config["features"],
        "targets": config["targets"],
        "outputs": model.config.outputs,
        "lookback": model.config.lookback,
        "horizon": model.config.horizon,
        "architecture": {key: config[key] for key in ("front", "lstm", "head", "dtype")},
        "reference_windows": len(model.reference.windows),
        "metrics": dict(model.metrics),
        "provenance": vars(model.provenance),
        "topology": _describe_topology(topology),
    }


def _describe_topology(topology: Topology) -> dict[str, Any]:
    edges = _by_contribution(topology)
    return {
        "output": topology.output,
        "fidelity": vars(topology.fidelity),
        "kept": sum(edge.kept for edge in edges),
        "total": len(edges),
        "edges": [
            {name: getattr(edge, name) for name in ("stage", "layer", "i", "j", "source", "target", "kept")}
            | _scores(edge)
            for edge in edges
        ],
    }


def architecture_table(model: LoadedModel, file: Path) -> Table:
    """Shapes, and where the model comes from."""
    config, provenance = model.config, model.provenance
    table = Table("", "architecture", title=f"{file.name}  sha256:{model.sha256[:12]}…")
    table.add_row("lookback", str(config.lookback))
    table.add_row("outputs", ", ".join(config.outputs))
    if config.front:
        table.add_row("front KAN", describe_kan(config.front))
    table.add_row("LSTM", describe_lstm(config))
    table.add_row("head KAN", describe_kan(config.head))
    table.add_row("reference windows", str(len(model.reference.windows)))
    table.add_row("made by", f"{provenance.source}, {provenance.library}, {provenance.created}")
    return table


def describe_kan(kan: KANConfig) -> str:
    """A KAN in one line, its width as pykan writes it."""
    width = [n_sum if not n_mult else [n_sum, n_mult] for n_sum, n_mult in kan.width]
    grid = ", ".join(str(grid_size) for grid_size in sorted(set(kan.grid_size)))
    return f"width {width}, grid {grid}, spline order {kan.spline_order}, base {kan.base_activation}"


def describe_lstm(config: ModelConfig) -> str:
    """The LSTM in one line."""
    lstm = config.lstm
    if lstm is None:
        return "none"
    direction = ", bidirectional" if lstm.bidirectional else ""
    layers = "1 layer" if lstm.num_layers == 1 else f"{lstm.num_layers} layers"
    return f"{lstm.hidden_size} units, {layers}{direction}, readout {lstm.readout}"


def features_table(model: LoadedModel) -> Table:
    """The columns that go in and come out."""
    table = Table("feature", "unit", title="features and targets")
    for heading in ("mean", "std", "min", "max"):
        table.add_column(heading, justify="right")
    for feature in model.config.features:
        figures = (feature.mean, feature.std, feature.min, feature.max)
        table.add_row(feature.name, feature.unit or "", *map(_figure, figures))
    table.add_section()
    for target in model.config.targets:
        table.add_row(f"{target.name} (target)", target.unit or "", _figure(target.mean), _figure(target.std), "", "")
    return table


def metrics_table(model: LoadedModel) -> Table:
    """The figures of the training."""
    table = Table("metric", title="metrics")
    table.add_column("value", justify="right")
    for name, value in model.metrics.items():
        table.add_row(name, _figure(value))
    return table


def edges_table(topology: Topology, count: int) -> Table:
    """The edges that contribute most, and whether pruning keeps them."""
    edges = _by_contribution(topology)
    kept = sum(edge.kept for edge in edges)
    title = f"{min(count, len(edges))} of {len(edges)} edges by contribution to {topology.output}"
    caption = f"pruned to {kept} edges the forecast keeps R2 {topology.fidelity.r2:.4f} of the full model"
    table = Table("layer", title=title, caption=caption)
    for heading in ("i", "j", *SCORES):
        table.add_column(heading, justify="right")
    table.add_column("kept")
    for edge in edges[:count]:
        figures = map(_figure, _scores(edge).values())
        place = (f"{edge.stage} {edge.layer}", str(edge.i), str(edge.j))
        table.add_row(*place, *figures, "yes" if edge.kept else "")
    return table


def _by_contribution(topology: Topology) -> list[TopologyEdge]:
    """The edges of the KANs, strongest first."""
    return sorted(
        topology.kan_edges,
        key=lambda edge: (-(edge.contribution or 0.0), edge.stage, edge.layer, edge.i, edge.j),
    )


def _scores(edge: TopologyEdge) -> dict[str, float | None]:
    scores = edge.scores or {}
    return {"contribution": edge.contribution} | {name: scores.get(name) for name in SCORES[1:]}


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
