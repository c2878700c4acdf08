"""A formula written out as Python, LaTeX and plain text, in original units.

The variables are the inputs of the head: LSTM units, which are dimensionless, or features in their own units. The
reported errors are those of the written formula, with its rounded constants.

Feature names as Python identifiers, so that a formula of them can be parsed and evaluated.
"""

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
from sympy.printing.numpy import NumPyPrinter

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.errors import ConfigError
from kanmodel.explain.formula import Front, FrontFormula, r2_of_values
from kanmodel.explain.head_formula import TabulatedEdge
from kanmodel.explain.profiles import profile_nodes
from kanmodel.explain.structure import node_id, node_place

RESERVED = frozenset({"numpy", *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *sympy.__all__})


def make_identifiers(names: Sequence[str]) -> list[str]:
    """A different identifier for each name: the name itself where it is one, else the nearest that is free.

    An identifier is of ASCII letters, digits and underscores, and neither a keyword nor a name that Python or sympy has
    already, such as ``lambda``, ``abs``, ``E`` or ``sin``. Accents go, other characters become underscores, a leading
    digit gets ``x`` before it, a reserved name an underscore after it, and one that is taken a number.

    Args:
        names: different names.
    """
    free = [name if _is_free(name) else None for name in names]
    taken = set(free)
    identifiers = []
    for name, kept in zip(names, free, strict=True):
        identifier = kept or next(choice for choice in _choices(name) if _is_free(choice) and choice not in taken)
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


DIGITS = (3, 4, 6, 9)  # of the numbers in a text, tried in turn
LOSS, LOSS_OF_TABLES = 1e-4, 1e-7  # of R2 that fewer digits may cost
N_PROFILED = 3  # features of a variable's profile
OUTPUT_FUNCTIONS = {
    "relu": "Max(x, 0)",
    "sigmoid": "1/(1 + exp(-x))",
    "tanh": "tanh(x)",
    "silu": "x/(1 + exp(-x))",
}


@dataclass(frozen=True)
class Variable:
    """A symbol of a formula and the input that it is.

    Attributes:
        node: id of the node, such as ``lstm:7`` or ``feature:temp_c``.
        profile: the features with the largest shares in its value; empty for a feature.
    """

    node: str
    profile: Mapping[str, float]


@dataclass(frozen=True)
class Formula:
    """One output as a formula of the head's inputs, original units.

    Attributes:
        output: name of the output.
        complexity: pykan's prices of the functions in it, or the coefficients of edges in tables, added up, and one.
        r2: coefficient of determination against the model, through the whole model, on the third part of the reference
            windows, which neither the search nor the choice of formulas has seen; None where the formula has no finite
            value for one of them, as the logarithm of a negative number.
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


def write_formulas(front: Front) -> tuple[Formula, ...]:
    """The texts of a front's formulas.

    Raises:
        ConfigError: the output function cannot be written.
    """
    model = front.models[0]
    config = model.config
    if config.output_function is not None and config.output_function not in OUTPUT_FUNCTIONS:
        raise ConfigError(f"the output function {config.output_function} cannot be written as a formula")
    names = [_name_input(model, index) for index in range(config.head[0].n_in)]
    symbols = [sympy.Symbol(name) for name in make_identifiers(names)]
    profiles = profile_nodes(model).shares.get(node_place(config, "head", 0))
    return tuple(_write(front, one, symbols, profiles) for one in front.formulas)


def _write(front: Front, one: FrontFormula, symbols: Sequence[sympy.Symbol], profiles: Array | None) -> Formula:
    (searched, _, judging), output = front.models, front.output
    config, scaling = searched.config, searched.scaling
    prefix = "phi"
    while any(str(symbol).startswith(prefix) for symbol in symbols):
        prefix += "_"
    tables = [edge for edge in one.formula.edges.values() if isinstance(edge, TabulatedEdge)]
    known = [{prefix + table.name: table.values for table in tables}, "numpy"]
    node = one.formula.express(_in_model_units(searched, symbols), prefix)
    if config.output_function is not None:
        node = sympy.sympify(OUTPUT_FUNCTIONS[config.output_function]).subs(sympy.Symbol("x"), node)
    exact = float(scaling.output_scale[output]) * node + float(scaling.output_mean[output])

    def evaluate(expression: Any, inputs: Array) -> Array:
        with np.errstate(all="ignore"):
            found = sympy.lambdify(symbols, expression, known)(*inputs.T)
        return np.broadcast_to(np.asarray(found, dtype=np.float64), (len(inputs),))

    inputs, full = _inputs(searched, output)
    least = r2_of_values(full, evaluate(exact, inputs)) - (LOSS_OF_TABLES if tables else LOSS)
    shorter = (_round(exact, digits) for digits in DIGITS)
    expression = next((short for short in shorter if r2_of_values(full, evaluate(short, inputs)) >= least), exact)
    inputs, full = _inputs(judging, output)
    found, targets = evaluate(expression, inputs), judging.reference.targets
    is_finite = bool(np.isfinite(found).all())
    used = [index for index, symbol in enumerate(symbols) if symbol in expression.free_symbols]
    name = config.outputs[output]
    return Formula(
        output=name,
        complexity=one.complexity,
        r2=r2_of_values(full, found) if is_finite else None,
        mae=None if targets is None or not is_finite else float(np.abs(found - targets[:, output]).mean()),
        expression=sympy.sstr(expression.replace(sympy.Abs, sympy.Function("abs")), full_prec=False),
        python=_write_python(name, [symbols[i] for i in used], [table.write(prefix) for table in tables], expression),
        latex=sympy.latex(expression),
        variables={str(symbols[index]): _describe(searched, profiles, index) for index in used},
    )


def _write_python(output: str, arguments: Sequence[sympy.Symbol], tables: Sequence[str], expression: Any) -> str:
    printer = NumPyPrinter({"fully_qualified_modules": True, "allow_unknown_functions": True})
    (name,) = make_identifiers([output])
    body = indent("\n".join([*tables, f"return {printer.doprint(expression)}\n"]), "    ")
    return f"import numpy\n\n\ndef {name}({', '.join(map(str, arguments))}):\n{body}"


def _round(expression: Any, digits: int) -> Any:
    values = {number: float(f"{float(number):.{digits}g}") for number in expression.atoms(sympy.Float)}
    return expression.xreplace(
        {n: sympy.Integer(value) if value in (0, 1, -1) else sympy.Float(value) for n, value in values.items()}
    )


def _reads_features(model: LoadedModel) -> bool:
    """Whether the inputs of the head are features of single steps."""
    return model.config.recurrent is None and not model.config.front and model.config.readout != "mean"


def _name_input(model: LoadedModel, index: int) -> str:
    kind, *rest = node_id(model.config, "head", 0, index).split(":")
    return {"lstm": "u", "gru": "u", "front": "n"}.get(kind, "") + "_".join(rest)


def _inputs(model: LoadedModel, output: int) -> tuple[Array, Array]:
    """What the head reads, as the formula has it, (n, n_in), and the output, original units, (n,)."""
    inputs = model.network.encode(model.reference.windows).double().numpy()
    if _reads_features(model):
        mean, scale = _tiled_scaling(model)
        inputs = inputs * scale + mean
    return inputs, model.scaling.outputs_to_original(model.reference_outputs)[:, output]


def _in_model_units(model: LoadedModel, symbols: Sequence[sympy.Symbol]) -> list[Any]:
    if not _reads_features(model):
        return list(symbols)
    means, scales = (values.tolist() for values in _tiled_scaling(model))
    return [(symbol - mean) / scale for symbol, mean, scale in zip(symbols, means, scales, strict=True)]


def _tiled_scaling(model: LoadedModel) -> tuple[Array, Array]:
    """Mean and scale of each input of a head that reads features: of one step, or of all in a row."""
    n_steps = model.config.head[0].n_in // len(model.config.features)
    return np.tile(model.scaling.feature_mean, n_steps), np.tile(model.scaling.feature_scale, n_steps)


def _describe(model: LoadedModel, shares: Array | None, index: int) -> Variable:
    identity = node_id(model.config, "head", 0, index)
    if shares is None:
        return Variable(identity, {})
    names, order = model.config.feature_names, np.argsort(-shares[index], kind="stable")[:N_PROFILED]
    return Variable(identity, {names[f]: float(shares[index, f]) for f in order.tolist() if shares[index, f] > 0})
