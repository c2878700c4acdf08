"""Commands on a checkpoint: inspect, report, formula, backtest, compare show it, calibrate, prune and export write."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, echo

from kanmodel import Model, load
from kanmodel.errors import DataError
from kanmodel.network.config import LayerConfig, Layers, ModelConfig, width_of
from kanmodel.structure.pruning import Fill, Metric
from kanmodel.structure.topology import Topology
from kanmodel.tables.table import CellNames
from kanmodel.text import write_value
from service.batch import Csv
from service.commands import options

REPORTS = (".html", ".md")
Newest = Annotated[str | None, Option(help="Newest windows alone: a number, or a duration such as 30d.")]


def inspect(
    file: options.Checkpoint,
    output_name: options.OutputName = None,
    edges: Annotated[int, Option(min=0, help="Edges listed in the table, strongest first.")] = 20,
    as_json: Annotated[bool, Option("--json", help="Print JSON, with every edge.")] = False,
) -> None:
    """Print architecture, features, metrics, and the edges by contribution and score."""
    model = load(file)
    if as_json:
        from service.models.registry import NO_VERSIONS, Served
        from service.operations import models
        from service.operations import topology as topologies

        served, found = Served(model.name, model), model.topology(output_name, progress=options.is_watched())
        topology = topologies.describe_topology(served, found, found.upstream(), pruned=False)
        options.print_json({"file": str(file), **models.describe_model(served, NO_VERSIONS), "topology": topology})
    else:
        _print_model(file, model, model.topology(output_name, progress=options.is_watched()), edges)


def report(
    file: options.Checkpoint,
    table: Annotated[Path | None, Argument(help="Table whose newest windows are forecast first.")] = None,
    output: Annotated[Path | None, Option("-o", "--output", help="Page or text to write, *.html or *.md.")] = None,
    output_name: options.OutputName = None,
    separator: options.Separator = ",",
    decimal: options.Decimal = ".",
    as_json: options.AsJson = False,
) -> None:
    """Print what is forecast and how well, what drives it, what to read with care, and answers about the network.

    All of it is measured on the checkpoint's reference windows. With a TABLE, of the columns of the training, the
    forecasts of its newest rows come first. The page has pictures, is two sheets of A4 when printed, three with
    forecasts, and runs and loads nothing.
    """
    if output is not None and as_json:
        raise DataError("--output and --json are both given: give one")
    if output is not None:
        if output.suffix not in REPORTS:
            raise DataError(f"{output} must end in {' or '.join(REPORTS)}")
        options.refuse_unwritable(output, output.suffix)
    model, windows = load(file), None
    if table is not None:
        from polars import DataFrame

        cells = options.read_table(model, table, Csv(separator, decimal))
        empty_as_none = {name: [None if cell != cell else cell for cell in of] for name, of in cells.items()}
        windows = DataFrame(empty_as_none, strict=False)
    found = model.report(output_name, windows, progress=options.is_watched())
    if as_json:
        from service.models.registry import Served
        from service.operations.report import describe_report

        options.print_json({"file": str(file), **describe_report(Served(model.name, model), found)})
    elif output is None:
        echo(repr(found))
    elif output.suffix == ".html":
        found.html(output)
    else:
        output.write_text(found.markdown(), encoding="utf-8")


def _print_model(file: Path, model: Model, topology: Topology, n_edges: int) -> None:
    title = f"{file.name}  {(model.checkpoint or '')[:19]}…"
    options.print_table(title, ["", "architecture"], _describe(model), n_left=2)
    features = ((f.name, f.unit, f.mean, f.std, f.min, f.max) for f in model.features)
    targets = ((f"{t.name} (target)", t.unit, t.mean, t.std, None, None) for t in model.config.targets)
    of_features = ["feature", "unit", "mean", "std", "min", "max"]
    options.print_table("features and targets", of_features, features, targets, n_left=2)
    options.print_table("metrics", ["metric", "value"], model.metrics.items())
    columns, found = ("i", "j", "contribution", "backward", "forward_n", "forward_u"), topology.table()
    rows = [(f"{e['stage']} {e['layer']}", *(e[c] for c in columns), "yes" if e["kept"] else "") for e in found]
    title = f"{min(n_edges, len(found))} of {len(found)} edges by contribution to {topology.output}"
    kept = f"pruned to {sum(edge['kept'] for edge in found)} edges"
    caption = f"{kept}, the forecasts have R2 {topology.fidelity.r2:.4f} against the full model"
    options.print_table(title, ["layer", *columns, "kept"], rows[:n_edges], caption=caption)


def _describe_chain(config: ModelConfig) -> Iterator[tuple[str, str]]:
    if config.front:
        yield "front", _describe_layers(config.front)
    if (recurrent := config.recurrent) is None:
        yield "recurrent", f"none, readout {config.readout}"
    else:
        layers = "1 layer" if recurrent.num_layers == 1 else f"{recurrent.num_layers} layers"
        direction = ", bidirectional" if recurrent.bidirectional else ""
        yield recurrent.cell.upper(), f"{recurrent.hidden_size} units, {layers}{direction}, readout {config.readout}"
    yield "head", _describe_layers(config.head)


def _describe(model: Model) -> Iterator[tuple[str, str]]:
    """Names and values of shapes and provenance."""
    config, provenance = model.config, model.provenance
    yield "skill", model.skill.brief
    yield "lookback", str(config.lookback)
    yield "outputs", ", ".join(config.outputs)
    if config.graph:
        yield "graph", f"{len(config.graph)} nodes"
        yield from ((part.cell.upper(), f"{part.n_units} units") for part in config.recurrents)
        yield from (("layer", f"{of.n_in} to {of.n_out}, {_describe_layer(of)}") for of in config.head)
    else:
        yield from _describe_chain(config)
    if config.output_function is not None:
        yield "output function", config.output_function
    if model.intervals is not None:
        yield "intervals", str(model.intervals)
    yield "reference", str(model.reference)
    yield "made by", f"{provenance.source}, {provenance.library}, {provenance.created}"
    if provenance.difference is not None:
        relative = f"relative to the output's spread {provenance.relative_difference:.2g}"
        yield "verified", f"largest difference from known predictions {provenance.difference:.2g}, {relative}"
    yield from (("not told apart", f"the windows of the check fit as well: {one}") for one in provenance.not_told_apart)
    if provenance.unused:
        yield "left out", f"without effect on the forecasts: {', '.join(provenance.unused)}"
    if provenance.parent is not None:
        yield "made from", f"{provenance.parent[:19]}…"


def _describe_layers(layers: Layers) -> str:
    """Layers in one line, their width as pykan writes it: ``[12, 5, 1]``, with product nodes ``[12, [5, 2], 1]``."""
    return f"width {width_of(layers)}, {'; '.join(dict.fromkeys(map(_describe_layer, layers)))}"


def _describe_layer(layer: LayerConfig) -> str:
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in vars(layer.basis).items())
    steps = "".join(f"{step.kind.replace('_', ' ')} before, " for step in layer.before)
    base = "" if layer.base == "zero" else f", base {layer.base}"
    return f"{steps}{layer.basis.kind}{f' ({numbers})' if numbers else ''}{base}"


def formula(
    file: options.Checkpoint,
    output_name: options.OutputName = None,
    complexity: Annotated[int | None, Option(min=1, help="Print only the best of at most this, as Python.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Print formulas of an output, from a constant to the whole network, each with its error on held-out windows.

    Their variables are LSTM units, or features if there is no LSTM, in original units. R2 and mean absolute error are
    measured through the whole model on a third of the reference windows, which the search has not used.
    """
    model = load(file)
    found = model.formula(output_name, progress=options.is_watched())
    chosen = [each for each in found if each.complexity <= complexity][-1:] if complexity else [*found]
    if as_json:
        from service.models.registry import Served
        from service.operations.formula import describe_formulas

        options.print_json({"file": str(file), **describe_formulas(Served(model.name, model), found, chosen)})
    elif complexity is None:
        echo(repr(found))
    else:
        (one,) = chosen
        r2 = "no R2, as it is not finite" if one.r2 is None else f"R2 {one.r2:.4f} against the model"
        variables = (f"# {symbol} is {variable.node}" for symbol, variable in one.variables.items())
        lines = (f"# complexity {one.complexity}, {r2} on held-out windows", *variables, one.python.rstrip())
        echo("\n".join(lines))


def backtest(
    file: options.Checkpoint,
    table: Annotated[Path, Argument(help="Table with what came: .csv, .csv.gz or .parquet.")],
    target: Annotated[str | None, Option(help="Target to compare. Default: the first.")] = None,
    last: Newest = None,
    series: options.Series = [],  # noqa: B006
    separator: options.Separator = ",",
    decimal: options.Decimal = ".",
    adapt: Annotated[bool, Option("--adapt", help="Adapt intervals to what came, in the order of time.")] = False,
    adaptation: Annotated[
        Path | None, Option(help="State to go on from, if it is there, and to write, *.json.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Forecast from every row of a table, and print the errors: overall, by step, series, hour, month and week.

    TABLE has the columns of the training, its time, and the target, in any order of rows. Hour, month and week are
    those of the time that is forecast, by the clock of the training's time zone, or UTC. Series are in the order of
    their errors, the largest first. Skill is 1 - MAE / MAE of persistence, the last value that was known; the seasonal
    naive forecast is the latest one a whole number of seasons before. Windows across a gap in time or with a missing
    value are left out and counted. Of a model with intervals, their coverage, mean width and Winkler score are printed
    too.
    """
    if adaptation is not None:
        options.refuse_unwritable(adaptation, ".json")
    csv, model = Csv(separator, decimal), load(file)
    state = _read_json(adaptation) if adaptation is not None and adaptation.exists() else adapt or bool(adaptation)
    cells, chosen = options.read_table(model, table, csv), _choose(model, table, last, series)
    found = model.backtest(cells, target, adapt=state, **chosen)
    if adaptation is not None:
        adaptation.write_text(json.dumps(found.adaptation), encoding="utf-8")
    if as_json:
        from service.models.registry import Served
        from service.operations.backtest import describe_backtest

        options.print_json(describe_backtest(Served(model.name, model), found))
    else:
        echo(repr(found))


def calibrate(
    file: options.Checkpoint,
    table: Annotated[Path, Argument(help="Rows that the model was not fitted on: .csv, .csv.gz or .parquet.")],
    output: options.Written,
    intervals: Annotated[list[str], Option(help="Levels, as 0.8,0.95. Default: the model's, or these.")] = [],  # noqa: B006
    last: Newest = None,
    series: options.Series = [],  # noqa: B006
    separator: options.Separator = ",",
    decimal: options.Decimal = ".",
    with_results: options.Prepare = False,
) -> None:
    """Give a model prediction intervals, from its errors over a table with what came (split conformal prediction).

    Quantiles that the model forecasts, and intervals that it was trained with, are scaled; intervals of other models
    have the same width in every window, for each output. The table is read as by backtest.
    """
    options.refuse_unwritable(output)
    levels = options.parse_levels(intervals) or None
    csv, model = Csv(separator, decimal), load(file)
    cells, chosen = options.read_table(model, table, csv), _choose(model, table, last, series)
    calibrated = model.calibrate(cells, intervals=levels, **chosen)
    calibrated = options.save(calibrated, output, with_results)
    echo(f"intervals at {calibrated.intervals}")
    options.print_written(output, calibrated)


def _choose(model: Model, table: Path, last: str | None, series: list[str]) -> dict[str, Any]:
    """The windows of a table, and its names in errors, as arguments of the library."""
    time = model.config.time
    places = CellNames(table.name, time.name if time else "time")
    return {"last": int(last) if last and last.isdecimal() else last, "series": series or None, "places": places}


def _read_json(path: Path) -> Any:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path.name}: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path.name} must hold a JSON object")
    return document


def compare(
    file: options.Checkpoint,
    against: Annotated[Path, Argument(help="Checkpoint to compare it with, such as the last version.")],
    output_name: options.OutputName = None,
    fidelity: Annotated[float, Option(min=0, max=1, help="R2 to which both are pruned to compare edges.")] = 0.99,
    as_markdown: Annotated[bool, Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare a model with another on its reference windows: importance of features, edges, their curves, and errors.

    Differences are the first model minus the second: the changes from the second to the first. Both models explain the
    same windows, so the intervals are those of paired differences.
    """
    if as_markdown and as_json:
        raise DataError("--markdown and --json are both given: give one")
    model, other = (replace(load(path), name=str(path)) for path in (file, against))
    found = model.compare(other, output=output_name, fidelity=fidelity, progress=options.is_watched())
    if as_json:
        from service.models.registry import Served
        from service.operations.alternatives import describe_model_comparison

        options.print_json(describe_model_comparison(Served(model.name, model), Served(other.name, other), found))
    else:
        echo(found.markdown().rstrip() if as_markdown else repr(found))


def prune(
    file: options.Checkpoint,
    output: options.Written,
    fidelity: Annotated[float | None, Option(min=0, max=1, help="R2 of every output; 0.99 by default.")] = None,
    metric: Annotated[Metric | None, Option(help="Score of edges; see above. By thresholds, backward.")] = None,
    fill: Annotated[Fill, Option(help="Value of a dropped edge: its mean, or zero as in pykan.")] = "mean",
    node_threshold: Annotated[float | None, Option(min=0, help="Score that a hidden node must exceed.")] = None,
    edge_threshold: Annotated[float | None, Option(min=0, help="Score that an edge must exceed.")] = None,
    input_threshold: Annotated[float | None, Option(min=0, help="Score that an input must exceed.")] = None,
    output_name: Annotated[list[str], Option(metavar="NAME", help="Output to keep; repeat. Default: all.")] = [],  # noqa: B006
    with_results: options.Prepare = False,
) -> None:
    """Drop the edges of the KANs that the forecast does not need, and the nodes left without a path to an output.

    R2 is that against the full model on the reference windows. By default edges are ranked by the score that keeps the
    fewest. If one threshold is given, the others are 0.01, that of edges 0.03. The written checkpoint can be served
    like any other, and records the hash of the full model. Its metrics are measured on the reference windows; the full
    model's are recorded beside them as unpruned_...
    """
    thresholds = {"node": node_threshold, "edge": edge_threshold, "input": input_threshold}
    given = {name: value for name, value in thresholds.items() if value is not None}
    if given and fidelity is not None:
        raise DataError(f"--fidelity and --{next(iter(given))}-threshold are both given: give one")
    options.refuse_unwritable(output)
    full = load(file)
    names, shown = output_name or None, options.is_watched()
    small = full.prune(names, fidelity=fidelity, metric=metric, thresholds=given or None, fill=fill, progress=shown)
    pruned = options.save(small, output, with_results)
    both = (full, pruned)
    sizes = [("edges", *(one.size.edges for one in both)), ("hidden nodes", *(one.size.nodes for one in both))]
    widths = [(f"{stage} width", *(width_of(one.config.stages[stage]) for one in both)) for stage in full.config.stages]
    options.print_table("pruned", ["", "before", "after"], [*sizes, *widths])
    found = [(name, pruned.fidelity_to(full, name)) for name in full.outputs]
    rows = [(name, f"{kept.r2:.4f}", kept.mae_full, kept.mae) for name, kept in found]
    title = f"on the {len(full.reference)} reference windows"
    caption = "R2: the pruned model's forecasts against the full's"
    options.print_table(title, ["output", "R2", "MAE before", "MAE after"], rows, caption=caption)
    options.print_written(output, pruned)


def export(
    file: options.Checkpoint, output: Annotated[Path, Option("-o", "--output", help="ONNX file to write, *.onnx.")]
) -> None:
    """Write the forward pass, scaling included, as an ONNX graph that any ONNX runtime can run.

    Its input is "instances" (n, lookback, features) in original units, oldest step first; its outputs are "predictions"
    (n, outputs) in original units, and "logits" where there is an output function. It is compared with the model on all
    reference windows before it is written.
    """
    options.refuse_unwritable(output, ".onnx")
    written = load(file).export_onnx(output)
    echo(f"{output} ({output.stat().st_size / 1e6:.2f} MB)")
    difference = f"{write_value(written.difference)}, or {write_value(written.relative_difference)} standard deviations"
    echo(f"Largest difference from the model on {written.windows} reference windows: {difference}.")
