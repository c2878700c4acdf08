"""Import of what darts has fitted: ``from_darts``.

What is traced is the loop by which darts forecasts, with its module, RINorm and likelihood in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kanmodel.arrays import Array
from kanmodel.errors import CheckpointError, UnreadableModelError, check_count, checked
from kanmodel.forecaster import Forecaster
from kanmodel.importers.from_torch import from_torch
from kanmodel.importers.libraries import describe, import_library
from kanmodel.importers.samples import N_REFERENCE
from kanmodel.network.config import Groups
from kanmodel.tables.statistics.choose import choose_evenly

COVARIATES = ("past_covariates", "future_covariates")  # arguments of darts


@checked
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
    units: Mapping[str, str] | None = None,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> Forecaster:
    """Converts a fitted model of darts on torch to one that forecasts what `predict` returns.

    The windows are those of the series whose forecast is known, up to 512 of all series, evenly chosen. On them the
    forecasts of `predict` and those of the network must be the same to 1e-5 of their spread. Where only rounding is in
    the way, `model.model.double()` makes the module one of float64: series are read in its type.

    A window has `input_chunk_length` rows, oldest first, and the rows of the forecast too if the model has future
    covariates. Its features are the components of the target, of the past and of the future covariates, with those that
    `add_encoders` makes, and each static covariate. In rows of the forecast only future covariates are read, and of a
    static one the newest row before it. Outputs are ``{component}+{step}``; of a likelihood they are its parameters,
    as `predict` names them with `predict_likelihood_parameters`.

    The first forecast is one step after a window's end, so that tables can be backtested (`ahead` is 1), unless windows
    have rows of the forecast, whose `ahead` is 0.

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
        units: of components, by name.
        groups: as in `from_torch`.
        integer: likewise.
        fixed: likewise.

    Raises:
        UnreadableModelError: the model does what no graph has; the message names it.
        CheckpointError: no darts, a model that is not fitted, or series that do not fit it.
    """
    fitted = _load(model)
    source = _Source.of(fitted, series, past_covariates, future_covariates, horizon)
    scalers = {"scaler": scaler, "past_covariates_scaler": past_covariates_scaler}
    scalers["future_covariates_scaler"] = future_covariates_scaler
    mean, std, low, high = source.scale(scalers)
    of = source.component_of_outputs
    is_value = fitted.likelihood is None or hasattr(fitted.likelihood, "quantiles")
    if scaler is not None and not is_value:
        raise CheckpointError("scaler is for forecasts and quantiles, but the outputs are parameters of a likelihood")
    found = from_torch(
        _Predict(source),
        windows=source.windows * std + mean,
        features=source.names,
        outputs=source.outputs,
        targets=(source.targets[..., of] * std[of] + mean[of]).reshape(len(source.targets), -1) if is_value else None,
        predictions=source.predict() * std[of] + mean[of],
        scaling={"mean": mean, "std": std, "target_mean": mean[of], "target_std": std[of]},
        horizon=source.horizon,
        ahead=0 if source.has_future else 1,
        groups=groups,
        integer=integer,
        fixed=fixed,
    )
    features = tuple(
        each if np.isnan(least) else replace(each, min=float(least), max=float(most))
        for each, least, most in zip(found.config.features, low, high, strict=True)
    )
    found = found.with_config(replace(found.config, features=features))
    return describe(found, "darts", type(fitted).__name__, units, source.times)


def _load(model: Any) -> Any:
    """The fitted model, from its file if it is a path."""
    kind = import_library("darts.models.forecasting.torch_forecasting_model").TorchForecastingModel
    if isinstance(model, (str, Path)):
        try:
            model = kind.load(str(model), map_location="cpu")
        except Exception as error:  # whatever the library raises
            raise CheckpointError(f"darts cannot load {model}: {_first_line(error)}") from error
    if not isinstance(model, kind):
        raise CheckpointError(f"from_darts takes a model of darts on torch, but this is a {type(model).__name__}")
    if model.model is None:
        raise CheckpointError(f"{type(model).__name__} is not fitted: call its fit before from_darts")
    if model.output_chunk_shift:
        raise UnreadableModelError(f"the model has an output_chunk_shift of {model.output_chunk_shift}, not 0")
    return model


@dataclass(frozen=True)
class _Source:
    """Windows of the series, in the units in which the model reads them."""

    model: Any
    n_series: int  # of which the windows are
    series: Sequence[Any]  # of each window, up to its forecast
    covariates: Mapping[str, Sequence[Any]]  # of each window, as for `predict`
    horizon: int
    names: tuple[str, ...]  # of the features
    sizes: tuple[int, ...]  # features of the target, past and future covariates; then come static ones
    static: tuple[int, ...]  # shape of the static covariates
    windows: Array  # (n, lookback, n_features)
    targets: Array  # (n, horizon, n_targets)

    @classmethod
    def of(cls, model: Any, series: Any, past: Any, future: Any, horizon: int | None) -> _Source:
        """The windows of a call."""
        n_in, n_out = model.input_chunk_length, model.output_chunk_length
        horizon = n_out if horizon is None else horizon
        check_count(horizon, "horizon", lowest=n_out)
        if model.likelihood is not None and horizon > n_out:
            raise UnreadableModelError(f"a horizon above {n_out}, output_chunk_length, samples from the likelihood")
        dtype = str(next(model.model.parameters()).dtype).removeprefix("torch.")

        def as_read(given: Any) -> list[Any]:
            return [each.astype(dtype) for each in _as_list(given)]

        every = as_read(model.training_series if series is None else series)
        if not every:
            raise CheckpointError("the model holds no series, as it was fitted to several or saved clean: give series")
        of_fit = (
            as_read([of] * len(every) if of else [])
            for of in (model.past_covariate_series, model.future_covariate_series)
        )
        given = {
            name: as_read(of) or default or None
            for name, of, default in zip(COVARIATES, (past, future), of_fit, strict=True)
        }
        places = [(number, end) for number, of in enumerate(every) for end in range(n_in, len(of) - horizon + 1)]
        if not places:
            raise CheckpointError(f"no series has the {n_in + horizon} rows of a window and its forecast")
        ends = [places[place] for place in choose_evenly(len(places), N_REFERENCE)]
        ends.sort(key=lambda place: every[place[0]].time_index[place[1] - 1])
        cut = [every[number][:end] for number, end in ends]
        try:
            encoded = given
            if model.encoders is not None and model.encoders.encoding_available:
                made = model.generate_fit_predict_encodings(horizon, every, **given)
                encoded = dict(zip(given, made, strict=True))
            along, of_windows = (
                {name: [of[number] for number, _ in ends] for name, of in each.items() if of}
                for each in (given, encoded)
            )
            model._verify_past_future_covariates(*map(of_windows.get, COVARIATES))
            dataset = model._build_inference_dataset(horizon, cut, *map(of_windows.get, COVARIATES))
            samples = [dataset[number] for number in range(len(cut))]
        except (ValueError, IndexError) as error:
            raise CheckpointError(f"darts cannot make windows of the series: {_first_line(error)}") from error
        components = [[*map(str, of[0].components)] if of else [] for of in (every, *encoded.values())]
        static, names = samples[0].static_covariates, []
        if static is not None:
            table = every[0].static_covariates
            rows = [f"[{name}]" if len(table) > 1 else "" for name in table.index]
            names = [f"{column}{row}" for row in rows for column in table.columns]
        true = [every[number].values()[end : end + horizon] for number, end in ends]
        return cls(
            model,
            len(every),
            cut,
            along,
            horizon,
            tuple(name for each in (*components, names) for name in each),
            tuple(map(len, components)),
            () if static is None else static.shape,
            np.stack([_rows_of(sample, n_in, horizon) for sample in samples]).astype(np.float64),
            np.stack(true).astype(np.float64),
        )

    @property
    def times(self) -> tuple[str, ...]:
        """Of each window's last row before the forecast."""
        return tuple(str(each.end_time()) for each in self.series)

    @property
    def has_future(self) -> bool:
        """Whether windows have rows of the forecast."""
        return bool(self.windows.shape[1] > self.model.input_chunk_length)

    @property
    def outputs(self) -> list[str]:
        """Names of what is forecast at each step."""
        names, likelihood = self.names[: self.sizes[0]], self.model.likelihood
        if likelihood is None:
            return list(names)
        if hasattr(likelihood, "quantiles"):
            return [f"{name}@{quantile:.4g}" for name in names for quantile in likelihood.quantiles]
        return [str(name) for name in likelihood.component_names(components=names)]

    @property
    def component_of_outputs(self) -> NDArray[np.intp]:
        """The component of the target that each of the `outputs` is of."""
        return np.repeat(np.arange(self.sizes[0]), len(self.outputs) // self.sizes[0])

    def scale(self, scalers: Mapping[str, Any]) -> Array:
        """Mean and std by which scalers of target, past and future covariates made what the model reads.

        And the smallest and largest value in the rows to which a min-max scaler was fitted, else NaN: (4, n_features).
        """
        sizes = (*self.sizes, len(self.names) - sum(self.sizes))
        from_three = [np.arange(3.0)[:, None].repeat(n, axis=1) for n in sizes]
        ends = [np.full((2, n), np.nan) for n in sizes]
        for number, (name, scaler) in enumerate(scalers.items()):
            if scaler is not None:
                from_three[number] = _unscale(scaler, from_three[number], name, self.n_series)
                ends[number].T[:] = getattr(getattr(scaler, "transformer", None), "feature_range", (np.nan, np.nan))
        zero, one, _ = np.concatenate(from_three, axis=1)
        return np.stack([zero, one - zero, *(zero + np.concatenate(ends, axis=1) * (one - zero))])

    def predict(self) -> Array:
        """The forecasts of the library, (n, horizon, n_outputs)."""
        try:
            found = self.model.predict(
                self.horizon,
                self.series,
                **self.covariates,
                predict_likelihood_parameters=self.model.likelihood is not None,
                verbose=False,
                show_warnings=False,
            )
        except ValueError as error:
            raise CheckpointError(f"darts cannot forecast the series: {_first_line(error)}") from error
        return np.stack([each.values() for each in found]).astype(np.float64)


def _as_list(series: Any) -> list[Any]:
    return [] if series is None else list(series) if isinstance(series, (list, tuple)) else [series]


def _rows_of(sample: Any, n_in: int, horizon: int) -> Array:
    """The rows of a window, (lookback, n_features).

    What is not known in rows of the forecast is there as in the last row in which it is.
    """
    parts = (
        (sample.past_target,),
        (sample.past_covariates, sample.future_past_covariates),
        (sample.historic_future_covariates, sample.future_covariates),
    )
    known = [np.concatenate(given) for part in parts if (given := [rows for rows in part if rows is not None])]
    n = n_in + (horizon if max(map(len, known)) > n_in else 0)
    columns = [rows[np.minimum(np.arange(n), len(rows) - 1)] for rows in known]
    if sample.static_covariates is not None:
        columns.append(sample.static_covariates.reshape(1, -1).repeat(n, axis=0))
    return np.concatenate(columns, axis=1)


class _Predict(nn.Module):
    """The forecast of windows by darts' own loop, (batch, lookback, n_features) -> (batch, horizon, n_outputs)."""

    def __init__(self, source: _Source) -> None:
        super().__init__()
        self.module, self._source = source.model.model, source

    def forward(self, window: Tensor) -> Tensor:
        """As the module's `predict_step`."""
        source, n = self._source, self._source.model.input_chunk_length
        n_out = source.model.output_chunk_length
        starts = np.cumsum(source.sizes)[:-1].tolist()
        target, past, future = (
            part if part.shape[2] else None for part in window[:, :, : sum(source.sizes)].tensor_split(starts, dim=2)
        )
        static = window[:, n - 1, sum(source.sizes) :].reshape(-1, *source.static) if source.static else None
        further = past is not None and source.horizon > n_out
        batch = import_library("darts.utils.data.torch_datasets.utils").TorchInferenceBatch(
            past_target=None if target is None else target[:, :n],
            past_covariates=None if past is None else past[:, :n],
            future_past_covariates=past[:, n : n + source.horizon - n_out] if past is not None and further else None,
            historic_future_covariates=None if future is None else future[:, :n],
            future_covariates=None if future is None else future[:, n:],
            static_covariates=static,
        )
        self.module.predict_likelihood_parameters = self.module.likelihood is not None
        forecast: Tensor = self.module._get_batch_prediction(source.horizon, batch, n_out)
        return forecast


def _unscale(scaler: Any, values: Array, name: str, n_series: int) -> Array:
    """Values of components in the units before a scaler of darts; it must be linear, and the same for all series."""
    try:
        probes = [import_library("darts").TimeSeries.from_values(values)] * n_series
        found: list[Array] = [each.values() for each in scaler.inverse_transform(probes)]
    except Exception as error:
        raise CheckpointError(f"{name} cannot be inverted: {_first_line(error)}") from error
    if found[0].shape != values.shape or not np.allclose(found[0][2] - found[0][1], found[0][1] - found[0][0]):
        raise CheckpointError(f"{name} must be linear, such as one of StandardScaler")
    if not all(np.array_equal(each, found[0]) for each in found):
        raise CheckpointError(f"{name} must be the same for all series, as with global_fit=True")
    return found[0]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
