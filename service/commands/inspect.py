"""``kanscope inspect``, ``formula`` and ``compare``: print what is in a checkpoint, as tables, text or JSON.

Their JSON has the members of the HTTP answer. It is described by modules that import FastAPI, which the other forms of
output start faster without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from kanmodel import load
from kanmodel.errors import DataError, Problem
from kanmodel.model import Model
from kanmodel.network.config import LayerConfig, Layers, ModelConfig, width_of
from service.commands.options import AsJson, Checkpoint, OutputName, print_json, print_table
from service.models.registry import Served

OF_EDGES = ("i", "j", "contribution", "backward", "forward_n", "forward_u")


def inspect(
    file: Checkpoint,
    output_name: OutputName = None,
    edges: Annotated[int, Option(min=0, help="Edges listed in the table, strongest first.")] = 20,
    report: Annotated[
        bool,
        Option(
            "--report",
            help="Print a Markdown report instead, which answers common questions about the picture of a KAN: has it "
            "pruned itself, which features count, what do lighter edges mean, why are most edges straight.",
        ),
    ] = False,
    as_json: Annotated[
        bool, Option("--json", help="Print JSON, with every edge; with --report, the report and its evidence.")
    ] = False,
) -> None:
    """Print architecture, features, metrics, and the edges by contribution and score."""
    model = load(file)
    if report:
        answered = model.report(output_name)
        if as_json:
            from service.operations.report import describe_report

            print_json({"file": str(file), **describe_report(Served(model.name, model), answered)})
        else:
            typer.echo(answered.markdown(), nl=False)
        return
    topology = model.topology(output_name)
    if as_json:
        from service.operations.models import describe_model
        from service.operations.topology import describe_topology

        served = Served(model.name, model)
        graph = describe_topology(served, topology, topology, pruned=False)
        print_json({"file": str(file), **describe_model(served, []), "topology": graph})
        return
    features = ((f.name, f.unit, f.mean, f.std, f.min, f.max) for f in model.features)
    targets = ((f"{t.name} (target)", t.unit, t.mean, t.std, None, None) for t in model.config.targets)
    listed = topology.table()
    print_table(f"{file.name}  {(model.checkpoint or '')[:19]}…", ["", "architecture"], _describe(model), n_left=2)
    print_table("features and targets", ["feature", "unit", "mean", "std", "min", "max"], features, targets, n_left=2)
    print_metrics(model)
    title = f"{min(edges, len(listed))} of {len(listed)} edges by contribution to {topology.output}"
    kept = f"pruned to {sum(edge['kept'] for edge in listed)} edges"
    caption = f"{kept}, the forecasts have R2 {topology.fidelity.r2:.4f} against the full model"
    rows = (
        (f"{edge['stage']} {edge['layer']}", *itemgetter(*OF_EDGES)(edge), "yes" if edge["kept"] else "")
        for edge in listed[:edges]
    )
    print_table(title, ["layer", *OF_EDGES, "kept"], rows, caption=caption)


def print_metrics(model: Model) -> None:
    """Prints the metrics measured in training."""
    print_table("metrics", ["metric", "value"], model.metrics.items())


def _describe(model: Model) -> Iterator[tuple[str, str]]:
    """Names and values of shapes and provenance."""
    config, provenance = model.config, model.provenance
    yield "lookback", str(config.lookback)
    yield "outputs", ", ".join(config.outputs)
    if config.front:
        yield "front", _describe_layers(config.front)
    yield config.recurrent.cell.upper() if config.recurrent else "recurrent", _describe_recurrent(config)
    yield "head", _describe_layers(config.head)
    if config.output_function is not None:
        yield "output function", config.output_function
    yield "reference", str(model.reference)
    yield "made by", f"{provenance.source}, {provenance.library}, {provenance.created}"
    if provenance.difference is not None:
        relative = f"relative to the output's spread {provenance.relative_difference:.2g}"
        yield "verified", f"largest difference from known predictions {provenance.difference:.2g}, {relative}"
    for reading in provenance.not_told_apart:
        yield "not told apart", f"the windows of the check fit as well: {reading}"
    if provenance.unused:
        yield "left out", f"without effect on the forecasts: {', '.join(provenance.unused)}"
    if provenance.parent is not None:
        yield "made from", f"{provenance.parent[:19]}…"


def _describe_layers(layers: Layers) -> str:
    """Layers in one line, their width as pykan writes it: ``[12, 5, 1]``, with product nodes ``[12, [5, 2], 1]``."""
    return f"width {width_of(layers)}, {'; '.join(dict.fromkeys(map(_describe_layer, layers)))}"


def _describe_layer(layer: LayerConfig) -> str:
    options = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in vars(layer.basis).items())
    steps = "".join(f"{step.kind.replace('_', ' ')} before, " for step in layer.before)
    base = "" if layer.base == "zero" else f", base {layer.base}"
    return f"{steps}{layer.basis.kind}{f' ({options})' if options else ''}{base}"


def _describe_recurrent(config: ModelConfig) -> str:
    recurrent = config.recurrent
    if recurrent is None:
        return f"none, readout {config.readout}"
    layers = "1 layer" if recurrent.num_layers == 1 else f"{recurrent.num_layers} layers"
    direction = ", bidirectional" if recurrent.bidirectional else ""
    return f"{recurrent.hidden_size} units, {layers}{direction}, readout {config.readout}"


def formula(
    file: Checkpoint,
    output_name: OutputName = None,
    complexity: Annotated[
        int | None, Option(min=1, help="Print only the best formula of at most this complexity, as Python.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print formulas of the head, from a constant to the whole network, each with its error on held-out windows.

    Their variables are LSTM units, or features if there is no LSTM, in original units. R2 and mean absolute error are
    measured through the whole model on a third of the reference windows, which neither the search nor the choice among
    the formulas has used.
    """
    model = load(file)
    found = model.formula(output_name)
    chosen = [each for each in found if complexity is None or each.complexity <= complexity]
    if complexity is not None:
        chosen = chosen[-1:]
    if as_json:
        from service.operations.formula import describe_formulas

        print_json({"file": str(file), **describe_formulas(Served(model.name, model), found, chosen)})
    elif complexity is None:
        typer.echo(repr(found))
    else:
        (one,) = chosen
        r2 = "no R2, as it is not finite" if one.r2 is None else f"R2 {one.r2:.4f} against the model"
        typer.echo(f"# complexity {one.complexity}, {r2} on held-out windows")
        for symbol, variable in one.variables.items():
            typer.echo(f"# {symbol} is {variable.node}")
        typer.echo(one.python.rstrip())


def compare(
    file: Checkpoint,
    against: Annotated[Path, Argument(help="Checkpoint to compare it with, such as the last version.")],
    output_name: OutputName = None,
    fidelity: Annotated[
        float, Option(min=0, max=1, help="R2 to which both models are pruned before their edges are compared.")
    ] = 0.99,
    as_markdown: Annotated[
        bool, Option("--markdown", help="Print Markdown, for a pull request with a new model.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a model with another on its reference windows: importance of features, edges, their curves, and errors.

    Differences are the first model minus the second: the changes from the second to the first. Both models explain the
    same windows, so the intervals are those of paired differences.
    """
    if as_markdown and as_json:
        conflict = Problem("--markdown", "cannot be combined with --json")
        raise DataError("--markdown and --json are both given: give one", [conflict])
    model, other = (replace(load(path), name=str(path)) for path in (file, against))
    found = model.compare(other, output=output_name, fidelity=fidelity)
    if as_json:
        from service.operations.comparison import describe_model_comparison

        print_json(describe_model_comparison(Served(model.name, model), Served(other.name, other), found))
    else:
        typer.echo(found.markdown().rstrip() if as_markdown else repr(found))
