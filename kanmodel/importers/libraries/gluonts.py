"""Import of what GluonTS has fitted with torch: ``from_gluonts``.

Its transformations make a network's inputs of a series: the target, whether it was observed, parts of the calendar, the
age of the series and further columns, over a past of fixed length and often over the forecast. The columns of a window
are these inputs, and the network is traced with its scaler and with the distribution of its outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.arrays import Array
from kanmodel.errors import CheckpointError, UnreadableModelError, checked
from kanmodel.importers.libraries import (
    Options,
    Windows,
    import_library,
    read_fitted,
    refusing,
    with_options,
    with_quantiles,
)
from kanmodel.importers.search.samples import N_REFERENCE
from kanmodel.model import Model
from kanmodel.network.described import describe
from kanmodel.tables.statistics.choose import choose_evenly

OBSERVED, KINDS = "observed_values", ("real", "cat")


@with_options
@checked
def from_gluonts(predictor: Any, dataset: Any, *, target: str = "target", **options: Unpack[Options]) -> Model:
    """Converts a predictor of GluonTS, such as a SimpleFeedForward, a TFT or a DeepAR, to a model of its distribution.

    See `kanmodel.importers.libraries` for what holds for all libraries. Windows are cut from all series of the dataset,
    and have rows of the forecast if the network reads columns there. Their features are the target, and where the
    network reads them ``{target}_observed``, parts of the calendar such as ``hour_of_day``, ``age``, and the fields of
    the dataset, each numbered if it has several rows; categories are whole numbers.

    Outputs are the mean, quantiles and parameters of the distribution, or the quantiles of a `QuantileOutput`. DeepAR
    forecasts by sampling: the distribution of its first step is exact, and is what is explained; that of a later step
    is known by samples of the steps before it alone, so the horizon is 1.

    Args:
        predictor: a `PyTorchPredictor`, as an estimator's `train` returns or `deserialize` loads it.
        dataset: entries with ``start``, ``target`` and what else the predictor reads, such as a `PandasDataset`.
        target: what the target is called.
        **options: see `Options`.

    Raises:
        UnreadableModelError: the network does what no graph has, such as sampling; the message names it.
        CheckpointError: no GluonTS, another object than these, or no series that is long enough.
    """
    kind = import_library("gluonts.torch.model.predictor").PyTorchPredictor
    if not isinstance(predictor, kind):
        raise CheckpointError(f"predictor must be a {kind.__name__} of GluonTS, but is a {type(predictor).__name__}")
    predict = _Predict(predictor)
    data = predict.data = _Data(predictor, dataset, target, predict.horizon)
    categories = [name for name in data.columns if "_cat" in name]
    options["integer"] = (*options.get("integer", ()), *categories)
    windows = Windows(
        features=data.columns,
        outputs=[target] if predict.quantiles is None else with_quantiles([target], predict.quantiles),
        horizon=predict.horizon,
        values=data.windows(),
        targets=data.truth.repeat(len(predict.quantiles or [1]), axis=1),
        predictions=predict.expected(),
        has_future=data.n_rows > data.n_past,
        times=data.times,
        masks=data.masks,
    )
    return read_fitted("gluonts", predict.model, predict, windows, options)


@dataclass(frozen=True)
class _Input:
    """An input of a network.

    Attributes:
        values: in each window, (n, rows), (n, rows, n_columns), or (n, n_columns) if it is the same in all rows.
        columns: which of a window's they are; empty if it is the same in all windows.
        rows: which of a window's are read.
    """

    values: Tensor
    columns: Sequence[int]
    rows: slice

    def read(self, window: Tensor) -> Tensor:
        """The input in windows (n, rows, n_columns), in the shape of its values."""
        if not self.columns:
            return self.values[:1].expand(len(window), *self.values.shape[1:])
        found = window[:, self.rows, self.columns].reshape(len(window), *self.values.shape[1:])
        return found.to(self.values.dtype) if not self.values.is_floating_point() else found


class _Data:
    """The windows of a dataset, and what the transformations of a predictor make of them.

    Attributes:
        n_past: rows before the forecast.
        n_rows: of a window.
        columns: names of a window's columns.
        inputs: of the network, by name.
        truth: what came, (n, horizon).
        times: of each window's last row before the forecast.
        masks: of the target, if the network reads whether it was observed and one value stands for all missing ones.
    """

    def __init__(self, predictor: Any, dataset: Any, target: str, horizon: int) -> None:
        steps, n_out = predictor.input_transform.transformations, predictor.prediction_length
        self.n_past = next(step.past_length for step in steps if hasattr(step, "past_length"))
        ends = [
            (entry, end)
            for entry in dataset
            for end in range(self.n_past, np.shape(entry["target"])[-1] - n_out + 1)
            if np.isfinite(entry["target"][..., end : end + horizon]).all()
        ]
        if not ends or predictor.lead_time or np.ndim(ends[0][0]["target"]) > 1:
            reason = f"{self.n_past} + {n_out} rows of one target, without lead_time"
            raise CheckpointError(f"the dataset and the predictor have no windows of {reason}")
        chosen = [ends[number] for number in choose_evenly(len(ends), N_REFERENCE)]
        self.truth: Array = np.stack([entry["target"][end : end + horizon] for entry, end in chosen]).astype(np.float64)
        self.times = tuple(str(entry["start"] + (end - 1)) for entry, end in chosen)
        with refusing("the predictor cannot read the dataset"):
            instances = [*predictor.input_transform((_cut(entry, end, n_out) for entry, end in chosen), is_train=False)]
        names = _name_columns(steps, chosen[0][0])
        self.inputs, self.columns = dict[str, _Input](), list[str]()
        for name in predictor.input_names:
            if name not in instances[0]:
                continue
            values = torch.from_numpy(np.stack([each[name] for each in instances]))
            rest = name.removeprefix("past_").removeprefix("future_")
            field = name if rest in predictor.input_names else rest
            start = self.n_past if name.startswith("future_") else self.n_past - 1 if _is_static(name) else 0
            values = values[:, :horizon] if start == self.n_past else values
            width = values.shape[-1] if values.ndim > 2 or _is_static(name) else 1
            own = names.get(field, _number(field, width))
            own = [{"target": target, OBSERVED: f"{target}_observed"}.get(each, each) for each in own]
            self.columns += [each for each in own if each not in self.columns]
            rows = slice(start, start + (1 if _is_static(name) else values.shape[1]))
            self.inputs[name] = _Input(values, [*map(self.columns.index, own)], rows)
        self.n_rows = max(each.rows.stop for each in self.inputs.values())
        fill = next((step.imputation_method for step in steps if hasattr(step, "imputation_method")), None)
        is_masked = hasattr(fill, "dummy_value") and f"{target}_observed" in self.columns
        self.masks = {target: (f"{target}_observed", float(fill.dummy_value))} if is_masked else None  # type: ignore[union-attr]

    def windows(self) -> Array:
        """(n, n_rows, n_columns); what is not known is in rows of the forecast as in the newest before it."""
        windows: Array = np.zeros((len(self.truth), self.n_rows, len(self.columns)))
        for name, each in sorted(self.inputs.items(), key=lambda item: item[1].rows.start):
            start, stop = 0 if _is_static(name) else each.rows.start, each.rows.stop
            values = each.values.numpy().reshape(len(windows), stop - each.rows.start, -1)
            windows[:, start:stop, each.columns] = values
            windows[:, stop:, each.columns] = values[:, -1:]
        return windows


def _is_static(name: str) -> bool:
    return name.startswith("feat_static")


def _number(field: str, n: int) -> list[str]:
    return [field] if n == 1 else [f"{field}_{k + 1}" for k in range(n)]


def _cut(entry: Mapping[str, Any], end: int, n_out: int) -> dict[str, Any]:
    """A series up to a row, and its known columns up to the end of the forecast."""
    lengths = {f"{past}feat_dynamic_{kind}": n for past, n in (("past_", end), ("", end + n_out)) for kind in KINDS}
    return {**entry, **{name: entry[name][..., :n] for name, n in {"target": end, **lengths}.items() if name in entry}}


def _name_columns(steps: Sequence[Any], entry: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the columns that transformations make, by field; none of what is the same in all windows."""
    names: dict[str, list[str]] = {}
    for step in steps:
        match type(step).__name__:
            case "SetField":
                names[step.output_field] = []
            case "AddTimeFeatures":
                names[step.output_field] = [getattr(of, "__name__", type(of).__name__) for of in step.date_features]
            case "AddAgeFeature":
                names[step.feature_name] = ["age"]
            case "VstackFeatures":
                parts = ((of, np.atleast_2d(entry[of]).shape[0] if of in entry else 1) for of in step.input_fields)
                names[step.output_field] = [each for part in parts for each in names.get(part[0], _number(*part))]
    return names


class _Predict(nn.Module):
    """What a predictor computes of a window, (n, n_rows, n_columns): a distribution, or (n, horizon, quantiles).

    Attributes:
        model: the network.
        horizon: steps of the forecast whose distribution it has.
        quantiles: those that it forecasts; None if it is a distribution.
        data: the windows.
    """

    data: _Data

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        generators = import_library("gluonts.model.forecast_generator")
        generator, self.model = predictor.forecast_generator, predictor.prediction_net.model.eval()
        self.quantiles, self._distribution = None, getattr(generator, "distr_output", self.model.distr_output)
        if isinstance(generator, generators.QuantileForecastGenerator):
            self.quantiles = [*map(float, generator.quantiles)]
        self._is_sampled = isinstance(generator, generators.SampleForecastGenerator)
        kind = type(self.model).__name__
        if self._is_sampled and not hasattr(self.model, "unroll_lagged_rnn"):
            raise UnreadableModelError(f"forecasts of {kind} are samples; give the estimator a distr_output without")
        if predictor.output_transform is not None or getattr(self.model, "nonnegative_pred_samples", False):
            raise UnreadableModelError(f"samples of {kind} are changed by output_transform or nonnegative_pred_samples")
        self.horizon = 1 if self._is_sampled else predictor.prediction_length

    def forward(self, window: Tensor) -> Any:
        return self._outputs({name: each.read(window) for name, each in self.data.inputs.items()})

    def _outputs(self, inputs: dict[str, Tensor]) -> Any:
        if self._is_sampled:
            parameters, scale, *_ = self.model.unroll_lagged_rnn(**inputs)
            return self.model.output_distribution(parameters, scale=scale, trailing_n=1)
        outputs, loc, scale = self.model(**inputs)
        if self.quantiles is None:
            return self._distribution.distribution(outputs, loc, scale)
        return outputs[0] * scale[..., None] + loc[..., None]

    def expected(self) -> Array:
        """The outputs for the inputs that the library makes, (n, n_outputs)."""
        with torch.no_grad():
            found = self._outputs({name: each.values for name, each in self.data.inputs.items()})
        found = found if isinstance(found, Tensor) else describe(found).values
        expected: Array = found.flatten(1).double().numpy()
        return expected
