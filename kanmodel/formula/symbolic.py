"""Symbolic regression of an edge function: c f(a x + b) + d for every f of pykan's library.

The library is `SYMBOLIC_LIB` of pykan 0.2.8, with its names and complexities. For each f the argument a x + b is
searched by variable projection: c and d are the least-squares ones (Golub and Pereyra 1973, doi 10.1137/0710036). A
scan of the argument's parameters finds where to start, and MINPACK's Levenberg-Marquardt starts from the best few; by
`scipy.optimize.leastsq`, as `least_squares` takes longer around each step than the step. Then all four numbers get as
few digits as keep the R2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf, nan, pi

import numpy as np
import torch

from kanmodel.arrays import Array
from kanmodel.errors import needs_package
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import Transform
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.structure.edges import TopologyEdge


@dataclass(frozen=True)
class Function:
    """One f. If it is mirrored, its domain holds for the argument or its negative."""

    values: Callable[[Array], Array]  # f itself, elementwise, float64
    pattern: str  # in Python's notation, with numpy's names, where {} stands for the argument
    complexity: int  # pykan's price
    domain: tuple[float, float] = (-inf, inf)  # from where to where f is defined without a pole
    mirrored: bool = False  # f(-u) is f(u) or -f(u), so that the sign of the argument is part of c
    homogeneous: bool = False  # f(a u) is a straight line of f(u) for a > 0, so that a is part of c and d

    def is_defined_between(self, first: float, last: float) -> bool:
        """Whether the domain holds every argument from one to another, both finite in f."""
        (low, high), (begin, end) = sorted((first, last)), self.domain
        is_inside = (begin <= low and high <= end) or (self.mirrored and begin <= -high and -low <= end)
        with np.errstate(all="ignore"):
            return is_inside and bool(np.isfinite(self.values(np.array([low, high]))).all())


POSITIVE = (0.0, inf)

# What a search tries. Powers are products, which are faster than `numpy.power`.
LIBRARY: dict[str, Function] = {
    "x": Function(lambda u: u, "{}", 1, mirrored=True, homogeneous=True),
    "x^2": Function(lambda u: u * u, "({})**2", 2, mirrored=True, homogeneous=True),
    "x^3": Function(lambda u: u * u * u, "({})**3", 3, mirrored=True, homogeneous=True),
    "x^4": Function(lambda u: u * u * u * u, "({})**4", 3, mirrored=True, homogeneous=True),
    "x^5": Function(lambda u: u * u * u * u * u, "({})**5", 4, mirrored=True, homogeneous=True),
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
    "relu": Function(lambda u: np.maximum(u, 0), "(({0}) + abs({0}))/2", 3),
    "softplus": Function(lambda u: np.logaddexp(u, 0), "log(1 + exp({}))", 3),
    "silu": Function(lambda u: u / (1 + np.exp(-u)), "({0})/(1 + exp(-({0})))", 3),
}

FAR = 20.0  # the largest argument of an exponential whose b becomes part of c
DIGITS = (4, 6, 9, 15)  # of the numbers in a formula: the fewest whose R2 is that of the last
LOSS = 1e-5  # of R2 that fewer digits may cost
TINY = 1e-150  # the square of less may be 0 in float64
N_SAMPLES = 128  # of an edge


@dataclass(frozen=True)
class Candidate:
    """A formula c f(a x + b) + d for sampled values.

    Attributes:
        function: name of f, in `FUNCTIONS`.
        a, b: inner scale and shift.
        c, d: outer scale and shift.
        r2: coefficient of determination on the samples; 1 where it is the function itself.
    """

    function: str
    a: float
    b: float
    c: float
    d: float
    r2: float = 1.0

    @property
    def complexity(self) -> int:
        """pykan's price of f; 1 for a straight line."""
        return FUNCTIONS[self.function].complexity

    @property
    def expression(self) -> str:
        """The formula of x in Python's notation, with numpy's names."""
        inner = _write_line(self.a, "x", self.b)
        return _write_line(self.c, FUNCTIONS[self.function].pattern.format(inner), self.d)

    def values(self, x: Array) -> Array:
        """The formula at positions, (n,); not finite beyond the domain of f."""
        with np.errstate(all="ignore"):
            values: Array = self.c * FUNCTIONS[self.function].values(self.a * x + self.b) + self.d
        return values


def suggest_edge_formulas(model: Forecaster, edge: TopologyEdge) -> list[Candidate]:
    """The best formula of each function for a KAN edge, best first, on its reference inputs between p01 and p99.

    Where the function of the edge is known, it and a line are all. An edge after a layer norm has none, since
    it is not a function of a single node.
    """
    layer = model.network.stages[edge.stage][edge.layer]
    if layer.config.mixes:
        return []
    with torch.no_grad():
        trace = model.network.trace(model.reference.scaled).stages[edge.stage][edge.layer]
    samples, exact = sample_edge(trace, edge.i, edge.j, 0.01), find_exact_formula(layer, edge.i, edge.j)
    if exact is None:
        return suggest_formulas(*samples)
    return [exact, *(suggest_formulas(*samples, ()) if exact.function != "x" else ())]


def sample_edge(trace: LayerTrace, i: int, j: int, left_out: float = 0.0) -> tuple[Array, Array]:
    """At most `N_SAMPLES` inputs of the edge from node i to sub-node j, ascending, and its outputs; model units.

    They are taken evenly by rank; a share of the smallest inputs, and of the largest, is left out.
    """
    x, y = trace.inputs[:, i].double().numpy(), trace.edges[:, j, i].double().numpy()
    ranks = np.linspace(left_out, 1 - left_out, min(N_SAMPLES, len(x))) * (len(x) - 1)
    chosen = np.argsort(x, kind="stable")[np.unique(ranks.round().astype(int))]
    return x[chosen], y[chosen]


def find_exact_formula(layer: KANLayer, i: int, j: int) -> Candidate | None:
    """The function of the edge from node i to sub-node j: a symbolic part, a base, 0, or an activation on a line.

    None for a spline or a sum of them.
    """
    config = layer.config
    weights = layer.weights()[j, i]
    base = 0.0 if layer.scale_base is None else float(layer.mask[j, i] * layer.scale_base[j, i])
    slope = base if config.base == "identity" else 0.0
    if config.basis.is_line:
        slope += float(weights[0])
    curved = base if config.base != "identity" else 0.0  # a base that is no line
    symbolic = [
        (held.function, float(layer.symbolic_mask[number]), layer.symbolic_affine[number].tolist())
        for number, held in enumerate(config.symbolic)
        if (held.i, held.j) == (i, j) and layer.symbolic_mask[number] != 0
    ]
    if (weights.any() and not config.basis.is_line) or len(symbolic) + bool(slope) + bool(curved) > 1:
        return None
    if config.before:
        first, is_single = config.before[0], len(config.before) == 1 and bool(slope) and not base
        is_known = is_single and first.kind in FUNCTIONS and first == Transform(first.kind)
        return Candidate(first.kind, 1.0, 0.0, slope, 0.0) if is_known else None
    if symbolic:
        ((name, scale, (a, b, c, d)),) = symbolic
        return Candidate(name, a, b, scale * c, scale * d)
    name = config.base if curved else "x"
    return Candidate(name, 1.0, 0.0, curved or slope, 0.0) if name in FUNCTIONS else None


def suggest_formulas(x: Array, y: Array, functions: Iterable[str] = tuple(LIBRARY)) -> list[Candidate]:
    """The best formula of each function of `LIBRARY` for finite values y at positions x, (n,) both.

    They are sorted by R2 to four digits and then complexity; a straight line is among them. None leaves the domain of
    its function, or has a pole, between the smallest and the largest position. For values or positions within 1e-150 of
    each other the straight line is the only formula, of slope 0 for a constant.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    candidates = [_fit("x", 1.0, 0.0, x, y)]
    if min(np.ptp(x), np.ptp(y)) > TINY:
        middle, half = (x[-1] + x[0]) / 2, (x[-1] - x[0]) / 2
        centred = (y - y.mean()) / np.ptp(y)
        unit = centred / np.sqrt(centred @ centred)
        for name in dict.fromkeys(functions):
            ends = None if name == "x" else _search_argument(name, (x - middle) / half, unit)
            if ends is None:
                continue
            a = (ends[1] - ends[0]) / (2 * half)
            candidate = _fit(name, *_standardize(name, a, (ends[1] + ends[0]) / 2 - a * middle, x), x, y)
            if np.isfinite(candidate.r2):
                candidates.append(candidate)
    return sorted(candidates, key=lambda candidate: (-round(candidate.r2, 4), candidate.complexity))


def _standardize(name: str, a: float, b: float, x: Array) -> tuple[float, float]:
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


def _fit(name: str, a: float, b: float, x: Array, y: Array) -> Candidate:
    """The candidate for f(a x + b) with as few digits as its R2 allows; that is NaN beyond the domain of f."""
    exact = _fit_to_digits(name, a, b, x, y, DIGITS[-1])
    shorter = (_fit_to_digits(name, a, b, x, y, digits) for digits in DIGITS[:-1])
    return next((candidate for candidate in shorter if candidate.r2 >= exact.r2 - LOSS), exact)


def _fit_to_digits(name: str, a: float, b: float, x: Array, y: Array, digits: int) -> Candidate:
    """The candidate with `digits` digits; c and d are fitted by least squares after a and b are rounded."""
    function = LIBRARY[name]
    a = _round(a, digits)
    b = _round(b, digits, float(np.abs(a * x).max()))
    if not function.is_defined_between(a * x[0] + b, a * x[-1] + b):
        return Candidate(name, a, b, 0.0, 0.0, nan)
    with np.errstate(all="ignore"):
        values = function.values(a * x + b)
        centred, y_centred = values - values.mean(), y - y.mean()
        spread, y_spread = float(centred @ centred), float(y_centred @ y_centred)
        c = _round(float(centred @ y_centred) / spread if np.ptp(values) > TINY else 0.0, digits)
        d = _round(float((y - c * values).mean()), digits, float(np.abs(c * values).max()))
        lost = y - c * values - d
        r2 = 1 - float(lost @ lost) / y_spread if np.ptp(y) > TINY else 1.0
    return Candidate(name, a, b, c, d, r2)


def _round(value: float, digits: int, beside: float = 0.0) -> float:
    """A number rounded to `digits` digits; 0 if it is negligible beside another."""
    return 0.0 if abs(value) <= beside * 10.0 ** (-digits - 2) else float(f"{value:.{digits}g}")


def _write_line(scale: float, inner: str, shift: float) -> str:
    """``scale*inner + shift`` without a factor of 1 or a term of 0."""
    if scale == 0:
        return f"{shift:.15g}"
    text = inner if scale == 1 else f"{scale:.15g}*{inner}"
    return text if shift == 0 else f"{text} {'+' if shift > 0 else '-'} {abs(shift):.15g}"


# The search for the argument. Positions u run from -1 to 1, the argument from one end to another; its ends are mapped
# from parameters without bounds.
REACH = 60 * np.pi  # that the scanned arguments run over: 128 even samples of a sine are then about four a period
LARGEST_LOG_RATIO = 18.0  # so that rounding leaves both ends on the same side of 0
N_STARTS = 3
LEAST_SPREAD = 0.003  # standard deviation of f beside its root mean square: below it, c f and d nearly cancel
N_EVALUATIONS = 30  # of one refinement
TOLERANCES = {"ftol": 1e-8, "xtol": 1e-8, "gtol": 1e-8}  # at which it ends
ENOUGH = 1 - 1e-8  # R2 that needs no refinement
STEP = 1e-7  # of the differences in place of derivatives, relative
ALMOST = 1 - 1e-9  # of an end of a bounded domain, so that rounding stays inside

Starts = Callable[[Array, Array], Iterable[Array]]  # from positions, values (n,) to groups of (n_parameters, m)


@dataclass(frozen=True)
class Search:
    """How the argument of one f is searched."""

    ends: Callable[..., tuple[Array, Array]]  # from parameters, each (...), to the argument at u = -1 and at u = 1
    starts: Starts
    refined: bool = True  # the best of each group; if the residuals are smooth in the parameters


def _search_argument(name: str, u: Array, y: Array) -> tuple[float, float] | None:
    """The ends of the argument for which c f + d comes nearest to values y (n,) of mean 0 and sum of squares 1.

    Positions u (n,) ascend from -1 to 1. None where f hardly varies, or is not finite, for all arguments tried.
    """
    with needs_package("the search for a formula", "kanscope[formulas]"):
        from scipy.optimize import leastsq  # here, since it is slow to import, and few questions need it

    function, search = LIBRARY[name], SEARCHES[name]
    shares = (1 - u) / 2, (1 + u) / 2  # of each end at the positions

    def residuals(parameters: Array) -> Array:
        """Of the fit of c f + d, (..., n), for parameters (n_parameters, ...); y if f is nearly constant or NaN."""
        first, last = (end[..., None] for end in search.ends(*parameters))
        values = function.values(first * shares[0] + last * shares[1])
        centred = values - np.add.reduce(values, axis=-1, keepdims=True) / len(y)
        spread = np.add.reduce(centred * centred, axis=-1, keepdims=True)
        slope = (centred @ y)[..., None] / spread
        varies = spread > LEAST_SPREAD**2 * np.add.reduce(values * values, axis=-1, keepdims=True)
        usable = varies & np.isfinite(slope)
        if not usable.all():
            centred, slope = np.where(usable, centred, 0.0), np.where(usable, slope, 0.0)
        lost: Array = y - centred * slope
        return lost

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
                options = {"maxfev": N_EVALUATIONS, **TOLERANCES}
                refined, _, details, *_ = leastsq(residuals, start, (), jacobian, True, **options)
                found.append((1 - float(details["fvec"] @ details["fvec"]), refined))
    r2, parameters = max(found, key=lambda pair: pair[0], default=(0.0, None))
    if parameters is None or not r2 > 0:
        return None
    first, last = search.ends(*parameters)
    return float(first), float(last)


def _either_sign(values: Array) -> list[Array]:
    """Two groups of one parameter."""
    return [values[None], -values[None]]


def _start_between_samples(n: int) -> Starts:
    """So many zeros of the argument in each gap: the residuals of a kink or a step have a piece for each."""
    shares = (np.arange(n) + 0.5) / n
    return lambda u, y: [np.ravel(u[:-1, None] + np.diff(u)[:, None] * shares)[None]]


def _start_waves(u: Array, y: Array) -> Iterable[Array]:
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


def _start_shapes(u: Array, y: Array) -> Iterable[Array]:
    """Bumps and sigmoids with their middle within the samples, then beyond them on either side."""
    runs = np.geomspace(0.3, 1.2 * REACH, 16)
    for some, zeros in ((runs[:10], u), (runs[10:], np.concatenate([u, (u[1:] + u[:-1]) / 2]))):
        run, zero = (grid.ravel() for grid in np.meshgrid(some, zeros, indexing="ij"))
        yield np.stack([-run * (1 + zero) / 2, run * (1 - zero) / 2])
    run, gap = (grid.ravel() for grid in np.meshgrid(runs, np.geomspace(0.1, 30, 10), indexing="ij"))
    yield np.stack([gap, gap + run])
    yield np.stack([-gap - run, -gap])


def _within(bound: Callable[[Array], Array], parameters: Array) -> Search:
    """Of a bounded argument: each end is mapped inside the bounds; a scan of all pairs."""
    pairs = parameters[np.stack(np.triu_indices(len(parameters), 1))]
    return Search(lambda first, last: (bound(first) * ALMOST, bound(last) * ALMOST), lambda u, y: [pairs])


_POWERS = Search(
    lambda zero: (-1 - zero, 1 - zero),
    lambda u, y: [np.linspace(-1, 1, 41)[None], *_either_sign(1 + np.geomspace(1e-3, 1e3, 25))],
)
_ROOTS = Search(  # the logarithm of the ratio of the ends, both of which are positive
    lambda ratio: (np.ones_like(ratio), np.exp(np.clip(ratio, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))),
    lambda u, y: _either_sign(np.geomspace(0.01, LARGEST_LOG_RATIO, 40)),
)
_SHAPES = Search(lambda first, last: (first, last), _start_shapes)
SEARCHES: dict[str, Search] = {
    **dict.fromkeys(("x^2", "x^3", "x^4", "x^5"), _POWERS),  # where the argument is 0
    "abs": Search(_POWERS.ends, _start_between_samples(6)),
    "sgn": Search(_POWERS.ends, _start_between_samples(1), refined=False),
    **dict.fromkeys(("1/x", "1/x^2", "sqrt", "x^1.5", "1/sqrt(x)", "log"), _ROOTS),
    "exp": Search(  # how far the argument runs; it runs up to 0, so that nothing overflows
        lambda run: (-np.maximum(run, 0), np.minimum(run, 0)),
        lambda u, y: _either_sign(np.geomspace(0.01, 1.2 * REACH, 40)),
    ),
    "sin": Search(lambda half, middle: (middle - half, middle + half), _start_waves),
    **dict.fromkeys(("tanh", "gaussian", "arctan"), _SHAPES),
    "tan": _within(np.arctan, np.sinh(np.linspace(-7, 7, 25))),
    "arcsin": _within(np.sin, np.linspace(-np.pi / 2, np.pi / 2, 21)),
    "arctanh": _within(np.tanh, np.linspace(-8, 8, 25)),
}
