"""Questions to the executor as plain values, independent of the request."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields

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
    receipt: bool
    progress: bool

    @property
    def total(self) -> int:
        """How many explanations it asks for: one for each window and output."""
        return len(self.windows) * len(self.outputs)

    @property
    def batch_key(self) -> Hashable | None:
        """The same for questions that differ in their windows alone; None for one with values of its own to hold."""
        asked = tuple(getattr(self, field.name) for field in fields(self) if field.name not in ("served", "windows"))
        try:
            hash(asked)
        except TypeError:  # a baseline of numbers
            return None
        return self.served.checkpoint, asked

    @property
    def path_nodes(self) -> int:
        """How many path nodes it takes where no path is halved: the work, before it is done."""
        baselines = self.baseline.count if isinstance(self.baseline, ReferenceBaselines) else 1
        return self.total * baselines * self.options.path_nodes

    def refuse_costly(self, max_path_nodes: int) -> None:
        """Refuses what takes too long.

        Raises:
            DataError: it takes more path nodes than there may be.
        """
        if self.path_nodes > max_path_nodes:
            reason = f"would take {self.path_nodes} path nodes to explain, of at most {max_path_nodes} (max_path_nodes)"
            advice = "send fewer windows, outputs or baselines at a time"
            raise unusable("body", f"{reason}: {advice}", "limit_exceeded")
