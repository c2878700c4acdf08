"""Prints the benchmark table, in less than 20 minutes. Run it alone on the machine: `make bench`."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import explanations
import explorer
import formulas
import forward
import importance
import imports
import pictures
import serving
import tables
import under_load
from table import Row, print_table

from kanmodel.checkpoint import load_checkpoint
from service.models.repository import BUNDLED

NAME = "nyc-weather"


def rows() -> Iterator[Row]:
    """Every row, one after the other."""
    model = load_checkpoint(BUNDLED / f"{NAME}.safetensors")
    yield from serving.rows()
    yield from under_load.rows()
    yield from imports.rows()
    yield from forward.rows()
    yield from explanations.rows(model)
    yield from tables.rows()
    yield from importance.rows(model)
    yield from formulas.rows(model)
    yield from pictures.rows()
    yield from explorer.rows()


if __name__ == "__main__":
    start = monotonic()
    print_table(rows())
    print(f"\n{(monotonic() - start) / 60:.1f} minutes")
