"""A whole KAN as one expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kanmodel import html
from kanmodel.results.result import Result
from kanmodel.text import printable


@dataclass(frozen=True, repr=False)
class Formula(Result):
    """A whole KAN as one expression.

    Attributes:
        output: name of the output.
        expression: of the features, original units, in Python's notation with numpy's names of functions.
        symbols: what stands for each feature in the expression, identifiers to names.
        r2: coefficient of determination against the model on the reference windows.
    """

    output: str
    expression: str
    symbols: dict[str, str]
    r2: float

    def table(self) -> list[dict[str, Any]]:
        """One row."""
        return [{"output": self.output, "expression": self.expression, "r2": self.r2}]

    def _title(self) -> str:
        return f"Formula for {self.output}"

    def _details(self) -> str:
        lines = [html.write_heading(self._title()), html.write_code(f"{self.output} = {self.expression}")]
        lines.append(html.write_prose(f"R2 {self.r2:.4f} against the model on the reference windows."))
        lines += [html.write_facts(self._renamed())] if self._renamed() else []
        return "".join(lines)

    def _repr_latex_(self) -> str:
        from sympy import Symbol, latex, parse_expr  # here, since sympy is slow to import

        names = {symbol: Symbol(symbol) for symbol in self.symbols}
        return f"$\\displaystyle {latex(parse_expr(self.expression, local_dict=names))}$"

    def _renamed(self) -> dict[str, str]:
        """The features whose names are no identifiers, by what stands for them."""
        return {symbol: name for symbol, name in self.symbols.items() if symbol != name}

    def __repr__(self) -> str:
        renamed = [f"{symbol} is {printable(name)}" for symbol, name in self._renamed().items()]
        output = printable(self.output)
        return "\n".join([f"{output} = {self.expression}", f"R2 {self.r2:.4f} against the model", *renamed])
