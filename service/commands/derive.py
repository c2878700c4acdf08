"""``kanscope prune`` and ``kanscope export``: files that are made from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from kanmodel import load
from kanmodel.errors import DataError
from kanmodel.explain.pruning import Fill, Metric
from kanmodel.network.config import width_of
from kanmodel.text import write_value
from service.commands.options import Checkpoint, Written, print_table, print_written, refuse_unwritable


def prune(
    file: Checkpoint,
    output: Written,
    fidelity: Annotated[
        float | None,
        Option(
            min=0,
            max=1,
            help="R2 against the full model that every output keeps on the reference windows. Default: 0.99 if no "
            "threshold is given.",
        ),
    ] = None,
    metric: Annotated[
        Metric | None,
        Option(
            help="Score that ranks the edges. Default: whichever keeps the fewest edges; with thresholds, backward."
        ),
    ] = None,
    fill: Annotated[
        Fill,
        Option(help="Value of a dropped edge: its mean on the reference windows (mean ablation), or zero as in pykan."),
    ] = "mean",
    node_threshold: Annotated[
        float | None, Option(min=0, help="Score that a hidden node must exceed. Default: 0.01 if another is given.")
    ] = None,
    edge_threshold: Annotated[
        float | None, Option(min=0, help="Score that an edge must exceed. Default: 0.03 if another is given.")
    ] = None,
    input_threshold: Annotated[
        float | None, Option(min=0, help="Score that an input must exceed. Default: 0.01 if another is given.")
    ] = None,
    output_name: Annotated[
        list[str],
        Option(
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
    thresholds = {"node": node_threshold, "edge": edge_threshold, "input": input_threshold}
    given = {name: value for name, value in thresholds.items() if value is not None}
    if given and fidelity is not None:
        raise DataError(f"--fidelity and --{next(iter(given))}-threshold are both given: give one")
    refuse_unwritable(output)
    full = load(file)
    full.prune(output_name or None, fidelity=fidelity, metric=metric, thresholds=given or None, fill=fill).save(output)
    pruned = load(output)
    before, after = full.size, pruned.size
    sizes: list[tuple[Any, ...]] = [("edges", before.edges, after.edges), ("hidden nodes", before.nodes, after.nodes)]
    for stage, layers in full.config.stages.items():
        sizes.append((f"{stage} width", width_of(layers), width_of(pruned.config.stages[stage])))
    print_table("pruned", ["", "before", "after"], sizes)
    fidelities = [(name, pruned.fidelity_to(full, name)) for name in full.outputs]
    print_table(
        f"on the {len(full.reference)} reference windows",
        ["output", "R2", "MAE before", "MAE after"],
        [(name, f"{found.r2:.4f}", found.mae_full, found.mae) for name, found in fidelities],
        caption="R2: forecasts of the pruned model against the full model's",
    )
    print_written(output, pruned)


def export(
    file: Checkpoint, output: Annotated[Path, Option("-o", "--output", help="ONNX file to write, *.onnx.")]
) -> None:
    """Write the forward pass, scaling included, as an ONNX graph that any ONNX runtime can run.

    Its input is "instances" (n, lookback, features) in original units, oldest step first; its outputs are "predictions"
    (n, outputs) in original units, and "logits" where there is an output function. It is compared with the model on all
    reference windows before it is written.
    """
    refuse_unwritable(output, ".onnx")
    written = load(file).export_onnx(output)
    typer.echo(f"{output} ({output.stat().st_size / 1e6:.2f} MB)")
    typer.echo(
        f"Largest difference from the model on {written.windows} reference windows: {write_value(written.difference)}, "
        f"or {write_value(written.relative_difference)} standard deviations."
    )
