"""Expressions of SymPy as presentation MathML, which browsers set as mathematics."""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from typing import Any

_NAMED = re.compile(r"&(?!lt;|gt;|amp;)\w+;")  # entities of HTML, which XML does not have
_INDEXED = re.compile(r"([A-Za-z]+?)_*((?:\d+_)*\d+)")  # such as u7, or phi_0_3_7
_GREEK = {"phi": "φ"}
LONGEST_POWER = 6  # operations in the exponent of e; of more, exp is a function, within which lines can break
_MINUS = "\N{MINUS SIGN}"
_CALLED = {"maximum": "max", "minimum": "min"}


def write_mathml(expression: Any) -> str:
    """An expression in the elements of MathML Core, well-formed as XML, without `math` around them.

    Names of symbols and functions must be identifiers, as nothing escapes them.
    """
    written = _make_printer().doprint(expression)
    return _NAMED.sub(lambda entity: unescape(entity[0]), written)


def _needs_dot(factor: Any) -> bool:
    """Whether a factor would run into the one before: a number, or a name of several letters."""
    base = factor.base if factor.is_Pow else factor
    return base.is_Number or (base.is_Symbol and len(base.name) > 1 and not _INDEXED.fullmatch(base.name))


@cache
def _make_printer() -> Any:
    from sympy import fraction  # here, since it is slow to import
    from sympy.printing.mathml import MathMLPresentationPrinter
    from sympy.printing.precedence import PRECEDENCE

    class Printer(MathMLPresentationPrinter):  # type: ignore[misc]
        """SymPy's, which reads no more into a name than its index, and writes numbers as short as they are."""

        def _make(self, tag: str, *children: Any) -> Any:
            element = self.dom.createElement(tag)
            for child in children:
                element.appendChild(self.dom.createTextNode(child) if isinstance(child, str) else child)
            return element

        def _name(self, name: str) -> Any:
            if (found := _INDEXED.fullmatch(name)) is None:
                return self._make("mi", name)
            stem, index = found.groups()
            return self._make(
                "msub", self._make("mi", _GREEK.get(stem, stem)), self._make("mn", index.replace("_", ","))
            )

        def _print_Symbol(self, symbol: Any, style: str = "plain") -> Any:  # noqa: N802
            return self._name(symbol.name)

        def _print_Function(self, call: Any) -> Any:  # noqa: N802
            tag = self.mathml_tag(call)
            return self._make("mrow", self._name(_CALLED.get(tag, tag)), self._paren_comma_separated(*call.args))

        def _print_exp(self, call: Any) -> Any:
            (power,) = call.args
            if power.count_ops() > LONGEST_POWER:
                return self._print_Function(call)
            return self._make("msup", self._make("mi", "e"), self._print(power))

        def _print_Float(self, number: Any) -> Any:  # noqa: N802
            if number < 0:
                return self._make("mrow", self._make("mo", "-"), self._print(-number))
            mantissa, _, exponent = repr(float(number)).removesuffix(".0").partition("e")
            shown = self._make("mn", mantissa)
            if not exponent:
                return shown
            power = self._make("mn", str(int(exponent)).replace("-", _MINUS))
            return self._make("mrow", shown, self._make("mo", "·"), self._make("msup", self._make("mn", "10"), power))

        def _print_Mul(self, product: Any) -> Any:  # noqa: N802
            """A sign, and a fraction or factors; an exponential is no denominator."""
            is_negative = product.could_extract_minus_sign()
            above, below = fraction(-product if is_negative else product, exact=True)
            if below != 1:
                parts = [self._make("mfrac", self._print(above), self._print(below))]
            else:
                parts = list[Any]()
                for factor in above.as_ordered_factors() if above.is_Mul else [above]:
                    if parts:
                        parts.append(self._make("mo", "·" if _needs_dot(factor) else "&InvisibleTimes;"))
                    parts.append(self.parenthesize(factor, PRECEDENCE["Mul"]))
            return self._make("mrow", *([self._make("mo", "-")] if is_negative else []), *parts)

    return Printer()
