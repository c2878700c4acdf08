"""`Forecaster`: a network with its reference windows, its metrics and its origin, in memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array, ReadOnlyDict, read_only, refuse_non_finite
from kanmodel.computing import SingleFlightCache
from kanmodel.errors import DataError, NonFiniteError, Problem, check_config, check_text, refuse_unknown, warn_caller
from kanmodel.network.config import BOUND, Groups, ModelConfig, resolve_groups
from kanmodel.network.intervals import BOUNDS, Intervals, forecasts_of, name_bounds
from kanmodel.network.network import FrozenNetwork, Network
from kanmodel.network.ranges import NodeRanges, measure_ranges
from kanmodel.tables.columns import Feature, Scaling
from kanmodel.tables.inputs import Inputs
from kanmodel.tables.instants import read_instants, to_local
from kanmodel.tables.skill import (
    STD,
    MeasuredOn,
    Simple,
    Skill,
    best_constant,
    find_positions,
    forecast_blocks,
    measure_skill,
    repeat_values,
)
from kanmodel.tables.table import Gaps
from kanmodel.tables.windows import Windows, read_windows
from kanmodel.text import list_some, printable, shorten

N_KEPT = 128  # results of questions about the model as a whole
N_DERIVED = 64  # of a model that are cached
N_BOUNDED = 8  # forecasts whose networks of bounds are cached, each of which takes as much memory as the model
N_NAMED = 3  # features that the text about reference windows names
N_HASH = 12  # digits of a hash that tell checkpoints apart for people
MIN_STD = 1e-6  # of an output, in model units
HALF = 0.5 - 1e-9  # of a range, up to rounding
NO_SCALING = (0.0, 1.0)  # mean and standard deviation of a feature that is not scaled
MIN_RANGE, MAX_SHIFT, MAX_SPREAD = 0.8, 0.5, 2.0  # of reference windows that are like the training rows
Answer = TypeVar("Answer")
LongText = Annotated[str, partial(check_text, longest=2000)]
if TYPE_CHECKING:
    from kanmodel.prepared import Prepared


@dataclass(frozen=True)
class Coverage:
    """How the values of a feature in the reference windows compare with its values in the training rows.

    Attributes:
        feature: its name.
        label: the same for people.
        range: share of the range in training that they span; None if that is unknown.
        shift: their mean minus that in training, in standard deviations of the latter; None if these are unknown.
        spread: their standard deviation, as a multiple of that in training; None likewise.
    """

    feature: str
    label: str
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
        return f"{printable(shorten(self.label))} ({', '.join(self.differences)})"


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


@dataclass(frozen=True, eq=False)
class Reference:
    """The windows on which every global result is computed: of the validation part, in order of time.

    Attributes:
        scaled: (n, lookback, n_features), oldest step first, model units.
        config: of the model, which has the units.
        targets: true values of the outputs, (n, n_outputs), original units; NaN of parameters; None if unknown.
        times: time stamp of each window's last step; None if unknown.
        series: the series of each window; None of one series.
    """

    scaled: Tensor
    config: ModelConfig
    targets: Array | None = None
    times: tuple[str, ...] | None = None
    series: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("times", "series"):
            for number, label in enumerate(getattr(self, name) or ()):
                check_text(label, f"reference_{name}[{number}]")
        if self.targets is not None:
            object.__setattr__(self, "targets", read_only(self.targets.view()))

    def __len__(self) -> int:
        return len(self.scaled)

    def __str__(self) -> str:
        return str(self.span)

    def actual(self, output: int) -> Array | None:
        """The true values of one output, (n,), original units; None if unknown, as those of a parameter are."""
        has_none = self.config.target_of(output).parameter
        return None if self.targets is None or has_none else self.targets[:, output]

    @cached_property
    def windows(self) -> Array:
        """(n, lookback, n_features), original units; made on first use, since they take memory."""
        return read_only(self.config.scaling.features_to_original(self.scaled))

    @cached_property
    def mean(self) -> Array:
        """Mean of each feature over the windows and their steps, (n_features,), original units."""
        return read_only(self.config.scaling.features_to_original(self.scaled.double().mean(dim=(0, 1))))

    @cached_property
    def inputs(self) -> Inputs:
        """What the model reads, in the terms of its table: see `Forecaster.inputs`."""
        config, times, local = self.config, self.times, None
        with suppress(DataError):  # times of no known form
            if config.encoding is None and times is not None:
                instants, dated = read_instants(list(times), "times[{}]".format)
                local = to_local(instants, config.time.zone if config.time else None) if dated else None
        newest = self.windows[:, -1]
        return Inputs.of(config.features, config.encoding, config.time, config.groups, newest, local)

    @cached_property
    def magnitude(self) -> Tensor:
        """The largest magnitude of each feature, (n_features,), model units."""
        return self.scaled.abs().amax(dim=(0, 1))

    @cached_property
    def span(self) -> ReferenceSpan:
        """Number and time span of the windows, and the features in which they are unlike training."""
        first, last = (self.times[0], self.times[-1]) if self.times else (None, None)
        unlike = tuple(feature for feature in self.coverage if feature.differences)
        return ReferenceSpan(len(self), first, last, unlike)

    @property
    def unlike_training(self) -> tuple[Coverage, ...]:
        """The features whose values here are unlike those of the training rows."""
        return self.span.unlike_training

    @cached_property
    def coverage(self) -> tuple[Coverage, ...]:
        """How the windows compare with training, for each feature that varied in it.

        Of an import, only the mean and standard deviation of its scaling are known, if it has one. Those of a min-max
        scaling are none of any rows: no standard deviation is above half of the range.
        """
        windows, scaling, coverage = self.scaled, self.config.scaling, []
        scaled_std, scaled_mean = torch.std_mean(windows, dim=(0, 1), correction=0)
        scaled = torch.stack([windows.amin(dim=(0, 1)), windows.amax(dim=(0, 1)), scaled_mean])
        std = scaled_std.double().numpy() * scaling.feature_scale
        values = zip(*scaling.features_to_original(scaled), std, strict=True)
        for feature, (low, high, mean, spread) in zip(self.config.features, values, strict=True):
            extent = None if feature.min is None or feature.max is None else feature.max - feature.min
            if feature.std > 0 and ((feature.mean, feature.std) != NO_SCALING if extent is None else extent > 0):
                with np.errstate(over="ignore", invalid="ignore"):  # of values near the largest float
                    share = None if extent is None else float((high - low) / extent)
                    shift, ratio = float((mean - feature.mean) / feature.std), float(spread / feature.std)
                is_known = extent is None or feature.std < extent * HALF
                coverage.append(
                    Coverage(
                        feature.name,
                        self.inputs.label(feature.name),
                        share,
                        *((shift, ratio) if is_known else (None, None)),
                    )
                )
        return tuple(coverage)


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
        difference: largest difference from the predictions used to verify it, in their unit; None without these.
        relative_difference: the same in standard deviations of that output, or relative to its magnitude if it does not
            vary.
        not_told_apart: other functions that the weights may represent: they give the same predictions on the given
            windows, but not on all others. Empty where only one function fits.
        unused: keys of the imported weights that have no effect on the forecasts.
        fitted_from: time of the newest row of the first window that the weights were last fitted to; None if unknown.
        fitted_to: that of the last one.
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


class Results(Protocol):
    """A cache of results; see `kanmodel.computing.SingleFlightCache`."""

    def get(self, key: Hashable, compute: Callable[[], Answer]) -> Answer:
        """Returns the result of a key, computed if there is none."""


@dataclass(frozen=True, eq=False, repr=False)
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
        name: used in titles; of a file its name without the suffix.
        tested: its skill on the test part of the training; None of a network that was not measured there.
        results: cache of the results of questions about it as a whole; forecasters may share one.
        prepared: what of them was read beside the checkpoint, see `kanmodel.prepare`; else None.
    """

    shown_as: ClassVar = "Model"  # in errors: users know its subclass
    network: Network
    reference: Reference
    metrics: Mapping[str, float]
    provenance: Provenance
    sha256: str = ""
    intervals: Intervals | None = None
    name: str = "model"
    tested: Skill | None = None
    results: Results = field(default_factory=lambda: SingleFlightCache(N_KEPT), init=False)
    prepared: Prepared | None = field(default=None, init=False)
    _fast_predict: Callable[[Array], Array | None] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.metrics:
            check_text(name, "the name of a metric")
        object.__setattr__(self, "metrics", ReadOnlyDict(self.metrics))
        if self.reference.config is not self.config:
            object.__setattr__(self, "reference", replace(self.reference, config=self.config))
        self.network.eval().requires_grad_(False)

    @property
    def config(self) -> ModelConfig:
        """Architecture and units."""
        return self.network.config

    @property
    def features(self) -> tuple[Feature, ...]:
        """The inputs: name, unit, and mean, std, min and max over the training rows."""
        return self.config.features

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, ``{target}+{step}``."""
        return self.config.outputs

    @property
    def lookback(self) -> int:
        """Steps of a window."""
        return self.config.lookback

    @cached_property
    def scaling(self) -> Scaling:
        """The config's scaling, original units <-> model units."""
        return self.config.scaling

    def with_config(self, config: ModelConfig) -> Self:
        """The same weights with another config of the same architecture, such as other groups; not saved yet."""
        with torch.inference_mode(False):
            network = Network(config)
            network.load_state_dict(self.network.state_dict())
        return replace(self, network=network, sha256="")

    @property
    def inputs(self) -> Inputs:
        """What it reads, in the terms of its table: columns and parts of the calendar, however they are encoded."""
        return self.reference.inputs

    @cached_property
    def groups(self) -> Groups:
        """The groups of the config, and those of inputs of several features that are in none of these."""
        config, taken = self.config, resolve_groups(self.config.groups, self.config.feature_names)
        free = {config.feature_names[member] for number in taken.whole for member in taken.members[number]}
        free -= {feature for members in config.groups.values() for feature in members}
        return {name: of for name, of in self.inputs.groups.items() if free.issuperset(of)} | dict(config.groups)

    @cached_property
    def frozen(self) -> FrozenNetwork:
        """The network prepared for inference, which computes predictions and ledgers."""
        with torch.inference_mode(False):  # ledgers differentiate it, even if it is first used in inference mode
            return self.network.freeze()

    @cached_property
    def frozen_float64(self) -> FrozenNetwork:
        """`frozen` with the same weights in float64."""
        if self.config.dtype == "float64":
            return self.frozen
        config = replace(self.config, dtype="float64")
        return self.derived.get("float64", lambda: self.with_config(config).frozen)

    @cached_property
    def reference_outputs(self) -> Tensor:
        """Predictions for the reference windows, (n, n_outputs), model units."""
        with torch.inference_mode(False), torch.no_grad():
            outputs: Tensor = self.network(self.reference.scaled)
        return outputs

    @cached_property
    def reference_predictions(self) -> Array:
        """Predictions for the reference windows, (n, n_outputs), original units; those of `predict` up to rounding."""
        return read_only(self.scaling.outputs_to_original(self.reference_outputs))

    @cached_property
    def skill(self) -> Skill:
        """Whether it knows more than simple forecasts: on the test part, or else on the reference windows."""
        if self.tested is not None:
            return self.tested
        measured_on: MeasuredOn = "validation" if self.provenance.source == "train" else "reference"
        forecasts, actual = self.reference_predictions, self.reference.targets
        if lacking := self._not_judged(forecasts) or ("" if actual is not None else "actual values are not known"):
            return Skill(measured_on, len(self.reference), lacking=lacking)
        assert actual is not None
        return self.judge(forecasts, actual, self.reference_simple, self._reference_positions, measured_on)

    def judge(
        self, forecasts: Array, actual: Array, simple: Mapping[Simple, Array], positions: Array, measured_on: MeasuredOn
    ) -> Skill:
        """The skill of its forecasts of some windows beside simple ones; see `kanmodel.tables.skill.measure_skill`.

        Quantiles do not count beside the forecast or the median of their target; of classifiers it is unknown.
        """
        config, chosen = self.config, list(forecasts_of(self.config))
        if lacking := self._not_judged(forecasts):
            return Skill(measured_on, len(actual), lacking=lacking)
        targets = {config.target_of(output).name: config.target_of(output).unit for output in chosen}
        units = set(targets.values())
        is_one = len(targets) == 1 or (len(units) == 1 and None not in units)
        simple = {**simple, ("average", None): self._find_average(simple["average", None], actual)}
        return measure_skill(
            forecasts[:, chosen],
            actual[:, chosen],
            {name: of[:, chosen] for name, of in simple.items()},
            positions,
            config.horizon,
            np.ones(len(chosen)) if is_one else config.scaling.output_scale[chosen],
            next(iter(units)) if is_one else STD,
            measured_on,
        )

    def _not_judged(self, forecasts: Array) -> str:
        """Why the skill of forecasts is not measured; empty if it is."""
        if self.config.is_classifier:
            return "the outputs are probabilities, which are not compared with simple forecasts"
        if not forecasts_of(self.config):
            return "the outputs are quantiles without a median"
        return "" if np.isfinite(forecasts).all() else "a forecast is not finite"

    def _find_average(self, average: Array, actual: Array) -> Array:
        """The best of an average, the training's, and that of its own forecasts, (n, n_outputs)."""
        return best_constant(actual, [average, self.scaling.output_mean, self.reference_predictions.mean(axis=0)])

    @property
    def _reference_positions(self) -> Array:
        return find_positions(self.config.table, self.reference.times, len(self.reference))

    @cached_property
    def reference_simple(self) -> Mapping[Simple, Array]:
        """Simple forecasts of the reference windows, whose targets are known, (n, n_outputs); NaN where they are not.

        Seasons are that which training has found, or else those of the calendar; none if the lead is unknown.
        """
        reference, scaling, spec = self.reference, self.scaling, self.config.table
        assert reference.targets is not None
        known, time = self.metrics.get("season"), self.config.time
        seasons = [int(known)] if known else list(time.seasons.values()) if time and self.config.ahead else []
        x = reference.scaled.double().flatten(1).numpy()
        spread, y = x.std(axis=0), (reference.targets - scaling.output_mean) / scaling.output_scale
        fitted = forecast_blocks(spec, self._reference_positions, x / np.where(spread > 0, spread, 1.0), y)
        original = {name: of * scaling.output_scale + scaling.output_mean for name, of in fitted.items()}
        original["average", None] = self._find_average(original["average", None], reference.targets)
        return repeat_values(spec, reference.windows, seasons) | original

    @cached_property
    def output_std(self) -> Array:
        """Unbiased deviation of each output on the reference windows, (n_outputs,); at least 1e-6 of its scale."""
        outputs = self.reference_outputs.double()
        std = outputs.std(dim=0).numpy() if len(outputs) > 1 else np.zeros(outputs.shape[1])
        return read_only(np.maximum(std, MIN_STD) * self.scaling.output_scale)

    @cached_property
    def feature_low(self) -> Array:
        """The smallest training value of each feature, (n_features,); -inf if unknown, -1 of a cycle's."""
        low = np.array([-np.inf if one.min is None else one.min for one in self.config.features])
        low[self._of_cycles] = -1
        return read_only(low)

    @cached_property
    def feature_high(self) -> Array:
        """The largest training value of each feature, (n_features,); inf if unknown, 1 of a cycle's."""
        high = np.array([np.inf if one.max is None else one.max for one in self.config.features])
        high[self._of_cycles] = 1
        return read_only(high)

    @property
    def _of_cycles(self) -> list[int]:
        """Numbers of the sines and cosines."""
        return [number for one in self.inputs if one.period is not None for number in one.numbers]

    @cached_property
    def node_ranges(self) -> NodeRanges:
        """Usual ranges of the values of the network's nodes."""
        return measure_ranges(self.network, self.reference.scaled)

    @cached_property
    def derived(self) -> SingleFlightCache:
        """What explanations find of the model itself, each once."""
        return SingleFlightCache(N_DERIVED)

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

    def with_fast_predict(self, predict: Callable[[Array], Array | None]) -> Self:
        """The same model, which asks `predict` first, and computes the forecasts itself where that returns None."""
        model = copy(self)  # with what is computed already
        object.__setattr__(model, "_fast_predict", predict)
        return model

    def predict(self, windows: Array) -> Array:
        """Forecasts (n, n_outputs) for windows (n, lookback, n_features), oldest step first, both in original units.

        Raises:
            DataError: as `to_model_units`.
            NonFiniteError: a forecast is not finite.
        """
        outputs = None if self._fast_predict is None else self._fast_predict(windows)
        if outputs is None:
            outputs = self.scaling.outputs_to_original(self.frozen.forward(self.to_model_units(windows)))
            refuse_non_finite_outputs(outputs)
        return outputs

    def predict_output(self, windows: Array, output: int) -> Array:
        """Forecasts of one output with torch, (n,), original units; others need not be finite. As `predict`."""
        outputs = self.scaling.outputs_to_original(self.frozen.forward(self.to_model_units(windows)))
        refuse_non_finite_outputs(np.where(np.arange(outputs.shape[1]) == output, outputs, 0.0))
        return outputs[:, output]

    def predict_bounds(self, windows: Array) -> tuple[Array, Array, Array]:
        """`predict`, and the lower and upper bounds of the forecasts, (n_levels, n, n_forecasts) each.

        Raises:
            DataError: as `to_model_units`, or the model has no intervals.
            NonFiniteError: a forecast or a bound is not finite.
        """
        predictions, *increments = self.predict_increments(windows)
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

    def predict_increments(self, windows: Array) -> tuple[Array, Array, Array]:
        """`predict`, and the increments below and above, (n_levels, n, n_forecasts) each, model units.

        Raises:
            DataError: as `to_model_units`, or the model has no intervals.
            NonFiniteError: a forecast is not finite.
        """
        intervals, predictions = self.need_intervals(), self.predict(windows)
        outputs = torch.from_numpy((predictions - self.scaling.output_mean) / self.scaling.output_scale)
        return predictions, *intervals.increments(self.config, outputs, self.to_model_units(windows))

    @property
    def checkpoint(self) -> str | None:
        """``sha256:`` and the hash of the checkpoint file; None for a model that was never saved."""
        return f"sha256:{self.sha256}" if self.sha256 else None

    @property
    def origin(self) -> str:
        """The name and the beginning of the checkpoint's hash, which pages and pictures of results state."""
        checkpoint = f"checkpoint {self.sha256[:N_HASH]}" if self.sha256 else "not saved"
        return f"{shorten(self.name)}, {checkpoint}"

    def origin_against(self, other: Forecaster) -> str:
        """`origin`, with that of another forecaster where this one is compared with it."""
        return self.origin if other is self else f"{self.origin}, against {other.origin}"

    @property
    def levels(self) -> tuple[float, ...]:
        """Nominal coverages of the intervals, ascending; empty if there are none."""
        return () if self.intervals is None else self.intervals.levels

    @property
    def bounded_outputs(self) -> tuple[str, ...]:
        """The outputs that have intervals; empty if the model has none."""
        return tuple(self.outputs[number] for number in forecasts_of(self.config)) if self.levels else ()

    @cached_property
    def bounds(self) -> tuple[str, ...]:
        """Names of the bounds of the intervals, such as ``load+24:lower@0.8``: outputs that can be explained."""
        return name_bounds(self.config, self.levels)

    def number_of(self, output: str | None) -> int:
        """The number of an output; of None 0. Raises `UnknownNameError` if it does not exist, or is a bound."""
        if output is None:
            return 0
        refuse_unknown("output", output, self.outputs)
        return self.outputs.index(output)

    def find_output(self, output: str | None) -> tuple[Self, int]:
        """The forecaster that has an output, this one or that of a forecast's bounds, and its number there.

        That of bounds has the forecast and its bounds at all levels as outputs, and this one's checkpoint and results.
        """
        if not self.levels or output in self.outputs or BOUND.fullmatch(str(output)) is None:
            return self, self.number_of(output)
        forecast, number = self._find_bound(str(output))
        return self.bound(forecast), number

    def target_place(self, output: str) -> tuple[int, int]:
        """The numbers of the target and of the step of an output, or of the forecast that a bound is of."""
        if output in self.bounds:
            number = forecasts_of(self.config)[self._find_bound(output)[0]]
        else:
            number = self.number_of(output)
        step, target = divmod(number, len(self.config.targets))
        return target, step

    def unit_of(self, output: str) -> str | None:
        """The unit of an output or a bound; None if unknown."""
        return self.config.targets[self.target_place(output)[0]].unit

    def _find_bound(self, output: str) -> tuple[int, int]:
        """The index of a bound's forecast, and its own among the outputs of `bound`."""
        refuse_unknown("output", output, (*self.outputs, *self.bounds))
        forecast, number = divmod(self.bounds.index(output), len(BOUNDS) * len(self.levels))
        return forecast, number + 1

    def read(
        self,
        windows: Any,
        last: int | str | None = None,
        gaps: Gaps = "error",
        series: Sequence[str] | str | None = None,
        before: int = 0,
    ) -> tuple[Array, Windows | None]:
        """Windows in any form of `kanmodel.question.Windows`, (n, lookback, n_features), original units.

        Args:
            windows: the windows.
            last: of a table, how many, or the duration of those that end at its newest rows.
            gaps: whether a gap in time is an error, or windows across one are left out.
            series: of a table, names of the series that are read; None for all.
            before: rows of a table before the oldest of them.

        Returns:
            The windows, and those of the table if they are given as a data frame.
        """
        found = read_windows(self.config.table, windows, last=last, gaps=gaps, series=series, before=before)
        if found[1] is not None:
            self.warn_of_new_series(found[1])
        return found

    def read_newest(
        self, windows: Any, last: int | str | None, gaps: Gaps, series: Sequence[str] | str | None
    ) -> tuple[Array, Windows | None]:
        """`read`, with a warning where the newest windows, not asked for by `last`, are of the past.

        That is so where columns known in advance end before the target does.
        """
        given, of_table = self.read(windows, last, gaps, series)
        if last is None and of_table is not None and of_table.table.spec.encoding.later:
            past = of_table.choose(np.flatnonzero(~np.isnan(of_table.actual(0)[:, 0]))[-1:])
            if len(past):
                when = "".join(f" of {time}" for time in past.target_times(0))
                begins = f"the forecast begins with a row{when} whose actual value the table has"
                what = "append the rows to come, with the columns that are known of them"
                warn_caller(f"{begins}: to forecast what follows, {what}")
        return given, of_table

    def warn_of_new_series(self, windows: Windows) -> None:
        """Warns of series that training did not have."""
        if windows.table.new and windows.table.spec.series is not None:
            names, column = list_some(windows.table.new), windows.table.spec.series.name
            message = f"training had no {column} {names}: forecasts of it rest on what others have in common"
            warn_caller(f"{message}; train with its rows for more")

    def keep(self, output: int, *question: Hashable, compute: Callable[[], Answer]) -> Answer:
        """A result of this checkpoint for an output and what else tells the question from others, computed once."""
        return self.results.get((self.sha256, self.outputs[output], *question), compute)

    def with_results(self, results: Results) -> Self:
        """The same with another cache of results; what is computed of the network itself is shared."""
        _ = self.derived, self.bounded_models  # made before they are copied
        model = copy(self)
        object.__setattr__(model, "results", results)
        return model

    def bound(self, forecast: int) -> Self:
        """The model of one of `forecasts_of` and of its bounds and widths, on the same reference windows."""
        intervals = self.need_intervals()

        def make() -> Forecaster:
            with torch.inference_mode(False):
                network = intervals.bound(self.network, forecast)
            reference = replace(self.reference, targets=None)
            made = replace(self, network=network, reference=reference, metrics={}, intervals=None, tested=self.skill)
            made = made.with_results(self.results)
            _ = made.frozen, made.node_ranges, made.output_std  # which copies with other results share
            return made

        found: Any = self.bounded_models.get(forecast, make)
        return cast(Self, found if found.results is self.results else found.with_results(self.results))

    @cached_property
    def bounded_models(self) -> SingleFlightCache:
        """The latest of these models."""
        return SingleFlightCache(N_BOUNDED)

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
