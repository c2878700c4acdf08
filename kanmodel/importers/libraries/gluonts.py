"""Import of what GluonTS has fitted with torch: ``from_gluonts``.

Its transformations make a network's inputs of a series: the target, whether it was observed, parts of the calendar, the
age of the series and further columns, over a past of fixed length and often over the forecast. The columns of a window
are these inputs, and the network is traced with its scaler and with the distribution of its outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.arrays import Array
from kanmodel.errors import CheckpointError, UnreadableModelError
from kanmodel.importers.libraries import Options, choose, import_library, read_fitted, reader, refusing, with_quantiles
from kanmodel.model import Model
from kanmodel.network.described import describe

STATIC = ("feat_static_real", "feat_static_cat")
AHEAD = {"target": 0, **{f"{past}feat_dynamic_{kind}": not past for kind in ("real", "cat") for past in ("past_", "")}}


@reader
def from_gluonts(predictor: Any, dataset: Any, *, target: str = "target", **options: Unpack[Options]) -> Model:
    """Converts a predictor of GluonTS, such as a SimpleFeedForward, a TFT or a DeepAR, to a model of its distribution.

    See `kanmodel.importers.libraries` for what holds for all libraries. Windows are cut from all series of the dataset,
    and have rows of the forecast if the network reads columns there. Their features are the target, and where the
    network reads them ``{target}_observed``, parts of the calendar such as ``hour_of_day``, ``age``, and the fields of
    the dataset, each numbered if it has several rows; categories are whole numbers. A missing value of a target that is
    filled by a fixed one has ``{target}_observed`` as its mask.

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
    windows = predict.read(predictor, dataset, target)
    categories = [name for name in windows["features"] if "_cat" in name]
    options["integer"] = (*options.get("integer", ()), *categories)
    return read_fitted("gluonts", predict.model, predict, options, **windows)


class _Input(NamedTuple):
    """An input of the network: its values in each window, the columns of a window that hold it, and the rows read."""

    values: Tensor  # (n, rows), (n, rows, n_columns), or of a static one (n, n_columns)
    columns: Sequence[int]  # none, if it is the same in all windows
    rows: slice


class _Predict(nn.Module):
    """What a predictor computes of windows (n, rows, n_columns): a distribution, or (n, horizon, quantiles)."""

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        generators = import_library("gluonts.model.forecast_generator")
        generator, self.model = predictor.forecast_generator, predictor.prediction_net.model.eval()
        is_quantiles = isinstance(generator, generators.QuantileForecastGenerator)
        self.quantiles = [*map(float, generator.quantiles)] if is_quantiles else None
        self.is_sampled = isinstance(generator, generators.SampleForecastGenerator)
        self.horizon = 1 if self.is_sampled else predictor.prediction_length
        self.inputs = dict[str, _Input]()
        kind = type(self.model).__name__
        if self.is_sampled and not hasattr(self.model, "unroll_lagged_rnn"):
            raise UnreadableModelError(f"forecasts of {kind} are samples, of whose distribution nothing is known")
        if predictor.output_transform is not None or getattr(self.model, "nonnegative_pred_samples", False):
            raise UnreadableModelError(f"samples of {kind} are changed by output_transform or nonnegative_pred_samples")

    def read(self, predictor: Any, dataset: Any, target: str) -> dict[str, Any]:
        """Cuts windows that end at rows of a dataset, and reads what transformations make of them for the network."""
        steps, n_out = predictor.input_transform.transformations, predictor.prediction_length
        n_past = next(step.past_length for step in steps if hasattr(step, "past_length"))
        ends = [
            (entry, end)
            for entry in dataset
            for end in range(n_past, np.shape(entry["target"])[-1] - n_out + 1)
            if np.isfinite(entry["target"][..., end : end + self.horizon]).all()
        ]
        if not ends or predictor.lead_time or np.ndim(ends[0][0]["target"]) > 1:
            reason = f"{n_past} + {n_out} rows of one target, without lead_time"
            raise CheckpointError(f"the dataset and the predictor have no windows of {reason}")
        chosen = [ends[number] for number in choose(len(ends))]
        cut = [
            entry | {name: entry[name][..., : end + n_out * known] for name, known in AHEAD.items() if name in entry}
            for entry, end in chosen
        ]
        with refusing("the predictor cannot read the dataset"):
            instances = [*predictor.input_transform(cut, is_train=False)]
        names, columns = _name_columns(steps, cut[0], target), list[str]()
        for name in (name for name in predictor.input_names if name in instances[0]):
            rest, is_future = name.removeprefix("past_").removeprefix("future_"), name.startswith("future_")
            values = torch.from_numpy(np.stack([each[name] for each in instances]))
            values = values[:, : self.horizon] if is_future else values
            field, start = name if rest in predictor.input_names else rest, n_past * is_future
            rows = slice(n_past - 1, n_past) if name in STATIC else slice(start, start + values.shape[1])
            own = names.get(field, _number(field, 1 if values.ndim == 2 and name not in STATIC else values.shape[-1]))
            columns += [each for each in own if each not in columns]
            self.inputs[name] = _Input(values, [*map(columns.index, own)], rows)
        windows: Array = np.zeros((len(cut), max(each.rows.stop for each in self.inputs.values()), len(columns)))
        for name, (values, places, rows) in sorted(self.inputs.items(), key=lambda item: item[1].rows.start):
            by_row = values.numpy().reshape(len(cut), rows.stop - rows.start, -1)
            windows[:, rows, places], windows[:, rows.stop :, places] = by_row, by_row[:, -1:]
            if name in STATIC:
                windows[:, : rows.start, places] = by_row
        (observed,) = names["observed_values"]
        fills = [getattr(step, "imputation_method", None) for step in steps if hasattr(step, "imputation_method")]
        fill = getattr(fills[0], "dummy_value", None) if fills and observed in columns else None
        true = np.stack([entry["target"][end : end + self.horizon] for entry, end in chosen]).astype(np.float64)
        with torch.no_grad():
            expected = self._outputs({name: each.values for name, each in self.inputs.items()})
        expected = expected if isinstance(expected, Tensor) else describe(expected).values
        return dict(
            features=columns,
            outputs=with_quantiles([target], self.quantiles),
            horizon=self.horizon,
            windows=windows,
            targets=true.repeat(len(self.quantiles or [1]), axis=1),
            predictions=expected.flatten(1).double().numpy(),
            has_future=windows.shape[1] > n_past,
            times=tuple(str(entry["start"] + (end - 1)) for entry, end in chosen),
            masks=None if fill is None else {target: (observed, float(fill))},
        )

    def forward(self, window: Tensor) -> Any:
        inputs = {}
        for name, (values, columns, rows) in self.inputs.items():
            read = window[:, rows, columns] if columns else values[:1].expand(len(window), *values.shape[1:])
            inputs[name] = read.reshape(len(window), *values.shape[1:])
            inputs[name] = inputs[name] if values.is_floating_point() else inputs[name].to(values.dtype)
        return self._outputs(inputs)

    def _outputs(self, inputs: dict[str, Tensor]) -> Any:
        if self.is_sampled:
            parameters, scale, *_ = self.model.unroll_lagged_rnn(**inputs)
            return self.model.output_distribution(parameters, scale=scale, trailing_n=1)
        outputs, loc, scale = self.model(**inputs)
        if self.quantiles is None:
            return self.model.distr_output.distribution(outputs, loc, scale)
        return outputs[0] * scale[..., None] + loc[..., None]


def _number(field: str, n: int) -> list[str]:
    return [field] if n == 1 else [f"{field}_{k + 1}" for k in range(n)]


def _name_columns(steps: Sequence[Any], entry: Mapping[str, Any], target: str) -> dict[str, list[str]]:
    """Names of the columns that transformations make, by field; none of what is the same in all windows."""
    names = {"target": [target], "observed_values": [f"{target}_observed"]}
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
