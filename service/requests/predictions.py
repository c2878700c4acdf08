"""Reads `:predict` requests."""

from __future__ import annotations

from kanmodel.data import Array
from service.models.registry import Served
from service.requests.bodies import find_limits, parse_windows, validate_request
from service.requests.windows import refuse_infinite_windows, take_windows
from service.schemas.predictions import PredictRequest
from service.settings import Settings

_WINDOWS = frozenset({"instances", "columns"})


def read_prediction(body: bytes, served: Served, settings: Settings) -> tuple[Array, bool]:
    """The windows to forecast, (n, lookback, n_features) in original units, and whether all are in the training range.

    Raises:
        DataError: the request is invalid; the error names each place.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    if document.keys() - _WINDOWS:
        validate_request(PredictRequest, document, unread=_WINDOWS)
    windows, paths = take_windows(document, served.model, settings.max_windows)
    low, high = served.usual_values
    is_usual = bool(((windows >= low) & (windows <= high)).all())  # most requests pass this single check
    if not is_usual:
        refuse_infinite_windows(windows, served.model, paths)
    return windows, is_usual
