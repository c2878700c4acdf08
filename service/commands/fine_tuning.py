"""``kanscope train --from``: fine-tunes a checkpoint, and prints R2, edges and grid coverage before and after."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from kanmodel.errors import ConfigError
from kanmodel.model import Model
from kanmodel.network.config import ModelConfig
from kanmodel.training.optimization import ARCHITECTURE
from kanmodel.training.training import FineTuning

STATED_BY_FILE = (
    *(name for name in ARCHITECTURE if name != "grid"),
    "unit",
    "group",
    "integer",
    "fixed",
)  # --grid may still refine the grid


def refuse_stated(given: Collection[str], file: Path) -> None:
    """Refuses options that the checkpoint determines.

    Raises:
        ConfigError: one is given.
    """
    for name in STATED_BY_FILE:
        if name in given:
            option = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{option} cannot be given with --from: architecture, units and groups come from {file.name}"
            )


def refuse_differing(wanted: Mapping[str, Any], config: ModelConfig, file: Path) -> None:
    """Refuses options whose value differs from the checkpoint's.

    Args:
        wanted: those of target, features, ahead, lookback and horizon that were given.
        config: the checkpoint's configuration.
        file: the checkpoint.

    Raises:
        ConfigError: one differs.
    """
    stated = {
        "target": tuple(target.name for target in config.targets),
        "features": config.feature_names,
        "ahead": config.ahead,
        "lookback": config.lookback,
        "horizon": config.horizon,
    }
    for name, value in wanted.items():
        if value != stated[name]:
            raise ConfigError(f"--{name} is {_text(value)}, but {file.name} has {_text(stated[name])}")


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Readability:
    """Accuracy and interpretability of a model.

    Attributes:
        test_r2: R2 on the test part.
        edges: number of edges that keep R2 0.99 against the full model, for every output.
        total: number of all edges.
        outside: share of an edge's inputs outside its grid, averaged over edges.
    """

    test_r2: float
    edges: int
    total: int
    outside: float


def measure_readability(model: Model) -> Readability:
    """Measures a model on its reference windows."""
    edges = model.topology().kan_edges
    outside = sum(edge.outside_grid or 0.0 for edge in edges) / len(edges)
    return Readability(model.metrics["test_r2"], model.prune().size.edges, model.size.edges, outside)


def fine_tuning_table(tuning: FineTuning) -> Table:
    """The figures before and after fine-tuning, as a table."""
    before, after = (measure_readability(Model(loaded)) for loaded in (tuning.before, tuning.after))
    n_windows = len(tuning.after.reference.windows)
    table = Table("", title="before and after", caption=f"edges and inputs: on the {n_windows} reference windows")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("test R2", f"{before.test_r2:.4f}", f"{after.test_r2:.4f}")
    table.add_row("edges needed for R2 0.99", f"{before.edges} of {before.total}", f"{after.edges} of {after.total}")
    table.add_row("inputs outside their grids", f"{100 * before.outside:.2f} %", f"{100 * after.outside:.2f} %")
    return table
