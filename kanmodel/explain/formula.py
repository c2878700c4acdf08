"""The Pareto front of formulas of a head, in complexity and error, from one constant to the whole network.

The edges enter in the order of their contributions, each as the function that fits it best, at several weights of
complexity; the constants of each formula are then fitted together. The last formula is the network itself, with its
edges as tables, unless a shorter one is as near.

The reference windows are split into three parts that are separate in time: blocks of windows in turn, so that each part
covers the seasons. Edges are ranked, functions fitted and tables sampled on the first; the second chooses which
formulas are on the front; the third is only used for the reported error, through the whole model: the inputs of the
head are the network's own, after the LSTM where there is one.

`Formulas`: the head of a network as formulas, from a constant to the whole network (a Pareto front).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kanmodel import html
from kanmodel.checkpoint import LoadedModel, Reference
from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.errors import ConfigError, InsufficientReferenceError
from kanmodel.explain.attribution import explain_windows
from kanmodel.explain.head_formula import Edge, EdgeFormula, HeadFormula, count_calls, find_used, tabulate_edges
from kanmodel.explain.pruning import r2
from kanmodel.explain.result import GlobalResult
from kanmodel.explain.symbolic import Candidate, find_exact_formula, suggest_formulas
from kanmodel.network.functions import ACTIVATIONS, activate
from kanmodel.text import printable, with_unit, write_table

if TYPE_CHECKING:
    from kanmodel.explain.written import Formula


MAX_EDGES = 40  # in a formula of functions
MAX_CALLS = 300  # of tables in the formula of the whole network; a larger network has none
SIZES = (1, 2, 3, 4, 6, 9, 13, 20, 30)  # edges of the formulas that are tried
PRICES = (0.0, 0.003, 0.03)  # of R2 that a simpler function on an edge may lose, per unit of complexity
N_SAMPLES = 128  # inputs of an edge that its functions are fitted to
MIN_GAIN = 1e-4  # of R2 that more complexity must bring
MIN_WINDOWS = 6  # of the reference
MAX_BLOCKS, BLOCK = 4, 32  # blocks of a part, and the windows that each needs if there are to be several


@dataclass(frozen=True)
class Part:
    """The reference windows of one purpose.

    Attributes:
        windows: their number, in all blocks.
        first: time stamp of the first; None if unknown.
        last: that of the last; blocks of the other parts may lie between.
        separate: whether none shares a step with another part. Windows at the beginning of a block that do are left
            out, but not more than half.
    """

    windows: int
    first: str | None
    last: str | None
    separate: bool


@dataclass(frozen=True)
class FrontFormula:
    """One formula of the front.

    Attributes:
        formula: of the inputs of the head, model units, before the output function.
        complexity: pykan's prices of its functions, added up, and one.
        r2: coefficient of determination against the model on the windows that choose, through the whole model.
    """

    formula: HeadFormula
    complexity: int
    r2: float


@dataclass(frozen=True)
class Front:
    """The front of one output's formulas.

    Attributes:
        output: number of the output.
        formulas: simplest first, each nearer to the model than the one before on the windows that choose.
        models: the model with the reference windows that are searched, those that choose and those that judge.
        parts: these windows.
    """

    output: int
    formulas: tuple[FrontFormula, ...]
    models: tuple[LoadedModel, ...]
    parts: tuple[Part, ...]


def find_front(model: LoadedModel, output: int) -> Front:
    """The front of one output's formulas; deterministic.

    Args:
        model: the model.
        output: number of the output.

    Raises:
        ConfigError: a layer norm or a softmax mixes what a formula would have to hold alone.
        InsufficientReferenceError: there are fewer than 6 reference windows.
        NonFiniteError: the ledger of a window that is searched is not finite.
    """
    _refuse_mixing(model)
    models, parts = zip(*split_reference(model), strict=True)
    search = _Search(models[0], output)
    tried = []
    for formula in search.compose():
        tried.append(_judge(models[1], output, formula.fit(search.inputs, search.logits)))
        pause()
    whole = search.tabulate()
    if whole is not None:
        tried.append(_judge(models[1], output, whole))
    return Front(output, _pareto(tried), models, parts)


def split_reference(model: LoadedModel) -> list[tuple[LoadedModel, Part]]:
    """The model with each part of its reference windows: up to 12 blocks in time order, which go to the parts in turn.

    A block begins after the windows that share a step with the block before: their oldest row is in its last window.

    Raises:
        InsufficientReferenceError: there are fewer than 6 windows.
    """
    windows, targets, times = model.reference.windows, model.reference.targets, model.reference.times
    n_windows = len(windows)
    if n_windows < MIN_WINDOWS:
        raise InsufficientReferenceError(
            f"formulas need {MIN_WINDOWS} reference windows, to search, choose and judge, but there are {n_windows}"
        )
    n_blocks = 3 * min(MAX_BLOCKS, max(1, n_windows // (3 * BLOCK)))
    rows: list[list[int]] = [[], [], []]
    separate = [True, True, True]
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
        reference = Reference(windows[chosen], None if targets is None else targets[chosen], stamps)
        start, end = (None, None) if stamps is None else (stamps[0], stamps[-1])
        parts.append((replace(model, reference=reference), Part(len(chosen), start, end, is_separate)))
    return parts


def _refuse_mixing(model: LoadedModel) -> None:
    config = model.config
    if any(layer.mixes for layer in config.head):
        raise ConfigError("a formula needs edges that are functions of one number, but a layer norm mixes all inputs")
    if config.output_function == "softmax":
        raise ConfigError("a formula needs outputs that are functions of one node, but softmax mixes them")


def _pareto(tried: Iterable[FrontFormula]) -> tuple[FrontFormula, ...]:
    front: list[FrontFormula] = []
    for one in sorted(tried, key=lambda one: (one.complexity, -one.r2)):
        if not front or one.r2 > front[-1].r2 + MIN_GAIN:
            front.append(one)
    return tuple(front)


class _Search:
    """The data on which formulas of one output are searched.

    Args:
        model: the model, with the reference windows of the search.
        output: number of the output.

    Attributes:
        inputs: of the head, (n, n_in), model units.
        logits: of the output, before the output function, (n,).
    """

    def __init__(self, model: LoadedModel, output: int) -> None:
        self._output = output
        self._layers = model.network.stages["head"]
        with torch.no_grad():
            trace = model.network.trace(model.reference.windows)
        self._traces = trace.head
        self.inputs = trace.readout.double().numpy()
        self.logits = trace.logits[:, output].double().numpy()
        self._live = sorted(
            (number, i, j) for number, layer in enumerate(self._layers) for j, i in layer.live.nonzero().tolist()
        )
        ledger = explain_windows(model, model.reference.windows, output)
        sizes = {
            layer.layer: np.abs(layer.edges).mean(axis=0)
            for layer in ledger.layers
            if layer.stage == "head" and layer.edges is not None
        }
        self._ranked = sorted(self._live, key=lambda edge: (-sizes[edge[0]][edge[2], edge[1]], edge))[:MAX_EDGES]
        self._candidates: dict[Edge, list[tuple[Candidate, float]]] = {}

    def compose(self) -> Iterable[HeadFormula]:
        """Formulas of growing numbers of edges, at each price."""
        sizes = [0, *(size for size in SIZES if size < len(self._ranked)), len(self._ranked)]
        seen = set()
        for size in dict.fromkeys(sizes):
            for price in PRICES if size else PRICES[:1]:
                formula = self._compose(self._ranked[:size], price)
                key = tuple(formula.edges.items())
                if key not in seen:
                    seen.add(key)
                    yield formula

    def tabulate(self) -> HeadFormula | None:
        """The network itself; None where it is too large to be written."""
        used = find_used(self._layers, self._output, self._live)
        if count_calls(self._layers, self._output, used) > MAX_CALLS:
            return None
        reached = [trace.inputs.double().numpy() for trace in self._traces]
        tables = tabulate_edges(self._layers, reached, used)
        edges: dict[Edge, EdgeFormula] = {}
        constants: dict[tuple[int, int], float] = defaultdict(float)
        for edge in self._live:
            layer, i, j = edge
            if edge not in tables:  # it comes from what is constant, or leads elsewhere
                constants[layer, j] += float(self._traces[layer].edges[:, j, i].double().mean())
            elif (exact := find_exact_formula(self._layers[layer], i, j)) is not None:
                edges[edge] = replace(exact, d=0.0)
                constants[layer, j] += exact.d
            else:
                edges[edge] = tables[edge]
        return HeadFormula(self._layers, self._output, edges, constants)

    def _compose(self, kept: Sequence[Edge], price: float) -> HeadFormula:
        """The formula of some edges, each with the best function; what is left out is its mean."""
        edges: dict[Edge, Candidate] = {}
        constants: dict[tuple[int, int], float] = {}
        for number, trace in enumerate(self._traces):
            means = trace.edges.double().mean(dim=0).numpy()  # (n_subnodes, n_in)
            for j, of_subnode in enumerate(means):
                constants[number, j] = float(of_subnode.sum())
        for edge in kept:
            layer, i, j = edge
            chosen = max(self._suggest(edge), key=lambda pair: pair[1] - price * pair[0].complexity)[0]
            edges[edge] = replace(chosen, d=0.0)
            constants[layer, j] += chosen.d - float(self._traces[layer].edges[:, j, i].double().mean())
        return HeadFormula.of(self._layers, self._output, edges, constants)

    def _suggest(self, edge: Edge) -> list[tuple[Candidate, float]]:
        """The functions that an edge may have, with their R2; the exact one alone, where it is known."""
        if edge not in self._candidates:
            pause()
            layer, i, j = edge
            exact = find_exact_formula(self._layers[layer], i, j)
            x = self._traces[layer].inputs[:, i].double().numpy()
            y = self._traces[layer].edges[:, j, i].double().numpy()
            order = np.argsort(x, kind="stable")
            chosen = order[np.unique(np.linspace(0, len(x) - 1, min(N_SAMPLES, len(x))).round().astype(int))]
            found = [exact] if exact is not None else suggest_formulas(x[chosen], y[chosen])
            self._candidates[edge] = [(candidate, candidate.r2) for candidate in found]
        return self._candidates[edge]


def _judge(model: LoadedModel, output: int, formula: HeadFormula) -> FrontFormula:
    """A formula with its R2 on the reference windows, through the whole model."""
    with torch.no_grad():
        trace = model.network.trace(model.reference.windows)
    logits = trace.logits[:, output].double().numpy(), formula.values(trace.readout.double().numpy())
    full, found = (_finish(model, output, values) for values in logits)
    return FrontFormula(formula, formula.complexity, r2_of_values(full, found))


def _finish(model: LoadedModel, output: int, logits: Array) -> Array:
    """The output function and the scaling of one output, (n,) -> (n,)."""
    function = model.config.output_function
    if function is not None:
        logits = activate(function, ACTIVATIONS[function].parameter, torch.from_numpy(logits)).numpy()
    scaled: Array = logits * model.scaling.output_scale[output] + model.scaling.output_mean[output]
    return scaled


def r2_of_values(full: Array, found: Array) -> float:
    """`pruning.r2` of the values of a formula, (n,)."""
    return r2(torch.from_numpy(full), torch.tensor(found))


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
