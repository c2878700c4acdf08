"""`Formulas`: the head of a network as formulas, from a constant to the whole network (a Pareto front)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kanmodel import html
from kanmodel.results.result import GlobalResult
from kanmodel.text import printable, with_unit, write_table

if TYPE_CHECKING:
    from kanmodel.explain.functions.front import Part
    from kanmodel.explain.functions.written import Formula


@dataclass(frozen=True, repr=False)
class Formulas(GlobalResult):
    """Formulas of one output in the head's inputs: the Pareto front of complexity and error.

    Attributes:
        output: name of the output.
        unit: of the output; None if unknown.
        formulas: simplest first, each nearer to the model than the one before on the windows that choose.
        searched: the reference windows that formulas are searched on.
        chosen: later ones, which choose the formulas of the front.
        judged: the last ones, on which R2 and error are measured.
    """

    output: str
    unit: str | None
    formulas: tuple[Formula, ...]
    searched: Part
    chosen: Part
    judged: Part

    def __len__(self) -> int:
        return len(self.formulas)

    def __iter__(self) -> Iterator[Formula]:
        return iter(self.formulas)

    def __getitem__(self, number: int) -> Formula:
        return self.formulas[number]

    def simplest(self, r2: float) -> Formula | None:
        """The simplest formula with at least this R2 on the judged windows; None if there is none."""
        return next((formula for formula in self.formulas if formula.r2 is not None and formula.r2 >= r2), None)

    def table(self) -> list[dict[str, Any]]:
        """A row for each formula, simplest first."""
        return [
            {"complexity": each.complexity, "r2": each.r2, "mae": each.mae, "expression": each.expression}
            for each in self.formulas
        ]

    def _title(self) -> str:
        return f"Formulas for {with_unit(self.output, self.unit)}"

    def _details(self) -> str:
        facts = self._facts() | {symbol: _describe(each) for symbol, each in self._variables().items()}
        return (
            html.write_heading(self._title())
            + html.write_table(self.table(), ["complexity", "r2", "mae", "expression"])
            + html.write_facts(facts)
            + html.fold("Python", html.write_code("\n\n".join(formula.python for formula in self.formulas[-1:])))
        )

    def _repr_latex_(self) -> str:
        """The last formula, which is nearest to the model."""
        return f"$\\displaystyle {self.formulas[-1].latex}$"

    def _facts(self) -> dict[str, str]:
        """The windows of each purpose."""
        parts = {"searched": self.searched, "chosen": self.chosen, "judged": self.judged}
        return {f"{name} on": _write_part(part) for name, part in parts.items()}

    def _variables(self) -> dict[str, Any]:
        return {symbol: variable for formula in self.formulas for symbol, variable in formula.variables.items()}

    def _text(self) -> str:
        variables = [f"{symbol}: {printable(_describe(each))}" for symbol, each in self._variables().items()]
        table = write_table(self.table(), ["complexity", "r2", "mae", "expression"])
        windows = [f"{name}: {part}" for name, part in self._facts().items()]
        return "\n".join([printable(self._title()), table, *variables, *windows])


def _write_part(part: Part) -> str:
    span = "" if part.first is None else f", {part.first} to {part.last}"
    return f"{part.windows} windows{span}{'' if part.separate else ', which share steps with those before'}"


def _describe(variable: Any) -> str:
    shares = ", ".join(f"{share:.0%} {name}" for name, share in variable.profile.items())
    return f"{variable.node}, {shares}" if shares else str(variable.node)
