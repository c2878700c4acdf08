"""`LoadedModel`: a network with the other contents of a checkpoint: reference windows, metrics and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kanmodel.checks import check_flag, check_items, check_text
from kanmodel.data import Array, Scaling, read_only, refuse_non_finite
from kanmodel.errors import DataError, KanscopeError, NonFiniteError, Problem
from kanmodel.network.bounds import NodeRanges, measure_ranges
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.text import list_some, printable, shorten

if TYPE_CHECKING:
    from kanmodel.onnx.session import SmallBatches

MAX_READING = 2000  # characters of the description of a network
N_NAMED = 3  # features that the text about reference windows names
MIN_STD = 1e-6  # of an output, in model units
NO_SCALING = (0.0, 1.0)  # mean and standard deviation of a feature that is not scaled
MIN_RANGE, MAX_SHIFT, MAX_SPREAD = 0.8, 0.5, 2.0  # of reference windows that are like the training rows


@dataclass(frozen=True)
class Reference:
    """The windows on which every global explanation is computed; from the validation part, in time order.

    Attributes:
        windows: (n, lookback, n_features), model units.
        targets: (n, n_outputs), original units; None if unknown.
        times: time stamp of each window's last step; None if unknown.
    """

    windows: Tensor
    targets: Array | None = None
    times: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for number, time in enumerate(self.times or ()):
            check_text(time, f"reference_times[{number}]")


@dataclass(frozen=True)
class Coverage:
    """How the values of a feature in the reference windows compare with its values in the training rows.

    Attributes:
        feature: its name.
        range: share of the range in training that they span; None if that is unknown.
        shift: their mean minus that in training, in standard deviations of the latter.
        spread: their standard deviation, as a multiple of that in training.
    """

    feature: str
    range: float | None
    shift: float
    spread: float

    @property
    def is_unlike(self) -> bool:
        """Whether the range is below 0.8, the mean shifted by more than 0.5, or the spread not in 0.5 to 2."""
        return bool(self._differences)

    @property
    def _differences(self) -> list[str]:
        facts = [f"{self.range:.0%} of its range"] if self.range is not None and self.range < MIN_RANGE else []
        facts += [f"mean shifted by {self.shift:+.2g} standard deviations"] if abs(self.shift) > MAX_SHIFT else []
        facts += [] if 1 / MAX_SPREAD <= self.spread <= MAX_SPREAD else [f"{self.spread:.2g} times its spread"]
        return facts

    def __str__(self) -> str:
        return f"{printable(shorten(self.feature))} ({', '.join(self._differences)})"


@dataclass(frozen=True)
class ReferenceSpan:
    """The reference windows that a global result describes.

    Attributes:
        windows: their number.
        first: time stamp of the first; None if unknown.
        last: that of the last.
        unlike_training: the features whose values in them are unlike those of the training rows: they span less than
            0.8 of their range, or their mean or spread is far off.
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
        verified: whether its predictions were verified to equal those of the original model, on the given windows; true
            for ``train``, which has no other, false for ``prune``, which changes the predictions and measures by how
            much.
        parent: the checkpoint it was made from, ``sha256:`` and the hash of its file; None if there is none.
        difference: the largest difference from the predictions used to verify it, in their unit; None without these.
        relative_difference: the same in standard deviations of that output, or relative to its magnitude if it does not
            vary.
        not_told_apart: other functions that the weights may represent: they give the same predictions on the given
            windows, but not on all others. Empty if only one function fits.
        unused: keys of the imported weights that have no effect on the forecasts, and are left out.
    """

    source: str
    library: str
    created: str
    verified: bool
    parent: str | None = None
    difference: float | None = None
    relative_difference: float | None = None
    not_told_apart: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for place in ("source", "library", "created"):
            check_text(getattr(self, place), place)
        check_items(self.not_told_apart, "not_told_apart", str)
        check_items(self.unused, "unused", str)
        for number, key in enumerate(self.unused):
            check_text(key, f"unused[{number}]", MAX_READING)
        for number, reading in enumerate(self.not_told_apart):
            check_text(reading, f"not_told_apart[{number}]", MAX_READING)
        check_flag(self.verified, "verified")
        if self.parent is not None:
            check_text(self.parent, "parent")

    @classmethod
    def now(cls, source: str, verified: bool, parent: LoadedModel | None = None) -> Provenance:
        """The provenance of a checkpoint made by this library now."""
        try:
            library = f"kanscope {version('kanscope')}"
        except PackageNotFoundError:
            library = "kanscope"
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(source, library, created, verified, f"sha256:{parent.sha256}" if parent and parent.sha256 else None)


@dataclass(frozen=True)
class LoadedModel:
    """A network, ready for predictions and explanations. It is immutable and can be shared by threads.

    Derived data, such as `frozen`, is computed on first use and cached.

    Attributes:
        network: the network, in evaluation mode, with weights that require no gradient.
        reference: the reference windows.
        metrics: metrics measured in training, such as ``test_r2``.
        provenance: its origin.
        sha256: hash of the checkpoint file; empty for a model that was never saved.
    """

    network: Network
    reference: Reference
    metrics: Mapping[str, float]
    provenance: Provenance
    sha256: str = ""
    _small_batches: SmallBatches | None = field(default=None, init=False, repr=False, compare=False)

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

    def with_config(self, config: ModelConfig) -> LoadedModel:
        """The same weights with another config of the same architecture, such as other groups; not saved yet."""
        network = Network(config)
        network.load_state_dict(self.network.state_dict())
        return replace(self, network=network, sha256="")

    @cached_property
    def frozen(self) -> FrozenNetwork:
        """The network prepared for inference, which computes predictions and ledgers."""
        with torch.inference_mode(False):  # ledgers differentiate it, even if it is first used in inference mode
            return FrozenNetwork(self.network)

    @cached_property
    def frozen_float64(self) -> FrozenNetwork:
        """`frozen` with the same weights in float64."""
        if self.config.dtype == "float64":
            return self.frozen
        with torch.inference_mode(False):
            network = Network(replace(self.config, dtype="float64"))
            network.load_state_dict(self.network.state_dict())
            return FrozenNetwork(network.eval().requires_grad_(False))

    @cached_property
    def reference_outputs(self) -> Tensor:
        """Predictions for the reference windows, (n, n_outputs), model units."""
        with torch.inference_mode(False), torch.no_grad():
            outputs: Tensor = self.network(self.reference.windows)
        return outputs

    @cached_property
    def output_std(self) -> Array:
        """Unbiased standard deviation of each output on the reference windows, (n_outputs,), original units.

        At least 1e-6 of the target's scale.
        """
        outputs = self.reference_outputs.double()
        std = outputs.std(dim=0).numpy() if len(outputs) > 1 else np.zeros(outputs.shape[1])
        return read_only(np.maximum(std, MIN_STD) * self.scaling.output_scale)

    @cached_property
    def reference_mean(self) -> Array:
        """Mean of each feature over the reference windows and their steps, (n_features,), original units."""
        return self.scaling.features_to_original(self.reference.windows.double().mean(dim=(0, 1)))

    @cached_property
    def reference_coverage(self) -> tuple[Coverage, ...]:
        """How the reference windows compare with training, for each feature that varied in it.

        Of an import, only the mean and standard deviation of its scaling are known, if it has one.
        """
        windows = self.reference.windows
        scaled_std, scaled_mean = torch.std_mean(windows, dim=(0, 1), correction=0)
        scaled = torch.stack([windows.amin(dim=(0, 1)), windows.amax(dim=(0, 1)), scaled_mean])
        low, high, mean = self.scaling.features_to_original(scaled)
        std = scaled_std.double().numpy() * self.scaling.feature_scale
        with np.errstate(over="ignore", invalid="ignore"):  # of values near the largest float
            return tuple(
                Coverage(
                    feature.name,
                    float((high[number] - low[number]) / extent) if extent else None,
                    float((mean[number] - feature.mean) / feature.std),
                    float(std[number] / feature.std),
                )
                for number, feature in enumerate(self.config.features)
                for extent in (None if feature.min is None or feature.max is None else feature.max - feature.min,)
                if feature.std > 0 and ((feature.mean, feature.std) != NO_SCALING if extent is None else extent > 0)
            )

    @cached_property
    def reference_span(self) -> ReferenceSpan:
        """Number and time span of the reference windows, and the features in which they are unlike training."""
        times, unlike = self.reference.times, tuple(each for each in self.reference_coverage if each.is_unlike)
        first, last = (times[0], times[-1]) if times else (None, None)
        return ReferenceSpan(len(self.reference.windows), first, last, unlike)

    @cached_property
    def reference_magnitude(self) -> Tensor:
        """The largest magnitude of each feature in the reference windows, (n_features,), model units."""
        return self.reference.windows.abs().amax(dim=(0, 1))

    @cached_property
    def feature_low(self) -> Array:
        """The smallest training value of each feature, (n_features,); -inf if unknown."""
        return read_only(
            np.array([-np.inf if feature.min is None else feature.min for feature in self.config.features])
        )

    @cached_property
    def feature_high(self) -> Array:
        """The largest training value of each feature, (n_features,); inf if unknown."""
        return read_only(np.array([np.inf if feature.max is None else feature.max for feature in self.config.features]))

    @cached_property
    def node_ranges(self) -> NodeRanges:
        """Usual ranges of the values of the network's nodes."""
        return measure_ranges(self.network, self.reference.windows)

    def to_model_units(self, windows: Array, path: str = "windows") -> Tensor:
        """Converts windows to model units.

        Args:
            windows: (n, lookback, n_features), original units, oldest step first.
            path: name of the array in an error.

        Returns:
            (n, lookback, n_features), model units.

        Raises:
            DataError: another shape, or a value that is not finite after scaling to the network's dtype.
        """
        expected = (self.config.lookback, len(self.config.features))
        if windows.ndim != 3 or windows.shape[1:] != expected:
            raise DataError(
                f"{path} must have shape (n, {expected[0]}, {expected[1]}), but has {windows.shape}",
                [Problem(path, f"must have shape (n, {expected[0]}, {expected[1]})")],
            )
        scaled = self.scaling.features_to_model(windows)
        refuse_non_finite(scaled.numpy(), path)
        return scaled

    def accelerate(self) -> LoadedModel:
        """The same model with ONNX Runtime for the batch sizes for which it is measured to be faster.

        Its predictions are equal up to rounding; where they are not, it is not used. The weights are shared. Torch is
        still used for float64, for which ONNX Runtime has no LSTM or GRU, for networks without an ONNX form, and
        if ONNX Runtime is not installed.
        """
        if self.config.dtype == "float64":
            return self
        try:
            # Imported here: ONNX Runtime takes time and memory to import.
            from kanmodel.onnx.session import SIZES, SmallBatches
        except ImportError:
            return self
        windows = self.scaling.features_to_original(self.reference.windows[: max(SIZES)])
        try:
            measured = SmallBatches.measure(self.frozen, self.scaling, windows, self._predict, self.output_std)
        except KanscopeError:  # torch raises the error of a bad prediction when it is requested
            return self
        accelerated = copy(self)  # with what is computed already
        object.__setattr__(accelerated, "_small_batches", measured)
        return accelerated

    def predict(self, windows: Array, path: str = "windows") -> Array:
        """Forecasts in original units.

        Args:
            windows: (n, lookback, n_features), original units, oldest step first.
            path: name of the array in an error.

        Returns:
            (n, n_outputs), original units.

        Raises:
            DataError: as `to_model_units`.
            NonFiniteError: a forecast is not finite.
        """
        outputs = None if self._small_batches is None else self._small_batches.predict(windows)
        return self._predict(windows, path) if outputs is None else outputs

    def _predict(self, windows: Array, path: str = "windows") -> Array:
        """`predict` with torch."""
        scaled = self.to_model_units(windows, path)
        outputs = self.scaling.outputs_to_original(self.frozen.forward(scaled))
        refuse_non_finite_outputs(outputs)
        return outputs

    def predict_output(self, windows: Array, output: int) -> Array:
        """Forecasts of one output with torch, (n,), original units; others need not be finite. As `predict`."""
        outputs = self.scaling.outputs_to_original(self.frozen.forward(self.to_model_units(windows)))
        refuse_non_finite_outputs(np.where(np.arange(outputs.shape[1]) == output, outputs, 0.0))
        return outputs[:, output]

    def logits(self, windows: Array) -> Array:
        """Inputs of the output function, (n, n_outputs); windows as for `predict`."""
        logits: Array = self.frozen.logits(self.to_model_units(windows)).double().numpy()
        return logits


def refuse_non_finite_outputs(outputs: Array) -> None:
    """Raises if results are not finite, naming each as ``outputs[window][output]``.

    Raises:
        NonFiniteError: at least one result is not finite.
    """
    try:
        refuse_non_finite(outputs, "outputs")
    except DataError as error:
        raise NonFiniteError(str(error), error.problems) from None
