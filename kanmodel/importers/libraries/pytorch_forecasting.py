"""Import of what pytorch-forecasting has fitted: ``from_pytorch_forecasting``.

Its datasets scale and encode before a model reads them, by group or by window. That is traced with the model, so that
windows are in original units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.arrays import Array
from kanmodel.errors import CheckpointError, UnreadableModelError
from kanmodel.importers.from_torch import unchanged
from kanmodel.importers.libraries import Options, choose, import_library, read_fitted, reader, refusing, with_quantiles
from kanmodel.model import Model
from kanmodel.network.described import QUANTILES, describe


@reader
def from_pytorch_forecasting(model: Any, dataset: Any, **options: Unpack[Options]) -> Model:
    """Converts a fitted model of pytorch-forecasting to one that forecasts what its `predict` returns.

    Of a model with a `DistributionLoss`, whose `predict` draws samples, the outputs are the mean, the quantiles of the
    loss and the parameters of the distribution, see `from_torch`. `DeepAR` draws each step of its forecast from those
    that it drew before, so that only the distribution of the first one is known: its horizon is 1.

    See `kanmodel.importers.libraries` for what holds for all libraries. The windows are those of the dataset that have
    `max_encoder_length` rows before a forecast of `max_prediction_length`, without a gap; they have rows of the
    forecast if the dataset has known variables. Their features are the target and the reals, and a column
    ``variable=category`` for each category, which is 1 where the variable has it and else 0; those of a variable are a
    group. Center and scale of a `GroupNormalizer` that differ by series are static features, ``{target}_center`` and
    ``{target}_scale``.

    Args:
        model: fitted, such as a `NHiTS`, or loaded by its class's `load_from_checkpoint`.
        dataset: the `TimeSeriesDataSet` that it was fitted to, or one made from it, as for validation.
        **options: see `Options`.

    Raises:
        UnreadableModelError: the model does what no graph has, such as sampling; the message names it.
        CheckpointError: no pytorch-forecasting, another object than these, or a dataset without such windows.
    """
    library = import_library("pytorch_forecasting")
    for value, kind, what in ((model, library.BaseModel, "model"), (dataset, library.TimeSeriesDataSet, "dataset")):
        if not isinstance(value, kind):
            raise CheckpointError(f"{what} must be a {kind.__name__} of the library, but is a {type(value).__name__}")
    kinds, loss = import_library("pytorch_forecasting.metrics"), model.loss
    if isinstance(loss, (kinds.MultivariateDistributionLoss, kinds.MQF2DistributionLoss)):
        raise UnreadableModelError(f"{type(loss).__name__} is a distribution of several values together, not of each")
    is_sampled = isinstance(model, library.DeepAR)
    data = _Data(dataset, 1 if is_sampled else None)
    quantiles = loss.quantiles if isinstance(loss, library.QuantileLoss) else None
    way = "prediction" if quantiles is None else "quantiles"
    way = "distribution" if isinstance(loss, kinds.DistributionLoss) else way
    ways: dict[str, Any] = {"mode": ("raw", "prediction") if way == "distribution" else way}
    ways |= {"n_samples": None} if is_sampled else {}
    predict = _Predict(model, data, way)
    if not np.array_equal(data.predict(model, ways, 1), data.predict(model, ways, 1)):
        problem = f"two forecasts of one window by {type(model).__name__} with {type(loss).__name__} differ"
        raise UnreadableModelError(f"{problem}, because predict draws samples")
    predictions = data.predict(model, ways)
    if way == "distribution":
        of = loss.map_x_to_distribution(torch.from_numpy(predictions).float())
        predictions = describe(of, loss.quantiles).values.double().numpy()
    true = dataset.data["target"][0].numpy()[data.rows[:, data.n_in :]].astype(np.float64)
    options["groups"] = {**data.categories, **(options.get("groups") or {})}
    with unchanged(predict):
        predict.prepare()
        return read_fitted(
            "pytorch-forecasting",
            model,
            predict,
            options,
            features=data.features,
            outputs=with_quantiles([data.target], quantiles),
            horizon=data.n_out,
            windows=data.windows(),
            targets=true.repeat(len(quantiles or [1]), axis=1),
            predictions=predictions,
            has_future=bool(data.known),
            quantiles=loss.quantiles if way == "distribution" else QUANTILES,
        )


class _Scaler:
    """What a dataset does with a real variable: (f(x) - center) / scale.

    Attributes:
        parameters: center and scale in each window, (n, 2); None if they are those of the window's own values.
        own: the `EncoderNormalizer` that finds these.
        mixin: the transformer if it has an f, such as softplus.
    """

    def __init__(self, transformer: Any, name: str, groups: Tensor, group_ids: Sequence[str]) -> None:
        kinds = import_library("pytorch_forecasting.data.encoders")
        self.own = transformer if isinstance(transformer, kinds.EncoderNormalizer) else None
        self.mixin = transformer if isinstance(transformer, kinds.TransformMixIn) else None
        self.parameters: Array | None = None
        if transformer is None:
            self.parameters = np.array([[0.0, 1.0]]).repeat(len(groups), axis=0)
        elif isinstance(transformer, kinds.GroupNormalizer):
            self.parameters = np.stack([np.ravel(transformer.get_parameters(of, group_ids)) for of in groups])
        elif self.own is None:
            center = getattr(transformer, "center_", getattr(transformer, "mean_", None))
            if not hasattr(transformer, "scale_") or hasattr(transformer, "min_"):
                raise UnreadableModelError(f"{name} has a {type(transformer).__name__}, which is no center and scale")
            center, scale = (np.ravel(0.0 if each is None else each)[:1] for each in (center, transformer.scale_))
            self.parameters = np.array([[float(center[0]), float(scale[0])]]).repeat(len(groups), axis=0)

    @property
    def varies(self) -> bool:
        """Whether center and scale depend on the series."""
        return self.parameters is not None and bool((self.parameters != self.parameters[:1]).any())

    def inverse(self, rows: Array) -> Array:
        """Original values of those that a dataset stores, (n, rows); those of its own it stores as they are."""
        if self.parameters is None:
            return rows
        found = rows * self.parameters[:, 1:] + self.parameters[:, :1]
        if self.mixin is None or self.mixin.transformation is None:
            return found
        functions = self.mixin.get_transform(self.mixin.transformation)
        original: Array = functions.get("inverse", functions["reverse"])(torch.from_numpy(found)).numpy()
        return original

    def scale_of(self, known: Tensor) -> Tensor:
        """Center and scale of windows by the rows before their forecast, (n, n_in) -> (n, 2)."""
        if self.own is None:
            assert self.parameters is not None
            return torch.from_numpy(self.parameters[:1]).to(known).expand(len(known), -1)
        fitted: Tensor = self.own.fit(known).get_parameters()
        return fitted

    def transform(self, rows: Tensor, scale: Tensor) -> Tensor:
        """(n, rows) with their center and scale, (n, 2)."""
        values = rows if self.mixin is None else self.mixin.preprocess(rows)
        scaled: Tensor = (values - scale[:, :1]) / scale[:, 1:]
        return scaled


class _Data:
    """The windows of a dataset, and what it makes of their columns for a model.

    Attributes:
        rows: numbers of the rows of each window, (n, n_in + n_out).
        made: variables that the dataset makes.
        reals: the other real variables but the target.
        categories: names of the columns of each categorical variable.
        features: names of a window's columns.
        known: variables that are read in rows of the forecast; of a lag shorter than it, up to the row of the lag.
        static: variables that are read in the newest row before the forecast alone.
    """

    def __init__(self, dataset: Any, horizon: int | None) -> None:
        if dataset.multi_target:
            raise UnreadableModelError(f"the dataset has several targets, {', '.join(dataset.target_names)}, not one")
        if dataset.target in dataset.flat_categoricals:
            raise UnreadableModelError(f"the target {dataset.target} is a category, not a number")
        self.dataset, self.target = dataset, str(dataset.target)
        self.n_in, self.n_out = dataset.max_encoder_length, dataset.max_prediction_length
        index, n = dataset.index, self.n_in + self.n_out
        whole = (index["index_end"] - index["index_start"] + 1 == n) & (index["sequence_length"] == n)
        places = np.flatnonzero(whole.to_numpy())
        if not len(places) or dataset.randomize_length is not None:
            reason = f"{n} rows without a gap" if not len(places) else "a fixed length, but randomize_length"
            raise CheckpointError(f"the dataset has no windows of {reason}: max_encoder_length + max_prediction_length")
        places = places[choose(len(places))]
        self.places = places[np.argsort(index["time"].to_numpy()[places], kind="stable")]
        self.n_out = horizon or self.n_out
        self.rows = index["index_start"].to_numpy()[self.places][:, None] + np.arange(self.n_in + self.n_out)
        groups = dataset.data["groups"][self.rows[:, 0]]
        made = {"relative_time_idx": dataset.add_relative_time_idx, "encoder_length": dataset.add_encoder_length}
        made |= {f"{self.target}_{part}": dataset.add_target_scales for part in ("center", "scale")}
        self.made = {name for name, is_made in made.items() if is_made}
        self.scalers = {
            name: _Scaler(dataset.get_transformer(name), name, groups, dataset.group_ids) for name in dataset.reals
        } | {self.target: _Scaler(dataset.target_normalizer, self.target, groups, dataset.group_ids)}
        self.lagged = {name for name, of in dataset.lagged_variables.items() if of == self.target}
        for name, scaler in self.scalers.items():
            if scaler.varies and name not in (self.target, *self.lagged):
                raise UnreadableModelError(f"{name} is scaled by series, which is only understood of the target")
        self.reals = [name for name in dataset.reals if name not in self.made and name != self.target]
        self.categories: dict[str, list[str]] = {}
        for name in dataset.flat_categoricals:
            classes = dataset.get_transformer(name).classes_
            self.categories[name] = [f"{name}={category}" for category in sorted(classes, key=classes.__getitem__)]
        scale = [f"{self.target}_center", f"{self.target}_scale"] if self.scalers[self.target].varies else []
        of_categories = [name for names in self.categories.values() for name in names]
        self.features = [self.target, *self.reals, *of_categories, *scale]
        known = dataset._time_varying_known_reals, dataset._time_varying_known_categoricals, self.lagged
        self.known = self._flat(*(name for names in known for name in names))
        self.static = self._flat(*dataset._static_reals, *dataset._static_categoricals)

    def _flat(self, *names: str) -> set[str]:
        """Variables, those of a group of categorical ones each by its own name."""
        groups = self.dataset._variable_groups
        return {each for name in names for each in groups.get(name, [name])} - self.made

    def windows(self) -> Array:
        """(n, rows, n_features); columns that are not known are in rows of the forecast as in the newest before it."""
        data, numbers = self.dataset.data, np.arange(self.n_in + self.n_out)
        numbers = numbers if self.known else numbers[: self.n_in]

        def take(values: Tensor, name: str) -> Array:
            taken = numbers if name in self.known else np.minimum(numbers, self.n_in - 1)
            rows: Array = values.numpy()[self.rows[:, taken]].astype(np.float64)
            return rows

        columns = [take(data["target"][0], self.target)]
        for name in self.reals:
            stored = data["reals"][:, self.dataset.reals.index(name)]
            columns.append(self.scalers[name].inverse(take(stored, name)))
        for number, (name, names) in enumerate(self.categories.items()):
            codes = take(data["categoricals"][:, number], name)
            columns += [(codes == code).astype(np.float64) for code in range(len(names))]
        scaler = self.scalers[self.target]
        if scaler.parameters is not None and scaler.varies:
            columns += [part[:, None].repeat(len(numbers), axis=1) for part in scaler.parameters.T]
        return np.stack(columns, axis=2)

    def predict(self, model: Any, ways: Mapping[str, Any], n: int | None = None) -> Array:
        """The library's forecasts of the first windows, all by default, (n, n_out) or (n, n_out, values)."""
        chosen = copy(self.dataset)
        chosen.index = self.dataset.index.iloc[self.places[:n]]
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
        with refusing(f"{type(model).__name__} cannot forecast the dataset"):
            found = model.predict(chosen, trainer_kwargs={"accelerator": "cpu", **quiet}, **ways)
        forecasts: Array = np.asarray(found.cpu(), dtype=np.float64)[:, : self.n_out]
        return forecasts


class _Predict(nn.Module):
    """What `predict` does with a window, (n, rows, n_features) -> (n, n_out, n_targets), or a distribution of each."""

    def __init__(self, model: Any, data: _Data, way: str) -> None:
        super().__init__()
        self.model, self._data, self._way = model, data, way

    def prepare(self) -> None:
        """Replaces what is done by codes of categories and by lengths, which are full; see `unchanged`."""
        layers = import_library("pytorch_forecasting.models.nn")
        for module in self.model.modules():
            if isinstance(module, layers.MultiEmbedding):
                module.forward = partial(_embed, module, self._data.categories)
            elif isinstance(module, layers.rnn.RNN):
                module.forward = partial(_recur, module, nn.LSTM if isinstance(module, nn.LSTM) else nn.GRU)

    def forward(self, window: Tensor) -> Any:
        """The batch of a dataset, and the model's forecast."""
        data, n, n_in, n_out = self._data, len(window), self._data.n_in, self._data.n_out
        rows = torch.arange(n_in + n_out).clamp(max=window.shape[1] - 1)
        columns = dict(zip(data.features, window[:, rows].unbind(2), strict=True))
        target, zeros = columns[data.target][:, :n_in], window.new_zeros(n, n_out)
        scale = data.scalers[data.target].scale_of(target)
        if data.scalers[data.target].varies:
            scale = torch.stack([columns[name][:, n_in - 1] for name in data.features[-2:]], dim=1)

        def place(name: str, values: Tensor) -> Tensor:
            if name in data.static:
                return values[:, n_in - 1 : n_in].expand(-1, n_in + n_out)
            return values if name in data.known else torch.cat([values[:, :n_in], zeros], dim=1)

        def real(name: str) -> Tensor:
            if name not in data.made:
                own = name in (data.target, *data.lagged)
                of = scale if own else data.scalers[name].scale_of(columns[name][:, :n_in])
                return place(name, data.scalers[name].transform(columns[name], of))
            if name == "relative_time_idx":
                times: Tensor = torch.arange(-n_in, n_out) / n_in
                return times.to(window).expand(n, -1)
            if name == "encoder_length":
                return window.new_ones(n, n_in + n_out)
            part = scale[:, 1:] if name.endswith("_scale") else scale[:, :1]
            made = data.scalers[name].transform(part, data.scalers[name].scale_of(part))
            return made.expand(-1, n_in + n_out)

        reals = [real(name) for name in data.dataset.reals]
        codes = [place(name, columns[each]) for name, names in data.categories.items() for each in names]
        cont, cat = (
            torch.stack(each, dim=2) if each else window.new_zeros(n, n_in + n_out, 0) for each in (reals, codes)
        )
        lengths = torch.full((n,), n_in), torch.full((n,), n_out)
        out = self.model(
            {
                "encoder_cat": cat[:, :n_in],
                "encoder_cont": cont[:, :n_in],
                "encoder_target": target,
                "encoder_lengths": lengths[0],
                "decoder_cat": cat[:, n_in:],
                "decoder_cont": cont[:, n_in:],
                "decoder_target": zeros,
                "decoder_lengths": lengths[1],
                "decoder_time_idx": torch.arange(n_out).expand(n, -1),
                "groups": torch.zeros(n, len(data.dataset.group_ids), dtype=torch.long),
                "target_scale": scale,
            }
        )
        if self._way == "distribution":
            return self.model.loss.map_x_to_distribution(out["prediction"])
        return getattr(self.model, f"to_{self._way}")(out)


def _embed(module: Any, categories: Mapping[str, Sequence[str]], x: Tensor) -> Any:
    """A `MultiEmbedding` of the columns of categories, in place of their codes."""
    of = dict(zip(categories, torch.split(x, [len(names) for names in categories.values()], dim=-1), strict=True))
    found = {
        name: sum(of[each] @ embedding.weight for each in module.categorical_groups.get(name, [name]))
        for name, embedding in module.embeddings.items()
    }
    return torch.cat([*found.values()], dim=-1) if module.concat_output else found


def _recur(module: Any, kind: type[nn.LSTM | nn.GRU], x: Tensor, hx: Any = None, *_: Any, **__: Any) -> Any:
    """The call of an LSTM or GRU of the library, without its packing of sequences by lengths."""
    return kind.forward(module, x, hx)
