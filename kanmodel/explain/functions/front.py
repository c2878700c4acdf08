"""The Pareto front of formulas of a head, in complexity and error, from one constant to the whole network.

The edges enter in the order of their contributions, each as the function that fits it best, at several weights of
complexity; the constants of each formula are then fitted together. The last formula is the network itself, with its
edges as tables, unless a shorter one is as near. The search uses the first half of the reference
windows, the reported error the second, through the whole model: the inputs of the head are
the network's own, after the LSTM where there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import ConfigError
from kanmodel.explain.functions.formulas import find_exact_formula
from kanmodel.explain.functions.head_formula import Edge, EdgeFormula, HeadFormula, count_calls, find_used
from kanmodel.explain.functions.symbolic import Candidate, suggest_formulas
from kanmodel.explain.functions.tabulated import tabulate_edges
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.structure import replay
from kanmodel.network.activations import ACTIVATIONS, activate
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

MAX_EDGES = 40  # in a formula of functions
MAX_CALLS = 300  # of tables in the formula of the whole network; a larger network has none
SIZES = (1, 2, 3, 4, 6, 9, 13, 20, 30)  # edges of the formulas that are tried
PRICES = (0.0, 0.003, 0.03)  # of R2 that a simpler function on an edge may lose, per unit of complexity
N_SAMPLES = 128  # inputs of an edge that its functions are fitted to
MIN_GAIN = 1e-4  # of R2 that more complexity must bring


@dataclass(frozen=True)
class JudgedFormula:
    """One formula of the front.

    Attributes:
        formula: of the inputs of the head, model units, before the output function.
        complexity: pykan's prices of its functions, added up, and one.
        r2: coefficient of determination against the model on held-out windows, through the whole model.
    """

    formula: HeadFormula
    complexity: int
    r2: float


@dataclass(frozen=True)
class Judgement:
    """What a formula is worth on the held-out half of the reference windows.

    Attributes:
        r2: coefficient of determination against the model.
        mae: mean absolute error against the targets, the target's unit; None where targets are unknown.
    """

    r2: float
    mae: float | None


def find_front(model: LoadedModel, importance: ImportanceEstimates, pause: Pause = go_on) -> tuple[JudgedFormula, ...]:
    """The front of one output's formulas, simplest first; deterministic.

    Args:
        model: the model.
        importance: of the output.
        pause: called between the formulas.

    Raises:
        ConfigError: a layer norm or a softmax mixes what a formula would have to hold alone.
    """
    _refuse_mixing(model)
    search = _Search(model, importance)
    tried = []
    for formula in search.compose():
        tried.append(search.judge(formula.fit(search.inputs, search.logits)))
        pause()
    whole = search.tabulate()
    return _pareto(tried if whole is None else [*tried, search.judge(whole)])


def _refuse_mixing(model: LoadedModel) -> None:
    config = model.config
    if any(layer.mixes for layer in config.head):
        raise ConfigError("a formula needs edges that are functions of one number, but a layer norm mixes all inputs")
    if config.output_function == "softmax":
        raise ConfigError("a formula needs outputs that are functions of one node, but softmax mixes them")


def _pareto(tried: Iterable[JudgedFormula]) -> tuple[JudgedFormula, ...]:
    front: list[JudgedFormula] = []
    for one in sorted(tried, key=lambda one: (one.complexity, -one.r2)):
        if not front or one.r2 > front[-1].r2 + MIN_GAIN:
            front.append(one)
    return tuple(front)


class _Search:
    """What formulas of one output are searched on.

    Args:
        model: the model.
        importance: of the output.

    Attributes:
        inputs: of the head, for the windows of the search, (n, n_in), model units.
        logits: of the output, before the output function, (n,).
    """

    def __init__(self, model: LoadedModel, importance: ImportanceEstimates) -> None:
        self._model, self._output = model, importance.output
        self._layers = model.network.stages["head"]
        with torch.no_grad():
            trace = model.network.trace(model.reference.windows)
        self._traces = trace.head
        self._inputs = trace.readout.double().numpy()
        self._logits = trace.logits[:, self._output].double().numpy()
        self._searched, _ = halves(len(self._inputs))
        self.inputs, self.logits = self._inputs[self._searched], self._logits[self._searched]
        self._live = sorted(
            (number, i, j) for number, layer in enumerate(self._layers) for j, i in layer.live.nonzero().tolist()
        )
        contributions = {(layer, i, j): importance.edges["head", layer].value[j, i] for layer, i, j in self._live}
        self._ranked = sorted(contributions, key=lambda edge: (-contributions[edge], edge))[:MAX_EDGES]
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
            means = trace.edges[self._searched].double().mean(dim=0).numpy()  # (n_subnodes, n_in)
            for j, of_subnode in enumerate(means):
                constants[number, j] = float(of_subnode.sum())
        for edge in kept:
            layer, i, j = edge
            chosen = max(self._suggest(edge), key=lambda pair: pair[1] - price * pair[0].complexity)[0]
            edges[edge] = replace(chosen, d=0.0)
            constants[layer, j] += chosen.d - float(self._traces[layer].edges[self._searched, j, i].double().mean())
        return HeadFormula.of(self._layers, self._output, edges, constants)

    def _suggest(self, edge: Edge) -> list[tuple[Candidate, float]]:
        """The functions that an edge may have, with their R2; the exact one alone, where it is known."""
        if edge not in self._candidates:
            layer, i, j = edge
            exact = find_exact_formula(self._layers[layer], i, j)
            x = self._traces[layer].inputs[self._searched, i].double().numpy()
            y = self._traces[layer].edges[self._searched, j, i].double().numpy()
            order = np.argsort(x, kind="stable")
            chosen = order[np.unique(np.linspace(0, len(x) - 1, min(N_SAMPLES, len(x))).round().astype(int))]
            found = [exact] if exact is not None else suggest_formulas(x[chosen], y[chosen])
            self._candidates[edge] = [(candidate, candidate.r2) for candidate in found]
        return self._candidates[edge]

    def judge(self, formula: HeadFormula) -> JudgedFormula:
        """What a formula gives through the whole model."""
        full, found = (
            finish(self._model, self._output, logits) for logits in (self._logits, formula.values(self._inputs))
        )
        return JudgedFormula(formula, formula.complexity, judge(self._model, self._output, full, found).r2)


def halves(n: int) -> tuple[slice, slice]:
    """The reference windows that formulas are searched on, and those they are judged on, later in time."""
    middle = (n + 1) // 2
    return slice(0, middle), slice(middle, n)


def judge(model: LoadedModel, output: int, full: Array, found: Array) -> Judgement:
    """How far outputs of a formula are from the model's, and from the targets, on the held-out windows.

    Args:
        model: the model.
        output: number of the output.
        full: the model's outputs for all reference windows, (n,), original units.
        found: the formula's.
    """
    _, held = halves(len(full))
    targets = model.reference.targets
    mae = None if targets is None else float(np.abs(found[held] - targets[held, output]).mean())
    return Judgement(r2(full[held], found[held]), mae)


def finish(model: LoadedModel, output: int, logits: Array) -> Array:
    """The output function and the scaling of one output, (n,) -> (n,)."""
    function = model.config.output_function
    if function is not None:
        logits = activate(function, ACTIVATIONS[function].parameter, torch.from_numpy(logits)).numpy()
    scaled: Array = logits * model.scaling.output_scale[output] + model.scaling.output_mean[output]
    return scaled


def r2(full: Array, found: Array) -> float:
    """`replay.r2` of the values of a formula, (n,)."""
    return replay.r2(torch.from_numpy(full), torch.tensor(found))
