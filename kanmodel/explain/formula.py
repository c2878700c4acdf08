"""The head of a network as formulas: the Pareto front of complexity and error, from a constant to the whole network.

The edges enter in the order of their contributions, each as the function that fits it best, at several weights of
complexity; the constants of each formula are then fitted together. The last formula is the network itself, with its
edges as tables, unless a shorter one is as near.

The reference windows are split into three parts that are separate in time: blocks of windows in turn, so that each part
covers the seasons. Edges are ranked, functions fitted and tables sampled on the first; the second chooses which
formulas are on the front; the third is only used for the reported error, through the whole model: the inputs of the
head are the network's own, after the LSTM where there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kanmodel import html
from kanmodel.checkpoint import LoadedModel, Reference
from kanmodel.computing import pause
from kanmodel.errors import ConfigError, InsufficientReferenceError
from kanmodel.explain.attribution import explain_windows
from kanmodel.explain.head_formula import (
    Edge,
    HeadFormula,
    Subnode,
    TabulatedEdge,
    find_used,
    tabulate_edges,
)
from kanmodel.explain.pruning import r2
from kanmodel.explain.result import GlobalResult, Table
from kanmodel.explain.symbolic import Candidate, find_exact_formula, sample_edge, suggest_formulas
from kanmodel.network.functions import ACTIVATIONS, activate
from kanmodel.text import with_unit

if TYPE_CHECKING:
    from kanmodel.explain.written import Formula

MAX_EDGES = 40  # in a formula of functions
MAX_CALLS = 300  # of tables in the formula of the whole network; a larger network has none
SIZES = (1, 2, 3, 4, 6, 9, 13, 20, 30)  # edges of the formulas that are tried
PRICES = (0.0, 0.003, 0.03)  # of R2 that a simpler function on an edge may lose, per unit of complexity
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

    def __str__(self) -> str:
        span = "" if self.first is None else f", {self.first} to {self.last}"
        return f"{self.windows} windows{span}{'' if self.separate else ', which share steps with those before'}"


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


def find_front(searched: LoadedModel, choosing: LoadedModel, output: int) -> list[tuple[HeadFormula, float]]:
    """The formulas of one output, simplest first, each nearer to the model than the one before; deterministic.

    Args:
        searched: the model with the reference windows on which formulas are searched.
        choosing: the model with those that choose which formulas are on the front.
        output: number of the output.

    Returns:
        Formulas of the inputs of the head, before the output function, and R2 against the model, through the whole
        model, on the windows that choose.

    Raises:
        NonFiniteError: the ledger of a window that is searched is not finite.
    """
    function, scaling = choosing.config.output_function, choosing.scaling
    with torch.no_grad():
        trace = choosing.network.trace(choosing.reference.windows)
    inputs = trace.readout.double().numpy()

    def finish(logits: Tensor) -> Tensor:
        if function is not None:
            logits = activate(function, ACTIVATIONS[function].parameter, logits)
        return logits * float(scaling.output_scale[output]) + float(scaling.output_mean[output])

    full = finish(trace.logits[:, output].double())
    search, tried = _Search(searched, output), []
    for formula in search.compose():
        fitted = formula.fit(search.inputs, search.logits)
        tried.append((fitted, r2(full, finish(torch.from_numpy(fitted.values(inputs))))))
        pause()
    if (whole := search.tabulate()) is not None:
        tried.append((whole, r2(full, finish(torch.from_numpy(whole.values(inputs))))))
    front: list[tuple[HeadFormula, float]] = []
    for formula, of_formula in sorted(tried, key=lambda pair: (pair[0].complexity, -pair[1])):
        if not front or of_formula > front[-1][1] + MIN_GAIN:
            front.append((formula, of_formula))
    return front


class _Search:
    """The data on which formulas of one output are searched.

    Attributes:
        inputs: of the head, (n, n_in), model units.
        logits: of the output, before the output function, (n,).
    """

    def __init__(self, model: LoadedModel, output: int) -> None:
        self._output, self._layers = output, model.network.stages["head"]
        with torch.no_grad():
            trace = model.network.trace(model.reference.windows)
        self._traces = trace.head
        self._means = [trace.edges.double().mean(dim=0).numpy() for trace in self._traces]  # (n_subnodes, n_in)
        self.inputs, self.logits = trace.readout.double().numpy(), trace.logits[:, output].double().numpy()
        self._live = sorted(
            (number, i, j) for number, layer in enumerate(self._layers) for j, i in layer.live.nonzero().tolist()
        )
        magnitudes = {
            layer.layer: np.abs(layer.edges).mean(axis=0)
            for layer in explain_windows(model, model.reference.windows, output).layers
            if layer.stage == "head" and layer.edges is not None
        }
        self._ranked = sorted(self._live, key=lambda edge: (-magnitudes[edge[0]][edge[2], edge[1]], edge))[:MAX_EDGES]
        self._candidates: dict[Edge, list[Candidate]] = {}
        for layer, i, j in self._ranked:
            pause()
            exact = find_exact_formula(self._layers[layer], i, j)  # which is then the only one
            found = suggest_formulas(*sample_edge(self._traces[layer], i, j)) if exact is None else [exact]
            self._candidates[layer, i, j] = found

    def compose(self) -> Iterator[HeadFormula]:
        """Formulas of growing numbers of edges, at each price, without repetitions."""
        seen = set()
        for size in dict.fromkeys([0, *(size for size in SIZES if size < len(self._ranked)), len(self._ranked)]):
            for price in PRICES if size else PRICES[:1]:
                formula = self._compose(self._ranked[:size], price)
                key = tuple(formula.edges.items())
                if key not in seen:
                    seen.add(key)
                    yield formula

    def _compose(self, kept: Sequence[Edge], price: float) -> HeadFormula:
        """The formula of some edges, each with the best function; what is left out is its mean."""
        edges: dict[Edge, Candidate] = {}
        constants = {
            (layer, j): float(of.sum()) for layer, means in enumerate(self._means) for j, of in enumerate(means)
        }
        for layer, i, j in kept:
            chosen = max(self._candidates[layer, i, j], key=lambda one: one.r2 - price * one.complexity)
            edges[layer, i, j] = replace(chosen, d=0.0)
            constants[layer, j] += chosen.d - float(self._means[layer][j, i])
        used, _ = find_used(self._layers, self._output, edges)
        return HeadFormula(self._layers, self._output, {edge: edges[edge] for edge in used}, constants)

    def tabulate(self) -> HeadFormula | None:
        """The network itself; None where it is too large to be written."""
        used, n_calls = find_used(self._layers, self._output, self._live)
        if n_calls > MAX_CALLS:
            return None
        tables = tabulate_edges(self._layers, [trace.inputs.double().numpy() for trace in self._traces], used)
        edges: dict[Edge, Candidate | TabulatedEdge] = {}
        constants: dict[Subnode, float] = defaultdict(float)
        for layer, i, j in self._live:
            if (layer, i, j) not in tables:  # it comes from what is constant, or leads elsewhere
                constants[layer, j] += float(self._means[layer][j, i])
            elif (exact := find_exact_formula(self._layers[layer], i, j)) is not None:
                edges[layer, i, j] = replace(exact, d=0.0)
                constants[layer, j] += exact.d
            else:
                edges[layer, i, j] = tables[layer, i, j]
        return HeadFormula(self._layers, self._output, edges, constants)


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

    @classmethod
    def of(cls, model: LoadedModel, output: int) -> Formulas:
        """Searches the formulas of one output.

        Raises:
            ConfigError: a layer norm or a softmax mixes what a formula would have to hold alone, or the output function
                cannot be written.
            InsufficientReferenceError: there are fewer than 6 reference windows.
            NonFiniteError: a contribution is not finite on the reference windows.
        """
        from kanmodel.explain.written import OUTPUT_FUNCTIONS, Writer  # here, since sympy is slow to import

        config = model.config
        if any(layer.mixes for layer in config.head):
            raise ConfigError(
                "a formula needs edges that are functions of one number, but a layer norm mixes all inputs"
            )
        if config.output_function == "softmax":
            raise ConfigError("a formula needs outputs that are functions of one node, but softmax mixes them")
        if config.output_function not in OUTPUT_FUNCTIONS:
            raise ConfigError(f"the output function {config.output_function} cannot be written as a formula")
        (searched, chosen, judged), parts = zip(*split_reference(model), strict=True)
        front = find_front(searched, chosen, output)
        writer = Writer(searched, judged, output)
        formulas = tuple(writer.write(formula) for formula, _ in front)
        unit = config.target_of(output).unit
        return cls(config.outputs[output], unit, formulas, *parts, reference=model.reference_span)

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
