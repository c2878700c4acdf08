"""Questions to the executor as plain values, independent of the request."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from kanmodel.scaling import Array
from kanmodel.terms import Baseline, Groups, LedgerOptions, ReferenceBaselines, Segments
from service.http.errors import unusable
from service.models.registry import Served
from service.schemas.explanations import Detail


@dataclass(frozen=True)
class Question:
    """A request to explain, understood.

    Attributes:
        served: the model.
        windows: what to explain, (n, lookback, n_features), original units.
        outputs: numbers of the outputs.
        as_list: whether the request names its outputs in a list, so that the answer does.
        detail: what to say.
        baseline: what to compare with.
        groups: what is summed of the features; empty where none are.
        segments: what is summed of the steps; empty where none are.
        options: how exact the ledgers must be.
        effects: whether to say what removing each feature does, and each alone; of cells where `detail` has steps.
        receipt: whether the answer holds what is needed to repeat it.
        progress: whether lines between the explanations tell how far the work is.
    """

    served: Served
    windows: Array
    outputs: tuple[int, ...]
    as_list: bool
    detail: Detail
    baseline: Baseline | ReferenceBaselines
    groups: Groups
    segments: Segments
    options: LedgerOptions
    effects: bool
    receipt: bool
    progress: bool

    @property
    def total(self) -> int:
        """How many explanations it asks for: one for each window and output."""
        return len(self.windows) * len(self.outputs)

    @property
    def batch_key(self) -> Hashable | None:
        """The same for questions that differ in their windows alone; None for one with values of its own to hold."""
        named = (field.name for field in fields(self) if field.name not in ("served", "windows"))
        asked = tuple(_as_items(getattr(self, name)) for name in named)
        try:
            hash(asked)
        except TypeError:  # a baseline of numbers
            return None
        return self.served.checkpoint, asked

    @property
    def path_nodes(self) -> int:
        """How many path nodes it takes where no path is halved, forecasts for effects included: the work ahead."""
        baselines = self.baseline.count if isinstance(self.baseline, ReferenceBaselines) else 1
        return self.total * baselines * (self.options.path_nodes + 2 * self.n_parts)

    @property
    def n_parts(self) -> int:
        """Of how many features, groups, segments and cells at most the effects are measured, with 2 forecasts each."""
        if not self.effects:
            return 0
        lookback, n_features = self.served.model.config.window_shape
        n_parts = n_features * (1 if self.detail == "features" else 1 + lookback)
        if self.groups or self.segments:
            n_parts += (len(self.groups) + n_features) * max(len(self.segments), 1)
        return n_parts

    def refuse_costly(self, max_path_nodes: int) -> None:
        """Refuses what takes too long.

        Raises:
            DataError: it takes more path nodes than there may be.
        """
        if self.path_nodes > max_path_nodes:
            reason = f"would take {self.path_nodes} path nodes to explain, of at most {max_path_nodes} (max_path_nodes)"
            advice = "send fewer windows, outputs or baselines at a time" + (
                ", or leave out effects" if self.effects else ""
            )
            raise unusable("body", f"{reason}: {advice}", "limit_exceeded")


def _as_items(value: Any) -> Any:
    """Groups and segments as what can be hashed, in their order, in which an answer lists them."""
    return tuple((name, tuple(of_name)) for name, of_name in value.items()) if isinstance(value, Mapping) else value
