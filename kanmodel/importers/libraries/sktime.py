"""Import of what sktime has fitted with a torch network: ``from_sktime``; `kanmodel.sktime` is the way back."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from kanmodel.errors import CheckpointError, UnreadableModelError
from kanmodel.importers.libraries import Options, choose, import_library, read_fitted, reader
from kanmodel.importers.libraries.neuralforecast import from_neuralforecast
from kanmodel.model import Model


@reader
def from_sktime(forecaster: Any, **options: Unpack[Options]) -> Model:
    """Converts a fitted forecaster of sktime to a model that forecasts what its `predict` returns.

    See `kanmodel.importers.libraries` for what holds for all libraries. The windows are those of the series that it was
    fitted to. A forecaster of neuralforecast is read as by `from_neuralforecast`, and calls its target ``y``; one of
    the LTSF family by its network, whose features and targets are the columns of the series.

    Args:
        forecaster: fitted, such as a `NeuralForecastRNN` or an `LTSFLinearForecaster`.
        **options: see `Options`.

    Raises:
        UnreadableModelError: its network does what no graph has, or is none that is reached.
        CheckpointError: no sktime, another object, or one that is not fitted.
    """
    base = import_library("sktime.forecasting.base").BaseForecaster
    if not isinstance(forecaster, base) or not forecaster.is_fitted:
        raise CheckpointError(f"forecaster must be a fitted forecaster of sktime, but is a {type(forecaster).__name__}")
    if type(inner := getattr(forecaster, "_forecaster", None)).__name__ == "NeuralForecast":
        return from_neuralforecast(inner, **options)
    kind = type(forecaster).__name__
    if kind not in ("LTSFLinearForecaster", "LTSFDLinearForecaster", "LTSFNLinearForecaster"):
        raise UnreadableModelError(
            f"the network of a {kind} is not reached; only those of neuralforecast and LTSF are: give its network to "
            "from_torch, or what a library of its own has fitted to that one's reader"
        )
    network, rows = forecaster.network, forecaster._cur_y
    names, values = [str(column) for column in rows.columns], rows.to_numpy(np.float64)
    n_in, n_out = network.seq_len, network.pred_len
    ends = n_in + choose(len(values) - n_in - n_out + 1)
    return read_fitted(
        "sktime",
        forecaster,
        network,
        options,
        features=names,
        outputs=names,
        horizon=n_out,
        windows=np.stack([values[end - n_in : end] for end in ends]),
        targets=np.stack([values[end : end + n_out].ravel() for end in ends]),
        has_future=False,
        times=tuple(str(rows.index[end - 1]) for end in ends),
    )
