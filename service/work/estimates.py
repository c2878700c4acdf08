"""Cost estimates of work: seconds on one core, and bytes while it runs.

The factors were measured on a slow core and are rounded up. They decide what runs on the event loop, and what counts as
long.
"""

from __future__ import annotations

from kanmodel.data import Array
from service.work.jobs import Cost

PART = 32  # windows that are explained, and sent, together
NUMBER = 24  # most bytes of a number in JSON
OBJECTS = 6  # memory of an explanation as Python objects, relative to its JSON
PARSED = 16  # most bytes that parsing takes per byte of text
SAMPLED = 64  # bytes per value of a curve: in an array, in a list, and in JSON
N_CURVES = 7  # arrays per edge
LISTED, DRAWN = 1200, 6000  # bytes per node or edge of a graph, as objects and text: in JSON, in SVG

FORMULAS = Cost(0.05, 1 << 20)  # the candidates for one edge
_PARSING = 2e-8  # seconds per byte
_DESCRIBING = 2e-6  # seconds per window, output and feature
_DESCRIBED = 1e-5  # seconds per entry
_COPYING = 1e-9  # seconds per byte
_COMPRESSING = 4e-8  # seconds per byte
_SAMPLING = 4e-7  # seconds per value
_DRAWING = 5e-5  # seconds per edge


def estimate_parsing(body: bytes) -> Cost:
    """Parsing a request."""
    return Cost(_PARSING * len(body), PARSED * len(body))


def estimate_describing(windows: Array, n_outputs: int) -> Cost:
    """Describing forecasts, and warnings of values outside the training range."""
    n, _, n_features = windows.shape
    return Cost(_DESCRIBING * n * (n_outputs + n_features) + _COPYING * windows.nbytes, 2 * windows.nbytes)


def estimate_joining(n_bytes: int) -> Cost:
    """Joining the parts of an answer."""
    return Cost(_COPYING * n_bytes)


def estimate_compression(n_bytes: int) -> Cost:
    """Compressing an answer for the cache."""
    return Cost(_COMPRESSING * n_bytes, 2 * n_bytes)


def estimate_description(n_entries: int) -> Cost:
    """Describing a list of small entries, such as the points of a fidelity curve."""
    return Cost(_DESCRIBED * n_entries)


def estimate_curves(n_edges: int, points: int) -> Cost:
    """Sampling edges, and describing the curves."""
    n_values = N_CURVES * n_edges * points
    return Cost(_SAMPLING * n_values + _DRAWING * n_edges, SAMPLED * n_values)


def estimate_graph(n_parts: int, n_curves: int, points: int, drawn: bool) -> Cost:
    """Describing or drawing the nodes and edges of a graph, some of them with curves."""
    curves = estimate_curves(n_curves, points)
    return Cost(_DRAWING * n_parts + curves.seconds, (DRAWN if drawn else LISTED) * n_parts + curves.n_bytes)
