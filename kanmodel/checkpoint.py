"""Checkpoints: a network with its reference windows, metrics and provenance, and the safetensors file that stores it.

The file contains the tensors of the network and of the reference windows, and a JSON document in its metadata. It is
read into memory once, hashed, and checked against its config before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kanmodel.arrays import Array, read_only, refuse_non_finite
from kanmodel.computing import Once
from kanmodel.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteError,
    Problem,
    check_choice,
    check_config,
    check_number,
    check_text,
)
from kanmodel.files import replacing
from kanmodel.network.bounds import NodeRanges, measure_ranges
from kanmodel.network.chain import FrozenNetwork, Network, tensor_shapes
from kanmodel.network.config import ModelConfig, config_from_dict, config_to_dict, read_record
from kanmodel.network.intervals import Calibration, Intervals, Kind, forecasts_of, increment_targets, quantile_levels
from kanmodel.tables.columns import Scaling
from kanmodel.text import list_some, printable, shorten

FORMAT_VERSION = 2
DOCUMENT_KEY = "kanscope"  # key of the JSON document in the file's metadata
MAX_BYTES = 1 << 30  # larger files are refused before they are read
MAX_HEADER_BYTES = 16 << 20
MAX_MESSAGE = 500  # characters of an error, which may quote the file
N_FACTS = 64  # of a model that are cached
N_BOUNDED = 8  # forecasts whose networks of bounds are cached, each of which takes as much memory as the model
N_NAMED = 3  # features that the text about reference windows names
MIN_STD = 1e-6  # of an output, in model units
HALF = 0.5 - 1e-9  # of a range, up to rounding
NO_SCALING = (0.0, 1.0)  # mean and standard deviation of a feature that is not scaled
MIN_RANGE, MAX_SHIFT, MAX_SPREAD = 0.8, 0.5, 2.0  # of reference windows that are like the training rows
LongText = Annotated[str, partial(check_text, longest=2000)]
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # type and shape of each tensor of a file
_SIDES = ("below", "above")  # of intervals
T = TypeVar("T")


@dataclass(frozen=True)
class Reference:
    """The windows on which every global explanation is computed; from the validation part, in time order.

    Attributes:
        windows: (n, lookback, n_features), model units.
        targets: (n, n_outputs), original units; None if unknown.
        times: time stamp of each window's last step; None if unknown.
        series: the series of each window; None of one series.
    """

    windows: Tensor
    targets: Array | None = None
    times: tuple[str, ...] | None = None
    series: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("times", "series"):
            for number, label in enumerate(getattr(self, name) or ()):
                check_text(label, f"reference_{name}[{number}]")


@dataclass(frozen=True)
class Coverage:
    """How the values of a feature in the reference windows compare with its values in the training rows.

    Attributes:
        feature: its name.
        range: share of the range in training that they span; None if that is unknown.
        shift: their mean minus that in training, in standard deviations of the latter; None if these are unknown.
        spread: their standard deviation, as a multiple of that in training; None likewise.
    """

    feature: str
    range: float | None
    shift: float | None
    spread: float | None

    @property
    def differences(self) -> list[str]:
        """What is unlike training: a range below 0.8, a mean shifted by more than 0.5, a spread not in 0.5 to 2."""
        facts = [f"{self.range:.0%} of its range"] if self.range is not None and self.range < MIN_RANGE else []
        if self.shift is not None and abs(self.shift) > MAX_SHIFT:
            facts.append(f"mean shifted by {self.shift:+.2g} standard deviations")
        if self.spread is not None and not 1 / MAX_SPREAD <= self.spread <= MAX_SPREAD:
            facts.append(f"{self.spread:.2g} times its spread")
        return facts

    def __str__(self) -> str:
        return f"{printable(shorten(self.feature))} ({', '.join(self.differences)})"


@dataclass(frozen=True)
class ReferenceSpan:
    """The reference windows that a global result describes.

    Attributes:
        windows: their number.
        first: time stamp of the first; None if unknown.
        last: that of the last; None if unknown.
        unlike_training: the features whose values in them are unlike those of the training rows.
    """

    windows: int
    first: str | None
    last: str | None
    unlike_training: tuple[Coverage, ...]

    def __str__(self) -> str:
        span = "" if self.first is None else f", {printable(self.first)} to {printable(str(self.last))}"
        unlike = f"; unlike training: {self.differences}" if self.unlike_training else ""
        return f"{self.windows} windows{span}{unlike}"

    @property
    def differences(self) -> str:
        """How `unlike_training` differ, at most 3 of them."""
        return list_some([str(feature) for feature in self.unlike_training], N_NAMED)


@dataclass(frozen=True)
class Provenance:
    """The origin of a checkpoint.

    Attributes:
        source: the command that made it, such as ``train``, ``import`` or ``prune``.
        library: name and version of the library that computed the weights.
        created: UTC time, ISO 8601.
        verified: whether its predictions equal those of the original model on the given windows; true for ``train``,
            which has no other, false for ``prune``, which changes them and measures by how much.
        parent: the checkpoint it was made from, ``sha256:`` and the hash of its file; None if there is none.
        difference: the largest from the predictions used to verify it, in their unit; None without these.
        relative_difference: the same in standard deviations of that output, or relative to its magnitude if it does not
            vary.
        not_told_apart: other functions that the weights may represent: they give the same predictions on the given
            windows, but not on all others.
        unused: keys of the imported weights that have no effect on the forecasts.
        fitted_from, fitted_to: times of the newest rows of the first and the last window that the weights were last
            fitted to; None if unknown.
    """

    source: str
    library: str
    created: str
    verified: bool
    parent: str | None = None
    difference: float | None = None
    relative_difference: float | None = None
    not_told_apart: tuple[LongText, ...] = ()
    unused: tuple[LongText, ...] = ()
    fitted_from: str | None = None
    fitted_to: str | None = None

    def __post_init__(self) -> None:
        check_config(self)

    @classmethod
    def now(
        cls,
        source: str,
        verified: bool,
        parent: Forecaster | None = None,
        fitted: tuple[str | None, str | None] | None = None,
    ) -> Provenance:
        """The provenance of a checkpoint made by this library now; `fitted` are by default the times of its parent."""
        library = "kanscope"
        with suppress(PackageNotFoundError):
            library += f" {version('kanscope')}"
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if fitted is None:
            fitted = (parent.provenance.fitted_from, parent.provenance.fitted_to) if parent else (None, None)
        made_from = f"sha256:{parent.sha256}" if parent and parent.sha256 else None
        return cls(source, library, created, verified, made_from, fitted_from=fitted[0], fitted_to=fitted[1])


@dataclass(frozen=True)
class Forecaster:
    """A network, ready for predictions and explanations. It is immutable and can be shared by threads.

    Derived data, such as `frozen`, is computed on first use and cached.

    Attributes:
        network: in evaluation mode, with weights that require no gradient.
        reference: the reference windows.
        metrics: measured in training, such as ``test_r2``.
        provenance: its origin.
        sha256: hash of the checkpoint file; empty for a model that was never saved.
        intervals: of its forecasts; None if it has none.
    """

    network: Network
    reference: Reference
    metrics: Mapping[str, float]
    provenance: Provenance
    sha256: str = ""
    intervals: Intervals | None = None
    _fast_predict: Callable[[Array], Array | None] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.metrics:
            check_text(name, "the name of a metric")
        self.network.eval().requires_grad_(False)

    @property
    def config(self) -> ModelConfig:
        """Architecture and units."""
        return self.network.config

    @cached_property
    def scaling(self) -> Scaling:
        """The config's scaling, original units <-> model units."""
        return self.config.scaling

    def with_config(self, config: ModelConfig) -> Forecaster:
        """The same weights with another config of the same architecture, such as other groups; not saved yet."""
        with torch.inference_mode(False):
            network = Network.of(config)
            network.load_state_dict(self.network.state_dict())
        return replace(self, network=network, sha256="")

    @cached_property
    def frozen(self) -> FrozenNetwork:
        """The network prepared for inference, which computes predictions and ledgers."""
        with torch.inference_mode(False):  # ledgers differentiate it, even if it is first used in inference mode
            return self.network.freeze()

    @cached_property
    def frozen_float64(self) -> FrozenNetwork:
        """`frozen` with the same weights in float64."""
        is_float64 = self.config.dtype == "float64"
        return self.frozen if is_float64 else self.with_config(replace(self.config, dtype="float64")).frozen

    @cached_property
    def reference_outputs(self) -> Tensor:
        """Predictions for the reference windows, (n, n_outputs), model units."""
        with torch.inference_mode(False), torch.no_grad():
            outputs: Tensor = self.network(self.reference.windows)
        return outputs

    @cached_property
    def output_std(self) -> Array:
        """Unbiased deviation of each output on the reference windows, (n_outputs,); at least 1e-6 of its scale."""
        outputs = self.reference_outputs.double()
        std = outputs.std(dim=0).numpy() if len(outputs) > 1 else np.zeros(outputs.shape[1])
        return read_only(np.maximum(std, MIN_STD) * self.scaling.output_scale)

    @cached_property
    def reference_mean(self) -> Array:
        """Mean of each feature over the reference windows and their steps, (n_features,), original units."""
        return read_only(self.scaling.features_to_original(self.reference.windows.double().mean(dim=(0, 1))))

    @cached_property
    def reference_coverage(self) -> tuple[Coverage, ...]:
        """How the reference windows compare with training, for each feature that varied in it.

        Of an import, only the mean and standard deviation of its scaling are known, if it has one. Those of a min-max
        scaling are none of any rows: no standard deviation is above half of the range.
        """
        windows, coverage = self.reference.windows, []
        scaled_std, scaled_mean = torch.std_mean(windows, dim=(0, 1), correction=0)
        scaled = torch.stack([windows.amin(dim=(0, 1)), windows.amax(dim=(0, 1)), scaled_mean])
        std = scaled_std.double().numpy() * self.scaling.feature_scale
        values = zip(*self.scaling.features_to_original(scaled), std, strict=True)
        for feature, (low, high, mean, spread) in zip(self.config.features, values, strict=True):
            extent = None if feature.min is None or feature.max is None else feature.max - feature.min
            if feature.std > 0 and ((feature.mean, feature.std) != NO_SCALING if extent is None else extent > 0):
                with np.errstate(over="ignore", invalid="ignore"):  # of values near the largest float
                    share = None if extent is None else float((high - low) / extent)
                    shift, ratio = float((mean - feature.mean) / feature.std), float(spread / feature.std)
                is_known = extent is None or feature.std < extent * HALF
                coverage.append(Coverage(feature.name, share, *((shift, ratio) if is_known else (None, None))))
        return tuple(coverage)

    @cached_property
    def reference_span(self) -> ReferenceSpan:
        """Number and time span of the reference windows, and the features in which they are unlike training."""
        times, unlike = self.reference.times, tuple(each for each in self.reference_coverage if each.differences)
        first, last = (times[0], times[-1]) if times else (None, None)
        return ReferenceSpan(len(self.reference.windows), first, last, unlike)

    @cached_property
    def reference_magnitude(self) -> Tensor:
        """The largest magnitude of each feature in the reference windows, (n_features,), model units."""
        return self.reference.windows.abs().amax(dim=(0, 1))

    @cached_property
    def feature_low(self) -> Array:
        """The smallest training value of each feature, (n_features,); -inf if unknown."""
        return read_only(np.array([-np.inf if one.min is None else one.min for one in self.config.features]))

    @cached_property
    def feature_high(self) -> Array:
        """The largest training value of each feature, (n_features,); inf if unknown."""
        return read_only(np.array([np.inf if one.max is None else one.max for one in self.config.features]))

    @cached_property
    def node_ranges(self) -> NodeRanges:
        """Usual ranges of the values of the network's nodes."""
        return measure_ranges(self.network, self.reference.windows)

    @cached_property
    def facts(self) -> Once:
        """What explanations find of the model itself, each once."""
        return Once(N_FACTS)

    def to_model_units(self, windows: Array, path: str = "windows") -> Tensor:
        """Windows (n, lookback, n_features) in model units, from those in original units, which errors name `path`.

        Raises:
            DataError: another shape, or a value that is not finite after scaling to the network's dtype.
        """
        lookback, n_features = self.config.window_shape
        if windows.ndim != 3 or windows.shape[1:] != (lookback, n_features):
            problem = Problem(path, f"must have shape (n, {lookback}, {n_features})")
            raise DataError(f"{problem}, but has {windows.shape}", [problem])
        scaled = self.scaling.features_to_model(windows)
        refuse_non_finite(scaled.numpy(), path)
        return scaled

    def with_fast_predict(self, predict: Callable[[Array], Array | None]) -> Forecaster:
        """The same model, which asks `predict` first, and computes the forecasts itself where that returns None."""
        model = copy(self)  # with what is computed already
        object.__setattr__(model, "_fast_predict", predict)
        return model

    def predict(self, windows: Array, path: str = "windows") -> Array:
        """Forecasts (n, n_outputs) for windows (n, lookback, n_features), oldest step first, both in original units.

        Raises:
            DataError: as `to_model_units`.
            NonFiniteError: a forecast is not finite.
        """
        outputs = None if self._fast_predict is None else self._fast_predict(windows)
        if outputs is None:
            outputs = self.scaling.outputs_to_original(self.frozen.forward(self.to_model_units(windows, path)))
            refuse_non_finite_outputs(outputs)
        return outputs

    def predict_output(self, windows: Array, output: int) -> Array:
        """Forecasts of one output with torch, (n,), original units; others need not be finite. As `predict`."""
        outputs = self.scaling.outputs_to_original(self.frozen.forward(self.to_model_units(windows)))
        refuse_non_finite_outputs(np.where(np.arange(outputs.shape[1]) == output, outputs, 0.0))
        return outputs[:, output]

    def predict_bounds(self, windows: Array, path: str = "windows") -> tuple[Array, Array, Array]:
        """`predict`, and the lower and upper bounds of the forecasts, (n_levels, n, n_forecasts) each.

        Raises:
            DataError: as `to_model_units`, or the model has no intervals.
            NonFiniteError: a forecast or a bound is not finite.
        """
        predictions, *increments = self.predict_increments(windows, path)
        return predictions, *self.place_bounds(predictions, *increments)

    def place_bounds(self, predictions: Array, below: Array, above: Array) -> tuple[Array, Array]:
        """The bounds of what `predict_increments` returns; other factors, of an adaptation, need no other forecasts.

        Raises:
            NonFiniteError: a bound is not finite.
        """
        kept, below, above = list(forecasts_of(self.config)), *self.need_intervals().distances(below, above)
        forecasts, scale = predictions[:, kept], self.scaling.output_scale[kept]
        bounds = forecasts - below * scale, forecasts + above * scale
        for values in bounds:
            refuse_non_finite_outputs(values[-1])
        return bounds

    def predict_increments(self, windows: Array, path: str = "windows") -> tuple[Array, Array, Array]:
        """`predict`, and the increments below and above, (n_levels, n, n_forecasts) each, model units.

        Raises:
            DataError: as `to_model_units`, or the model has no intervals.
            NonFiniteError: a forecast is not finite.
        """
        intervals, predictions = self.need_intervals(), self.predict(windows, path)
        outputs = torch.from_numpy((predictions - self.scaling.output_mean) / self.scaling.output_scale)
        return predictions, *intervals.increments(self.config, outputs, self.to_model_units(windows, path))

    @property
    def checkpoint(self) -> str | None:
        """``sha256:`` and the hash of the checkpoint file; None for a model that was never saved."""
        return f"sha256:{self.sha256}" if self.sha256 else None

    @property
    def levels(self) -> tuple[float, ...]:
        """Nominal coverages of the intervals, ascending; empty if there are none."""
        return () if self.intervals is None else self.intervals.levels

    def bound(self, forecast: int) -> Forecaster:
        """The model of one of `forecasts_of` and of its bounds and widths, on the same reference windows."""
        intervals = self.need_intervals()

        def make() -> Forecaster:
            with torch.inference_mode(False):
                network = intervals.bound(self.network, forecast)
            reference = replace(self.reference, targets=None)
            return Forecaster(network, reference, {}, self.provenance, self.sha256)

        return self.bounded_models.get(forecast, make)

    @cached_property
    def bounded_models(self) -> Once:
        """The latest of these models."""
        return Once(N_BOUNDED)

    def need_intervals(self) -> Intervals:
        """The intervals; raises `DataError` if there are none."""
        if self.intervals is None:
            raise DataError("the model has no intervals: train it with intervals, or calibrate it")
        return self.intervals

    def logits(self, windows: Array) -> Array:
        """Inputs of the output function, (n, n_outputs); windows as for `predict`."""
        logits: Array = self.frozen.logits(self.to_model_units(windows)).double().numpy()
        return logits


def refuse_non_finite_outputs(outputs: Array) -> None:
    """Raises `NonFiniteError` unless all results are finite, naming others as ``outputs[window][output]``."""
    try:
        refuse_non_finite(outputs, "outputs")
    except DataError as error:
        raise NonFiniteError(str(error), error.problems) from None


def save_checkpoint(model: Forecaster, path: Path) -> str:
    """Writes a checkpoint, and returns the SHA-256 of the file; an existing file is replaced atomically.

    Raises:
        CheckpointError: the file cannot be written there, or a value of the model is not finite, so that it could not
            be loaded.
    """
    tensors = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    tensors["reference.windows"] = model.reference.windows.contiguous()
    if model.reference.targets is not None:
        tensors["reference.targets"] = torch.from_numpy(np.ascontiguousarray(model.reference.targets))
    if model.intervals is not None:
        tensors |= {f"intervals.{side}": torch.from_numpy(getattr(model.intervals, side)) for side in _SIDES}
        nodes = model.intervals.network
        of_nodes = {} if nodes is None else nodes.state_dict()
        tensors |= {f"intervals.network.{name}": tensor.contiguous() for name, tensor in of_nodes.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"cannot save {path.name}: a value of tensor {name} is not finite")
    document = {
        "format_version": FORMAT_VERSION,
        "config": config_to_dict(model.config),
        "reference_times": model.reference.times,
        **({} if model.reference.series is None else {"reference_series": model.reference.series}),
        "metrics": dict(model.metrics),
        "provenance": vars(model.provenance),
    }
    if model.intervals is not None:
        document["intervals"] = _describe_intervals(model.intervals)
    data = save_tensors(tensors, metadata={DOCUMENT_KEY: json.dumps(document, allow_nan=False)})
    try:
        with replacing(path, prefix=f".{path.name}.") as file:
            file.write(data)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def load_checkpoint(path: Path) -> Forecaster:
    """Reads a checkpoint, with the hash of the bytes that were read.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, of a newer format, or its tensors differ from its
            config; the message names the first difference.
    """
    return parse_file(path, parse_checkpoint, MAX_BYTES)


def identify_checkpoint(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; raises `CheckpointError` unless its header is that of a checkpoint."""

    def identify(data: bytes) -> str:
        _parse_description(data)
        return hashlib.sha256(data).hexdigest()

    return parse_file(path, identify, MAX_BYTES)


def parse_file(path: Path, parse: Callable[[bytes], T], most: int) -> T:
    """Parses a file of at most so many bytes, and names it in errors."""
    try:
        size = path.stat().st_size
        if size > most:
            raise CheckpointError(f"is larger than {most} bytes")
        with path.open("rb") as file:
            data = file.read(size)
        return parse(data)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path.name}: {getattr(error, 'strerror', error)}") from error
    except CheckpointError as error:
        raise CheckpointError(printable(f"{path.name} {error}"[:MAX_MESSAGE])) from error


def parse_checkpoint(data: bytes) -> Forecaster:
    """`load_checkpoint` for bytes in memory; raises the same `CheckpointError`, whose message starts with a verb."""
    config, provenance, metrics, (times, series), described = _parse_description(data)
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}") from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"has a value that is not finite in tensor {name}")
    windows = tensors.pop("reference.windows")
    targets = tensors.pop("reference.targets").numpy() if "reference.targets" in tensors else None
    of_intervals = {name: tensors.pop(name) for name in list(tensors) if name.startswith("intervals.")}
    network = Network.of(config)
    network.load_state_dict(tensors)
    with _describing():
        reference = Reference(windows, targets, times, series)
        intervals = None if described is None else described.make(of_intervals)
        return Forecaster(network, reference, metrics, provenance, hashlib.sha256(data).hexdigest(), intervals)


class _IntervalsRecord(NamedTuple):
    """What the document says of intervals."""

    levels: tuple[float, ...]
    kind: Any
    calibration: Calibration
    config: ModelConfig | None  # of the network of nodes

    @classmethod
    def read(cls, described: Any, config: ModelConfig) -> _IntervalsRecord:
        nodes, levels = described["config"], tuple(described["levels"])
        for number, level in enumerate(levels):
            check_number(level, f"intervals.levels[{number}]")
        of_nodes = None if nodes is None else config_from_dict(nodes)
        if of_nodes is not None:
            wanted = replace(of_nodes, targets=increment_targets(config, levels), lookback=config.lookback)
            if (of_nodes, of_nodes.features, of_nodes.horizon) != (wanted, config.features, config.horizon):
                raise ConfigError("intervals.config must have the model's features, lookback and horizon, and nodes")
        calibration = read_record(Calibration, described["calibration"], "intervals.calibration")
        check_choice(described["kind"], "intervals.kind", get_args(Kind))
        if described["kind"] == "quantiles" and not set(levels) <= set(quantile_levels(config)):
            raise ConfigError(f"intervals.levels must have quantiles among the targets, but are {list(levels)}")
        return cls(levels, described["kind"], calibration, of_nodes)

    def shapes(self, config: ModelConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of its tensors."""
        shape = len(self.levels), len(forecasts_of(config))
        of_nodes = {} if self.config is None else _network_tensors(self.config)
        return {f"intervals.{side}": ("F64", shape) for side in _SIDES} | {
            f"intervals.network.{name}": of for name, of in of_nodes.items()
        }

    def make(self, tensors: dict[str, Tensor]) -> Intervals:
        network = None
        if self.config is not None:
            network, place = Network.of(self.config), "intervals.network."
            network.load_state_dict(
                {name.removeprefix(place): of for name, of in tensors.items() if name.startswith(place)}
            )
        below, above = (tensors[f"intervals.{side}"].numpy() for side in _SIDES)
        return Intervals(self.levels, self.kind, below, above, self.calibration, network)


def _describe_intervals(intervals: Intervals) -> dict[str, Any]:
    config = None if intervals.network is None else config_to_dict(intervals.network.config)
    described = {"levels": intervals.levels, "kind": intervals.kind, "config": config}
    return described | {"calibration": vars(intervals.calibration)}


def _network_tensors(config: ModelConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    dtype = {"float32": "F32", "float64": "F64"}[config.dtype]
    return {name: (dtype, shape) for name, shape in tensor_shapes(config).items()}


def _parse_description(
    data: bytes,
) -> tuple[ModelConfig, Provenance, dict[str, float], list[tuple[str, ...] | None], _IntervalsRecord | None]:
    """Config, provenance, metrics, times and series of the reference windows, intervals, to which the tensors fit."""
    metadata, tensors = parse_header(data)
    document = _parse_document(metadata)
    with _describing():
        config = config_from_dict(document["config"])
        provenance = read_record(Provenance, document["provenance"], "provenance")
        metrics, labels = document["metrics"], [document["reference_times"], document.get("reference_series")]
        for name, value in metrics.items():
            check_number(value, f"metrics.{name}")
        labels = [None if each is None else tuple(map(str, each)) for each in labels]
        described = document.get("intervals")
        intervals = None if described is None else _IntervalsRecord.read(described, config)
    n_reference = _compare_tensors(tensors, config, {} if intervals is None else intervals.shapes(config))
    for what, each in zip(("time stamps", "series"), labels, strict=True):
        if each is not None and len(each) != n_reference:
            raise CheckpointError(f"has {len(each)} {what} for {n_reference} reference windows")
    return config, provenance, metrics, labels, intervals


@contextmanager
def _describing() -> Iterator[None]:
    """Turns errors of the document's members into one of the checkpoint."""
    try:
        yield
    except (ConfigError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"has a document that does not describe a model: {error}") from error


def parse_header(data: bytes) -> tuple[dict[str, Any], Tensors]:
    """Metadata and tensors of a safetensors file, from its JSON header after 8 bytes of length."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > MAX_HEADER_BYTES:
        raise CheckpointError("is not a safetensors file")
    if len(data) < 8 + size:
        raise CheckpointError("is truncated: its header does not end")
    try:
        entries = json.loads(data[8 : 8 + size])
        metadata = dict(entries.pop("__metadata__", {}))
        tensors = {str(name): (str(of["dtype"]), tuple(map(int, of["shape"]))) for name, of in entries.items()}
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError("is not a safetensors file: its header is not readable") from error
    expected = 8 + size + max(ends, default=0)
    if len(data) < expected:
        raise CheckpointError(f"is truncated: it has {len(data)} of {expected} bytes")
    return metadata, tensors


def _parse_document(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Parses the JSON document in a file's metadata, and checks its format version."""
    if metadata.get(DOCUMENT_KEY) is None:
        message = "is a safetensors file of something else: it has no Kanscope document (see `kanscope import`)"
        raise CheckpointError(message)
    try:
        document = dict(json.loads(metadata[DOCUMENT_KEY]))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("has a Kanscope document that is not JSON") from error
    found = document.get("format_version")
    if found != FORMAT_VERSION:
        raise CheckpointError(f"has format version {found!r}, but this version of Kanscope reads {FORMAT_VERSION}")
    return document


def _compare_tensors(found: Tensors, config: ModelConfig, of_intervals: Tensors) -> int:
    """Raises for the first tensor that differs from the config; returns the number of reference windows, at least 1."""
    _, windows_shape = found.get("reference.windows", ("", ()))
    n_reference = windows_shape[0] if windows_shape else 0
    expected = {**_network_tensors(config), **of_intervals}
    dtype = {"float32": "F32", "float64": "F64"}[config.dtype]
    expected["reference.windows"] = (dtype, (n_reference, config.lookback, len(config.features)))
    if "reference.targets" in found:
        expected["reference.targets"] = ("F64", (n_reference, len(config.outputs)))
    for name, (want, shape) in expected.items():
        if name not in found:
            raise CheckpointError(f"lacks tensor {name}, which its config needs")
        if found[name] != (want, shape):
            message = f"has tensor {name} of type {found[name][0]} and shape {list(found[name][1])}"
            raise CheckpointError(f"{message}, but its config implies {want} and {list(shape)}")
    for name in found:
        if name not in expected:
            raise CheckpointError(f"has tensor {name}, which its config does not know")
    if n_reference < 1:
        raise CheckpointError("has no reference windows")
    return n_reference
