"""Import of what neuralforecast has fitted: ``from_neuralforecast``.

Around its module neuralforecast scales each series (`local_scaler_type`) and each window (`scaler_type`), and some
models forecast step by step. The library's own methods make the batch, normalise it and forecast; only the statistics
of a window, which they compute around missing values, are computed here for windows without any, in operations of a
graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.arrays import Array, count_before
from kanmodel.errors import CheckpointError, UnknownNameError, UnreadableModelError, quote
from kanmodel.importers.from_torch import TOLERANCE, unchanged
from kanmodel.importers.libraries import Options, choose, import_library, read_fitted, reader, refusing, with_quantiles
from kanmodel.importers.search.samples import Bounds
from kanmodel.model import Model
from kanmodel.network.described import Described, describe

MASK = "available_mask"  # the library's column that says whether a row is there
COUNTS = ("Poisson", "NegativeBinomial", "PMM", "NBMM")
MAD_OF_STD = 0.6744897501960817  # as the library has it, of a normal distribution


@torch.inference_mode(False)
@reader
def from_neuralforecast(
    nf: Any,
    model: str | None = None,
    *,
    frame: Any = None,
    static: Any = None,
    series: Any = None,
    **options: Unpack[Options],
) -> Model:
    """Converts a model of a fitted `NeuralForecast`, with its scalers, to one that forecasts what `predict` returns.

    See `kanmodel.importers.libraries` for what holds for all libraries. A window has `input_size` rows, one more if
    the model is recurrent, and the `h` rows of the forecast if it has `futr_exog_list`. Its features are the target
    and the columns of `hist_exog_list`, `futr_exog_list` and `stat_exog_list`. Those of a multivariate model are the
    targets of all series, by `unique_id`, then each other column as ``column[unique_id]``. Of a distribution the mean,
    the quantiles of the loss and the parameters are outputs; where the library estimates mean and quantiles from
    samples, these must agree as well as two such estimates do, those of counts to 1/2 more.

    A window whose target is constant has no scale: with a `scaler_type` the library takes 1 for it, by which its
    forecast jumps. The network forecasts what it does for windows that hardly vary, and such windows are no reference.

    Args:
        nf: a fitted `NeuralForecast`, or the folder that its `save` wrote, which is loaded without running code.
        model: the name of one of its models, as in the columns that `predict` returns; None if there is but one.
        frame: the data frame of the windows, to which `local_scaler_type` is fitted anew, as by `predict(frame)`; None
            for the dataset that `nf` was fitted to.
        static: the `static_df` of `frame`.
        series: the `unique_id` whose windows are the reference. It must be given where `local_scaler_type` scales each
            of several series in its own way.
        **options: see `Options`.

    Raises:
        UnreadableModelError: the library does what no graph has, such as embedding categories; the message names it.
        CheckpointError: `nf` is not fitted, or has no dataset with enough rows.
        UnknownNameError: there is no such model or series.
    """
    nf = _load(Path(nf)) if isinstance(nf, (str, Path)) else nf
    module = _choose_model(nf, model)
    data = _Data(nf, module, series, frame, static)
    is_sampled = module.loss.is_distribution_output
    with unchanged(module):
        predictions = data.predict()
        again = data.predict(seed=2) if is_sampled else predictions
    predict = _Predict(module, data)
    with unchanged(predict):
        predict.prepare()
        given = data.windows() | {"predictions": None if is_sampled else predictions}
        found = read_fitted("neuralforecast", module, predict, options, **given)
    if is_sampled:
        step = data.scaling["target_std"][0] if data.distribution in COUNTS else 0.0
        _compare_samples(found, predictions, again, step / 2)
    return replace(found, name=model or found.name)


def _load(folder: Path) -> Any:
    """What `NeuralForecast.save` wrote, if that is tensors and JSON; of pickles only their names are looked at."""
    if not (folder / "configuration.json").is_file():
        if (folder / "configuration.pkl").is_file():
            raise CheckpointError(
                f"{folder} holds pickles, which may run code: where you trust them, give "
                f"NeuralForecast.load({str(folder)!r}, allow_pickle=True) to from_neuralforecast"
            )
        raise CheckpointError(f"{folder} is no folder that NeuralForecast.save wrote: it has no configuration.json")
    library = import_library("neuralforecast")
    with refusing(f"neuralforecast cannot load {folder}"):
        return library.NeuralForecast.load(str(folder))


def _choose_model(nf: Any, name: str | None) -> Any:
    """The one of `nf.models` that `predict` calls by a name."""
    if not getattr(nf, "_fitted", False):
        problem = "but this one is not" if hasattr(nf, "models") else f"but is {type(nf).__name__}"
        raise CheckpointError(f"nf must be a fitted NeuralForecast, {problem}")
    names = [repr(module) for module in nf.models]
    if name is None and len(names) > 1:
        raise UnknownNameError(f"model must be one of {', '.join(names)}")
    if name is not None and name not in names:
        raise UnknownNameError(f"there is no model {name!r}; the models are {', '.join(names)}")
    return nf.models[0 if name is None else names.index(name)]


def _compare_samples(model: Model, one: Array, other: Array, allowed: float) -> None:
    """Refuses a distribution that differs from two forecasts by samples more than these from each other."""
    of = model.config.known_outputs
    exact, bounds = model.predict(model.reference.windows)[:, of], Bounds.of(one, TOLERANCE)
    noise = np.sqrt(np.square(one - other).mean(axis=0))
    difference = np.sqrt(np.square((one + other) / 2 - exact).mean(axis=0))  # half of the noise if it is that alone
    excess = difference - noise - bounds.allowed - allowed
    if (excess > 0).any():
        output = int(excess.argmax())
        raise UnreadableModelError(
            f"what was read for {model.config.outputs[of[output]]} is {difference[output]:.3g} from that of the "
            f"library's samples, whose error is {noise[output] / 2:.3g}"
        )


class _Data:
    """Windows of a stored dataset, what their columns are called, and the local scalers.

    Attributes:
        rows: (n, lookback + h, columns, series), as the local scalers leave them; a multivariate model has all series.
        static: of each series, (series of the dataset, columns).
        groups: the series of each window, (n,).
        times: of each window's last known row.
        scaling: the local scalers, as `from_torch` takes them.
        names: of the target in each series of a window.
        targets: names of the outputs of one step.
    """

    def __init__(self, nf: Any, module: Any, series: Any, frame: Any, static: Any) -> None:
        data: Any = getattr(nf, "dataset", None)
        scalers, static_scalers = nf.scalers_, nf.static_scalers_
        if frame is not None:
            names = {name: getattr(nf, name) for name in ("id_col", "time_col", "target_col")}
            data, uids, _, instants = nf._prepare_fit(df=frame, static_df=static, **names)
            scalers, nf.scalers_ = nf.scalers_, scalers
            static_scalers, nf.static_scalers_ = nf.static_scalers_, static_scalers
        elif isinstance(getattr(data, "temporal", None), Tensor):
            uids, instants = nf.uids, nf.ds
        else:
            raise CheckpointError("nf has no dataset in memory: give frame, the data frame whose windows are taken")
        loss = module.loss
        if module.cat_exog_list:
            named = ", ".join(module.cat_exog_list)
            raise UnreadableModelError(f"{module!r} embeds the categories of {named}, which no graph does")
        self.module, self.dataset, self.series, self.index = module, data, [*uids], type(data.temporal_cols)
        self.lookback = module.inference_input_size if module.RECURRENT else module.input_size
        self.columns = [*dict.fromkeys([nf.target_col, *module.hist_exog_list, *module.futr_exog_list])]
        self.statics = [*module.stat_exog_list]
        self.names = [str(name) for name in self.series] if module.MULTIVARIATE else self.columns[:1]
        is_distribution = loss.is_distribution_output
        has_quantiles = not (is_distribution or len(loss.output_names) == 1 or module.RECURRENT)
        self.distribution: str = getattr(loss, "distribution", type(loss).__name__)
        has_samples = is_distribution and self.distribution != "Bernoulli"
        self.n_outputs = 1 + len(loss.quantiles) if has_samples else 1
        self.targets = with_quantiles(self.names, loss.quantiles.tolist()) if has_quantiles else self.names
        at = [data.static_cols.get_loc(column) for column in self.statics]
        self.static = data.static[:, at] if at else torch.zeros(len(self.series), 0)
        self._take_rows(self._choose_series(series, nf.local_scaler_type if scalers else None), instants)
        groups = range(len(self.series)) if module.MULTIVARIATE else self.groups[:1]
        scales = [_scale(scalers, column, group) for column in self.columns for group in groups]
        scales += [] if module.MULTIVARIATE else [_scale(static_scalers, column, 0) for column in self.statics]
        mean, std = np.array(scales).T
        of_targets = np.repeat(np.arange(len(self.names)), len(self.targets) // len(self.names))
        self.scaling = {"mean": mean, "std": std, "target_mean": mean[of_targets], "target_std": std[of_targets]}
        self.is_scaled = bool(scalers or static_scalers)

    def _choose_series(self, series: Any, scaler_type: str | None) -> list[int]:
        """The numbers of the series whose windows are taken; with a local scaler it is one."""
        if series is not None:
            if self.module.MULTIVARIATE:
                raise CheckpointError(f"{self.module!r} forecasts all series together, of which none can be chosen")
            if series not in self.series:
                raise UnknownNameError(f"there is no series {series!r}; those of the dataset are {quote(self.series)}")
            return [self.series.index(series)]
        if scaler_type is not None and len(self.series) > 1 and not self.module.MULTIVARIATE:
            raise UnknownNameError(
                f"series must be one of {quote(self.series)}, because local_scaler_type={scaler_type!r} "
                "scales each in its own way"
            )
        return [*range(len(self.series))]

    def _take_rows(self, chosen: Sequence[int], instants: Any) -> None:
        """Windows without a gap whose target varies, if it is scaled by window."""
        data, length = self.dataset, self.lookback + self.module.h
        starts, sizes, offsets = data.indptr[:-1], np.diff(data.indptr), np.zeros(1, int)
        if self.module.MULTIVARIATE:
            chosen, offsets = [0], starts  # those of all series from the first
            if len({*sizes}) > 1:
                raise CheckpointError(f"{self.module!r} reads all series together, which must be of one length")
        firsts = np.concatenate([starts[group] + np.arange(max(sizes[group] - length + 1, 0)) for group in chosen])
        n_there = count_before(data.temporal[:, data.temporal_cols.get_loc(MASK)].numpy() > 0)
        target = data.temporal[:, data.y_idx].numpy()
        n_changes = count_before(target[1:] != target[:-1])
        for offset in offsets:
            firsts = firsts[n_there[firsts + offset + length] - n_there[firsts + offset] == length]
            if self.module.scaler.scaler_type in STATISTICS:
                firsts = firsts[n_changes[firsts + offset + self.lookback - 1] > n_changes[firsts + offset]]
        if not len(firsts):
            raise CheckpointError(f"no series has input_size + h = {length} rows without a gap whose target varies")
        lasts = firsts[choose(len(firsts))] + self.lookback - 1
        lasts = np.array(sorted(lasts, key=lambda row: instants[row]))
        self.groups = np.asarray(data.indptr).searchsorted(lasts, side="right") - 1
        self.times = tuple(str(instants[row]) for row in lasts)
        numbers = lasts[:, None, None] + np.arange(1 - self.lookback, self.module.h + 1)[:, None] + offsets
        at = [data.temporal_cols.get_loc(column) for column in self.columns]
        self.rows = data.temporal[:, at][torch.from_numpy(numbers)].movedim(3, 2)

    def windows(self) -> dict[str, Any]:
        """The windows in original units, for `read_fitted`."""
        has_future = bool(self.module.futr_exog_list)
        n = self.lookback + (self.module.h if has_future else 0)
        rows, names = self.rows[:, :n].flatten(2), [*self.columns, *self.statics]
        if self.module.MULTIVARIATE:
            names = [*self.names, *(f"{column}[{name}]" for column in self.columns[1:] for name in self.names)]
        else:
            rows = torch.cat([rows, self.static[self.groups][:, None].expand(-1, n, -1)], dim=2)
        true = self.rows[:, self.lookback :, 0].double().numpy().repeat(len(self.targets) // len(self.names), axis=2)
        return dict(
            features=names,
            outputs=self.targets,
            horizon=self.module.h,
            windows=rows.double().numpy() * self.scaling["std"] + self.scaling["mean"],
            targets=(true * self.scaling["target_std"] + self.scaling["target_mean"]).reshape(len(true), -1),
            has_future=has_future,
            scaling=self.scaling if self.is_scaled else None,
            times=self.times,
        )

    def predict(self, seed: int = 1) -> Array:
        """The library's forecasts for the windows, (n, n_outputs), original units."""
        n, length = self.rows.shape[:2]
        series, static = self.rows.permute(3, 0, 1, 2), self.static
        if self.module.MULTIVARIATE:  # all windows of a series in turn
            series = series.flatten(1, 2)
        else:  # each window as a series
            series, static = series[0], static[self.groups]
        temporal = torch.cat([series, torch.ones(*series.shape[:2], 1)], dim=2)
        dataset = type(self.dataset)(
            temporal=temporal.flatten(0, 1),
            temporal_cols=self.index([*self.columns, MASK]),
            indptr=np.arange(len(temporal) + 1) * temporal.shape[1],
            y_idx=0,
            static=static if self.statics else None,
            static_cols=self.index(self.statics) if self.statics else None,
        )
        self.module.set_test_size(temporal.shape[1] - self.lookback)
        found = self.module.predict(dataset=dataset, step_size=length, random_seed=seed)
        found = found.reshape(-1, n, self.module.h, found.shape[-1])  # series outermost
        n_each = self.n_outputs * len(self.targets) // len(self.names)
        each = found[..., :n_each].astype(np.float64).transpose(1, 2, 0, 3).reshape(n, self.module.h, -1)
        scale, shift = (np.repeat(self.scaling[f"target_{name}"], self.n_outputs) for name in ("std", "mean"))
        result: Array = (each * scale + shift).reshape(n, -1)
        return result


def _scale(scalers: Mapping[str, Any], column: str, group: int) -> tuple[float, float]:
    """Offset and scale of a column in one series."""
    if column not in scalers:
        return 0.0, 1.0
    stats = getattr(scalers[column], "stats_", np.zeros(0))
    if type(scalers[column]).__name__ == "LocalBoxCoxScaler":
        raise UnreadableModelError(f"the local scaler boxcox of {column} is no offset and scale, which a model has")
    offset, scale = map(float, stats[group])
    return offset, scale


class _Predict(nn.Module):
    """What `predict` does with a window: the batch, its normalisation, the model, and the inverse."""

    def __init__(self, model: Any, data: _Data) -> None:
        super().__init__()
        self.model, self.columns, self.statics, self.index = model, data.columns, data.statics, data.index
        self.lookback, self.n_series, self.static = data.lookback, data.rows.shape[3], data.static

    def prepare(self) -> None:
        """Replaces what is computed around missing values, or from samples, by what it is without; see `unchanged`."""
        model = self.model
        model.input_size = self.lookback
        model._set_quantiles()
        statistics = STATISTICS.get(model.scaler.scaler_type)
        if statistics is not None:

            def of_known(x: Tensor, mask: Tensor, dim: int, eps: float) -> tuple[Tensor, Tensor]:
                shift, scale = statistics(x[:, : self.lookback])
                return shift, scale + eps

            model.scaler.compute_statistics = of_known
        loss = model.loss
        if loss.is_distribution_output:
            loss.return_params = False
            of_args = getattr(loss, "_base_distribution", None)
            make = loss.get_distribution if of_args is None else lambda args: of_args(*args, **loss.distribution_kwargs)
            levels = [round(level, 6) for level in loss.quantiles.tolist()]

            def describe_all(
                distr_args: Sequence[Tensor], num_samples: int | None = None
            ) -> tuple[Any, Tensor, Tensor]:
                found = self.described = describe(make(distr_args), levels)
                loss.distr_mean = found.values[..., 0]
                return None, found.values[..., :1], found.values[..., 1:]

            loss.sample = describe_all
            describe_all(loss.scale_decouple(loss.domain_map(torch.zeros(1, 1, loss.outputsize_multiplier))))
            loss.output_names = self.described.parts  # as many as a recurrent forecast has of each step

    def forward(self, window: Tensor) -> Tensor | Described:
        """(n, rows, n_features) -> (n, h, n_targets), or their distributions."""
        model, n, h = self.model, len(window), self.model.h
        at = len(self.columns) * self.n_series
        rows = window[:, :, :at].reshape(n, -1, len(self.columns), self.n_series)
        if not model.futr_exog_list:
            rows = torch.cat([rows, rows.new_zeros(n, h, *rows.shape[2:])], dim=1)
        static = self.static if model.MULTIVARIATE else window[:, self.lookback - 1, at:]
        batch = {
            "temporal": torch.cat([rows, rows.new_ones(n, self.lookback + h, 1, self.n_series)], dim=2),
            "temporal_cols": self.index([*self.columns, MASK]),
            "static": static,
            "static_cols": self.index(self.statics),
        }
        insample, mask, _, _, hist, futr, stat = model._parse_windows({"y_idx": 0}, model._normalization(batch, 0))
        predict = model._predict_step_recurrent_batch if model.RECURRENT else model._predict_step_direct_batch
        found = predict(
            insample_y=insample,
            insample_mask=torch.ones_like(mask),
            hist_exog=hist,
            futr_exog=futr,
            stat_exog=stat,
            y_idx=0,
        )
        found = found.reshape(n, h, self.n_series, -1)
        if model.loss.is_distribution_output:
            return replace(self.described, values=found)
        outputs: Tensor = (found[..., :1] if model.RECURRENT else found).flatten(2)
        return outputs


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=1, keepdim=True), x.std(dim=1, correction=0, keepdim=True)


def _robust(x: Tensor) -> tuple[Tensor, Tensor]:
    median = x.median(dim=1, keepdim=True).values
    mad = (x - median).abs().median(dim=1, keepdim=True).values
    return median, torch.where(mad > 0, mad, MAD_OF_STD * x.std(dim=1, correction=0, keepdim=True))


def _min_max(x: Tensor) -> tuple[Tensor, Tensor]:
    low = x.amin(dim=1, keepdim=True)
    return low, x.amax(dim=1, keepdim=True) - low


# By `scaler_type`: shift and scale of each column, (n, 1, columns, series), but for eps, of its known rows.
STATISTICS = {"standard": _standard, "revin": _standard, "robust": _robust, "invariant": _robust}
STATISTICS |= {"minmax": _min_max, "minmax1": _min_max}
