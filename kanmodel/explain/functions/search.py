"""The search for the argument of f in c f(a x + b) + d, by variable projection.

Positions u run from -1 to 1 and the argument from one end to another, so a search is over the two ends alone: c and d
are the least-squares ones (Golub and Pereyra 1973, doi 10.1137/0710036). Parameters without bounds are mapped to ends
inside the domain of f. A scan of the parameters finds where to start, and MINPACK's Levenberg-Marquardt starts from the
best few; by `scipy.optimize.leastsq`, as `least_squares` takes longer around each step than the step.

The scans reach arguments that run over `REACH`; 128 even samples of a sine are then about four a period.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kanmodel.explain.functions.library import LIBRARY, Function
from kanmodel.scaling import Array

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
