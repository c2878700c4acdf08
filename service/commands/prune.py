"""``kanscope prune``: writes a checkpoint without the edges that the forecast does not need."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from kanmodel import load
from kanmodel.errors import DataError
from kanmodel.explain.pruning import Fill, Metric
from kanmodel.model import Model
from kanmodel.network.config import width_of
from service.commands.options import Checkpoint, Written, figure, make_console, print_written, refuse_unwritable


def prune(
    file: Checkpoint,
    output: Written,
    fidelity: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="R2 against the full model that every output keeps on the reference windows. Default: 0.99 if no "
            "threshold is given.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        Metric | None,
        typer.Option(
            help="Score that ranks the edges. Default: whichever keeps the fewest edges; with thresholds, backward.",
            show_default=False,
        ),
    ] = None,
    fill: Annotated[
        Fill,
        typer.Option(
            help="Value of a dropped edge: its mean on the reference windows (mean ablation), or zero as in pykan."
        ),
    ] = "mean",
    node_threshold: Annotated[
        float | None,
        typer.Option(
            min=0, help="Score that a hidden node must exceed. Default: 0.01 if another is given.", show_default=False
        ),
    ] = None,
    edge_threshold: Annotated[
        float | None,
        typer.Option(
            min=0, help="Score that an edge must exceed. Default: 0.03 if another is given.", show_default=False
        ),
    ] = None,
    input_threshold: Annotated[
        float | None,
        typer.Option(
            min=0, help="Score that an input must exceed. Default: 0.01 if another is given.", show_default=False
        ),
    ] = None,
    output_name: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Output to keep; repeat for several. The accuracy of the others is not guaranteed. Default: all.",
            show_default=False,
        ),
    ] = [],  # noqa: B006  (typer copies it)
) -> None:
    """Drop the edges of the KANs that the forecast does not need, and the nodes left without a path to an output.

    The written checkpoint can be served like any other, and records the hash of the full model.

    Its metrics are measured on the reference windows; the full model's are recorded beside them as unpruned_...
    """
    thresholds = choose_thresholds(fidelity, {"node": node_threshold, "edge": edge_threshold, "input": input_threshold})
    refuse_unwritable(output)
    model = load(file)
    smaller = model.prune(output_name or None, fidelity=fidelity, metric=metric, thresholds=thresholds, fill=fill)
    smaller.save(output)
    written = load(output)
    console = make_console()
    console.print(size_table(model, written))
    console.print(fidelity_table(model, written))
    print_written(output, written)


def choose_thresholds(fidelity: float | None, thresholds: dict[str, float | None]) -> dict[str, float] | None:
    """The thresholds that are given; None if there are none.

    Raises:
        DataError: both a fidelity and a threshold are given.
    """
    given = {name: value for name, value in thresholds.items() if value is not None}
    if given and fidelity is not None:
        raise DataError(f"--fidelity and --{next(iter(given))}-threshold are both given: give one")
    return given or None


def size_table(full: Model, smaller: Model) -> Table:
    """Edges, hidden nodes and widths before and after, as a table."""
    table = Table("", title="pruned")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    before, after = full.size, smaller.size
    table.add_row("edges", str(before.edges), str(after.edges))
    table.add_row("hidden nodes", str(before.nodes), str(after.nodes))
    for stage, layers in full.config.stages.items():
        table.add_row(f"{stage} width", str(width_of(layers)), str(width_of(smaller.config.stages[stage])))
    return table


def fidelity_table(full: Model, smaller: Model) -> Table:
    """R2 and mean absolute errors of each output, as a table."""
    title = f"on the {len(full.reference)} reference windows"
    table = Table("output", title=title, caption="R2: forecasts of the pruned model against the full model's")
    for heading in ("R2", "MAE before", "MAE after"):
        table.add_column(heading, justify="right")
    for name in full.outputs:
        fidelity = smaller.fidelity_to(full, name)
        table.add_row(name, f"{fidelity.r2:.4f}", figure(fidelity.mae_full), figure(fidelity.mae))
    return table
