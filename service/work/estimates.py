"""Cost estimates of work: seconds of one core, and bytes while it runs.

The seconds per byte and per value were measured on a slow core, and are rounded up: they decide whether something is
computed on the event loop, and whether others wait for it.
"""

from __future__ import annotations

from typing import Literal

from kanmodel.scaling import Array
from service.work.jobs import Cost
from service.work.questions import Question

PART = 32  # windows whose explanations are computed, and sent, together
NUMBER = 24  # bytes of a number in JSON, at most
OBJECTS = 6  # times as many bytes as in JSON an explanation takes in Python's objects
PARSED = 16  # bytes that reading takes, at most, for each of a text
SAMPLED = 64  # bytes of each value of a curve: in an array, in a list, and in JSON
N_CURVES = 7  # arrays of values of each edge

FORMULAS = Cost(0.05, 1 << 20)  # of the candidates for one edge
_PARSING = 2e-8  # seconds a byte
_DESCRIBING = 2e-6  # seconds a window, for each output and feature
_DESCRIBED = 1e-5  # seconds an entry
_COPYING = 1e-9  # seconds a byte
_COMPRESSING = 4e-8  # seconds a byte
_SAMPLING = 4e-7  # seconds a value
_DRAWING = 5e-5  # seconds an edge


def estimate_parsing(body: bytes) -> Cost:
    """Of reading a request."""
    return Cost(_PARSING * len(body), PARSED * len(body))


def estimate_describing(windows: Array, n_outputs: int) -> Cost:
    """Of describing the forecasts of windows, and what of these lies outside the range."""
    n, _, n_features = windows.shape
    return Cost(_DESCRIBING * n * (n_outputs + n_features) + _COPYING * windows.nbytes, 2 * windows.nbytes)


def estimate_joining(n_bytes: int) -> Cost:
    """Of putting the parts of an answer together."""
    return Cost(_COPYING * n_bytes)


def estimate_compression(n_bytes: int) -> Cost:
    """Of making the forms in which an answer is kept."""
    return Cost(_COMPRESSING * n_bytes, 2 * n_bytes)


def estimate_description(n_entries: int) -> Cost:
    """Of describing a list of small entries, such as the points of a fidelity curve."""
    return Cost(_DESCRIBED * n_entries)


def estimate_curves(n_edges: int, points: int) -> Cost:
    """Of sampling edges, and describing the curves."""
    n_values = N_CURVES * n_edges * points
    return Cost(_SAMPLING * n_values + _DRAWING * n_edges, SAMPLED * n_values)


def estimate_explanations(question: Question, kept: Literal["lines", "json", "objects"]) -> int:
    """Memory that explanations take, before they are computed.

    Args:
        question: what is asked.
        kept: what is held until all are there: ``lines``, none but those of one part; ``json``, all of them encoded,
            and once more as they are joined; ``objects``, all of them as they are.
    """
    part = min(len(question.windows), PART) * len(question.outputs)
    held = {"lines": 0, "json": 2, "objects": OBJECTS}[kept] * question.total
    return question.windows.nbytes + (part * (OBJECTS + 1) + held) * _estimate_json(question)


def _estimate_json(question: Question) -> int:
    """Bytes of one explanation in JSON, at most but for long names."""
    model = question.served.model
    lookback, n_features = model.config.window_shape
    names = sum(map(len, model.config.feature_names))
    n_bytes = 500 + 2 * (names + n_features * (NUMBER + 6))
    if question.groups or question.segments:
        n_named = len(question.groups) + n_features
        of_each = sum(len(name) + NUMBER + 6 for name in question.segments) or NUMBER
        n_bytes += names + sum(map(len, question.groups)) + n_named * (of_each + 8)
    if question.detail != "features":
        n_bytes += lookback * n_features * NUMBER
    if question.detail == "flow":
        n_bytes += NUMBER * (n_features + model.config.n_readout + len(model.config.outputs))
        edge = len('{"i":100,"j":100,"contribution":},') + NUMBER
        for stage in model.config.stages.values():
            n_bytes += sum(
                layer.n_in * layer.n_subnodes * edge + (layer.n_in + layer.n_subnodes) * NUMBER + 100 for layer in stage
            )
    return n_bytes
