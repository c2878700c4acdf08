"""A formula of a head written out as Python, LaTeX and plain text, in original units; it needs sympy."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from textwrap import indent
from typing import Any

import numpy as np
import sympy
import torch
from sympy.printing.numpy import NumPyPrinter

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.explain.head_formula import HeadFormula
from kanmodel.explain.profiles import profile_nodes
from kanmodel.explain.pruning import r2
from kanmodel.explain.structure import ledger_key, node_id

RESERVED = frozenset({"numpy", *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *sympy.__all__})
DIGITS = (3, 4, 6, 9)  # of the numbers in a text, tried in turn
LOSS, LOSS_OF_TABLES = 1e-4, 1e-7  # of R2 that fewer digits may cost
N_PROFILED = 3  # features of a variable's profile
OUTPUT_FUNCTIONS = {
    None: "x",
    "relu": "Max(x, 0)",
    "sigmoid": "1/(1 + exp(-x))",
    "tanh": "tanh(x)",
    "silu": "x/(1 + exp(-x))",
}


def make_identifiers(names: Sequence[str]) -> list[str]:
    """A different identifier for each name: the name itself where it is one, else the nearest that is free.

    An identifier is of ASCII letters, digits and underscores, and neither a keyword nor a name that Python or sympy has
    already, such as ``lambda``, ``abs``, ``E`` or ``sin``. Accents go, other characters become underscores, a leading
    digit gets ``x`` before it, a reserved name an underscore after it, and one that is taken a number.

    Args:
        names: different names.
    """
    taken = {name for name in names if _is_free(name)}
    identifiers = []
    for name in names:
        identifier = name
        if not _is_free(name):
            identifier = next(choice for choice in _choices(name) if _is_free(choice) and choice not in taken)
            taken.add(identifier)
        identifiers.append(identifier)
    return identifiers


def _is_free(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name not in RESERVED


def _choices(name: str) -> Iterator[str]:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"\W+", "_", plain, flags=re.ASCII).strip("_") or "x"
    stem = f"x{stem}" if stem[0].isdigit() else stem
    stem = f"{stem}_" if stem in RESERVED else stem
    yield stem
    yield from (f"{stem}_{number}" for number in count(2))


@dataclass(frozen=True)
class Variable:
    """A symbol of a formula and the input that it is.

    Attributes:
        node: id of the node, such as ``lstm:7`` or ``feature:temp_c``.
        profile: the features with the largest shares in its value; empty for a feature.
    """

    node: str
    profile: Mapping[str, float]

    def __str__(self) -> str:
        return ", ".join([self.node, *(f"{share:.0%} {name}" for name, share in self.profile.items())])


@dataclass(frozen=True)
class Formula:
    """One output as a formula of the head's inputs: LSTM units, which are dimensionless, or features in their units.

    Attributes:
        output: name of the output.
        complexity: pykan's prices of the functions in it, or the coefficients of edges in tables, added up, and one.
        r2: coefficient of determination of the written formula, with its rounded numbers, against the model, through
            the whole model, on the third part of the reference windows, which neither the search nor the choice of
            formulas has seen; None where it has no finite value for one of them, as the logarithm of a negative number.
        mae: mean absolute error against the targets there; None where targets are unknown, or as for `r2`.
        expression: in Python's notation, with numpy's names of functions; ``phi_0_3_7`` is the table of edge 0, 3, 7.
        python: a function of numpy arrays that needs nothing else, tables included.
        latex: the same expression.
        variables: what its symbols stand for, in the order of the function's arguments.
    """

    output: str
    complexity: int
    r2: float | None
    mae: float | None
    expression: str
    python: str
    latex: str
    variables: Mapping[str, Variable]


class Writer:
    """Writes formulas of one output of a model.

    Args:
        searched: the model with the reference windows on which its formulas were searched, and digits are chosen.
        judged: the model with those on which R2 and error are measured.
        output: number of the output.
    """

    def __init__(self, searched: LoadedModel, judged: LoadedModel, output: int) -> None:
        config, scaling = searched.config, searched.scaling
        self._config, self._scaling, self._output = config, scaling, output
        nodes = [node_id(config, "head", 0, index) for index in range(config.head[0].n_in)]
        self._symbols = [sympy.Symbol(name) for name in make_identifiers([_name_node(node) for node in nodes])]
        self._in_model_units: Sequence[Any] = self._symbols
        shares = profile_nodes(searched).shares.get(ledger_key(config, "head", 0), np.zeros((len(nodes), 0)))
        ranked = zip(nodes, shares, np.argsort(-shares, axis=1, kind="stable")[:, :N_PROFILED], strict=True)
        self._variables = [
            Variable(node, {config.feature_names[f]: float(of[f]) for f in order if of[f] > 0})
            for node, of, order in ranked
        ]
        mean, scale = np.zeros(len(nodes)), np.ones(len(nodes))
        if config.has_plain_steps and config.readout != "mean":  # inputs are features
            n_steps = len(nodes) // len(config.features)
            mean, scale = np.tile(scaling.feature_mean, n_steps), np.tile(scaling.feature_scale, n_steps)
            columns = zip(self._symbols, mean.tolist(), scale.tolist(), strict=True)
            self._in_model_units = [(symbol - its_mean) / its_scale for symbol, its_mean, its_scale in columns]
        (self._inputs, self._full), (self._judged_inputs, self._judged_full) = (
            (
                model.network.encode(model.reference.windows).double().numpy() * scale + mean,
                scaling.outputs_to_original(model.reference_outputs)[:, output],
            )
            for model in (searched, judged)
        )
        self._targets = judged.reference.targets

    def write(self, formula: HeadFormula) -> Formula:
        """The texts of a formula with as few digits as its R2 allows, and its errors."""
        prefix = "phi"
        while any(str(symbol).startswith(prefix) for symbol in self._symbols):
            prefix += "_"
        known = [{prefix + table.name: table.values for table in formula.tables}, "numpy"]

        def evaluate(expression: Any, inputs: Array) -> Array:
            with np.errstate(all="ignore"):
                found = sympy.lambdify(self._symbols, expression, known)(*inputs.T)
            return np.broadcast_to(np.asarray(found, dtype=np.float64), (len(inputs),))

        def fit(expression: Any) -> float:
            return _r2(self._full, evaluate(expression, self._inputs))

        node = formula.express(self._in_model_units, prefix)
        output = sympy.sympify(OUTPUT_FUNCTIONS[self._config.output_function]).subs(sympy.Symbol("x"), node)
        scale, mean = self._scaling.output_scale[self._output], self._scaling.output_mean[self._output]
        exact = float(scale) * output + float(mean)
        least = fit(exact) - (LOSS_OF_TABLES if formula.tables else LOSS)
        shorter = (_round(exact, digits) for digits in DIGITS)
        expression = next((short for short in shorter if fit(short) >= least), exact)
        found = evaluate(expression, self._judged_inputs)
        is_finite = bool(np.isfinite(found).all())
        mae = None
        if is_finite and self._targets is not None:
            mae = float(np.abs(found - self._targets[:, self._output]).mean())
        name = self._config.outputs[self._output]
        used = {
            str(symbol): variable
            for symbol, variable in zip(self._symbols, self._variables, strict=True)
            if symbol in expression.free_symbols
        }
        printer = NumPyPrinter({"fully_qualified_modules": True, "allow_unknown_functions": True})
        tables = [table.write(prefix) for table in formula.tables]
        body = indent("\n".join([*tables, f"return {printer.doprint(expression)}\n"]), "    ")
        return Formula(
            output=name,
            complexity=formula.complexity,
            r2=_r2(self._judged_full, found) if is_finite else None,
            mae=mae,
            expression=sympy.sstr(expression.replace(sympy.Abs, sympy.Function("abs")), full_prec=False),
            python=f"import numpy\n\n\ndef {make_identifiers([name])[0]}({', '.join(used)}):\n{body}",
            latex=sympy.latex(expression),
            variables=used,
        )


def _name_node(node: str) -> str:
    """``lstm:3`` -> ``u3``; ``feature:temp_c`` -> ``temp_c``."""
    kind, *rest = node.split(":")
    return {"lstm": "u", "gru": "u", "front": "n"}.get(kind, "") + "_".join(rest)


def _r2(full: Array, found: Array) -> float:
    return r2(torch.from_numpy(full), torch.tensor(found))


def _round(expression: Any, digits: int) -> Any:
    values = {number: float(f"{float(number):.{digits}g}") for number in expression.atoms(sympy.Float)}
    return expression.xreplace(
        {n: sympy.Integer(value) if value in (0, 1, -1) else sympy.Float(value) for n, value in values.items()}
    )
