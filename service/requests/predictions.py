"""What a request to forecast asks."""

from __future__ import annotations

from kanmodel.scaling import Array
from service.models.registry import Served
from service.requests.bodies import find_limits, parse_windows, validate_request
from service.requests.windows import read_windows
from service.schemas.predictions import PredictRequest
from service.settings import Settings

_WINDOWS = frozenset({"instances", "columns"})


def read_prediction(body: bytes, served: Served, settings: Settings) -> Array:
    """The windows to forecast, (n, lookback, n_features), original units.

    Raises:
        DataError: something in the request cannot be used; the error names each place.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    if document.keys() - _WINDOWS:
        validate_request(PredictRequest, document, unread=_WINDOWS)
    return read_windows(document, served.model, settings.max_windows)
