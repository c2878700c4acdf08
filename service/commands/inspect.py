"""``kanscope inspect``: prints a checkpoint as tables, as JSON, or as a report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kanmodel import load
from kanmodel.explain.topology import Topology, TopologyEdge
from kanmodel.model import Model
from kanmodel.network.config import LayerConfig, Layers, ModelConfig, config_to_dict, width_of
from service.commands.options import Checkpoint, OutputName, figure, make_console, print_json

SCORES = ("contribution", "backward", "forward_n", "forward_u")


def inspect(
    file: Checkpoint,
    output_name: OutputName = None,
    edges: Annotated[int, typer.Option(min=0, help="Edges listed in the table, strongest first.")] = 20,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Print a Markdown report instead, which answers common questions about the picture of a KAN: has it "
            "pruned itself, which features count, what do lighter edges mean, why are most edges straight.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with every edge; with --report, the report and its evidence.")
    ] = False,
) -> None:
    """Print architecture, features, metrics, and the edges by contribution and score."""
    model = load(file)
    if report:
        answered = model.report(output_name)
        if as_json:
            findings = [asdict(finding) for finding in answered.findings]
            print_json(_describe_file(model, file) | {"output": answered.output, "findings": findings})
        else:
            typer.echo(answered.markdown(), nl=False)
        return
    topology = model.topology(output_name)
    if as_json:
        print_json(describe(model, file, topology))
        return
    console = make_console()
    console.print(architecture_table(model, file))
    console.print(features_table(model))
    console.print(metrics_table(model))
    console.print(edges_table(topology, edges))


def _describe_file(model: Model, file: Path) -> dict[str, Any]:
    return {"file": str(file), "checkpoint": model.checkpoint}


def describe(model: Model, file: Path, topology: Topology) -> dict[str, Any]:
    """Everything that the tables show, as JSON members; edges are strongest first."""
    config, recurrent = config_to_dict(model.config), model.config.recurrent
    cells = {cell: config["recurrent"] if recurrent and recurrent.cell == cell else None for cell in ("lstm", "gru")}
    return _describe_file(model, file) | {
        "features": config["features"],
        "targets": config["targets"],
        "outputs": model.config.outputs,
        "lookback": model.config.lookback,
        "horizon": model.config.horizon,
        "architecture": cells | {key: config[key] for key in ("front", "readout", "head", "output_function", "dtype")},
        "reference_windows": len(model.reference),
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


def architecture_table(model: Model, file: Path) -> Table:
    """Shapes and provenance of the model."""
    config, provenance = model.config, model.provenance
    table = Table("", "architecture", title=f"{file.name}  {(model.checkpoint or '')[:19]}…")
    table.add_row("lookback", str(config.lookback))
    table.add_row("outputs", ", ".join(config.outputs))
    if config.front:
        table.add_row("front", describe_layers(config.front))
    table.add_row(config.recurrent.cell.upper() if config.recurrent else "recurrent", describe_recurrent(config))
    table.add_row("head", describe_layers(config.head))
    if config.output_function is not None:
        table.add_row("output function", config.output_function)
    table.add_row("reference", str(model.reference))
    table.add_row("made by", f"{provenance.source}, {provenance.library}, {provenance.created}")
    if provenance.difference is not None:
        relative = f"relative to the output's spread {provenance.relative_difference:.2g}"
        table.add_row("verified", f"largest difference from known predictions {provenance.difference:.2g}, {relative}")
    for reading in provenance.not_told_apart:
        table.add_row("not told apart", f"the windows of the check fit as well: {reading}")
    if provenance.unused:
        table.add_row("left out", f"without effect on the forecasts: {', '.join(provenance.unused)}")
    if provenance.parent is not None:
        table.add_row("made from", f"{provenance.parent[:19]}…")
    return table


def describe_layers(layers: Layers) -> str:
    """Layers in one line, their width as pykan writes it: ``[12, 5, 1]``, with product nodes ``[12, [5, 2], 1]``."""
    kinds = list(dict.fromkeys(_describe_layer(layer) for layer in layers))
    return f"width {width_of(layers)}, {'; '.join(kinds)}"


def _describe_layer(layer: LayerConfig) -> str:
    options = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in vars(layer.basis).items())
    basis = f"{layer.basis.kind} ({options})" if options else layer.basis.kind
    steps = "".join(f"{step.kind.replace('_', ' ')} before, " for step in layer.before)
    return f"{steps}{basis}" + ("" if layer.base == "zero" else f", base {layer.base}")


def describe_recurrent(config: ModelConfig) -> str:
    """The LSTM or GRU and the readout of its steps, in one line."""
    recurrent = config.recurrent
    if recurrent is None:
        return f"none, readout {config.readout}"
    direction = ", bidirectional" if recurrent.bidirectional else ""
    layers = "1 layer" if recurrent.num_layers == 1 else f"{recurrent.num_layers} layers"
    return f"{recurrent.hidden_size} units, {layers}{direction}, readout {config.readout}"


def features_table(model: Model) -> Table:
    """Features and targets, with their units and scaling."""
    table = Table("feature", "unit", title="features and targets")
    for heading in ("mean", "std", "min", "max"):
        table.add_column(heading, justify="right")
    for feature in model.config.features:
        figures = (feature.mean, feature.std, feature.min, feature.max)
        table.add_row(feature.name, feature.unit or "", *map(figure, figures))
    table.add_section()
    for target in model.config.targets:
        table.add_row(f"{target.name} (target)", target.unit or "", figure(target.mean), figure(target.std), "", "")
    return table


def metrics_table(model: Model) -> Table:
    """The metrics measured in training."""
    table = Table("metric", title="metrics")
    table.add_column("value", justify="right")
    for name, value in model.metrics.items():
        table.add_row(name, figure(value))
    return table


def edges_table(topology: Topology, count: int) -> Table:
    """The edges that contribute most, and whether pruning keeps them."""
    edges = _by_contribution(topology)
    kept = sum(edge.kept for edge in edges)
    title = f"{min(count, len(edges))} of {len(edges)} edges by contribution to {topology.output}"
    caption = f"pruned to {kept} edges, the forecasts have R2 {topology.fidelity.r2:.4f} against the full model"
    table = Table("layer", title=title, caption=caption)
    for heading in ("i", "j", *SCORES):
        table.add_column(heading, justify="right")
    table.add_column("kept")
    for edge in edges[:count]:
        figures = map(figure, _scores(edge).values())
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
