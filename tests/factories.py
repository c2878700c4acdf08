"""Tiny seeded models and tables for tests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import polars as pl
import torch
from thorough import few_of
from torch import Tensor, nn

from kanmodel.arrays import Array
from kanmodel.forecaster import Forecaster, Provenance, Reference
from kanmodel.network.bases import BSpline
from kanmodel.network.config import (
    Cell,
    DType,
    LayerConfig,
    Layers,
    ModelConfig,
    Readout,
    RecurrentConfig,
    plain_layers,
)
from kanmodel.network.intervals import Calibration, Intervals, Kind, forecasts_of, increment_targets
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target
from kanmodel.tables.roles import Columns, TrainingTable, make_table
from kanmodel.tables.statistics.tally import Bins, Tally
from kanmodel.tables.windows import read_windows

Shape = Literal["lstm", "head", "front", "flat"]
SHAPES = few_of(("lstm", "head", "front"), ("lstm", "head"), "a front has every step explained, and takes longer")
PROVENANCE = Provenance("train", "kanscope 0.0.0", "2026-01-01T00:00:00Z", verified=True)

WIND_POWER: dict[str, Any] = {"time": "time", "known": ["wind"], "ahead": 1, "progress": False}
"""How `kanmodel.train` reads `make_wind_power`."""


@dataclass(frozen=True)
class Options:
    """Architecture of a tiny model.

    Attributes:
        n_features: input columns, named ``f0``, ``f1``, ...
        lookback: steps of a window; 1 without an LSTM.
        n_hidden: sum nodes of the head's hidden layer.
        product: whether that layer also has a product of 2 and a product of 3 factors.
        targets: names of the targets.
        horizon: forecast steps.
        n_reference: reference windows.
        with_targets: whether the targets and time stamps of the reference windows are known.
    """

    n_features: int = 4
    lookback: int = 6
    hidden_size: int = 5
    cell: Cell = "lstm"
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    readout: Readout = "last"
    n_hidden: int = 3
    product: bool = False
    grid_size: int = 4
    spline_order: int = 3
    base_activation: str = "silu"
    targets: tuple[str, ...] = ("y",)
    horizon: int = 1
    n_reference: int = 160
    with_targets: bool = True
    dtype: DType = "float64"


def make_model(shape: Shape = "lstm", seed: int = 0, **options: object) -> Forecaster:
    """A model with random, non-trivial weights, scaling, reference windows and targets.

    Args:
        shape: ``lstm`` (LSTM, head), ``head`` (head alone, lookback 1), ``front`` (front, LSTM, head) or ``flat`` (head
            on the flattened window).
        seed: of all random numbers.
        **options: fields of `Options`, such as ``bidirectional=True`` or ``targets=("a", "b")``.
    """
    chosen = replace(Options(), **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(_config(shape, chosen, rng), torch.default_generator)
        randomise(network)
    return _load(network, rng, chosen.n_reference, chosen.with_targets)


def make_chain(config: ModelConfig, seed: int = 0, n_reference: int = 40) -> Forecaster:
    """A model of any config with random weights and reference windows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(config, torch.default_generator)
        randomise(network)
    return _load(network, np.random.default_rng(seed), n_reference, with_targets=True)


def with_intervals(
    model: Forecaster, kind: Kind = "nodes", levels: tuple[float, ...] = (0.8, 0.95), seed: int = 2
) -> Forecaster:
    """The model with intervals of random factors, for ``nodes`` of a random network of its own."""
    rng, config, network = np.random.default_rng(seed), model.config, None
    if kind == "nodes":
        targets = increment_targets(config, levels)
        head = replace(config.head[-1], n_sum=config.horizon * len(targets), mult_arity=())
        config = replace(config, targets=targets, head=(*config.head[:-1], head))
        network = make_chain(config, seed, n_reference=2).network
    below, above = rng.uniform(0.2, 2, (2, len(levels), len(forecasts_of(model.config))))
    return replace(model, intervals=Intervals(levels, kind, below, above, Calibration(100), network))


def _load(network: Network, rng: np.random.Generator, n_reference: int, with_targets: bool) -> Forecaster:
    windows = _random_walks(rng, (n_reference, *network.config.window_shape))
    reference = Reference(torch.from_numpy(windows).to(getattr(torch, network.config.dtype)), network.config)
    model = Forecaster(network, reference, {"test_r2": 0.5, "test_mae": 1.0}, PROVENANCE)
    if not with_targets:
        return model
    outputs = model.scaling.outputs_to_original(model.reference_outputs)
    noise = rng.normal(size=outputs.shape) * outputs.std(axis=0) * 0.3
    times = tuple(f"2026-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z" for hour in range(n_reference))
    return replace(model, reference=replace(reference, targets=outputs + noise, times=times))


def make_tensors(instances: list[list[list[float]]], **parameters: object) -> dict[str, Any]:
    """A request of the Open Inference Protocol with all features in one JSON tensor."""
    shape = [len(instances), len(instances[0]), len(instances[0][0])]
    tensor = {"name": "instances", "shape": shape, "datatype": "FP64", "data": instances}
    return {"inputs": [tensor], **({"parameters": parameters} if parameters else {})}


def make_windows(model: Forecaster, n: int, seed: int = 1) -> Array:
    """Windows similar to the reference: (n, lookback, n_features), original units."""
    config = model.config
    walks = _random_walks(np.random.default_rng(seed), (n, config.lookback, len(config.features)))
    return model.scaling.features_to_original(torch.from_numpy(walks))


def write_table(path: Path, n_rows: int = 240, seed: int = 0) -> Path:
    """Writes a CSV with columns time, segment, split, a, b, constant, y; y is a function of a and b in the same row."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n_rows))
    y = 3 * np.sin(a) + b
    lines = ["time,segment,split,a,b,constant,y"]
    for row in range(n_rows):
        split = ("train", "train", "validation", "test")[row * 8 // n_rows % 4]
        time = (datetime(2026, 1, 1) + timedelta(hours=row)).strftime("%Y-%m-%dT%H:%MZ")
        lines.append(f"{time},{row * 2 // n_rows},{split},{a[row]:.6f},{b[row]:.6f},7.0,{y[row]:.6f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def _config(shape: Shape, options: Options, rng: np.random.Generator) -> ModelConfig:
    n = options.n_features
    means, stds = rng.normal(scale=20, size=n), rng.uniform(0.5, 8, size=n)
    features = tuple(
        Feature(
            f"f{f}",
            unit=("K", "hPa", None)[f % 3],
            mean=mean,
            std=std,
            min=mean - 4 * std,
            max=mean + 4 * std,
        )
        for f, (mean, std) in enumerate(zip(means.tolist(), stds.tolist(), strict=True))
    )
    targets = tuple(Target(name, unit="K", mean=10.0 * t - 3, std=2.0 + t) for t, name in enumerate(options.targets))
    recurrent = RecurrentConfig(
        options.cell, options.hidden_size, options.num_layers, options.bidirectional, options.bias
    )
    n_front = n + 1
    readout = "flatten" if shape == "flat" else options.readout
    n_reaching = recurrent.n_units if shape in ("lstm", "front") else n
    n_reaching *= options.lookback if readout == "flatten" else 1
    return ModelConfig(
        features=features,
        targets=targets,
        lookback=1 if shape == "head" else options.lookback,
        horizon=options.horizon,
        head=_layers(options, n_reaching, len(targets) * options.horizon),
        recurrent=recurrent if shape in ("lstm", "front") else None,
        front=_layers(options, n, n_front) if shape == "front" else (),
        readout=readout,
        dtype=options.dtype,
    )


def _layers(options: Options, n_in: int, n_out: int) -> Layers:
    arity = (2, 3) if options.product else ()
    first, second = (BSpline(options.grid_size + number, options.spline_order) for number in range(2))
    hidden = LayerConfig(n_in, options.n_hidden, first, options.base_activation, mult_arity=arity)
    return hidden, LayerConfig(hidden.n_out, n_out, second, options.base_activation)


def randomise(network: Network) -> None:
    """Randomises functions, scales and affine maps; masks one edge where there are several."""
    with torch.no_grad():
        for layers in network.stages.values():
            for layer in layers:
                layer.coef.normal_(std=0.4)
                if layer.scale_base is not None:
                    layer.scale_base.normal_(std=0.4)
                if layer.scale_spline is not None:
                    layer.scale_spline.uniform_(0.4, 1.2)
                for scale in (layer.subnode_scale, layer.node_scale):
                    scale.uniform_(0.6, 1.4)
                for bias in (layer.subnode_bias, layer.node_bias):
                    bias.normal_(std=0.2)
                for name, factor in (("grid", 1.5), ("scale", 1.3), ("translation", 0.0)):
                    if hasattr(layer, name):
                        getattr(layer, name).mul_(factor)
                for step in layer.before:
                    if step.weight is not None:
                        step.weight.uniform_(0.6, 1.4)
                        step.bias.normal_(std=0.2)
                if layer.mask.numel() > 4:
                    layer.mask[0, 0] = 0
        if network.recurrent is not None:
            for weight in network.recurrent.parameters():
                torch.nn.init.normal_(weight, std=0.7)


def disconnect(network: Network, feature: int) -> None:
    """Leaves no path from a feature to the outputs: masks its edges, or zeroes its weights at the gates."""
    with torch.no_grad():
        if network.front or network.recurrent is None:
            (network.front or network.head)[0].mask[:, feature] = 0
        else:
            network.recurrent.weight_ih_l0[:, feature] = 0


def _random_walks(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """Windows of autocorrelated values with mean about 0 and standard deviation about 1, model units."""
    walks = rng.normal(size=shape)
    for step in range(1, shape[1]):
        walks[:, step] = 0.8 * walks[:, step - 1] + 0.6 * walks[:, step]
    return walks


def saved(found: Any, **options: Any) -> bytes:
    """The bytes of `torch.save`."""
    stream = io.BytesIO()
    torch.save(found, stream, **options)
    return stream.getvalue()


def repack(
    data: bytes,
    change: Callable[[str, bytes], bytes | dict[str, Any]] = lambda name, content: content,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """A zip archive with each member in place of what `change` makes of it, content or members, and its checksum."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(stream, "w", compression) as after:
        for name in before.namelist():
            made = change(name, before.read(name))
            for changed, content in (made if isinstance(made, dict) else {name: made}).items():
                after.writestr(changed, content)
    return stream.getvalue()


def make_rows(
    rows: Array, targets: Array, names: tuple[str, ...], target_names: tuple[str, ...], times: Any = None, **roles: Any
) -> TrainingTable:
    """A table for training of features (n_rows, n_features) and targets (n_rows, n_targets); roles as of `Columns`."""
    frame = dict(zip((*names, *target_names), np.concatenate([rows, targets], axis=1).T, strict=True))
    frame |= {} if times is None else {"time": times}
    return make_table(frame, Columns(target_names, names, time=None if times is None else "time", **roles))


def with_rows(table: TrainingTable, rows: Array | None = None, targets: Array | None = None) -> TrainingTable:
    """The same table with other features or targets."""
    values = {"numbers": rows, "targets": targets}
    return replace(table, table=replace(table.table, **{name: of for name, of in values.items() if of is not None}))


def columns_of(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns of a frame as a request has them: None where a cell is missing."""
    return {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame}


class FunctionModule(nn.Module):
    """A module that computes a function of itself, with its parts by name, and of windows."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, windows: Tensor) -> Any:
        return self.function(self, windows)


def make_encoded(frame: Any, columns: Columns, lookback: int = 4, seed: int = 0, horizon: int = 1) -> Forecaster:
    """A float64 model with random weights, which reads the columns of a frame as if it were trained on it."""
    table = make_table(frame, columns)
    features = [Feature(name, fixed=name in table.fixed) for name in table.feature_names]
    config = ModelConfig(
        features=tuple(features),
        targets=tuple(Target(name, columns.units.get(name)) for name in columns.targets),
        lookback=lookback,
        horizon=horizon,
        head=plain_layers([3, horizon * len(columns.targets)]),
        recurrent=RecurrentConfig("lstm", 3),
        ahead=columns.ahead,
        dtype="float64",
        groups=table.groups,
        time=table.spec.time,
        encoding=table.spec.encoding,
        series=table.spec.series,
    )
    return make_chain(config, seed)


def make_shop() -> tuple[Forecaster, Array]:
    """A model with random weights, and windows (20, 4, n_features) of a table as if it was trained on it.

    The columns are the target's history, two that are known ahead, of numbers and of levels, levels, yes and no, and a
    count, with the calendar; no row of the training had the level ``strike``.
    """
    rng, n = np.random.default_rng(0), 26
    frame = {
        "time": [datetime(2026, 1, 1) + timedelta(hours=hour) for hour in range(n)],
        "sold": rng.normal(size=n),
        "temp": rng.normal(size=n),
        "day": np.array(["holiday", "strike", *np.repeat(rng.choice(["holiday", "weekend", "workday"], n), 3)])[:n],
        "sky": np.array(["clear", "cloudy", *rng.choice(["clear", "cloudy"], n)])[:n],
        "open": np.repeat(rng.integers(0, 2, n), 5)[:n],
        "staff": rng.integers(0, 9, n),
    }
    columns = Columns(("sold",), time="time", ahead=2, known=("temp", "day"), calendar=("hour", "weekend"))
    made, features = make_encoded(pd.DataFrame(frame), columns).config, []
    for feature in made.features:
        is_binary = "=" in feature.name or feature.name == "open"
        low, high = (0.0, 1.0) if is_binary else (0.0, 8.0) if feature.name == "staff" else (-4.0, 4.0)
        high, std = (0.0, 0.0) if feature.name == "day+2=strike" else (high, 0.4)
        integer = is_binary or feature.name == "staff"
        features.append(replace(feature, std=std, min=low, max=high, integer=integer))
    model = make_chain(replace(made, features=tuple(features)))
    windows, _ = read_windows(model.config.table, pd.DataFrame(frame), last=20)
    return model, windows


def make_wind_power(n: int = 1500, seed: int = 0) -> pl.DataFrame:
    """Hours of a target that is a bent curve of the wind at the same time, which is known ahead."""
    random = np.random.default_rng(seed)
    wind = random.normal(size=n)
    times = [datetime(2024, 1, 1) + timedelta(hours=row) for row in range(n)]
    return pl.DataFrame({"time": times, "wind": wind, "power": np.maximum(wind, 0) * 10 + random.normal(0, 0.5, n)})


def make_tally(n: int, seed: int, n_blocks: int = 1, bins: Bins | None = None, known: float = 0.7) -> tuple[Any, ...]:
    """A tally of n random forecasts of 3 features, 2 names and a level; its bins, the blocks, and what was counted."""
    rng = np.random.default_rng(seed)
    newest, contributions = rng.normal(size=(n, 3)), rng.normal(size=(n, 2))
    forecasts = contributions.sum(axis=1)
    contributions[rng.random(n) > known] = np.nan
    errors = np.where(rng.random(n) < known, rng.normal(size=n), np.nan)
    inside = np.where(np.isnan(errors)[:, None], np.nan, rng.random((n, 1)) < 0.8)
    blocks = np.arange(n) * n_blocks // max(n, 1)
    bins = bins or Bins.of(np.column_stack([newest, forecasts]))
    counted = newest, forecasts, contributions, errors, inside
    return Tally.of(bins, *counted, blocks, n_blocks), bins, blocks, counted
