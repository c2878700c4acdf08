"""`Explanations`: several outputs of the same windows, such as the next 24 hours, each explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np

from kanmodel import html
from kanmodel.attribution.explanation import Explanation, name_columns, name_drivers, name_largest
from kanmodel.errors import check_lowest, refuse_unknown
from kanmodel.result import Table, WindowsResult
from kanmodel.text import list_some

_OF_ONE = ("output", "target_time", "prediction", "actual", "baseline_prediction", "drivers", "error", "converged")
_OF_SEVERAL = ("output", "mean |forecast error|", "largest contributions", "converged")


@dataclass(frozen=True, repr=False, eq=False)
class Explanations(WindowsResult):
    """Explanations of several outputs for the same n windows.

    An output's name gives its `Explanation`, ``t["load+24"]``; a number or a slice gives all outputs of these windows,
    ``t[-1]``.
    """

    by_output: tuple[Explanation, ...]  # in the order in which they were asked for
    targets: tuple[str, ...]  # that each forecasts

    @classmethod
    def of(cls, by_output: Sequence[Explanation], targets: Sequence[str]) -> Explanations:
        """Those of several outputs, each for one of the targets."""
        first = by_output[0]
        known = {name: getattr(first, name) for name in ("times", "series", "origin", "skill")}
        return cls(tuple(by_output), tuple(targets), **known)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(each.output for each in self.by_output)

    @property
    def _undrawn(self) -> str | None:
        return self.by_output[0]._undrawn

    def __len__(self) -> int:
        return len(self.by_output[0])

    def __iter__(self) -> Iterator[Explanations]:
        return (self[window] for window in range(len(self)))

    @overload
    def __getitem__(self, chosen: str) -> Explanation: ...
    @overload
    def __getitem__(self, chosen: int | slice) -> Explanations: ...
    def __getitem__(self, chosen: str | int | slice) -> Explanation | Explanations:
        if isinstance(chosen, str):
            refuse_unknown("output", chosen, self.outputs)
            return self.by_output[self.outputs.index(chosen)]
        return Explanations.of([each[chosen] for each in self.by_output], self.targets)

    def table(self, by: Literal["feature", "group"] = "feature", *, wide: bool = False) -> list[dict[str, Any]]:
        """The rows of `Explanation.table` of each output, with its name as `output`."""
        return [{"output": each.output} | row for each in self.by_output for row in each.table(by, wide=wide)]

    def largest_errors(self, n: int = 10) -> list[dict[str, Any]]:
        """The forecasts of all outputs that are furthest from their actual values, as `Explanation.largest_errors`."""
        check_lowest("n", n, 1)
        known = [each for each in self.by_output if each.error_summary is not None] or self.by_output[:1]
        rows = [{"output": each.output} | row for each in known for row in each.largest_errors(n)]
        return sorted(rows, key=lambda row: -abs(row["forecast_error"]))[:n]

    def _title(self) -> str:
        windows = f"{len(self)} windows" if len(self) != 1 else self.times[0] if self.times else "one window"
        return f"Explanation of {list_some(self.outputs, 3)} for {windows}"

    def _details(self) -> str:
        return html.write_heading(self._title()) + super()._details()

    def _tables(self) -> list[Table]:
        if len(self) == 1:
            wide = zip(self.by_output, self.table(wide=True), strict=True)
            rows = [row | {"drivers": name_drivers(each, 0)} for each, row in wide]
            ends = dict.fromkeys(
                end for each in self.by_output for level in each.intervals for end in name_columns(level)
            )
            names = [name for name in (*_OF_ONE[:3], *ends, *_OF_ONE[3:]) if any(name in row for row in rows)]
            return [Table([dict.fromkeys(names) | row for row in rows], names)]
        rows = [
            {
                "output": each.output,
                "mean |forecast error|": each.error_summary,
                "largest contributions": name_largest(
                    [*each.shown], np.abs(each.contributions_shown).sum(axis=0) / max(1, len(each)), ".3g"
                ),
                "converged": f"{int(each.converged.sum())} of {len(each)}",
            }
            for each in self.by_output
        ]
        known = any(row["mean |forecast error|"] for row in rows)
        tables = [Table(rows, [name for name in _OF_SEVERAL if known or name != "mean |forecast error|"])]
        if known:
            errors = self.largest_errors()
            names = ["output", "time", "target_time", "prediction", "actual", "forecast_error", "drivers"]
            shown = [name for name in names if name in errors[0]]
            tables.append(Table(errors, shown, "Largest errors", in_text=False))
        return tables
