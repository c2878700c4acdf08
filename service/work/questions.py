"""The `:explain` question as plain values, independent of the request."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from kanmodel.data import Array
from kanmodel.explain.attribution import LedgerOptions, Segments
from kanmodel.explain.baseline import Baseline, ReferenceBaselines
from kanmodel.network.config import Groups
from service.http.errors import unusable
from service.models.registry import Served
from service.schemas.explanations import Detail


@dataclass(frozen=True)
class Question:
    """A parsed request to explain.

    Attributes:
        served: the model.
        windows: what to explain, (n, lookback, n_features), original units.
        outputs: indices of the outputs.
        as_list: whether the request has a list of outputs, and so the answer.
        detail: the level of detail.
        baseline: the baseline, or reference windows as baselines.
        groups: groups of features whose contributions are summed; may be empty.
        segments: segments of steps whose contributions are summed; may be empty.
        options: accuracy of the ledgers.
        effects: whether to measure feature ablation, of cells too if `detail` has steps.
        receipt: whether the answer includes a receipt.
        progress: whether the stream includes lines with progress.
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
        """Number of explanations: one per window and output."""
        return len(self.windows) * len(self.outputs)

    @property
    def batch_key(self) -> Hashable | None:
        """Equal for questions that differ in their windows alone; None if it must not be batched."""
        named = (field.name for field in fields(self) if field.name not in ("served", "windows"))
        asked = tuple(_as_items(getattr(self, name)) for name in named)
        try:
            hash(asked)
        except TypeError:  # a baseline of given values
            return None
        return self.served.checkpoint, asked

    @property
    def path_nodes(self) -> int:
        """Path nodes that it takes without bisection, plus the forecasts for effects: its cost."""
        baselines = self.baseline.count if isinstance(self.baseline, ReferenceBaselines) else 1
        return self.total * baselines * (self.options.path_nodes + 2 * self.n_parts)

    @property
    def n_parts(self) -> int:
        """Upper bound of the features, groups, segments and cells whose effects are measured, with 2 forecasts each."""
        if not self.effects:
            return 0
        lookback, n_features = self.served.model.config.window_shape
        n_parts = n_features * (1 if self.detail == "features" else 1 + lookback)
        if self.groups or self.segments:
            n_parts += (len(self.groups) + n_features) * max(len(self.segments), 1)
        return n_parts

    def refuse_costly(self, max_path_nodes: int) -> None:
        """Refuses a question that would take too long.

        Raises:
            DataError: it takes more than `max_path_nodes`.
        """
        if self.path_nodes > max_path_nodes:
            reason = f"would take {self.path_nodes} path nodes to explain, of at most {max_path_nodes} (max_path_nodes)"
            advice = "send fewer windows, outputs or baselines at a time" + (
                ", or leave out effects" if self.effects else ""
            )
            raise unusable("body", f"{reason}: {advice}", "limit_exceeded")


def _as_items(value: Any) -> Any:
    """Groups and segments in hashable form, in their order."""
    return tuple((name, tuple(of_name)) for name, of_name in value.items()) if isinstance(value, Mapping) else value
