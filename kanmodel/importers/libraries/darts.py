"""Import of what darts has fitted: ``from_darts``.

What is traced is the loop by which darts forecasts, with its module, RINorm and likelihood in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torch import Tensor, nn

from kanmodel.arrays import Array
from kanmodel.errors import CheckpointError, UnreadableModelError, check_count
from kanmodel.importers.libraries import Options, choose, import_library, read_fitted, reader, refusing, with_quantiles
from kanmodel.model import Model

COVARIATES = ("past_covariates", "future_covariates")  # arguments of darts


@reader
def from_darts(
    model: Any,
    series: Any = None,
    past_covariates: Any = None,
    future_covariates: Any = None,
    *,
    horizon: int | None = None,
    scaler: Any = None,
    past_covariates_scaler: Any = None,
    future_covariates_scaler: Any = None,
    **options: Unpack[Options],
) -> Model:
    """Converts a fitted model of darts on torch to one that forecasts what `predict` returns.

    See `kanmodel.importers.libraries` for what holds for all libraries. A window has `input_chunk_length` rows, and
    those of the forecast if the model has future covariates. Its features are the components of the target, of the
    past and of the future covariates, with those that `add_encoders` makes, and each static covariate. The outputs of
    another likelihood than one of quantiles are its parameters, as `predict` names them with
    `predict_likelihood_parameters`.

    Args:
        model: fitted, or the path of the file that its `save` wrote, which darts loads.
        series: one or several, with the windows; by default the one to which the model was fitted.
        past_covariates: of these, as for `predict`.
        future_covariates: likewise.
        horizon: steps to forecast, `output_chunk_length` by default. Further ones are forecast from the forecasts, and
            read past covariates in rows of the forecast too.
        scaler: the `Scaler` that the series was transformed by: windows and forecasts are in the units before it. It
            must be linear and the same for all series.
        past_covariates_scaler: likewise.
        future_covariates_scaler: likewise.
        **options: see `Options`.

    Raises:
        UnreadableModelError: the model does what no graph has; the message names it.
        CheckpointError: no darts, a model that is not fitted, or series that do not fit it.
    """
    fitted = _load(model)
    data = _Data(fitted, series, past_covariates, future_covariates, horizon)
    mean, std, low, high = data.scale((scaler, past_covariates_scaler, future_covariates_scaler))
    likelihood, names = fitted.likelihood, data.names[: data.sizes[0]]
    is_value = likelihood is None or hasattr(likelihood, "quantiles")
    outputs = with_quantiles(names, getattr(likelihood, "quantiles", None))
    if not is_value:
        outputs = [str(name) for name in likelihood.component_names(components=names)]
    if scaler is not None and not is_value:
        raise CheckpointError("scaler is for forecasts and quantiles, but the outputs are parameters of a likelihood")
    of = np.repeat(np.arange(len(names)), len(outputs) // len(names))  # the component that each output is of
    found = read_fitted(
        "darts",
        fitted,
        _Predict(data),
        options,
        features=data.names,
        outputs=outputs,
        horizon=data.horizon,
        windows=data.windows * std + mean,
        targets=(data.targets[..., of] * std[of] + mean[of]).reshape(len(data.targets), -1) if is_value else None,
        predictions=data.predict() * std[of] + mean[of],
        has_future=data.windows.shape[1] > fitted.input_chunk_length,
        scaling={"mean": mean, "std": std, "target_mean": mean[of], "target_std": std[of]},
        times=tuple(str(each.end_time()) for each in data.series),
    )
    features = tuple(
        each if np.isnan(least) else replace(each, min=float(least), max=float(most))
        for each, least, most in zip(found.config.features, low, high, strict=True)
    )
    return found.with_config(replace(found.config, features=features))


def _load(model: Any) -> Any:
    """The fitted model, from its file if it is a path."""
    kind = import_library("darts.models.forecasting.torch_forecasting_model").TorchForecastingModel
    if isinstance(model, (str, Path)):
        with refusing(f"darts cannot load {model}"):
            model = kind.load(str(model), map_location="cpu")
    if not isinstance(model, kind):
        raise CheckpointError(f"from_darts takes a model of darts on torch, but this is a {type(model).__name__}")
    if model.model is None:
        raise CheckpointError(f"{type(model).__name__} is not fitted: call its fit before from_darts")
    if model.output_chunk_shift:
        raise UnreadableModelError(f"the model has an output_chunk_shift of {model.output_chunk_shift}, not 0")
    return model


class _Data:
    """Windows of the series, in the units in which the model reads them.

    Attributes:
        series: of each window, up to its forecast.
        covariates: of each window, as for `predict`.
        names: of the features.
        sizes: numbers of features of the target, past and future covariates; then come static ones.
        static: shape of the static covariates.
        windows: (n, lookback, n_features).
        targets: (n, horizon, n_targets).
    """

    def __init__(self, model: Any, series: Any, past: Any, future: Any, horizon: int | None) -> None:
        n_in, n_out = model.input_chunk_length, model.output_chunk_length
        self.model, self.horizon = model, n_out if horizon is None else horizon
        check_count(self.horizon, "horizon", lowest=n_out)
        if model.likelihood is not None and self.horizon > n_out:
            raise UnreadableModelError(f"a horizon above {n_out}, output_chunk_length, samples from the likelihood")
        dtype = str(next(model.model.parameters()).dtype).removeprefix("torch.")

        def as_read(given: Any) -> list[Any]:
            every = [] if given is None else given if isinstance(given, (list, tuple)) else [given]
            return [each.astype(dtype) for each in every]

        every = as_read(model.training_series if series is None else series)
        if not every:
            raise CheckpointError("the model holds no series, as it was fitted to several or saved clean: give series")
        self.n_series = len(every)
        of_fit = model.past_covariate_series, model.future_covariate_series
        given = {
            name: as_read(of) or as_read(default and [default] * len(every)) or None
            for name, of, default in zip(COVARIATES, (past, future), of_fit, strict=True)
        }
        places = [(number, end) for number, of in enumerate(every) for end in range(n_in, len(of) - self.horizon + 1)]
        if not places:
            raise CheckpointError(f"no series has the {n_in + self.horizon} rows of a window and its forecast")
        ends = [places[place] for place in choose(len(places))]
        ends.sort(key=lambda place: every[place[0]].time_index[place[1] - 1])
        self.series = [every[number][:end] for number, end in ends]
        with refusing("darts cannot make windows of the series"):
            encoded = given
            if model.encoders is not None and model.encoders.encoding_available:
                made = model.generate_fit_predict_encodings(self.horizon, every, **given)
                encoded = dict(zip(given, made, strict=True))
            self.covariates, of_windows = (
                {name: [of[number] for number, _ in ends] for name, of in each.items() if of}
                for each in (given, encoded)
            )
            model._verify_past_future_covariates(*map(of_windows.get, COVARIATES))
            dataset = model._build_inference_dataset(self.horizon, self.series, *map(of_windows.get, COVARIATES))
            samples = [dataset[number] for number in range(len(ends))]
        components = [[*map(str, of[0].components)] if of else [] for of in (every, *encoded.values())]
        static, of_static = samples[0].static_covariates, []
        if static is not None:
            table = every[0].static_covariates
            rows = [f"[{name}]" if len(table) > 1 else "" for name in table.index]
            of_static = [f"{column}{row}" for row in rows for column in table.columns]
        self.names = [name for each in (*components, of_static) for name in each]
        self.sizes, self.static = tuple(map(len, components)), () if static is None else static.shape
        self.windows = np.stack([_rows_of(each, n_in, self.horizon) for each in samples]).astype(np.float64)
        true = [every[number].values()[end : end + self.horizon] for number, end in ends]
        self.targets = np.stack(true).astype(np.float64)

    def scale(self, scalers: tuple[Any, Any, Any]) -> Array:
        """Mean and std by which scalers of target, past and future covariates made what the model reads.

        And the smallest and largest value in the rows to which a min-max scaler was fitted, else NaN: (4, n_features).
        """
        sizes = (*self.sizes, len(self.names) - sum(self.sizes))
        from_three = [np.arange(3.0)[:, None].repeat(n, axis=1) for n in sizes]
        ends = [np.full((2, n), np.nan) for n in sizes]
        names = ("scaler", *(f"{name}_scaler" for name in COVARIATES))
        for number, (name, scaler) in enumerate(zip(names, scalers, strict=True)):
            if scaler is not None:
                from_three[number] = _unscale(scaler, from_three[number], name, self.n_series)
                ends[number].T[:] = getattr(getattr(scaler, "transformer", None), "feature_range", (np.nan, np.nan))
        zero, one, _ = np.concatenate(from_three, axis=1)
        return np.stack([zero, one - zero, *(zero + np.concatenate(ends, axis=1) * (one - zero))])

    def predict(self) -> Array:
        """The forecasts of the library, (n, horizon, n_outputs)."""
        quiet = {"verbose": False, "show_warnings": False}
        ways = quiet | {"predict_likelihood_parameters": self.model.likelihood is not None}
        with refusing("darts cannot forecast the series"):
            found = self.model.predict(self.horizon, self.series, **self.covariates, **ways)
        return np.stack([each.values() for each in found]).astype(np.float64)


def _rows_of(sample: Any, n_in: int, horizon: int) -> Array:
    """The rows of a window, (lookback, n_features).

    What is not known in rows of the forecast is there as in the last row in which it is.
    """
    of_kinds = (
        (sample.past_target,),
        (sample.past_covariates, sample.future_past_covariates),
        (sample.historic_future_covariates, sample.future_covariates),
    )
    known = [np.concatenate(given) for of in of_kinds if (given := [rows for rows in of if rows is not None])]
    n = n_in + (horizon if max(map(len, known)) > n_in else 0)
    columns = [rows[np.minimum(np.arange(n), len(rows) - 1)] for rows in known]
    if sample.static_covariates is not None:
        columns.append(sample.static_covariates.reshape(1, -1).repeat(n, axis=0))
    return np.concatenate(columns, axis=1)


def _unscale(scaler: Any, values: Array, name: str, n_series: int) -> Array:
    """Values of components in the units before a scaler of darts; it must be linear, and the same for all series."""
    with refusing(f"{name} cannot be inverted"):
        probes = [import_library("darts").TimeSeries.from_values(values)] * n_series
        found: list[Array] = [each.values() for each in scaler.inverse_transform(probes)]
    if found[0].shape != values.shape or not np.allclose(found[0][2] - found[0][1], found[0][1] - found[0][0]):
        raise CheckpointError(f"{name} must be linear, such as one of StandardScaler")
    if not all(np.array_equal(each, found[0]) for each in found):
        raise CheckpointError(f"{name} must be the same for all series, as with global_fit=True")
    return found[0]


class _Predict(nn.Module):
    """The forecast of windows by darts' own loop, (batch, lookback, n_features) -> (batch, horizon, n_outputs)."""

    def __init__(self, data: _Data) -> None:
        super().__init__()
        self.module, self._data = data.model.model, data

    def forward(self, window: Tensor) -> Tensor:
        """As the module's `predict_step`."""
        data, n, n_out = self._data, self._data.model.input_chunk_length, self._data.model.output_chunk_length
        starts, n_further = np.cumsum(data.sizes)[:-1].tolist(), data.horizon - n_out
        target, past, future = (
            each if each.shape[2] else None for each in window[:, :, : sum(data.sizes)].tensor_split(starts, dim=2)
        )
        batch: Mapping[str, Tensor | None] = {
            "past_target": None if target is None else target[:, :n],
            "past_covariates": None if past is None else past[:, :n],
            "future_past_covariates": past[:, n : n + n_further] if past is not None and n_further else None,
            "historic_future_covariates": None if future is None else future[:, :n],
            "future_covariates": None if future is None else future[:, n:],
            "static_covariates": window[:, n - 1, sum(data.sizes) :].reshape(-1, *data.static) if data.static else None,
        }
        self.module.predict_likelihood_parameters = self.module.likelihood is not None
        kind = import_library("darts.utils.data.torch_datasets.utils").TorchInferenceBatch
        forecast: Tensor = self.module._get_batch_prediction(data.horizon, kind(**batch), n_out)
        return forecast
