"""Descriptive properties of a model: features, outputs, reference windows, scaling, metrics and provenance."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from kanmodel import html
from kanmodel.checkpoint import Coverage, LoadedModel, Provenance, ReferenceSpan
from kanmodel.data import Array, Feature, Scaling, read_only
from kanmodel.explain.ablation import Size, measure_size
from kanmodel.explain.result import Result
from kanmodel.network.config import ModelConfig, resolve_groups, width_of
from kanmodel.text import list_some, printable, with_unit, write_facts


@dataclass(frozen=True)
class Reference:
    """The reference windows in time order, on which global results such as `importance` are measured.

    Attributes:
        windows: (n, lookback, n_features), original units, oldest step first.
        targets: true values of the outputs, (n, n_outputs), original units; None if unknown.
        times: time stamp of each window's last step; None if unknown.
        span: their number and time span, and the features in which they are unlike training.
    """

    targets: Array | None
    times: tuple[str, ...] | None
    span: ReferenceSpan
    _windows: Tensor = field(repr=False)
    _scaling: Scaling = field(repr=False)

    @cached_property
    def windows(self) -> Array:
        """Converted on first use, because they take twice the memory of those of the checkpoint."""
        return read_only(self._scaling.features_to_original(self._windows))

    @property
    def unlike_training(self) -> tuple[Coverage, ...]:
        """The features whose values here are unlike those of the training rows; see `span`."""
        return self.span.unlike_training

    def __len__(self) -> int:
        return len(self._windows)

    def __str__(self) -> str:
        return str(self.span)


@dataclass(frozen=True, repr=False, eq=False)
class ModelProperties(Result):
    """Descriptive properties of a checkpoint; values are in original units.

    Attributes:
        loaded: the network with its reference windows, for internal use; it takes model units.
        name: used in titles; the name of the file without its suffix.
    """

    loaded: LoadedModel
    name: str = "model"

    @property
    def config(self) -> ModelConfig:
        """Architecture, features, targets and units."""
        return self.loaded.config

    @property
    def features(self) -> tuple[Feature, ...]:
        """The inputs: name, unit, and mean, std, min and max over the training rows."""
        return self.config.features

    @property
    def group_names(self) -> tuple[str, ...]:
        """The checkpoint's groups, then the features without a group; empty if it has no groups."""
        groups = self.config.groups
        return resolve_groups(groups, self.config.feature_names).names if groups else ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, ``{target}+{step}``."""
        return self.config.outputs

    @property
    def lookback(self) -> int:
        """Steps of a window."""
        return self.config.lookback

    @property
    def checkpoint(self) -> str | None:
        """``sha256:`` and the hash of the checkpoint file; None for a model that was never saved."""
        return f"sha256:{self.loaded.sha256}" if self.loaded.sha256 else None

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics measured in training, such as ``test_r2``."""
        return dict(self.loaded.metrics)

    @property
    def provenance(self) -> Provenance:
        """Where the checkpoint comes from."""
        return self.loaded.provenance

    @property
    def scaling(self) -> Scaling:
        """The scaling of the network's inputs and outputs."""
        return self.loaded.scaling

    @property
    def feature_range(self) -> tuple[Array, Array]:
        """Smallest and largest training value of each feature, infinite if unknown, (n_features,) each."""
        return self.loaded.feature_low, self.loaded.feature_high

    @property
    def output_std(self) -> Array:
        """Standard deviation of each output on the reference windows, (n_outputs,), the unit of tolerances."""
        return self.loaded.output_std

    @property
    def size(self) -> Size:
        """Edges and hidden nodes."""
        return measure_size(self.loaded.network)

    @cached_property
    def reference(self) -> Reference:
        """The reference windows."""
        reference = self.loaded.reference
        targets = None if reference.targets is None else read_only(reference.targets.copy())
        return Reference(targets, reference.times, self.loaded.reference_span, reference.windows, self.scaling)

    @cached_property
    def reference_predictions(self) -> Array:
        """Predictions for the reference windows, (n, n_outputs), original units; those of `predict` up to rounding."""
        return read_only(self.scaling.outputs_to_original(self.loaded.reference_outputs))

    def table(self) -> list[dict[str, Any]]:
        """A row for each feature."""
        return [asdict(feature) for feature in self.features]

    def _title(self) -> str:
        return f"Model {self.name}"

    def _details(self) -> str:
        """The card of the model, without a picture, because pruning for one may take seconds; see `topology`."""
        return (
            html.write_heading(self._title())
            + html.write_facts(self._facts())
            + html.fold("Features", html.write_table(self.table(), ["name", "unit", "mean", "std", "min", "max"]))
        )

    def _facts(self) -> dict[str, str]:
        config = self.config
        recurrent = config.recurrent
        chain = [
            f"front {width_of(config.front)}" if config.front else "",
            f"{recurrent.cell.upper()} of {recurrent.n_units} units" if recurrent else "",
            f"readout {config.readout}",
            f"head {width_of(config.head)}",
            config.output_function or "",
        ]
        named = [with_unit(name, self._unit_of(number)) for number, name in enumerate(self.outputs)]
        return {
            "checkpoint": self.checkpoint or "not saved",
            "chain": " -> ".join(filter(None, chain)),
            "windows": f"{self.lookback} steps x {len(self.features)} features",
            "features": list_some([with_unit(feature.name, feature.unit) for feature in self.features]),
            "outputs": list_some(named),
            "reference": str(self.reference),
            "metrics": ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items()) or "-",
        }

    def __repr__(self) -> str:
        return f"{printable(self._title())}\n{write_facts(self._facts())}"

    def _unit_of(self, output: int) -> str | None:
        return self.config.target_of(output).unit
