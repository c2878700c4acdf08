"""An output of a network as formulas: the Pareto front of complexity and error, from a constant to the whole network.

The edges enter in the order of their contributions, each as the function that fits it best, at several weights of
complexity; the constants of each formula are then fitted together. The last formula is the network itself, with its
edges as tables, unless a shorter one is as near.

The reference windows are split into three parts that are separate in time: blocks of windows in turn, so that each part
covers the seasons. Edges are ranked, functions fitted and tables sampled on the first; the second chooses which
formulas are on the front; the third is only used for the reported error, through the whole model: the inputs of the
head are the network's own, after the LSTM where there is one.
"""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, pairwise
from math import log
from textwrap import indent
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kanmodel import html
from kanmodel.arrays import Array
from kanmodel.attribution.ledger import explain_windows
from kanmodel.attribution.profiles import profile_nodes
from kanmodel.computing import pause, progress_share, publish, tracked
from kanmodel.errors import ConfigError, InsufficientReferenceError
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.formula.composition import MAX_CALLS, MAX_TERMS, Composition, Edge, Subnode, notation_of, too_long_error
from kanmodel.formula.head_formula import HeadFormula, TabulatedEdge, tabulate_edges
from kanmodel.formula.mathml import write_mathml
from kanmodel.formula.symbolic import Candidate, find_exact_formula, sample_edge, suggest_formulas
from kanmodel.network.functions import ACTIVATIONS, activate
from kanmodel.result import GlobalResult, Table
from kanmodel.structure.pruning import r2
from kanmodel.text import with_unit

MAX_EDGES = 40  # in a formula of functions
SIZES = (1, 2, 3, 4, 6, 9, 13, 20, 30)  # edges of the formulas that are tried
PRICES = (0.0, 0.003, 0.03)  # of R2 that a simpler function on an edge may lose, per unit of complexity
MIN_GAIN = 1e-4  # of R2 that more complexity must bring
MIN_WINDOWS = 6  # of the reference
MAX_BLOCKS, BLOCK = 4, 32  # blocks of a part, and the windows that each needs if there are to be several
DIGITS = (3, 4, 6, 9)  # of the numbers in a text, tried in turn
LOW, MUCH = 0.5, 0.2  # an R2 that explains too little, and how much better a next formula has to be
LOSS, LOSS_OF_TABLES = 1e-4, 1e-7  # of R2 that fewer digits may cost
N_PROFILED = 3  # features of a variable's profile


@dataclass(frozen=True)
class ReferencePart:
    """The reference windows of one purpose.

    Windows at the beginning of a block that share a step with another part are left out, but not more than half.

    Attributes:
        windows: their number, in all blocks.
        first: time stamp of the first; None if unknown.
        last: that of the last; blocks of other parts may lie between.
        separate: whether none shares a step with a window of another part.
    """

    windows: int
    first: str | None
    last: str | None
    separate: bool

    def __str__(self) -> str:
        span = "" if self.first is None else f", {self.first} to {self.last}"
        return f"{self.windows} windows{span}{'' if self.separate else ', which share steps with those before'}"


def split_reference(model: Forecaster) -> list[tuple[Forecaster, ReferencePart]]:
    """The model with each part of its reference windows: up to 12 blocks in time order, which go to the parts in turn.

    A block begins after the windows that share a step with the block before: their oldest row is in its last window.
    Raises InsufficientReferenceError if there are fewer than 6 windows.
    """
    windows, targets, times = model.reference.scaled, model.reference.targets, model.reference.times
    n_windows = len(windows)
    if n_windows < MIN_WINDOWS:
        needed = f"{MIN_WINDOWS} reference windows, to search, choose and judge"
        raise InsufficientReferenceError(f"formulas need {needed}, but there are {n_windows}")
    n_blocks = 3 * min(MAX_BLOCKS, max(1, n_windows // (3 * BLOCK)))
    rows: list[list[int]] = [[], [], []]
    separate = [True] * 3
    for block, (first, last) in enumerate(pairwise(round(n_windows * n / n_blocks) for n in range(n_blocks + 1))):
        n_shared = 0
        if first:
            shares = (windows[first:last, None, 0] == windows[first - 1, 1:]).all(dim=-1).any(dim=-1).tolist()
            n_shared = [*shares, False].index(False)
        rows[block % 3] += range(first + min(n_shared, (last - first) // 2), last)
        separate[block % 3] &= n_shared <= (last - first) // 2
    parts = []
    for chosen, is_separate in zip(rows, separate, strict=True):
        stamps = None if times is None else tuple(times[row] for row in chosen)
        reference = Reference(windows[chosen], model.config, None if targets is None else targets[chosen], stamps)
        start, end = (None, None) if stamps is None else (stamps[0], stamps[-1])
        parts.append((replace(model, reference=reference), ReferencePart(len(chosen), start, end, is_separate)))
    return parts


Front = list[tuple[HeadFormula, float]]


def find_front(
    searched: Forecaster,
    choosing: Forecaster,
    output: int,
    composition: Composition,
    found: Callable[[HeadFormula], None] = lambda formula: None,
) -> Front:
    """The formulas of one output before the output function, simplest first; deterministic.

    They are searched on the reference windows of `searched`, whose contributions must be finite (NonFiniteError). Each
    is nearer to the model than the one before on those of `choosing`, of which its R2 is returned beside it: against
    the model, through the whole model. `found` is called with those that are on the front of what is known so far.
    """
    function, scaling = choosing.config.output_function, choosing.scaling
    with torch.no_grad():
        trace = choosing.network.trace(choosing.reference.scaled)
    inputs = composition.read(choosing.reference.scaled, trace)

    def finish(logits: Tensor) -> Tensor:
        if function is not None:
            logits = activate(function, ACTIVATIONS[function].parameter, logits)
        return logits * float(scaling.output_scale[output]) + float(scaling.output_mean[output])

    full, tried = finish(trace.logits[:, output].double()), Front()
    with progress_share(0.8):
        search = _Search(searched, output, composition)
        for formulas in search.compose():
            fitted = [formula.fit(search.inputs, search.logits) for formula in formulas]
            tried += [(one, r2(full, finish(torch.from_numpy(one.values(inputs))))) for one in fitted]
            for formula, _ in _choose(tried):
                if any(formula is one for one in fitted):
                    found(formula)
            pause()
    if (whole := search.tabulate()) is not None:
        tried.append((whole, r2(full, finish(torch.from_numpy(whole.values(inputs))))))
    return _choose(tried)


def _choose(tried: Front) -> Front:
    """The Pareto front of formulas with their R2."""
    front = Front()
    for formula, of_formula in sorted(tried, key=lambda pair: (pair[0].complexity, -pair[1])):
        if not front or of_formula > front[-1][1] + MIN_GAIN:
            front.append((formula, of_formula))
    return front


def find_knee(complexities: Sequence[int], r2s: Sequence[float | None]) -> int:
    """The number of the formula at the knee of a front, simplest first, by its R2 (Satopaa et al. 2011, "Kneedle").

    R2 is clipped at 0, as a formula below 0 is worse than the mean. The knee is farthest above the line from the first
    formula to the nearest one, over the logarithm of the complexity: a vertex of the convex hull. If none is above, it
    is the nearest. From a formula with an R2 below `LOW` it goes on while the next has `MUCH` more. One with an R2 of 0
    or below, or without, is the knee only if there is no better one.
    """
    known = [max(r2 or 0.0, 0.0) for r2 in r2s]
    nearest = max(range(len(known)), key=lambda number: (known[number], -number))
    front, highest = [0], known[0]  # those that are nearer than all before
    for number in range(1, nearest + 1):
        if known[number] > highest:
            front.append(number)
            highest = known[number]
    at = [log(complexities[number]) - log(complexities[0]) for number in front]
    above = [
        known[number] - known[0] - (highest - known[0]) * (x / (at[-1] or 1.0))
        for number, x in zip(front, at, strict=True)
    ]
    knee = max(range(len(front)), key=lambda n: (above[n] if known[front[n]] > 0 else -1.0, n))
    while knee + 1 < len(front) and known[front[knee]] < LOW and known[front[knee + 1]] >= known[front[knee]] + MUCH:
        knee += 1
    return front[knee]


class _Search:
    """The search for formulas of one output: of inputs (n, n_inputs) for its logits (n,), model units."""

    def __init__(self, model: Forecaster, output: int, composition: Composition) -> None:
        self._composition, self._layers, windows = composition, composition.layers, model.reference.scaled
        with torch.no_grad():
            trace = model.network.trace(windows)
        self._traces = composition.traces(trace, len(windows))
        self._means = {number: of.edges.double().mean(dim=0).numpy() for number, of in self._traces.items()}
        self.inputs, self.logits = composition.read(windows, trace), trace.logits[:, output].double().numpy()
        self._live = sorted(
            (number, i, j) for number in self._traces for j, i in self._layers[number].live.nonzero().tolist()
        )
        magnitudes = {
            layer.layer: np.abs(layer.edges).mean(axis=0)
            for layer in explain_windows(model, windows, output).layers
            if layer.stage == "head" and layer.edges is not None
        }
        self._ranked = sorted(self._live, key=lambda edge: (-magnitudes[edge[0]][edge[2], edge[1]], edge))[:MAX_EDGES]
        self._candidates: dict[Edge, list[Candidate]] = {}

    def compose(self) -> Iterator[list[HeadFormula]]:
        """Formulas of growing numbers of edges, whose functions are searched on the way, without repetitions.

        Raises ConfigError where all but a constant would be too long.
        """
        seen, too_long, searched = set(), False, 0
        sizes = dict.fromkeys([0, *(size for size in SIZES if size < len(self._ranked)), len(self._ranked)])
        for size in sizes:
            with progress_share((size - searched) / (len(self._ranked) - searched or 1)):
                for n, i, j in tracked(self._ranked[searched:size]):
                    exact = find_exact_formula(self._layers[n], i, j)  # which is then the only one
                    suggested = [exact] if exact else suggest_formulas(*sample_edge(self._traces[n], i, j))
                    self._candidates[n, i, j] = suggested
            searched, formulas = size, []
            used = self._find_used(self._ranked[:size])
            too_long |= used is None
            prices = PRICES if size else PRICES[:1]
            for formula in [] if used is None else [self._compose(used, price) for price in prices]:
                if tuple(formula.edges.items()) not in seen:
                    seen.add(tuple(formula.edges.items()))
                    formulas.append(formula)
            yield formulas
        if too_long and seen == {()}:
            raise too_long_error()

    def _find_used(self, edges: Sequence[Edge]) -> list[Edge] | None:
        """Those of some edges by which the output depends on the inputs; None if a formula of them is too long."""
        used, n_calls, n_operations = self._composition.find_used(edges)
        return used if n_calls <= MAX_CALLS and n_operations <= MAX_TERMS else None

    def _compose(self, used: Sequence[Edge], price: float) -> HeadFormula:
        """The formula of some edges, each with the best function; what is left out is its mean."""
        edges: dict[Edge, Candidate] = {}
        constants = {(n, j): float(of.sum()) for n, means in self._means.items() for j, of in enumerate(means)}
        for n, i, j in used:
            chosen = max(self._candidates[n, i, j], key=lambda one: one.r2 - price * one.complexity)
            edges[n, i, j] = replace(chosen, d=0.0)
            constants[n, j] += chosen.d - float(self._means[n][j, i])
        return HeadFormula(self._composition, edges, constants)

    def tabulate(self) -> HeadFormula | None:
        """The network itself; None where it is too large to be written."""
        if (used := self._find_used(self._live)) is None:
            return None
        tables = tabulate_edges(self._layers, self._traces, used)
        edges: dict[Edge, Candidate | TabulatedEdge] = {}
        constants: dict[Subnode, float] = defaultdict(float)
        for n, i, j in self._live:
            if (n, i, j) not in tables:  # it comes from what is constant, or leads elsewhere
                constants[n, j] += float(self._means[n][j, i])
            elif (exact := find_exact_formula(self._layers[n], i, j)) is not None:
                edges[n, i, j] = replace(exact, d=0.0)
                constants[n, j] += exact.d
            else:
                edges[n, i, j] = tables[n, i, j]
        return HeadFormula(self._composition, edges, constants)


@dataclass(frozen=True)
class Variable:
    """The input that a symbol of a formula stands for.

    Attributes:
        node: id of the node, such as ``lstm:7`` or ``feature:temp_c``, or its statistic over the steps of the window,
            such as ``mean(temp_c)``.
        profile: the features with the largest shares in its value; empty for a feature.
    """

    node: str
    profile: Mapping[str, float]

    def __str__(self) -> str:
        return ", ".join([self.node, *(f"{share:.0%} {name}" for name, share in self.profile.items())])


@dataclass(frozen=True)
class Formula:
    """One output as a formula: of LSTM units, which are dimensionless, or of features in their units.

    Attributes:
        output: name of the output.
        complexity: one more than the sum of pykan's prices of the functions on edges, or of the coefficients of edges
            in tables; operations between layers, which all formulas of a graph have, are not counted.
        r2: coefficient of determination of the written formula, with its rounded numbers, against the model, through
            the whole model, on the third part of the reference windows, which neither the search nor the choice of
            formulas has seen; None where it has no finite value for one of them, as the logarithm of a negative number.
        mae: mean absolute error against the targets there; None where targets are unknown, or as for `r2`.
        expression: the expression in Python's notation, with numpy's names of functions, in original units;
            ``phi_0_3_7`` is the table of edge 0, 3, 7.
        python: the same as a function of numpy arrays that needs nothing else, tables included.
        latex: the same expression in LaTeX.
        mathml: the same expression in presentation MathML, well-formed XML without `math` around it.
        variables: what its symbols stand for, in the order of the function's arguments.
    """

    output: str
    complexity: int
    r2: float | None
    mae: float | None
    expression: str
    python: str
    latex: str
    mathml: str
    variables: Mapping[str, Variable]


class Writer:
    """Writes formulas of one output: digits are chosen on the windows of `searched`, errors measured on `judged`'s."""

    def __init__(self, searched: Forecaster, judged: Forecaster, output: int, composition: Composition) -> None:
        import sympy  # here, since it is slow to import

        config, scaling, inputs = searched.config, searched.scaling, composition.inputs
        self._config, self._scaling, self._output = config, scaling, output
        self._symbols = [sympy.Symbol(name) for name in make_identifiers([one.name for one in inputs])]
        self._prefix = "phi"  # of the names of tables
        while any(str(symbol).startswith(self._prefix) for symbol in self._symbols):
            self._prefix += "_"
        columns = zip(self._symbols, inputs, strict=True)
        self._in_model_units = [
            symbol if (one.mean, one.scale) == (0, 1) else (symbol - one.mean) / one.scale for symbol, one in columns
        ]
        mixed = {one.key for one in inputs if one.key[0] != "input"}  # what features mix in
        shares = profile_nodes(searched, mixed, with_lags=False).shares if mixed else {}
        self._variables = []
        for one in inputs:
            of = shares[one.key][one.unit] if one.key in shares else np.zeros(len(config.features))
            order = np.argsort(-of, kind="stable")[:N_PROFILED]
            profile = {config.feature_names[f]: float(of[f]) for f in order if of[f] > 0}
            self._variables.append(Variable(one.node, profile))
        self._inputs, self._full = self._read(searched, composition)
        self._judged_inputs, self._judged_full = self._read(judged, composition)
        self._targets = judged.reference.actual(output)

    def _read(self, model: Forecaster, composition: Composition) -> tuple[Array, Tensor]:
        """The inputs of the formulas on the reference windows, (n, n_inputs), and the output, (n,), original units."""
        with torch.no_grad():
            trace = model.network.trace(model.reference.scaled)
        mean, scale = (np.array([getattr(one, name) for one in composition.inputs]) for name in ("mean", "scale"))
        inputs = composition.read(model.reference.scaled, trace) * scale + mean
        return inputs, torch.tensor(model.reference_predictions[:, self._output])

    def write(self, formula: HeadFormula) -> Formula:
        """The texts of a formula with as few digits as its R2 allows, and its errors."""
        import sympy

        known = [{self._prefix + table.name: table.values for table in formula.tables}, "numpy"]

        def evaluate(expression: Any, inputs: Array) -> Array:
            with np.errstate(all="ignore"):
                found = sympy.lambdify(self._symbols, expression, known, cse=True)(*inputs.T)
            return np.broadcast_to(np.asarray(found, dtype=np.float64), (len(inputs),))

        def fit(expression: Any) -> float:
            return r2(self._full, torch.tensor(evaluate(expression, self._inputs)))

        def round_to(digits: int) -> Any:
            rounded = {number: float(f"{float(number):.{digits}g}") for number in exact.atoms(sympy.Float)}
            numbers = {
                n: (sympy.Integer if value in (0, 1, -1) else sympy.Float)(value) for n, value in rounded.items()
            }
            return exact.xreplace(numbers)

        exact = self._express(formula)
        least = fit(exact) - (LOSS_OF_TABLES if formula.tables else LOSS)
        expression = next((short for short in map(round_to, DIGITS) if fit(short) >= least), exact)
        found = evaluate(expression, self._judged_inputs)
        is_finite = bool(np.isfinite(found).all())
        named = zip(self._symbols, self._variables, strict=True)
        used = {str(symbol): variable for symbol, variable in named if symbol in expression.free_symbols}
        return Formula(
            output=self._config.outputs[self._output],
            complexity=formula.complexity,
            r2=r2(self._judged_full, torch.tensor(found)) if is_finite else None,
            mae=float(np.abs(found - self._targets).mean()) if is_finite and self._targets is not None else None,
            expression=sympy.sstr(expression.replace(sympy.Abs, sympy.Function("abs")), full_prec=False),
            python=self._write_function(expression, [*used], formula.tables),
            latex=sympy.latex(expression),
            mathml=write_mathml(expression),
            variables=used,
        )

    def _express(self, formula: HeadFormula) -> Any:
        """The output in original units as an expression, with all digits."""
        node, function = formula.express(self._in_model_units, self._prefix), self._config.output_function
        if function is not None:
            node = notation_of(function).of_symbols(node, 0.0, ACTIVATIONS[function].parameter or 0.0)
        scale, mean = self._scaling.output_scale[self._output], self._scaling.output_mean[self._output]
        return float(scale) * node + float(mean)

    def _write_function(self, expression: Any, arguments: Sequence[str], tables: Sequence[TabulatedEdge]) -> str:
        """An expression as a function in Python with numpy."""
        from sympy.printing.numpy import NumPyPrinter

        functions = {name: f"numpy.{name}" for name in ("maximum", "minimum")}
        options = {"fully_qualified_modules": True, "allow_unknown_functions": True, "user_functions": functions}
        written = f"return {NumPyPrinter(options).doprint(expression)}\n"
        body = indent("\n".join([*(table.write(self._prefix) for table in tables), written]), "    ")
        name = make_identifiers([self._config.outputs[self._output]])[0]
        return f"import numpy\n\n\ndef {name}({', '.join(arguments)}):\n{body}"


def make_identifiers(names: Sequence[str]) -> list[str]:
    """A different identifier for each name: the name itself where it is one and new, else the nearest that is free.

    An identifier is of ASCII letters, digits and underscores, and neither a keyword nor a name that Python or sympy has
    already, such as ``lambda``, ``abs``, ``E`` or ``sin``. Accents go, other characters become underscores, a leading
    digit gets ``x`` before it, a reserved name an underscore after it, and one that is taken a number.
    """
    import sympy  # here, since it is slow to import

    reserved = {"numpy", *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *sympy.__all__}
    kept = {name for name in names if name.isascii() and name.isidentifier() and name not in reserved}
    taken, identifiers = reserved | kept, list(names)
    for place, name in enumerate(names):
        if name not in kept or name in names[:place]:
            plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
            stem = re.sub(r"\W+", "_", plain, flags=re.ASCII).strip("_") or "x"
            stem = f"x{stem}" if stem[0].isdigit() else stem
            stem = f"{stem}_" if stem in reserved else stem
            choices = chain([stem], (f"{stem}_{number}" for number in count(2)))
            identifiers[place] = next(choice for choice in choices if choice not in taken)
            taken.add(identifiers[place])
    return identifiers


@dataclass(frozen=True, repr=False)
class Formulas(GlobalResult):
    """Formulas of one output: the Pareto front of complexity and error.

    Attributes:
        output: name of the output.
        unit: of the output; None if unknown.
        formulas: simplest first, each nearer to the model than the one before on the windows that choose.
        searched: the reference windows that formulas are searched on.
        chosen: those that choose the formulas of the front.
        judged: those on which R2 and error are measured.
    """

    output: str
    unit: str | None
    formulas: tuple[Formula, ...]
    searched: ReferencePart
    chosen: ReferencePart
    judged: ReferencePart

    @classmethod
    def of(cls, model: Forecaster, output: int) -> Formulas:
        """Searches the formulas of one output.

        Raises:
            ConfigError: a layer norm or a softmax mixes what a formula would have to hold alone, an operation or the
                output function cannot be written, or what is between the layers would be too long.
            InsufficientReferenceError: there are fewer than 6 reference windows.
            NonFiniteError: a contribution is not finite on the reference windows.
        """
        config = model.config
        if config.output_function == "softmax":
            raise ConfigError("a formula needs outputs that are functions of one node, but softmax mixes them")
        if config.output_function is not None:
            notation_of(config.output_function)
        composition = Composition.of(model, output)
        (searched, chosen, judged), parts = zip(*split_reference(model), strict=True)
        written: dict[int, tuple[HeadFormula, Formula]] = {}  # by the identity of what is kept beside it

        def write(formula: HeadFormula) -> Formula:
            if id(formula) not in written:
                written[id(formula)] = formula, writer.write(formula)
            return written[id(formula)][1]

        with progress_share(0.8):
            writer = Writer(searched, judged, output, composition)
            front = find_front(searched, chosen, output, composition, lambda formula: publish(lambda: write(formula)))
        formulas = tuple(write(formula) for formula, _ in tracked(front))
        unit = config.target_of(output).unit
        return cls(config.outputs[output], unit, formulas, *parts, reference=model.reference.span)

    def __len__(self) -> int:
        return len(self.formulas)

    def __iter__(self) -> Iterator[Formula]:
        return iter(self.formulas)

    def __getitem__(self, number: int) -> Formula:
        return self.formulas[number]

    @property
    def knee(self) -> int:
        """The number of the formula to show first; see `find_knee`."""
        return find_knee([formula.complexity for formula in self], [formula.r2 for formula in self])

    def simplest(self, r2: float) -> Formula | None:
        """The simplest formula with at least this R2 on the judged windows; None if there is none."""
        return next((formula for formula in self.formulas if formula.r2 is not None and formula.r2 >= r2), None)

    def table(self) -> list[dict[str, Any]]:
        """A row for each formula, simplest first."""
        columns = ("complexity", "r2", "mae", "expression")
        return [{name: getattr(formula, name) for name in columns} for formula in self.formulas]

    def _title(self) -> str:
        return f"Formulas for {with_unit(self.output, self.unit)}"

    def _facts(self) -> dict[str, str]:
        """The windows of each purpose, and what the symbols stand for."""
        parts = {f"{name} on": str(getattr(self, name)) for name in ("searched", "chosen", "judged")}
        return parts | {symbol: str(of) for formula in self.formulas for symbol, of in formula.variables.items()}

    def _tables(self) -> list[Table]:
        rows = self.table()
        return [Table(rows, list(rows[0]))]

    def _details(self) -> str:
        return super()._details() + html.fold("Python", html.write_code(self.formulas[-1].python))

    def _repr_latex_(self) -> str:
        """The last formula, which is nearest to the model."""
        return f"$\\displaystyle {self.formulas[-1].latex}$"
