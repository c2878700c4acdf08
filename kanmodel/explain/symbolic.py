"""Symbolic regression of an edge function: c f(a x + b) + d for every f of pykan's library.

For each f a search over a and b, in which c and d are the least-squares ones; then as few digits as keep the R2.

The library of functions f for formulas c f(a x + b) + d: values, notation, complexity and domain.

Source: `SYMBOLIC_LIB` of pykan 0.2.8, whose names and complexities these are; silu is the base function of most KANs.

The search for the argument of f in c f(a x + b) + d, by variable projection.

Positions u run from -1 to 1 and the argument from one end to another, so a search is over the two ends alone: c and d
are the least-squares ones (Golub and Pereyra 1973, doi 10.1137/0710036). Parameters without bounds are mapped to ends
inside the domain of f. A scan of the parameters finds where to start, and MINPACK's Levenberg-Marquardt starts from the
best few; by `scipy.optimize.leastsq`, as `least_squares` takes longer around each step than the step.

The scans reach arguments that run over `REACH`; 128 even samples of a sine are then about four a period.

Formulas of a model's edges: the exact one where it is known, and the best fit of every library function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, pi

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.explain.topology import TopologyEdge
from kanmodel.network.layer import KANLayer, LayerTrace


@dataclass(frozen=True)
class Function:
    """One f.

    Attributes:
        values: f itself, elementwise, float64.
        pattern: f in Python's notation, with numpy's names, where ``{}`` stands for the argument.
        complexity: pykan's price.
        domain: from where to where f is defined without a pole.
        mirrored: whether f(-u) is f(u) or -f(u), so that the sign of the argument is part of c; the domain then holds
            for the argument or its negative.
        homogeneous: whether f(a u) is a straight line of f(u) for positive a, so that the scale of the argument is
            part of c and d.
    """

    values: Callable[[Array], Array]
    pattern: str
    complexity: int
    domain: tuple[float, float] = (-inf, inf)
    mirrored: bool = False
    homogeneous: bool = False

    def is_defined_between(self, first: float, last: float) -> bool:
        """Whether the domain holds every argument from one to another, both finite in f."""
        low, high = min(first, last), max(first, last)
        inside = self.domain[0] <= low and high <= self.domain[1]
        if self.mirrored:
            inside = inside or (self.domain[0] <= -high and -low <= self.domain[1])
        with np.errstate(all="ignore"):
            return inside and bool(np.isfinite(self.values(np.array([low, high]))).all())


POSITIVE = (0.0, inf)


def _power(exponent: int) -> Callable[[Array], Array]:
    """u to a positive integer by products, which are faster than `numpy.power`."""

    def values(u: Array) -> Array:
        result = u
        for _ in range(exponent - 1):
            result = result * u
        return result

    return values


# What a search tries.
LIBRARY: dict[str, Function] = {
    "x": Function(lambda u: u, "{}", 1, mirrored=True, homogeneous=True),
    "x^2": Function(_power(2), "({})**2", 2, mirrored=True, homogeneous=True),
    "x^3": Function(_power(3), "({})**3", 3, mirrored=True, homogeneous=True),
    "x^4": Function(_power(4), "({})**4", 3, mirrored=True, homogeneous=True),
    "x^5": Function(_power(5), "({})**5", 4, mirrored=True, homogeneous=True),
    "1/x": Function(lambda u: 1 / u, "1/({})", 2, POSITIVE, mirrored=True, homogeneous=True),
    "1/x^2": Function(lambda u: 1 / u**2, "1/({})**2", 2, POSITIVE, mirrored=True, homogeneous=True),
    "sqrt": Function(np.sqrt, "sqrt({})", 2, POSITIVE, homogeneous=True),
    "x^1.5": Function(lambda u: np.sqrt(u) * u, "({})**1.5", 4, POSITIVE, homogeneous=True),
    "1/sqrt(x)": Function(lambda u: 1 / np.sqrt(u), "1/sqrt({})", 2, POSITIVE, homogeneous=True),
    "exp": Function(np.exp, "exp({})", 2),
    "log": Function(np.log, "log({})", 2, POSITIVE, homogeneous=True),
    "abs": Function(np.abs, "abs({})", 3, mirrored=True, homogeneous=True),
    "sgn": Function(np.sign, "sign({})", 3, mirrored=True, homogeneous=True),
    "sin": Function(np.sin, "sin({})", 2, mirrored=True),
    "tan": Function(np.tan, "tan({})", 3, (-pi / 2, pi / 2), mirrored=True),
    "tanh": Function(np.tanh, "tanh({})", 3, mirrored=True),
    "gaussian": Function(lambda u: np.exp(-(u**2)), "exp(-({})**2)", 3, mirrored=True),
    "arcsin": Function(np.arcsin, "asin({})", 4, (-1.0, 1.0), mirrored=True),
    "arctan": Function(np.arctan, "atan({})", 4, mirrored=True),
    "arctanh": Function(np.arctanh, "atanh({})", 4, (-1.0, 1.0), mirrored=True),
}

# What an edge may hold exactly: `LIBRARY`, the other names of `kanmodel.network.functions.FUNCTIONS`, and silu.
FUNCTIONS: dict[str, Function] = LIBRARY | {
    "0": Function(np.zeros_like, "0*({})", 0),
    "1/x^3": Function(lambda u: 1 / u**3, "1/({})**3", 3, POSITIVE, mirrored=True),
    "1/x^4": Function(lambda u: 1 / u**4, "1/({})**4", 4, POSITIVE, mirrored=True),
    "1/x^5": Function(lambda u: 1 / u**5, "1/({})**5", 5, POSITIVE, mirrored=True),
    "x^0.5": LIBRARY["sqrt"],
    "1/x^0.5": LIBRARY["1/sqrt(x)"],
    "cos": Function(np.cos, "cos({})", 2, mirrored=True),
    "arccos": Function(np.arccos, "acos({})", 4, (-1.0, 1.0)),
    "silu": Function(lambda u: u / (1 + np.exp(-u)), "({0})/(1 + exp(-({0})))", 3),
}


REACH = 60 * np.pi
LARGEST_LOG_RATIO = 18.0  # so that rounding leaves both ends on the same side of 0
N_STARTS = 3
LEAST_SPREAD = 0.003  # standard deviation of f beside its root mean square: below it, c f and d nearly cancel
N_EVALUATIONS = 30  # of one refinement
TOLERANCES = {"ftol": 1e-8, "xtol": 1e-8, "gtol": 1e-8}  # at which it ends
ENOUGH = 1 - 1e-8  # R2 that needs no refinement
STEP = 1e-7  # of the differences in place of derivatives, relative
ALMOST = 1 - 1e-9  # of an end of a bounded domain, so that rounding stays inside

Ends = tuple[Array, Array]  # the argument at u = -1 and at u = 1


@dataclass(frozen=True)
class Search:
    """How the argument of one f is looked for.

    Attributes:
        ends: from parameters, (n_parameters, ...), to the ends of the argument, each (...).
        starts: from positions and values, each (n,), to groups of parameters, each (n_parameters, m); the best of each
            group may be refined.
        refined: whether the residuals are smooth in the parameters.
    """

    ends: Callable[[Array], Ends]
    starts: Callable[[Array, Array], Iterator[Array]]
    refined: bool = True


@dataclass(frozen=True)
class Found:
    """The best argument of a search.

    Attributes:
        r2: coefficient of determination of c f + d.
        first: the argument at u = -1.
        last: the argument at u = 1.
    """

    r2: float
    first: float
    last: float


def search_argument(name: str, u: Array, y: Array) -> Found | None:
    """The argument for which c f + d comes nearest to values.

    Args:
        name: of f, in `LIBRARY`.
        u: positions, ascending from -1 to 1, (n,).
        y: values there with mean 0 and sum of squares 1, (n,).

    Returns:
        None where f hardly varies, or is not finite, for every argument that was tried.
    """
    from scipy.optimize import leastsq  # here, since it is slow to import, and few questions need it

    function, search = LIBRARY[name], SEARCHES[name]
    shares = (1 - u) / 2, (1 + u) / 2

    def residuals(parameters: Array) -> Array:
        return _residuals(function, search.ends(parameters), shares, y)

    def jacobian(parameters: Array) -> Array:
        steps = STEP * (1 + np.abs(parameters))
        lost = residuals(parameters[:, None] + steps[:, None] * np.eye(len(steps), 1 + len(steps), 1))
        derivatives: Array = ((lost[1:] - lost[0]) / steps[:, None]).T
        return derivatives

    found = []
    with np.errstate(all="ignore"):
        for group in search.starts(u, y):
            r2 = 1 - (residuals(group) ** 2).sum(axis=1)
            best = int(np.argmax(r2))
            found.append((float(r2[best]), group[:, best]))
        for r2, start in sorted(found, key=lambda pair: -pair[0])[:N_STARTS] if search.refined else ():
            if r2 < ENOUGH:
                refined, _, details, *_ = leastsq(
                    residuals, start, (), jacobian, True, maxfev=N_EVALUATIONS, **TOLERANCES
                )
                found.append((1 - float(details["fvec"] @ details["fvec"]), refined))
    if not found:
        return None
    r2, parameters = max(found, key=lambda pair: pair[0])
    first, last = search.ends(parameters)
    return Found(r2, float(first), float(last)) if r2 > 0 else None


def _residuals(function: Function, ends: Ends, shares: Ends, y: Array) -> Array:
    """Residuals of y from the fit of c f + d, (..., n), for ends (...); y itself if f is nearly constant or not finite.

    Args:
        function: f.
        ends: of the argument.
        shares: of each end at the positions, (n,).
        y: values with mean 0.
    """
    first, last = (np.asarray(end)[..., None] for end in ends)
    values = function.values(first * shares[0] + last * shares[1])
    centred = values - np.add.reduce(values, axis=-1, keepdims=True) / len(y)
    spread = np.add.reduce(centred * centred, axis=-1, keepdims=True)
    slope = (centred @ y)[..., None] / spread
    varies = spread > LEAST_SPREAD**2 * np.add.reduce(values * values, axis=-1, keepdims=True)
    usable = varies & np.isfinite(slope)
    if not usable.all():
        centred, slope = np.where(usable, centred, 0.0), np.where(usable, slope, 0.0)
    residuals: Array = y - centred * slope
    return residuals


# Powers, abs and sgn: the one parameter is where the argument is 0.


def _ends_around(parameters: Array) -> Ends:
    (zero,) = parameters
    return -1 - zero, 1 - zero


def _zeros(u: Array, y: Array) -> Iterator[Array]:
    outside = 1 + np.geomspace(1e-3, 1e3, 25)
    yield np.linspace(-1, 1, 41)[None]
    yield outside[None]
    yield -outside[None]


def _zeros_between_samples(n: int) -> Callable[[Array, Array], Iterator[Array]]:
    """So many in each gap: the residuals of a kink or a step have a piece for each."""
    shares = (np.arange(n) + 0.5) / n

    def starts(u: Array, y: Array) -> Iterator[Array]:
        yield np.ravel(u[:-1, None] + np.diff(u)[:, None] * shares)[None]

    return starts


# Roots, logarithms and 1/x: the one parameter is the logarithm of the ratio of the ends, both of which are positive.


def _ends_of_ratio(parameters: Array) -> Ends:
    (log_ratio,) = parameters
    return np.ones_like(log_ratio), np.exp(np.clip(log_ratio, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))


def _ratios(u: Array, y: Array) -> Iterator[Array]:
    log_ratio = np.geomspace(0.01, LARGEST_LOG_RATIO, 40)
    yield log_ratio[None]
    yield -log_ratio[None]


# Exponentials: the one parameter is how far the argument runs; it runs up to 0, so that nothing overflows.


def _ends_up_to_zero(parameters: Array) -> Ends:
    (run,) = parameters
    return -np.maximum(run, 0), np.minimum(run, 0)


def _runs(u: Array, y: Array) -> Iterator[Array]:
    run = np.geomspace(0.01, 1.2 * REACH, 40)
    yield run[None]
    yield -run[None]


# Sines: the parameters are half of what the argument runs over, and the argument in the middle.


def _ends_of_wave(parameters: Array) -> Ends:
    half, middle = parameters
    return middle - half, middle + half


def _waves(u: Array, y: Array) -> Iterator[Array]:
    """The peaks of the periodogram with a floating mean (Zechmeister and Kürster 2009, arXiv 0901.2573)."""
    highest = min(1.05 * REACH / 2, np.pi * (len(u) - 1) / 2)  # beyond the second, lower ones have the same samples
    half = np.concatenate([np.geomspace(0.15, 0.8, 5), np.arange(1, max(highest, 1.1), 0.4)])
    sine, cosine = (
        waves - waves.mean(axis=1, keepdims=True) for waves in (np.sin(half[:, None] * u), np.cos(half[:, None] * u))
    )
    ss, cc, sc = ((first * second).sum(axis=1) for first, second in ((sine, sine), (cosine, cosine), (sine, cosine)))
    sy, cy = sine @ y, cosine @ y
    determinant = ss * cc - sc**2
    apart = determinant > 1e-9 * ss * cc  # for few or uneven samples a sine may be a cosine
    determinant = np.where(apart, determinant, 1.0)
    by_sine, by_cosine = (cc * sy - sc * cy) / determinant, (ss * cy - sc * sy) / determinant
    power = np.where(apart, by_sine * sy + by_cosine * cy, -1.0)
    bounded = np.concatenate([[-1.0], power, [-1.0]])
    peaks = np.flatnonzero((power >= bounded[:-2]) & (power >= bounded[2:]) & (power > -1))
    for peak in peaks[np.argsort(-power[peaks])][:N_STARTS]:
        yield np.array([[half[peak]], [np.arctan2(by_cosine[peak], by_sine[peak])]])


# Bumps and sigmoids: the parameters are the ends themselves.


def _ends_themselves(parameters: Array) -> Ends:
    first, last = parameters
    return first, last


def _shapes(u: Array, y: Array) -> Iterator[Array]:
    runs = np.geomspace(0.3, 1.2 * REACH, 16)
    for some, zeros in ((runs[:10], u), (runs[10:], np.concatenate([u, (u[1:] + u[:-1]) / 2]))):
        run, zero = (grid.ravel() for grid in np.meshgrid(some, zeros, indexing="ij"))
        yield np.stack([-run * (1 + zero) / 2, run * (1 - zero) / 2])
    run, gap = (grid.ravel() for grid in np.meshgrid(runs, np.geomspace(0.1, 30, 10), indexing="ij"))
    yield np.stack([gap, gap + run])
    yield np.stack([-gap - run, -gap])


# Functions of a bounded argument: each parameter is mapped to an end inside the bounds.


def _ends_within(bound: Callable[[Array], Array]) -> Callable[[Array], Ends]:
    def ends(parameters: Array) -> Ends:
        first, last = bound(parameters) * ALMOST
        return first, last

    return ends


def _pairs_of(parameters: Array) -> Callable[[Array, Array], Iterator[Array]]:
    first, last = np.triu_indices(len(parameters), 1)
    pairs = np.stack([parameters[first], parameters[last]])

    def starts(u: Array, y: Array) -> Iterator[Array]:
        yield pairs

    return starts


_AROUND, _OF_RATIO, _SHAPES = (
    Search(_ends_around, _zeros),
    Search(_ends_of_ratio, _ratios),
    Search(_ends_themselves, _shapes),
)
SEARCHES: dict[str, Search] = {
    **dict.fromkeys(("x^2", "x^3", "x^4", "x^5"), _AROUND),
    "abs": Search(_ends_around, _zeros_between_samples(6)),
    "sgn": Search(_ends_around, _zeros_between_samples(1), refined=False),
    **dict.fromkeys(("1/x", "1/x^2", "sqrt", "x^1.5", "1/sqrt(x)", "log"), _OF_RATIO),
    "exp": Search(_ends_up_to_zero, _runs),
    "sin": Search(_ends_of_wave, _waves),
    **dict.fromkeys(("tanh", "gaussian", "arctan"), _SHAPES),
    "tan": Search(_ends_within(np.arctan), _pairs_of(np.sinh(np.linspace(-7, 7, 25)))),
    "arcsin": Search(_ends_within(np.sin), _pairs_of(np.linspace(-np.pi / 2, np.pi / 2, 21))),
    "arctanh": Search(_ends_within(np.tanh), _pairs_of(np.linspace(-8, 8, 25))),
}


FAR = 20.0  # the largest argument of an exponential whose b becomes part of c
DIGITS = (4, 6, 9)  # of the numbers in a formula, tried in turn
EXACT_DIGITS = 15
LOSS = 1e-5  # of R2 that fewer digits may cost
TINY = 1e-150  # the square of less may be 0 in float64


@dataclass(frozen=True)
class Candidate:
    """A formula c f(a x + b) + d for sampled values.

    Attributes:
        function: name of f, in `kanmodel.explain.symbolic.FUNCTIONS`.
        a: inner scale.
        b: inner shift.
        c: outer scale.
        d: outer shift.
        r2: coefficient of determination on the samples.
        complexity: pykan's price of f; 1 for a straight line.
    """

    function: str
    a: float
    b: float
    c: float
    d: float
    r2: float
    complexity: int

    @property
    def expression(self) -> str:
        """The formula of x in Python's notation, with numpy's names."""
        inner = _affine(self.a, "x", self.b)
        return _affine(self.c, FUNCTIONS[self.function].pattern.format(inner), self.d)

    def values(self, x: Array) -> Array:
        """The formula at positions, (n,); not finite beyond the domain of f."""
        with np.errstate(all="ignore"):
            values: Array = self.c * FUNCTIONS[self.function].values(self.a * x + self.b) + self.d
        return values

    def is_defined_between(self, low: float, high: float) -> bool:
        """Whether f is defined, and has no pole, wherever x is between two positions."""
        return FUNCTIONS[self.function].is_defined_between(self.a * low + self.b, self.a * high + self.b)


def suggest_formulas(x: Array, y: Array, functions: Iterable[str] = tuple(LIBRARY)) -> list[Candidate]:
    """The best formula of each function, by R2 to four digits and then complexity; a straight line is among them.

    No formula leaves the domain of its function, or has a pole, between the smallest and the largest position. For
    values or positions within 1e-150 of each other the straight line is the only formula, of slope 0 for a constant.

    Args:
        x: positions, (n,), finite.
        y: values there, (n,), finite.
        functions: names from `LIBRARY`.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    candidates = [_fitted("x", 1.0, 0.0, x, y)]
    if min(np.ptp(x), np.ptp(y)) > TINY:
        middle, half = (x[-1] + x[0]) / 2, (x[-1] - x[0]) / 2
        u = (x - middle) / half
        centred = (y - y.mean()) / np.ptp(y)
        unit = centred / np.sqrt(centred @ centred)
        for name in dict.fromkeys(functions):
            found = search_argument(name, u, unit) if name != "x" else None
            if found is None:
                continue
            a = (found.last - found.first) / (2 * half)
            b = (found.last + found.first) / 2 - a * middle
            candidate = _fitted(name, *_standard(name, a, b, x), x, y)
            if np.isfinite(candidate.r2):
                candidates.append(candidate)
    return sorted(candidates, key=lambda candidate: (-round(candidate.r2, 4), candidate.complexity))


def _standard(name: str, a: float, b: float, x: Array) -> tuple[float, float]:
    """a and b in a standard form: a factor or shift that c and d can express is moved there."""
    function = LIBRARY[name]
    if function.mirrored and a < 0:
        a, b = -a, -b
    if function.homogeneous and a != 0:
        a, b = float(np.sign(a)), b / abs(a)
    if name == "sin":
        b = float(np.remainder(b + np.pi, 2 * np.pi) - np.pi)
    if name == "exp" and np.abs(a * x).max() < FAR:
        b = 0.0
    return float(a), float(b)


def _fitted(name: str, a: float, b: float, x: Array, y: Array) -> Candidate:
    """The candidate for f(a x + b) with as few digits as its R2 allows; that is NaN beyond the domain of f."""
    exact = _rounded(name, a, b, x, y, EXACT_DIGITS)
    shorter = (_rounded(name, a, b, x, y, digits) for digits in DIGITS)
    return next((candidate for candidate in shorter if candidate.r2 >= exact.r2 - LOSS), exact)


def _rounded(name: str, a: float, b: float, x: Array, y: Array, digits: int) -> Candidate:
    """The candidate with `digits` digits; c and d are fitted by least squares after a and b are rounded."""
    function = LIBRARY[name]
    a = _tidy(a, digits)
    b = _tidy(b, digits, float(np.abs(a * x).max()))
    if not function.is_defined_between(a * x[0] + b, a * x[-1] + b):
        return Candidate(name, a, b, 0.0, 0.0, float("nan"), function.complexity)
    with np.errstate(all="ignore"):
        values = function.values(a * x + b)
        centred, y_centred = values - values.mean(), y - y.mean()
        spread, y_spread = float(centred @ centred), float(y_centred @ y_centred)
        c = _tidy(float(centred @ y_centred) / spread if np.ptp(values) > TINY else 0.0, digits)
        d = _tidy(float((y - c * values).mean()), digits, float(np.abs(c * values).max()))
        lost = y - c * values - d
        r2 = 1 - float(lost @ lost) / y_spread if np.ptp(y) > TINY else 1.0
    return Candidate(name, a, b, c, d, r2, function.complexity)


def _tidy(value: float, digits: int, beside: float = 0.0) -> float:
    """A number rounded to `digits` digits; 0 if it is negligible beside another."""
    return 0.0 if abs(value) <= beside * 10.0 ** (-digits - 2) else float(f"{value:.{digits}g}")


def _affine(scale: float, inner: str, shift: float) -> str:
    """``scale*inner + shift`` without a factor of 1 or a term of 0."""
    if scale == 0:
        return f"{shift:.15g}"
    text = inner if scale == 1 else f"{scale:.15g}*{inner}"
    return text if shift == 0 else f"{text} {'+' if shift > 0 else '-'} {abs(shift):.15g}"


N_SAMPLES = 128


def suggest_edge_formulas(model: LoadedModel, edges: Sequence[TopologyEdge]) -> list[list[Candidate]]:
    """The best formula of each function for each edge, best first, on the reference inputs between p01 and p99.

    Where the function of an edge is known, it comes first; a line is among the candidates. An edge after a layer norm
    has no formulas, since it is not a function of a single node.

    Args:
        model: the model.
        edges: KAN edges of its topology.
    """
    with torch.no_grad():
        stages = model.network.trace(model.reference.windows).stages
    layers = [model.network.stages[edge.stage][edge.layer] for edge in edges]
    return [
        [] if layer.config.mixes else _suggest(layer, stages[edge.stage][edge.layer], edge)
        for edge, layer in zip(edges, layers, strict=True)
    ]


def _suggest(layer: KANLayer, trace: LayerTrace, edge: TopologyEdge) -> list[Candidate]:
    found = suggest_formulas(*sample_edge_data(trace, edge))
    exact = find_exact_formula(layer, edge.i, edge.j)
    if exact is None:
        return found
    return [exact, *(candidate for candidate in found if candidate.function != exact.function)]


def find_exact_formula(layer: KANLayer, i: int, j: int) -> Candidate | None:
    """The function of an edge with only a symbolic part, only a base, or no part; None for a spline or several parts.

    Args:
        layer: the layer that the edge is of.
        i: number of the node that it leaves.
        j: number of the sub-node that it enters.
    """
    config = layer.config
    weights = layer.weights()[j, i]
    base = 0.0 if layer.scale_base is None else float(layer.mask[j, i] * layer.scale_base[j, i])
    slope = base if config.base == "identity" else 0.0
    if config.basis.is_line:
        slope += float(weights[0])
    symbolic = [
        (held.function, float(layer.symbolic_mask[number]), layer.symbolic_affine[number].tolist())
        for number, held in enumerate(config.symbolic)
        if (held.i, held.j) == (i, j) and layer.symbolic_mask[number] != 0
    ]
    curved = base if config.base != "identity" else 0.0  # a base that is no line
    if config.before or (weights.any() and not config.basis.is_line) or len(symbolic) + bool(slope) + bool(curved) > 1:
        return None
    if symbolic:
        ((name, scale, (a, b, c, d)),) = symbolic
        return Candidate(name, a, b, scale * c, scale * d, 1.0, FUNCTIONS[name].complexity)
    name = config.base if curved else "x"
    if name not in FUNCTIONS:
        return None
    return Candidate(name, 1.0, 0.0, curved or slope, 0.0, 1.0, FUNCTIONS[name].complexity)


def sample_edge_data(trace: LayerTrace, edge: TopologyEdge) -> tuple[Array, Array]:
    """Inputs and outputs of an edge, evenly by rank between the 1st and the 99th percentile of its inputs.

    Args:
        trace: what the reference windows send through the layer of the edge.
        edge: a KAN edge.

    Returns:
        Two arrays of at most `N_SAMPLES`, inputs ascending, model units.
    """
    x = trace.inputs[:, edge.i].double().numpy()
    y = trace.edges[:, edge.j, edge.i].double().numpy()
    order = np.argsort(x, kind="stable")
    ranks = np.linspace(0.01, 0.99, min(N_SAMPLES, len(x))) * (len(x) - 1)
    chosen = order[np.unique(ranks.round().astype(int))]
    return x[chosen], y[chosen]
